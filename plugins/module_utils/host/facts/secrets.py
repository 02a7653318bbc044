# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps in its env files, units and processes that must not be shown."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands


def secrets_of_host(units: Iterable[str], files: Iterable[str]) -> set[str]:
    """What must not be shown of the environments of these units, of their processes and of systemd, and of env files.

    systemd's own has what `DefaultEnvironment=` and `systemctl set-environment` say; a unit may let it pass.
    """
    found = masking.secrets_in(unit_text.parse_show(_show([])).get("Environment") or {})
    paths = list(files)
    for unit in units:
        shown = unit_text.parse_show(_show([unit]))
        found |= masking.secrets_in(shown.get("Environment") or {})
        paths += unit_files.environment_files(shown)
        for environment in _environments(str(shown.get("MainPID") or "")):
            found |= masking.secrets_in(environment)
    for path in paths:
        found |= secrets_in_file(path)
    return found


def _environments(main: str, proc: str = "/proc") -> Iterator[dict[str, str]]:
    """Of a unit's main process, and of a server that it has started: the first may be a shell that exports more."""
    if not main.isdigit() or main == "0":
        return
    children = [_read(path).decode(errors="replace").split() for path in glob.glob(f"{proc}/{main}/task/*/children")]
    for pid in (main, *(pid for pids in children for pid in pids)):
        command = dotenv.decode(_read(f"{proc}/{pid}/cmdline")).split("\0")[:-1]
        if pid == main or servers.is_server(command):
            pairs = (item.partition("=") for item in dotenv.decode(_read(f"{proc}/{pid}/environ")).split("\0"))
            yield {name: value for name, equals, value in pairs if equals}


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


def _show(units: list[str]) -> str:
    """Of a unit, or of systemd itself where none is named."""
    done = commands.run(["systemctl", "show", *units, "--property", "Environment,EnvironmentFiles,MainPID"])
    return done.stdout.decode(errors="replace")
