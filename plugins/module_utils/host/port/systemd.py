# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to a managed host's systemd and processes, with its clocks: what tests replace. It decides nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import dependents as facts_dependents
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, secrets, unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import (
    server_log,
    server_process,
    unit_runtime,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import Runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import (
    commands,
    docker,
    http_client,
    service_properties,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import Clock, SystemClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent, UnitEnvironment

UNIT_PROPERTIES = (
    "Id,LoadState,SubState,UnitFileState,Result,ExecMainStatus,NRestarts,"
    "ActiveEnterTimestamp,ActiveEnterTimestampMonotonic,InactiveExitTimestampMonotonic,"
    f"InvocationID,Job,JobTimeoutUSec,JobRunningTimeoutUSec,{host_read.PROCESS_PROPERTIES}"
)


class Host(Clock, Protocol):
    def show(self, unit: str) -> dict[str, str]:
        """`UNIT_PROPERTIES` of a unit as systemd knows it now."""

    def unit_environment(self, unit: str, also: Iterable[str] = ()) -> UnitEnvironment:
        """A unit in systemd's memory and on the disk, as `unit_environment` and `unit_states` judge it.

        `also`: variables to be read of its EnvironmentFiles as well.
        """

    def process_environment(self, unit: str, names: Iterable[str]) -> dict[str, str]:
        """Those variables that a unit's main process, or a container's server, was started with; nothing of one that
        does not run.
        """

    def dependents(self, unit: str) -> list[Dependent]:
        """The running units that systemd stops or restarts along with a unit, as `core.systemd.dependents` has them."""

    def runtime(self, name: str, service: Mapping[str, Any]) -> Runtime:
        """What runs a service of a plan here: `name` is ollama or backend, `service` that part of the plan."""

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        """Run systemctl; what went wrong, or nothing."""

    def compose(self, unit: str, verb: str) -> str:
        """Stop, start or restart a service of Docker Compose; what went wrong, or nothing."""

    def processes(self, unit: str) -> list[int]:
        """The processes of a unit, also of one that has ended and has left some behind."""

    def still_running(self, pids: Iterable[int]) -> list[int]:
        """Those of some processes that have not ended."""

    def listening(self, pids: Iterable[int]) -> list[int]:
        """Those of some processes that take connections."""

    def start_transient(self, unit: str, command: Sequence[str], directory: str, user: str) -> str:
        """Start a command as a transient unit; what went wrong, or nothing."""

    def find_processes(self, match: str, directory: str) -> list[int]:
        """Processes whose command line matches and whose working directory is `directory`; OSError if not readable."""

    def signal(self, pid: int, number: int) -> None: ...

    def is_directory(self, path: str) -> bool: ...

    def http_status(self, url: str) -> tuple[int | None, str]:
        """The status that a URL answers with, or None and why there was no answer."""

    def mismatch(self, unit: str, url: str) -> str | None:
        """Why what answers at a URL is not this running unit, as `servers.mismatch` says it; None where it is."""

    def journal(self, unit: str, since: float) -> list[str]:
        """A unit's messages since a moment of `monotonic`, oldest first, with secrets masked."""

    def never_show(self, services: ServicePlan) -> None:
        """From now on mask what these services keep, and what they have kept until now."""

    def mask(self, text: str) -> str:
        """What may be shown of a text that somebody else wrote."""


class LinuxHost(SystemClock):
    """The host this code runs on. `masking`: what is shown of what is said here; all secrets are masked by default."""

    def __init__(self, masking: secrets.Masking | None = None) -> None:
        self._masking = masking or secrets.Masking()

    def show(self, unit: str) -> dict[str, str]:
        return service_properties.of(unit, UNIT_PROPERTIES)

    def unit_environment(self, unit: str, also: Iterable[str] = ()) -> UnitEnvironment:
        return unit_files.read(unit, also=also)

    def process_environment(self, unit: str, names: Iterable[str]) -> dict[str, str]:
        names, facts = set(names), host_read.as_unit(unit, self.show(unit))
        in_container = facts["quadlet"] or compose.is_one(unit)
        pid = server_process.server_of(facts) if in_container else facts["main_pid"]
        process = host_read.read_process(pid or 0, names)
        found = process["environment"] if process else {}
        return {name: value for name, value in found.items() if name in names}

    def dependents(self, unit: str) -> list[Dependent]:
        return facts_dependents.read(unit)

    def runtime(self, name: str, service: Mapping[str, Any]) -> Runtime:
        return unit_runtime.of(self, name, service)

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        status, _unused, error = _run(["systemctl", *arguments], timeout_s)
        return "" if status == 0 else self.mask(_failure("systemctl", arguments[0], status, error))

    def compose(self, unit: str, verb: str) -> str:
        try:
            problem = docker.control(unit, verb)
        except docker.Silent as silent:
            problem = str(silent)
        return self.mask(problem)

    def processes(self, unit: str) -> list[int]:
        with contextlib.suppress(OSError):
            return host_read.unit_pids(host_read.as_unit(unit, self.show(unit)))
        return []

    def still_running(self, pids: Iterable[int]) -> list[int]:
        return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]

    def listening(self, pids: Iterable[int]) -> list[int]:
        return server_process.listening(pids)

    def start_transient(self, unit: str, command: Sequence[str], directory: str, user: str) -> str:
        arguments = [
            "systemd-run",
            f"--unit={unit}",
            "--quiet",
            f"--property=WorkingDirectory={directory}",
            f"--property=User={user}",
            "--",
            *(word.replace("$", "$$") for word in command),  # or systemd would put variables in
        ]
        # systemd-run looks for a relative program from where it stands itself.
        status, _unused, error = _run(arguments, 30, directory)
        return "" if status == 0 else self.mask(_failure("systemd-run", unit, status, error))

    def find_processes(self, match: str, directory: str) -> list[int]:
        return host_read.find_processes(match, directory)

    def signal(self, pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def http_status(self, url: str) -> tuple[int | None, str]:
        try:
            status = http_client.request(url, timeout=5).status
        except http_client.HttpError as problem:
            return None, str(problem)
        return status, f"answered {status}"

    def mismatch(self, unit: str, url: str) -> str | None:
        return server_process.mismatch(host_read.as_unit(unit, self.show(unit)), url)

    def journal(self, unit: str, since: float) -> list[str]:
        lines = server_log.since(unit, since)
        self._masking.look(unit=unit)
        return [self.mask(line) for line in lines]

    def never_show(self, services: ServicePlan) -> None:
        self._masking.look(services)

    def mask(self, text: str) -> str:
        return self._masking(text)


def _run(arguments: list[str], timeout_s: float, directory: str | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error, as `commands.run` has them."""
    done = commands.run(arguments, timeout_s, directory=directory)
    return done.status, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def _failure(program: str, what: str, status: int, error: str) -> str:
    return f"{program} {what}: {' '.join(error.split()).rstrip('.') or f'exit status {status}'}"
