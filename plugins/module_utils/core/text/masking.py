# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a text that somebody else wrote (a journal's line, a server's answer, a command line) may be shown.

Two nets, one under the other: the values that a host is known to keep in its env files, units and processes are
masked wherever they occur, and so is whatever has the look of a credential. Pure.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, dotenv_readers

MASK = dotenv.MASK
LEAST = 6  # shorter values are words such as `info`; to mask those would make every message unreadable
LEAST_OF_A_CREDENTIAL = 4  # where the name says what it is; what is shorter still is masked after its name alone
LONG = 65536  # what is longer is no password: it is masked as it is, and not searched

_CREDENTIAL = (
    r"token(?!s|i[sz])|(?<!show_)secret|passw|passphrase|pwd|credential|api[_-]?key|(?:private|access|account|signing)[_-]?key"
    r"|authorization|cookie|signature|dsn\b"
)
NAMES_A_CREDENTIAL = re.compile(_CREDENTIAL, re.I)
_LOOKS = (
    (r"\b(bearer|basic)\s+[^\s\"',;]+", rf"\1 {MASK}"),
    # What follows a name of that kind, quoted or not.
    (
        rf"""((?:[\w.-]*(?:{_CREDENTIAL})[\w.-]*)\\?["']?\s*[=:]\s*)(\\?["'])?(?(2).*?\2|[^\s,;&)}}\]]+)""",
        rf"\1{MASK}",
    ),
    # A URL's user and password, and its query.
    (r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@", rf"\1{MASK}@"),
    (r"(\b[a-z][a-z0-9+.-]*://[^\s?\"']*\?)[^\s\"']+", rf"\1{MASK}"),
    # Long, of letters and digits: a key. GPUs and the files of models go by such names too, and those are no secrets.
    (r"(?<![a-z0-9])(?<!sha256[-:])(?=[a-z0-9]*\d)(?=\d*[a-z])[a-z0-9+]{16,}={0,2}", MASK),
    (r"(?<!GPU-)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", MASK),
)
_MASKS = [(re.compile(look, re.I), masked) for look, masked in _LOOKS]

# Variables whose values name places and things of the machine.
_ORDINARY = {
    "HOME", "PATH", "PWD", "SHELL", "USER", "LOGNAME", "LANG", "LANGUAGE", "TERM", "TMPDIR", "INVOCATION_ID",
    "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "OLLAMA_HOST", "OLLAMA_MODELS", "LD_LIBRARY_PATH", "PYTHONPATH", "OLDPWD",
    "LISTEN_FDNAMES", "MEMORY_PRESSURE_WRITE", "container",
}  # fmt: skip
_ORDINARY_WORDS = {"true", "false", "none", "null"}
_PLACE = re.compile(r"[/.]\S*|~(?:[\w.-]*/\S*)?|(?:localhost|[\d.]+|\[[0-9a-fA-F:]*\])(?::\d+)?")
_NAMES_A_PLACE = re.compile(r"(?:FILE|PATH|DIR|DIRECTORY|URL|URI|HOST)$", re.I)
# A credential that is a part of a value: of JSON, or of a database's `host=db password=x`.
_NAMED_INSIDE = re.compile(
    rf"""(?:{_CREDENTIAL})[\w.-]{{0,64}}["']?\s{{0,8}}[=:]\s{{0,8}}(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"',;&)}}\]]+))""",
    re.I,
)
_PASSWORD_OF_URL = re.compile(r"://[^\s/@:]{0,256}:([^\s/@]{1,1024})@")


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` with every value of `known`, and all that looks like a credential, masked."""
    known = frozenset(known)
    for value in known:
        if len(value) > LONG:
            text = text.replace(value, MASK)
    values = _any_of(known)
    if values:
        text = values.sub(MASK, text)
    for look, masked in _MASKS:
        text = look.sub(masked, text)
    return text


@functools.lru_cache(maxsize=4)
def _any_of(known: frozenset[str]) -> re.Pattern[str] | None:
    """What finds these values, however they are printed; the longest first, since one may be a part of another."""
    forms = {form for value in known if len(value) <= LONG for form in _as_printed(value) if form}
    return re.compile("|".join(map(_alone, sorted(forms, key=len, reverse=True)))) if forms else None


def _as_printed(value: str) -> Iterator[str]:
    """A value as programs write it: as it is, escaped once or twice, quoted for a shell, in a URL, in HTML, encoded."""
    content = value.encode("utf-8", "surrogatepass" if _has_lone_surrogates(value) else "surrogateescape")
    yield value
    yield content.decode(errors="replace")
    for ascii_only in (False, True):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        yield from (once, json.dumps(once)[1:-1])
    yield from (repr(value)[1:-1], value.replace("'", r"'\''"), html.escape(value))
    yield from (quote(content), quote(content, safe=""), quote_plus(content))
    for encoded in (base64.b64encode(content), base64.urlsafe_b64encode(content)):
        yield encoded.decode().rstrip("=")


def _has_lone_surrogates(value: str) -> bool:
    """Whether there are others than those for a byte that is no UTF-8."""
    return any("\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff" for char in value)


def _alone(form: str) -> str:
    """A short value, or one of digits, is a whole word: it is no piece of a longer word or figure."""
    found = re.escape(form)
    if len(form) >= LEAST and not re.fullmatch(r"[\d.]+", form):
        return found
    return rf"(?<![A-Za-z0-9])(?<!\d\.){found}(?![A-Za-z0-9]|\.\d)"


def shown_command(words: Sequence[str]) -> list[str]:
    """A runner's command line: its flags, with the values that are numbers, short words or files; the rest masked."""
    shown = list(words[:1])
    for before, word in zip(words, words[1:]):
        flag, equals, value = word.partition("=") if word.startswith("-") else (before, "", word)
        private = bool(NAMES_A_CREDENTIAL.search(flag)) or flag in ("-hft", "-hf")
        if word.startswith("-") and not equals:
            shown.append(without_secrets(word))
        else:
            shown.append(f"{flag}{equals}" * bool(equals) + (MASK if private else without_secrets(value)))
    return shown


def secrets_in(variables: Mapping[str, str | None]) -> set[str]:
    """The values of an environment that must not be shown: of a URL its credentials and query, else the whole value."""
    found: set[str] = set()
    for name, value in variables.items():
        if value and name not in _ORDINARY and name not in settings.SHOWN and not name.startswith("LC_"):
            found.update(part for about, part in _parts(name, value) if _is_secret(about, part))
    return found


def _is_secret(name: str, value: str) -> bool:
    if len(value) < LEAST_OF_A_CREDENTIAL or value.lower() in _ORDINARY_WORDS:
        return False
    place = _PLACE.fullmatch(value)
    if NAMES_A_CREDENTIAL.search(name):
        return not (place and _NAMES_A_PLACE.search(name))
    return len(value) >= LEAST and not place and "MODEL" not in name


def _parts(name: str, value: str) -> Iterator[tuple[str, str]]:
    """A value and those parts of it that a program may print alone, each with the name that says what it is."""
    url = _url_parts(value)
    yield from url or ()
    if url is None or NAMES_A_CREDENTIAL.search(name) and not _NAMES_A_PLACE.search(name):
        yield name, value
        # A line of a log is one line, and has no blanks at its end.
        yield from ((name, line.strip()) for line in re.split(r"\r?\n|\\n", value))
    yield from (("password", password) for password in _PASSWORD_OF_URL.findall(value[:LONG]))
    for double, single, plain in _NAMED_INSIDE.findall(value[:LONG]):
        yield "password", double or single or plain
        with contextlib.suppress(ValueError):
            yield "password", json.loads(f'"{double}"', strict=False)


def _url_parts(value: str) -> list[tuple[str, str]] | None:
    """The password and the query of a URL, each part with its name; None where the value is none."""
    if "://" not in value:
        return None
    try:
        url = urlsplit(value)
        password = url.password or ""
    except ValueError:
        return None
    if not url.scheme or not url.netloc:
        return None
    pairs = [pair.partition("=") for pair in url.query.split("&")]
    parts = [("password", password), *((name, part or name) for name, _equals, part in pairs)]
    return [(name, form) for name, part in parts for form in (part, unquote(part))]


def secrets_in_text(text: str) -> set[str]:
    """The values of an env file's text that must not be shown, as any reader would take them."""
    found: set[str] = set()
    for reader in dotenv_readers.READERS:
        for reading in dotenv_readers.readings(text, reader):
            for one in reading.assignments:
                found |= secrets_in({one.key: one.value})
    return found
