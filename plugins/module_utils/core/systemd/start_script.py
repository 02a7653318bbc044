# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shell script that a unit starts Ollama by gives it, as far as its text says so. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.facts import Unit


_COMMENT = re.compile(r"(?:^|[ \t])#.*", re.MULTILINE)
_ASSIGNMENT = re.compile(
    r"""(?<![\w/$-])([A-Z][A-Z0-9_]{0,63})=(?:"([^"$`\n]*)"|'([^'\n]*)'|([^\s"'$`;&|()]*))(?=$|[\s;&|])"""
)
_READ = re.compile(r"\$\{?([A-Z][A-Z0-9_]{0,63})|(?:-v|printenv)[ \t]+([A-Z][A-Z0-9_]{0,63})")
_SOURCED = re.compile(r"(?:^|[;&|])[ \t]*(?:\.|source)[ \t]+[\"']?(/[^\s\"'$;&|]+)", re.MULTILINE)
_PATH = re.compile(r"(?<![^\s=])/[^\s;\"']+")


def programs(exec_start: str) -> list[str]:
    """The paths that an `ExecStart` of `systemctl show` names: its program, and the files that it may be given."""
    return list(dict.fromkeys(_PATH.findall(exec_start)))


def sourced(text: str) -> list[str]:
    """The files that a script reads as parts of itself."""
    return list(dict.fromkeys(_SOURCED.findall(_COMMENT.sub("", text))))


def sets(text: str) -> dict[str, str]:
    """The variables that a script sets to a fixed value, whatever it was given.

    None of those that it looks at: such a value may be a default, which gives way to the unit's.
    """
    text = _COMMENT.sub("", text)
    read = {one or other for one, other in _READ.findall(text)}
    return {
        name: double or single or plain for name, double, single, plain in _ASSIGNMENT.findall(text) if name not in read
    }


def by(unit: Unit) -> str | None:
    """What a unit starts the server by, besides Ollama itself: it may change what the server gets; None without any."""
    others = [path for path in unit.get("programs") or [] if posixpath.basename(path) != "ollama"]
    return " or ".join(others) or None


def notes(wanted: Mapping[str, str], unit: Unit, given: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """What the server runs with though its unit does not give it (`given`), where a program may be why.

    Of what a program does, no text may tell; `problems` has what one tells.
    """
    program = by(unit)
    return [
        f"the server runs with {name}={running[name]}, which {unit['name']} does not give it: see whether {program}, "
        f"by which its ExecStart starts it, sets that; it would win over this collection's {name}={value}, and the "
        "apply would be rolled back"
        for name, value in wanted.items()
        if program and running.get(name) not in (None, value, given.get(name))
    ]


def problems(wanted: Mapping[str, str], unit: Unit, running: Mapping[str, str]) -> list[str]:
    """What starts the server with something else than `wanted`, as `running` already has it from there."""
    by_itself = [
        f"ExecStart of {unit['name']} sets {name}={value} and wins over this collection's {name}={wanted[name]}; "
        "take it out there"
        for name, value in (unit.get("exec_environment") or {}).items()
        if name in wanted and value != wanted[name] and running.get(name) == value
    ]
    return by_itself + [
        f"{script['path']}, by which ExecStart of {unit['name']} starts the server, sets {name}={value} and wins over "
        f"this collection's {name}={wanted[name]}; take the line out there"
        for script in unit.get("start_scripts") or []
        for name, value in script["environment"].items()
        if name in wanted and value != wanted[name] and running.get(name) == value
    ]
