"""Time of every parser and masker against the length of what it is given, on texts that are hard for such code.

Whatever a host holds is read, and a client can write into much of it: time must grow with the length, and no faster.
For each the worst shape is shown: its time at the greatest length, and the exponent from a sixteenth of it to it (1 is
linear). What takes less than a millisecond at the greatest length has no exponent worth showing.

    PYTHONPATH=.collections python bench/parsers.py [NAME...]
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    host_address,
    log_lines,
    model_name,
    model_use,
    modelfile,
    servers,
    settings,
    shown_arrays,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    quadlet,
    start_script,
    unit_oddities,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import (
    credentials,
    dotenv,
    dotenv_readers,
    env_lines,
    escapes,
    foreign_json,
    masking,
    urls,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import load_test

KIB = 1024
MOST = 1024 * KIB
SHORT, CHOSEN = 2 * KIB, 4  # of the first pass: how long, and how many of each kind are tried at length
SECONDS = 20  # for one text; what takes longer is shown as such

# Repeated to the whole length; escaped as in Python.
WRITTEN = r"""
a A= a=b\x20 A=1\n = \x20 \t \n \\ \\\n " ' '" "\\ ` $ ${ $( $(( ${A { } [ ( ) (( : :// a:// a:b@ @ / // . ..
, ; | && # % %s - -- --a= -p\x20 --password\x20 password= password:\x20 Bearer\x20 Basic\x20 sk- hf_ ghp_ eyJ.
0 1. 1: \xe9 \x00 \x1b[ <<A\n export\x20A= if\x20 case\x20a\x20in\x20 Environment= Environment="A= [Service]\n
PARAMETER\x20num_ctx\x20 level=INFO\x20msg= time= [GIN]\x20 offloaded\x201/1\x20layers\x20
KV\x20buffer\x20size a="b\\"\x20 aB3 AKIA -----BEGIN\x20 xoxb- https://u:p@h/ A=' A=" A=$B A=${A:- _ a_ pass
PASS_ key a://:b a://a?b @: '@ -p <<</a \x20;\x20a= a:b:c:d: \x20:\x20CUDA0\x20model\x20 "auth":" identified\x20by\x20
eval\x20time\x20=\x201\x20ms\x20/\x201\x20tokens\x20 msg="server\x20config"\x20env="map[ A:1\x20 argv[]=
{\x20path=/a\x20;\x20argv[]= UnsetEnvironment=a\n #\x20A=b\n A=1\x20 A=1; /a.service cloud:
A{n}=b{n}\n #\x20A{n}=b{n}\n \x20A{n}=b{n} u{n}:p{n}@h\x20 "a{n}":"b{n}",
%25252541 \\\\u0041\x20 \\303\\244 &amp;amp; b{n}:\x20CUDA0\x20KV\x20buffer\x20size\x20=\x201\x20MiB\n
"""
NUMBER = "{n}"  # counts up, for what a parser must keep apart
PIECES = [piece.encode().decode("unicode_escape") for piece in WRITTEN.split()]


def _log(text: str) -> object:
    return log_lines.parse([(1.0, line) for line in text.splitlines() or [text]])


def _line(text: str) -> object:
    return _log(text.replace("\n", " "))


def _picked(text: str) -> object:
    found = shown_arrays.Picked(["a", "b"])
    for at in range(0, len(text), 64):
        found.take(text[at : at + 64].encode())
    return found.found()


KNOWN = frozenset(f"secret {number:06}" for number in range(masking.MOST_KNOWN))
GUIDES_COMMAND = re.compile(r"python.*main\.py")
READERS = ["python-dotenv", "bash", "systemd"]


def _taken_back(text: str) -> object:
    return env_lines.taken_back(text, text[: len(text) // 2], {"A": ["1"], "NEW": ["2"]}, READERS)


PARSERS: dict[str, Callable[[str], object]] = {
    "escapes.of_quoted_string": escapes.of_quoted_string,
    "escapes.unescaped": escapes.unescaped,
    "masking.without_secrets": masking.without_secrets,
    "masking.without_secrets known": lambda text: masking.without_secrets(text, KNOWN),
    "masking.without_known": lambda text: masking.without_known(text, KNOWN),
    "masking.secrets_in_headers": lambda text: masking.secrets_in_headers({"Authorization": text}),
    "masking.secrets_in": lambda text: masking.secrets_in({"NAME": text, "PASSWORD": text, text: "x"}),
    "masking.secrets_in_text": masking.secrets_in_text,
    "masking.secrets_in_text too large": masking.secrets_in_text,
    "masking.secrets_in_script": masking.secrets_in_script,
    "masking.secrets_in_command": lambda text: masking.secrets_in_command(text.split(" ")),
    "masking.secrets_in_command too long": lambda text: masking.secrets_in_command(text.split(" ")),
    "masking.shown_command": lambda text: masking.shown_command(text.split(" ")),
    "credentials.words_of": credentials.words_of,
    "credentials.says_credential": credentials.says_credential,
    "credentials.may_say_credential": credentials.may_say_credential,
    "credentials.is_secret": lambda text: credentials.is_secret("NAME", text, ["model"]),
    "credentials.is_ordinary_of_a_credential": lambda text: credentials.is_ordinary_of_a_credential("A_KEY_FILE", text),
    **{
        f"dotenv_readers.readings {reader}": functools.partial(dotenv_readers.readings, reader=reader)
        for reader in dotenv_readers.READERS
    },
    "dotenv_readers.lines_of": dotenv_readers.lines_of,
    "dotenv.content_of": dotenv.content_of,
    "dotenv.decode": lambda text: dotenv.decode(text.encode()),
    "dotenv.encode": lambda text: dotenv.encode(text, READERS),
    "dotenv.get_keys": lambda text: dotenv.get_keys(text, ["A", "B"]),
    "dotenv.get_keys systemd": lambda text: dotenv.get_keys(text, ["A", "B"], ["systemd"]),
    "dotenv.set_keys": lambda text: dotenv.set_keys(text, {"A": "2", "NEW": "1"}),
    "dotenv.set_keys remove": lambda text: dotenv.set_keys(text, {}, ["A"]),
    "dotenv.all_but": lambda text: dotenv.all_but(text, ["A"], READERS),
    "dotenv.leaves_the_rest": lambda text: dotenv.leaves_the_rest(text, text, ["A"], READERS),
    "dotenv.masked": lambda text: dotenv.masked(text, ["A"]),
    "dotenv.lines_setting_others": lambda text: dotenv.lines_setting_others(text, "A"),
    "dotenv.later_lines": lambda text: dotenv.later_lines(
        text, dotenv_readers.readings(text, "systemd")[0].assignments
    ),
    "env_lines.taken_back": _taken_back,
    "quadlet.command": lambda text: quadlet.command([f"[Service]\nExecStart=podman run {text}"], "ollama.service"),
    "quadlet.environment_by_args": lambda text: quadlet.environment_by_args([f"[Container]\nPodmanArgs={text}"]),
    "unit_text.parse_show": unit_text.parse_show,
    "unit_text.parse_show Environment": lambda text: unit_text.parse_show(f"Environment={text}"),
    "unit_text.parse_service": lambda text: unit_text.parse_service(f"[Service]\n{text}"),
    "unit_text.parse_environment_directives": lambda text: unit_text.parse_environment_directives(f"[Service]\n{text}"),
    "unit_text.logical_lines": lambda text: list(unit_text.logical_lines(text)),
    "unit_text.masked": lambda text: unit_text.masked(text, ["A"]),
    "unit_text.added": lambda text: unit_text.added(text, ["A"]),
    "unit_text.directives": unit_text.directives,
    "unit_text.as_we_write": lambda text: unit_text.as_we_write(f"[Service]\n{text}", {"A"}),
    "unit_text.foreign": lambda text: unit_text.foreign(text, {"A"}),
    "unit_text.values_of": lambda text: list(unit_text.values_of(f"[Service]\n{text}", "Service", "Environment")),
    "unit_text.words": lambda text: list(unit_text.words(text)),
    "unit_text.moment": unit_text.moment,
    "unit_text.writer_of": unit_text.writer_of,
    "unit_text.render_dropin": lambda text: unit_text.render_dropin({"A": text}),
    "unit_oddities.in_unit_file": lambda text: list(unit_oddities.in_unit_file(f"[Service]\n{text}")),
    "unit_oddities.for_podman": lambda text: list(unit_oddities.for_podman(f"[Service]\n{text}", "ollama.container")),
    "unit_oddities.in_environment_file": lambda text: list(unit_oddities.in_environment_file(text)),
    "unit_oddities.names_set_in": unit_oddities.names_set_in,
    "unit_oddities.of_name": unit_oddities.of_name,
    "start_script.says": start_script.says,
    "start_script.of_exec_start": lambda text: start_script.of_exec_start(f"{{ path=/a ; argv[]={text} ; flags= }}"),
    "start_script.names_of_files": start_script.names_of_files,
    "start_script.read_unasked": start_script.read_unasked,
    "start_script.is_written": start_script.is_written,
    "start_script.without_what_it_writes": start_script.without_what_it_writes,
    "start_script.programs": start_script.programs,
    "start_script.command_lines": start_script.command_lines,
    "start_script.started": start_script.started,
    "start_script.together": lambda text: start_script.together({"/x": text, "/y": text}),
    "log_lines.parse": _log,
    "log_lines.parse one line": lambda text: log_lines.parse([(1.0, text.replace("\n", " "))]),
    "log_lines.parse server config": lambda text: _line(f'level=INFO msg="server config" env="map[{text}]"'),
    "log_lines.parse start": lambda text: _line(f'level=INFO msg="starting runner" cmd="a --model {text}"'),
    "log_lines.written": log_lines.written,
    "log_lines.written attributes": lambda text: log_lines.written(f"level=INFO msg=a {text}"),
    "log_lines.moment": log_lines.moment,
    "log_lines.is_servers": log_lines.is_servers,
    "log_lines.dropped": lambda text: log_lines.dropped(f"{log_lines.BY_JOURNALD}Suppressed {text}", "a.service"),
    "log_lines.concerns": lambda text: log_lines.concerns(
        f"{log_lines.BY_KERNEL}oom-kill:constraint=CONSTRAINT_MEMCG,{text},task_memcg={text},", "/a"
    ),
    "log_lines.entry": log_lines.entry,
    "log_lines.fields_of": log_lines.fields_of,
    "log_lines.plainness": log_lines.plainness,
    "log_lines.runner_settings": lambda text: log_lines.runner_settings(text.split(" ")),
    "log_lines.runner_cache_type": lambda text: log_lines.runner_cache_type(text.split(" ")),
    "log_lines.runner_flash_attention": lambda text: log_lines.runner_flash_attention(text.split(" ")),
    "modelfile.memory_options": modelfile.memory_options,
    "modelfile.as_text": modelfile.as_text,
    "modelfile.files_apart": modelfile.files_apart,
    "servers.listeners": servers.listeners,
    "servers.is_of_network": lambda text: servers.is_of_network("10.0.0.1", text, text),
    "servers.place_of": servers.place_of,
    "servers.owner": lambda text: servers.owner([text]),
    "servers.is_runner": lambda text: servers.is_runner(text.split(" ")),
    "servers.is_ollamas_runner": lambda text: servers.is_ollamas_runner(text.split(" ")),
    "servers.is_server": lambda text: servers.is_server(text.split(" ")),
    "host_read.is_command": lambda text: host_read.is_command(GUIDES_COMMAND, text.encode()),
    "log_lines.entry MESSAGE": lambda text: log_lines.entry(json.dumps({"MESSAGE": text, "__REALTIME_TIMESTAMP": "1"})),
    "log_lines.of_process": log_lines.of_process,
    "foreign_json.read": foreign_json.read,
    "foreign_json.fields": foreign_json.fields,
    "foreign_json.positive": foreign_json.positive,
    "foreign_json.of_type": lambda text: foreign_json.of_type(text, str),
    "foreign_json.read number": lambda text: foreign_json.read("1" * len(text)),
    "load_test.told_by": lambda text: load_test.told_by(text.encode()),
    "load_test.answer_error": lambda text: load_test.answer_error(text.encode()),
    "http_client.error_text": lambda text: http_client.error_text(text.encode()),
    "model_use.blob_of": lambda text: model_use.blob_of(text.split(" ")),
    "model_use.is_elsewhere": lambda text: model_use.is_elsewhere(text, [], None),
    "settings.as_ollama_reads": settings.as_ollama_reads,
    "settings.cache_type": settings.cache_type,
    "settings.parse_version": settings.parse_version,
    "settings.switch": settings.switch,
    "shown_arrays.Picked": _picked,
    "shown_arrays.Picked array": lambda text: _picked('{"a":[' + text.replace('"', "")),
    "host_address.parse": host_address.parse,
    "host_address.url_of_server": host_address.url_of_server,
    "model_name.full": model_name.full,
    "urls.parse": urls.parse,
}
# What is given no longer texts: those that edit refuse them, and of a file that is edited, or a script, no more is
# read.
READ = (
    "dotenv.get_keys", "dotenv.set_keys", "dotenv.set_keys remove", "dotenv.all_but", "dotenv.masked", "dotenv.encode",
    "dotenv.get_keys systemd", "env_lines.taken_back", "masking.secrets_in_text", "masking.secrets_in_command",
    "masking.secrets_in_script", "start_script.says", "start_script.together",
    *(f"dotenv_readers.readings {reader}" for reader in dotenv_readers.READERS),
)  # fmt: skip
SHORTER = dict.fromkeys(READ, dotenv.MOST_BYTES)


def text_of(piece: str, length: int) -> str:
    if NUMBER not in piece:
        return piece * (length // len(piece.encode()))
    return "".join(piece.replace(NUMBER, f"{number:06}") for number in range(length // (len(piece) + 5)))


def took(parser: Callable[[str], object], text: str) -> float:
    for kept in (credentials.says_credential, *itertools.chain(*dotenv_readers.READERS.values())):
        cast(Any, kept).cache_clear()
    began = time.process_time()
    with contextlib.suppress(ValueError):  # refused, which may not take long either
        parser(text)
    return time.process_time() - began


def worst(name: str, pieces: Iterable[str]) -> tuple[float, float, str]:
    """Seconds of processor at the greatest length, the exponent up to it, and the piece, of the worst text.

    Searched for in two passes: of short texts the slowest, and those that grow most, are tried at a sixteenth of the
    length; only what is worst there is measured in full.
    """
    parser, most = PARSERS[name], SHORTER.get(name, MOST)
    short = {piece: took(parser, text_of(piece, SHORT)) for piece in pieces}
    grows = {piece: took(parser, text_of(piece, 4 * SHORT)) / seconds for piece, seconds in short.items() if seconds}
    chosen = {piece for by in (short, grows) for piece in sorted(by, key=lambda one: by[one])[-CHOSEN:]}
    tried = [(seconds_at(parser, piece, most // 16), piece) for piece in sorted(chosen)]
    steep = [
        (seconds / (seconds_at(parser, piece, most // 64) or 1e-9), piece)
        for seconds, piece in tried
        if seconds > 0.003
    ]
    slowest, steepest = max(tried)[1], max(steep, default=(0.0, ""))[1]
    return max(measured(parser, piece, most) for piece in {slowest, steepest} - {""})


def seconds_at(parser: Callable[[str], object], piece: str, length: int) -> float:
    text = text_of(piece, length)
    return max(took(parser, text + end) for end in ("", "a"))


def measured(parser: Callable[[str], object], piece: str, most: int) -> tuple[float, float, str]:
    small = min(seconds_at(parser, piece, most // 16) for _again in range(3))
    exponent = math.log(small / seconds_at(parser, piece, most // 64), 4)
    if exponent > 1.5 and small * 16**exponent > SECONDS:  # not worth waiting for: told from what came before
        return small * 16**exponent, exponent, piece
    large = min(seconds_at(parser, piece, most) for _again in range(2))
    return large, math.log(large / small, 16) if large > 0.001 else 0.0, piece


def main() -> None:
    found = []
    for name in sys.argv[1:] or PARSERS:
        seconds, exponent, piece = worst(name, PIECES)
        found.append((seconds, exponent))
        print(f"{name:40} {seconds:8.3f} s  exponent {exponent:5.2f}  of {piece!r}", flush=True)
    print(
        f"{len(found)} parsers: {sum(seconds > 1 for seconds, _exponent in found)} over 1 s, the most "
        f"{max(found)[0]:.3f} s; the greatest exponent {max(exponent for _seconds, exponent in found):.2f}"
    )


if __name__ == "__main__":
    main()
