# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host keeps in its env files, units and processes, and what may be shown of a text that may quote it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, quadlets, unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import what_is_ours
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path, service_properties

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Properties, Unit

MOST_PROCESSES = 256  # of one unit
PROPERTIES = (
    "Id,FragmentPath,SourcePath,DropInPaths,Environment,EnvironmentFiles,MainPID,ControlGroup,"
    "ExecCondition,ExecStartPre,ExecStart,ExecStartPost,ExecReload,ExecStop,ExecStopPost"
)


class Masking:
    """What may be shown on this host of a text that somebody else wrote. Whatever quotes one goes through this.

    It alone knows who keeps secrets here: the services and files that it is told of, and those that the kept
    generations name. What it has seen once stays masked: a process that ends takes its environment along.
    """

    def __init__(
        self,
        units: Iterable[str] = (),
        files: Iterable[str] = (),
        names: Iterable[str] = (),
        shows_secrets: bool = False,
        paths: Paths | None = None,
        declared: Iterable[str] = (),
    ) -> None:
        """`names`: what was declared and may be read by everybody, such as models; the units' are known.

        `declared`: secrets that were declared, such as headers; they are never shown.
        """
        self._declared = frozenset(declared)
        self._units, self._files, self._names = {*units}, {*files}, {*names}
        self._commands: set[tuple[str, str]] = set()
        self._shows_secrets, self._paths = shows_secrets, paths or Paths()
        self._known: frozenset[str] | None = None

    def look(self, services: ServicePlan | None = None, unit: str | None = None) -> None:
        """Learn what is kept here now, also by these services, and by a further unit."""
        for manifest in what_is_ours.manifests(self._paths):
            self._add(manifest["services"])
            self._files |= {path for path in manifest.get("env") or {} if not what_is_ours.is_drop_in(path)}
        if services:
            self._add(services)
        self._units |= {unit} if unit else set()
        found = secrets_of_host(self._units, self._files, self._commands, {*self._units, *self._names})
        self._known = frozenset(found | (self._known or set()))

    def _add(self, services: ServicePlan) -> None:
        ollama, backend = services.get("ollama"), services.get("backend")
        self._files |= set(services.get("private_files") or [])
        self._units |= {service["unit"] for service in (ollama, backend) if service and service.get("unit")}
        if backend and backend.get("kind") == "command":
            self._commands.add((backend["process_match"], backend["directory"]))

    def __call__(self, text: str) -> str:
        if self._shows_secrets:
            return masking.without_known(text, self._declared)
        if self._known is None:
            self.look()
        return masking.without_secrets(text, self._declared | (self._known or frozenset()))


def secrets_of_host(
    units: Iterable[str],
    files: Iterable[str],
    started: Iterable[tuple[str, str]] = (),
    names: Collection[str] = (),
) -> set[str]:
    """What must not be shown of the environments and commands of these units, and of env files.

    A unit's are those that systemd gives it, those of all its processes, and what the scripts that start it say.
    systemd's own has what `DefaultEnvironment=` and `systemctl set-environment` say; a unit may let it pass.
    `started`: processes that are no unit's, each by what its command line matches and where it works.
    `names`: see `credentials.is_secret`.
    """
    found = masking.secrets_in(
        unit_text.parse_show(service_properties.show(None, PROPERTIES)).get("Environment") or {}, names
    )
    paths = list(files)
    for unit in units:
        text = service_properties.show(unit, PROPERTIES)
        shown = unit_text.parse_show(text)
        found |= masking.secrets_in(shown.get("Environment") or {}, names)
        paths += unit_files.environment_files(shown)
        made_of = quadlets.of(unit, shown)
        if made_of:
            found |= masking.secrets_in(made_of.command.environment, names)
            paths += made_of.command.env_files
        lines = start_script.command_lines(text)
        for script in (*lines, *unit_files.script_texts("\n".join(lines)).values()):
            found |= masking.secrets_in_script(script, names)
        found |= _secrets_of_processes(_processes_of(shown), names)
    for match, directory in started:
        pids = host_read.find_processes(match, directory, only_readable=True)
        found |= _secrets_of_processes(host_read.with_descendants(pids), names)
    for path in paths:
        found |= secrets_in_file(path, names)
    return found


def _processes_of(shown: Properties) -> list[int]:
    """Every process of a unit: each may have been given more by the one above.

    `shown`: as `unit_text.parse_show` gives it. What `su -` starts is in a control group of its own.
    """
    main = str(shown.get("MainPID") or "")
    unit: Unit = {"main_pid": int(main) if main.isdigit() else 0, "control_group": shown.get("ControlGroup")}
    pids = host_read.with_descendants([unit["main_pid"]] if unit["main_pid"] else [])
    with contextlib.suppress(OSError):
        pids += host_read.unit_pids(unit)
    return pids


def _secrets_of_processes(pids: Iterable[int], names: Collection[str]) -> set[str]:
    """Those of their environments and command lines."""
    found: set[str] = set()
    for pid in sorted(set(pids))[:MOST_PROCESSES]:
        with contextlib.suppress(OSError):
            for name, value in host_read.environment_items(pid, "surrogateescape"):
                found |= masking.secrets_in({name: value}, names)
        command = dotenv.decode(_read(f"/proc/{pid}/cmdline")).split("\0")[:-1]
        found |= masking.secrets_in_command(command, names)
    return found


def _read(path: str) -> bytes:
    """At most what an env file may hold; nothing of what cannot be read."""
    return held_path.beginning(path, dotenv.MOST_READ)


def secrets_in_file(path: str, names: Collection[str] = ()) -> set[str]:
    """The values of an env file that must not be shown; nothing of a file that cannot be read."""
    return masking.secrets_in_text(dotenv.decode(_read(path)), names) if os.path.isfile(path) else set()
