# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps in its env files, units and processes that must not be shown."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Properties, Unit

MOST_PROCESSES = 256  # of one unit
PROPERTIES = (
    "Environment,EnvironmentFiles,MainPID,ControlGroup,"
    "ExecCondition,ExecStartPre,ExecStart,ExecStartPost,ExecReload,ExecStop,ExecStopPost"
)


def secrets_of_host(units: Iterable[str], files: Iterable[str]) -> set[str]:
    """What must not be shown of the environments and commands of these units, and of env files.

    A unit's are those that systemd gives it, those of all its processes, and what the scripts that start it say.
    systemd's own has what `DefaultEnvironment=` and `systemctl set-environment` say; a unit may let it pass.
    """
    found = masking.secrets_in(unit_text.parse_show(commands.show(None, PROPERTIES)).get("Environment") or {})
    paths = list(files)
    for unit in units:
        text = commands.show(unit, PROPERTIES)
        shown = unit_text.parse_show(text)
        found |= masking.secrets_in(shown.get("Environment") or {})
        paths += unit_files.environment_files(shown)
        lines = start_script.command_lines(text)
        for script in (*lines, *unit_files.script_texts("\n".join(lines)).values()):
            found |= masking.secrets_in_script(script)
        for environment, command in _processes(shown):
            found |= masking.secrets_in_command(command)
            for name, value in environment:
                found |= masking.secrets_in({name: value})
    for path in paths:
        found |= secrets_in_file(path)
    return found


def _processes(shown: Properties) -> Iterator[tuple[list[tuple[str, str]], list[str]]]:
    """The environment and the command line of every process of a unit: each may have been given more by the one above.

    `shown`: as `unit_text.parse_show` gives it. What `su -` starts is in a control group of its own.
    """
    main = str(shown.get("MainPID") or "")
    unit: Unit = {"main_pid": int(main) if main.isdigit() else 0, "control_group": shown.get("ControlGroup")}
    pids = host_read.with_descendants([unit["main_pid"]] if unit["main_pid"] else [])
    with contextlib.suppress(OSError):
        pids += host_read.unit_pids(unit)
    for pid in sorted(set(pids))[:MOST_PROCESSES]:
        environment: list[tuple[str, str]] = []
        with contextlib.suppress(OSError):
            environment = host_read.environment_items(pid, "surrogateescape")
        yield environment, dotenv.decode(_read(f"/proc/{pid}/cmdline")).split("\0")[:-1]


def _read(path: str) -> bytes:
    """At most what an env file may hold; nothing of what cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(dotenv.MOST_BYTES)
    except OSError:
        return b""


def secrets_in_file(path: str) -> set[str]:
    """The values of an env file that must not be shown; nothing of a file that cannot be read."""
    return masking.secrets_in_text(dotenv.decode(_read(path))) if os.path.isfile(path) else set()
