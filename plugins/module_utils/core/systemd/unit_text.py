# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment in systemd's unit files, in Podman's `.container` files, in this collection's env file of a service
of Docker Compose, and in the output of `systemctl show`.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import credentials

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Properties, Service


MASK = "********"
DROP_IN = "zz-gpu-memory.conf"  # sorts after `override.conf`
ENV_FILE = "gpu-memory.env"  # what it is to a service of Docker Compose, in the project's directory
HEADER = "# Managed by the Ansible collection selo.gpu_memory: changes are overwritten."
WRITTEN_BY = "# Written by "  # the second line, where that is not the role gpu_memory
SOMEBODY = "somebody else"
CONTAINER = ".container"  # a Quadlet, of which Podman's generator makes a unit
SECTIONS = ("Service", "Container")
NO_SECTION = ""  # an env file has none

WRITER = re.compile(r"[A-Za-z0-9_.-]+(?: [A-Za-z0-9_.-]+)*")
_DOLLARS = {"Service": "$", "Container": "$$"}  # what Podman puts into ExecStart= of a unit is no text to systemd
_SECTION = re.compile(r"\[[^\]]*\]")
_DIRECTIVE = re.compile(r"[A-Za-z]+")
_PLAIN = re.compile(r"[\w./:-]*", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENV_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(?:'([^']*)'|([^'\"]*))")
_AS_IT_IS = re.compile(r"[\w./:,@%+=-]*", re.ASCII)  # a value that an env file needs no quotes for
# What of a word stands for itself, by the quote that it is in.
_AS_IT_STANDS = {"": re.compile(r"""[^\\"' \t]+"""), '"': re.compile(r'[^\\"]+'), "'": re.compile(r"[^\\']+")}
# src/basic/escape.c, cunescape_one.
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.S)


class InvalidEnvironment(ValueError):
    """A variable that no unit file can carry; the text names it, the cause and what is allowed."""


def section_of(path: str) -> str:
    """In which section of a unit file or drop-in at a path the server's environment stands; an env file has none."""
    if posixpath.basename(path) == ENV_FILE:
        return NO_SECTION
    directory = posixpath.basename(posixpath.dirname(path))
    return "Container" if path.endswith(CONTAINER) or f".{directory}".endswith(f"{CONTAINER}.d") else "Service"


def render_dropin(environment: Mapping[str, str], writer: str | None = None, section: str = "Service") -> str:
    """The drop-in for a service that sets `environment`, in the order given; InvalidEnvironment if one cannot be set.

    `writer`: who writes it, as `WRITER`, where that is not the role gpu_memory. `section`: as `section_of` has it.

    Nothing in a name or value can end its line, so nothing can add a directive.
    """
    lines = [HEADER, *([f"{WRITTEN_BY}{writer}"] if writer else []), *([f"[{section}]"] if section else [])]
    for name, value in environment.items():
        if not _NAME.fullmatch(name):
            raise InvalidEnvironment(f"{name!r} is no name of a variable; allowed: letters, digits, _; no digit first")
        for char in value:
            if unicodedata.category(char) in ("Cc", "Cs") or _is_noncharacter(ord(char)):
                raise InvalidEnvironment(f"{name}: the character U+{ord(char):04X} is not allowed; use plain text")
        if section == NO_SECTION and "'" in value:
            raise InvalidEnvironment(f"{name}: an env file of Docker Compose carries no '; use plain text")
        lines.append(_directive(name, value, section).rstrip("\n"))
    return "\n".join(lines) + "\n"


def writer_of(text: str) -> str | None:
    """Who has written a drop-in of our name; None for the role gpu_memory."""
    lines = text.splitlines()
    if lines[:1] != [HEADER]:
        return SOMEBODY
    second = lines[1] if len(lines) > 1 else ""
    if not second.startswith(WRITTEN_BY):
        return None
    return _named(second) or SOMEBODY


def _named(line: str) -> str | None:
    """The writer that a line names, if it is one of ours."""
    writer = line[len(WRITTEN_BY) :]
    return writer if line.startswith(WRITTEN_BY) and WRITER.fullmatch(writer) else None


def directives(text: str, section: str = "Service") -> list[str]:
    """What a drop-in sets: the names of its variables, and of all else `Directive=`."""
    names = list(parse_service(text, section)["environment"])
    for line in logical_lines(text):
        name, equals, _unused = line.partition("=")
        if equals and name.strip() != "Environment" and (section or name.strip() not in names):
            names.append(f"{name.strip()}=")
    return names


def added(text: str, own: Collection[str]) -> str:
    """What somebody has written into our drop-in, with the sections that it stands in: all but its first line, and what
    sets one of the variables `own`, which this collection has set.
    """
    found: list[str] = []
    goes_on = False
    for line in text.splitlines():
        is_section = bool(_SECTION.fullmatch(line.strip()))
        if is_section and found and _SECTION.fullmatch(found[-1].strip()):
            found.pop()  # nothing of anybody's stood in it
        if goes_on or line.strip() and line != HEADER and not _sets_one_of(line, own):
            found.append(line)
        goes_on = line.endswith("\\")
    if found and _SECTION.fullmatch(found[-1].strip()):
        found.pop()
    return "".join(f"{line}\n" for line in found)


def _sets_one_of(line: str, own: Collection[str]) -> bool:
    variables = _variables_of(line) or _of_env_file(line)
    return len(variables) == 1 and variables.keys() <= set(own) and not line.endswith("\\")


def as_we_write(text: str, names: Collection[str], section: str = "Service") -> list[str]:
    """Those of some variables whose line stands in a drop-in just as this collection writes it."""
    values, lines = parse_service(text, section)["environment"], set(text.splitlines())
    own = [(name, _directive(name, value, section).rstrip("\n")) for name, value in values.items() if name in names]
    return [name for name, line in own if line in lines]


def masked(text: str, own: Collection[str]) -> str:
    """A drop-in's text, without the values that may be secrets.

    Those of the variables `own` are none. Of what is no setting only that there is something.
    """
    frame = ("", HEADER, *(f"[{section}]" for section in SECTIONS))
    return "".join(
        line if line.strip() in frame or _named(line.strip()) else f"{_shown(line.rstrip(), own)}\n"
        for line in text.splitlines(keepends=True)
    )


def foreign(text: str, own: Collection[str], section: str = "Service") -> list[str]:
    """As `directives`, of what somebody has `added`."""
    return directives(added(text, own), section)


def _shown(line: str, own: Collection[str]) -> str:
    """A line without the values that may be secrets; what is no setting may be anything."""
    variables = _variables_of(line)
    if variables:
        words_shown = (
            _word(name, value) if name in own or not credentials.is_secret(name, value) else f"{name}={MASK}"
            for name, value in variables.items()
        )
        return f"Environment={' '.join(words_shown)}"
    name, equals, value = line.partition("=")
    if name in own and _of_env_file(line):
        return line
    if not equals or not _DIRECTIVE.fullmatch(name):
        return MASK
    is_shown = _PLAIN.fullmatch(value) and not credentials.is_secret(name, value)
    return line if is_shown else f"{name}={MASK}"


def _variables_of(line: str) -> dict[str, str]:
    return parse_environment_directives(f"[Service]\n{line}") if "Environment" in line else {}


def _of_env_file(text: str) -> dict[str, str]:
    """The variables of an env file, of lines such as this collection writes; of others it is not told what they do."""
    found = filter(None, map(_ENV_LINE.fullmatch, text.splitlines()))
    return {name: quoted or plain or "" for name, quoted, plain in (line.groups() for line in found)}


def _directive(name: str, value: str, section: str) -> str:
    if section == NO_SECTION:
        return f"{name}={value}\n" if _AS_IT_IS.fullmatch(value) else f"{name}='{value}'\n"
    return f"Environment={_word(name, value.replace('$', _DOLLARS[section]))}\n"


def _word(name: str, value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{name}={escaped}"'


def _is_noncharacter(code: int) -> bool:
    """What systemd takes for invalid UTF-8 (src/basic/utf8.c, unichar_is_valid)."""
    return code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF


def parse_show(text: str) -> Properties:
    """Properties of `systemctl show` by name, as text.

    `Environment` is a dict of variables; `EnvironmentFiles` a list of {path (or pattern), optional}, each of which has
    a line of its own. So has each command of `ExecStart` and the like: they stand one behind the other here.
    """
    properties: dict[str, Any] = {}
    commands: dict[str, list[str]] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if name == "EnvironmentFiles" and value:
            path, optional = _IGNORES_ERRORS.sub("", value), value.endswith("(ignore_errors=yes)")
            properties.setdefault(name, []).append({"path": path, "optional": optional})
        elif equals and value.startswith("{ path="):
            commands.setdefault(name, []).append(value)
        elif equals:
            properties[name] = _variables(_show_words(value)) if name == "Environment" else value
    return cast("Properties", {**properties, **{name: " ".join(all_of_it) for name, all_of_it in commands.items()}})


_IGNORES_ERRORS = re.compile(r" \(ignore_errors=(?:yes|no)\)\Z")


_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")


def moment(text: str) -> float | None:
    """A time of `systemctl show` as Unix time; None where there is none."""
    found = _MOMENT.search(text)
    return datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc).timestamp() if found else None


def parse_environment_directives(text: str, section: str = "Service") -> dict[str, str]:
    """The variables that `Environment=` in that section sets; specifiers such as `%h` stay as written."""
    return parse_service(text, section)["environment"]


def values_of(text: str, section: str, directive: str) -> Iterator[str]:
    """What a unit file or drop-in has for a directive of a section, line by line."""
    at = ""
    for line in logical_lines(text):
        if line.startswith("[") and line.endswith("]"):
            at = line[1:-1]
        name, equals, value = line.partition("=")
        if at == section and equals and name.strip() == directive:
            yield value.strip()


def parse_service(text: str, section: str = "Service") -> Service:
    """What a unit file or drop-in does to the environment in its [Service] section, or in [Container] of a Quadlet.

    Returns `environment` (the variables it sets; specifiers stay as written), `resets` (an empty `Environment=` takes
    back what was set before this file) and `unsets` (the names that `UnsetEnvironment=` takes away at the very end).
    """
    if section == NO_SECTION:
        return {"environment": _of_env_file(text), "resets": False, "unsets": []}
    environment: dict[str, str] = {}
    resets = False
    unsets: list[str] = []
    for value in values_of(text, section, "Environment"):
        if not value:
            environment.clear()
            resets = True
        given = (word.replace("%%", "%").replace(_DOLLARS[section], "$") for word in words(value))
        environment.update(_variables(given))
    for value in values_of(text, section, "UnsetEnvironment"):
        if not value:
            unsets.clear()
        unsets += words(value)
    return {"environment": environment, "resets": resets, "unsets": unsets}


def _variables(given: Iterator[str]) -> dict[str, str]:
    pairs = (word.partition("=") for word in given)
    return {name: value for name, equals, value in pairs if equals and _NAME.fullmatch(name)}


def logical_lines(text: str) -> Iterator[str]:
    """Lines with continuations joined and comments left out, also those between continued lines."""
    joined = ""
    for line in text.split("\n"):
        if line.lstrip().startswith(("#", ";")):
            continue
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        yield (joined + line).strip()
        joined = ""
    if joined:
        yield joined.strip()


def words(text: str) -> Iterator[str]:
    """Words as in a unit file: quotes group, backslashes escape as in C; the rest of a broken line is left out."""
    at = 0
    while at < len(text):
        word = ""
        quote = ""
        begun = at
        while at < len(text) and (quote or text[at] not in " \t"):
            plainly = _AS_IT_STANDS[quote].match(text, at)
            if plainly:
                word += plainly[0]
                at = plainly.end()
                continue
            char = text[at]
            if char == "\\":
                escape = _ESCAPE.match(text, at)
                plain = _unescape(escape) if escape else None
                if escape is None or plain is None:
                    return
                word += plain
                at = escape.end()
                continue
            quote = "" if quote else char
            at += 1
        if quote:
            return
        if at > begun:
            yield word
        at += 1


def _unescape(escape: re.Match[str]) -> str | None:
    byte, short, long, octal, letter = escape.groups()
    if letter:
        return _ESCAPED.get(letter, letter if letter in "\\\"'" else None)
    number = int(octal, 8) if octal else int(byte or short or long, 16)
    return chr(number) if 0 < number < 0x110000 else None


# `systemctl show` quotes for a shell: "…" with a backslash before " \ ` $, or $'…' where there are control characters.
_SHOW_WORD = re.compile(r""" \$'((?:\\.|[^'\\])*)'  |  "((?:\\.|[^"\\])*)"  |  ([^ ]+) """, re.X)


def _show_words(text: str) -> Iterator[str]:
    for ansi_c, double, plain in _SHOW_WORD.findall(text):
        if ansi_c:
            yield _ESCAPE.sub(lambda escape: _unescape(escape) or escape[0], ansi_c)
        else:
            yield re.sub(r'\\(["\\`$])', r"\1", double) if double else plain
