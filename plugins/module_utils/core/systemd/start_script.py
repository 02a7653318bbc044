# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a shell script that a unit starts Ollama by gives it, as far as its text says so. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

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


def problems(wanted: Mapping[str, str], unit: Mapping[str, Any], running: Mapping[str, str]) -> list[str]:
    """Scripts that start the server with something else than `wanted`, as `running` already has it from them."""
    return [
        f"{script['path']}, by which ExecStart of {unit['name']} starts the server, sets {name}={value} and wins over "
        f"this collection's {name}={wanted[name]}; take the line out there"
        for script in unit.get("start_scripts") or []
        for name, value in script["environment"].items()
        if name in wanted and value != wanted[name] and running.get(name) == value
    ]
