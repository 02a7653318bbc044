# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a text that somebody else wrote (a journal's line, a server's answer, a command line) may be shown.

Two nets, one under the other: the values that this host is known to keep in its env files and units are masked wherever
they occur, and so is whatever has the look of a credential.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from ansible_collections.selo.gpu_memory.plugins.module_utils import (
    _command,
    _dotenv,
    _dotenv_readers,
    _settings,
    _systemd,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host import unit_files

MASK = _dotenv.MASK
LEAST = 6  # shorter values are words such as `info`; to mask those would make every message unreadable

_CREDENTIAL = (
    r"token(?!s)|(?<!show_)secret|passw|passphrase|pwd|credential|api[_-]?key|(?:private|access|account|signing)[_-]?key"
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
    "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "OLLAMA_HOST", "OLLAMA_MODELS", "LD_LIBRARY_PATH", "PYTHONPATH",
}  # fmt: skip
_PLACE = re.compile(r"[/.~]\S*|(?:localhost|[\d.]+|\[[0-9a-fA-F:]*\])(?::\d+)?")


def without_secrets(text: str, known: Iterable[str] = ()) -> str:
    """`text` with every value of `known`, and all that looks like a credential, masked."""
    for value in sorted(known, key=len, reverse=True):
        text = text.replace(value, MASK)
    for look, masked in _MASKS:
        text = look.sub(masked, text)
    return text


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
        if not value or name in _ORDINARY or name in _settings.SHOWN or "MODEL" in name:
            continue
        parts = _url_parts(value)
        found.update([value] if parts is None else parts)
    return {value for value in found if len(value) >= LEAST and not _PLACE.fullmatch(value)}


def _url_parts(value: str) -> list[str] | None:
    """The user's password and the query of a URL; None where the value is none."""
    if "://" not in value:
        return None
    try:
        url = urlsplit(value)
        password = url.password
    except ValueError:
        return None
    if not url.scheme or not url.netloc:
        return None
    return [part for part in (password, unquote(password or ""), *re.split("[&=]", url.query)) if part]


def secrets_of_host(units: Iterable[str], files: Iterable[str]) -> set[str]:
    """What the environment of these units and the env files of this host hold and must not be shown."""
    found: set[str] = set()
    paths = list(files)
    for unit in units:
        shown = _systemd.parse_show(_show(unit))
        found |= secrets_in(shown.get("Environment") or {})
        paths += unit_files.environment_files(shown)
    for path in paths:
        found |= secrets_in_file(path)
    return found


def secrets_in_file(path: str) -> set[str]:
    """The values of an env file, as any reader would take them; nothing of a file that cannot be read."""
    try:
        if not os.path.isfile(path):
            return set()
        with open(path, "rb") as file:
            text = _dotenv.decode(file.read(_dotenv.MOST_BYTES))
    except OSError:
        return set()
    found: set[str] = set()
    for reader in _dotenv_readers.READERS:
        for reading in _dotenv_readers.readings(text, reader):
            for one in reading.assignments:
                found |= secrets_in({one.key: one.value})
    return found


def _show(unit: str) -> str:
    done = _command.run(["systemctl", "show", unit, "--property", "Environment,EnvironmentFiles"])
    return done.stdout.decode(errors="replace")
