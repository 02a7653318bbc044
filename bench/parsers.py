"""Time of every parser and masker against the length of what it is given, on texts that are hard for such code.

Whatever a host holds is read, and a client can write into much of it: time must grow with the length, and no faster.
For each the worst shape is shown: its time at the greatest length, and the exponent from a quarter of it to it (1 is
linear). What takes less than a millisecond at the greatest length has no exponent worth showing.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    host_address,
    log_lines,
    model_name,
    modelfile,
    servers,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    start_script,
    unit_oddities,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, dotenv_readers, masking, urls

KIB = 1024
MOST = 1024 * KIB
SECONDS = 20  # for one text; what takes longer is shown as such

# Repeated to the whole length; escaped as in Python.
WRITTEN = r"""
a A= a=b\x20 A=1\n = \x20 \t \n \\ \\\n " ' '" "\\ ` $ ${ $( $(( ${A { } [ ( ) (( : :// a:// a:b@ @ / // . ..
, ; | && # % %s - -- --a= -p\x20 --password\x20 password= password:\x20 Bearer\x20 Basic\x20 sk- hf_ ghp_ eyJ.
0 1. 1: \xe9 \x00 \x1b[ <<A\n export\x20A= if\x20 case\x20a\x20in\x20 Environment= Environment="A= [Service]\n
PARAMETER\x20num_ctx\x20 level=INFO\x20msg= time= [GIN]\x20 offloaded\x201/1\x20layers\x20
KV\x20buffer\x20size a="b\\"\x20 aB3 AKIA -----BEGIN\x20 xoxb- https://u:p@h/ A=' A=" A=$B A=${A:- _ a_ pass
PASS_ key
"""
PIECES = [piece.encode().decode("unicode_escape") for piece in WRITTEN.split()]


def _log(text: str) -> object:
    return log_lines.parse([(1.0, line) for line in text.splitlines() or [text]])


PARSERS: dict[str, Callable[[str], object]] = {
    "masking.without_secrets": masking.without_secrets,
    "masking.secrets_in": lambda text: masking.secrets_in({"NAME": text, "PASSWORD": text, text: "x"}),
    "masking.secrets_in_text": masking.secrets_in_text,
    "masking.secrets_in_script": masking.secrets_in_script,
    "masking.secrets_in_command": lambda text: masking.secrets_in_command(text.split(" ")),
    "masking.shown_command": lambda text: masking.shown_command(text.split(" ")),
    "dotenv_readers python-dotenv": lambda text: dotenv_readers.readings(text, "python-dotenv"),
    "dotenv_readers bash": lambda text: dotenv_readers.readings(text, "bash"),
    "dotenv_readers systemd": lambda text: dotenv_readers.readings(text, "systemd"),
    "dotenv_readers docker": lambda text: dotenv_readers.readings(text, "docker"),
    "dotenv.get_keys": lambda text: dotenv.get_keys(text, ["A", "B"]),
    "dotenv.set_keys": lambda text: dotenv.set_keys(text, {"A": "2", "NEW": "1"}),
    "dotenv.masked": lambda text: dotenv.masked(text, ["A"]),
    "unit_text.parse_show": unit_text.parse_show,
    "unit_text.parse_service": unit_text.parse_service,
    "unit_text.masked": lambda text: unit_text.masked(text, ["A"]),
    "unit_text.directives": unit_text.directives,
    "unit_text.words": lambda text: list(unit_text.words(text)),
    "unit_text.moment": unit_text.moment,
    "unit_oddities unit file": lambda text: list(unit_oddities.in_unit_file(text)),
    "unit_oddities env file": lambda text: list(unit_oddities.in_environment_file(text)),
    "start_script.says": start_script.says,
    "start_script.of_exec_start": start_script.of_exec_start,
    "start_script.together": lambda text: start_script.together({"/x": text, "/y": text}),
    "log_lines.parse": _log,
    "log_lines.parse one line": lambda text: log_lines.parse([(1.0, text.replace("\n", " "))]),
    "log_lines.plainness": log_lines.plainness,
    "log_lines.runner_settings": lambda text: log_lines.runner_settings(text.split(" ")),
    "modelfile.as_text": modelfile.as_text,
    "servers.listeners": servers.listeners,
    "settings.parse_version": settings.parse_version,
    "host_address.parse": host_address.parse,
    "model_name.full": model_name.full,
    "urls.parse": urls.parse,
}


def took(parser: Callable[[str], object], text: str) -> float:
    began = time.perf_counter()
    with contextlib.suppress(ValueError):  # refused, which may not take long either
        parser(text)
    return time.perf_counter() - began


def worst(name: str, pieces: Iterable[str]) -> tuple[float, float, str]:
    """Seconds at the greatest length, the exponent up to it, and the piece, of the worst text.

    Searched for at a sixteenth of the length; only what is worst there is measured in full.
    """
    parser = PARSERS[name]
    tried = [(seconds_at(parser, piece, MOST // 16), piece) for piece in pieces]
    steep = [
        (seconds / (seconds_at(parser, piece, MOST // 64) or 1e-9), piece)
        for seconds, piece in tried
        if seconds > 0.003
    ]
    slowest, steepest = max(tried)[1], max(steep, default=(0.0, ""))[1]
    return max(measured(parser, piece) for piece in {slowest, steepest} - {""})


def seconds_at(parser: Callable[[str], object], piece: str, length: int) -> float:
    text = piece * (length // len(piece.encode()))
    return max(took(parser, text + end) for end in ("", "a"))


def measured(parser: Callable[[str], object], piece: str) -> tuple[float, float, str]:
    small = seconds_at(parser, piece, MOST // 16)
    if small * 256 > SECONDS and small > SECONDS / 100:  # not worth waiting for: told from what came before
        return small * 256, math.log(small / seconds_at(parser, piece, MOST // 64), 4), piece
    large = min(seconds_at(parser, piece, MOST) for _again in range(2))
    return large, math.log(large / small, 16) if large > 0.001 else 0.0, piece


def main() -> None:
    for name in sys.argv[1:] or PARSERS:
        seconds, exponent, piece = worst(name, PIECES)
        print(f"{name:32} {seconds:8.3f} s  exponent {exponent:5.2f}  of {piece!r}", flush=True)


if __name__ == "__main__":
    main()
