# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake of the port to systemd, processes and clocks. Time passes only when somebody sleeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import Runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import BootTime, WallClock
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host

OLLAMA_URL = "http://127.0.0.1:11434"
HEALTH_URL = "http://127.0.0.1:8000/health"


class FakeHost:
    """Units start at once and answer unless told otherwise.

    `log`: every change that was asked for, in order. `broken`: units that fail when they start. `needs_reload`: units
    whose drop-in systemd has not read. `never_reads`: a variable that it lacks of a unit also after it has read it
    again. `pulls_in`: a unit that the start of another one starts. `along`: the units that systemd restarts along with
    another one, and stops with it. `refuses`: what systemctl answers to a command. `answers`: status by URL.
    `strangers`: by URL why another one answers there. `pids`: processes of a command backend. `load_states`: of units
    that are not loaded, such as `masked`; none of them starts. `lacks`: by unit what else it would not start without.
    `lingers`: how long a unit's old process goes on after a stop, so that a start fails till then; with
    `listens` it does not, since a shell has started the server, and the old one answers. `left`: what a stop has
    left of a unit. `loses`: commands whose client is told nothing of what came of them. `no_directories`.
    `environments`: what processes were started with, by pid. `never_shown`: the plans of whose services nothing is.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.active = {"ollama.service": 11, "backend.service": 12}
        self.states: dict[str, str] = {}
        self.broken: set[str] = set()
        self.needs_reload: set[str] = set()
        self.never_reads: dict[str, tuple[str, str]] = {}
        self.pulls_in: dict[str, str] = {}
        self.along: dict[str, list[str]] = {}
        self.refuses: dict[str, str] = {}
        self.answers: dict[str, int | None] = {}
        self.pids: dict[int, str] = {}
        self.load_states: dict[str, str] = {}
        self.lacks: dict[str, dict[str, Any]] = {}
        self.lingers: dict[str, float] = {}
        self.left: dict[str, list[int]] = {}
        self.loses: set[str] = set()
        self.going: dict[int, float] = {}
        self.listens = False
        self.no_directories: set[str] = set()
        self.environments: dict[int, dict[str, str]] = {}
        self.ignores_sigterm = False
        self.strangers: dict[str, str] = {}
        self.lines: list[str] = []
        self.never_shown: list[Mapping[str, Any]] = []
        self.now = 1000.0
        self.wall_offset = 1_700_000_000.0
        self.boot = "first-boot"
        self.next_pid = 100
        self.invocations: dict[str, int] = {}

    def boot_time(self) -> BootTime:
        return BootTime(self.boot, self.now)

    def wall(self) -> WallClock:
        return WallClock(self.boot, self.wall_offset)

    def unix_time(self) -> float:
        return self.now + self.wall_offset

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def show(self, unit: str) -> dict[str, str]:
        pid = self.active.get(unit, 0)
        return {
            "LoadState": self._load_state(unit),
            "ActiveState": "active" if pid else self.states.get(unit, "inactive"),
            "SubState": "running" if pid else "dead",
            "UnitFileState": "enabled",
            "Result": "success" if pid else "exit-code",
            "ExecMainStatus": "0" if pid else "7",
            "MainPID": str(pid),
            "ActiveEnterTimestamp": f"started as {pid}" if pid else "",
            "ActiveEnterTimestampMonotonic": str(pid),
            "InvocationID": str(self.invocations.get(unit, 0)),
        }

    def _load_state(self, unit: str) -> str:
        known = unit in self.active or not unit.startswith("gpu-memory-restore")
        return self.load_states.get(unit, "loaded" if known else "not-found")

    def processes(self, unit: str) -> list[int]:
        return [*([self.active[unit]] if unit in self.active else []), *self.left.get(unit, [])]

    def still_running(self, pids: Iterable[int]) -> list[int]:
        return [pid for pid in pids if self.going.get(pid, 0) > self.now]

    def listening(self, pids: Iterable[int]) -> list[int]:
        return [pid for pid in pids if self.listens]

    def is_directory(self, path: str) -> bool:
        return path not in self.no_directories

    def dependents(self, unit: str) -> list[dict[str, str]]:
        running = (one for one in self.along.get(unit, []) if one in self.active)
        return [{"unit": one, "why": f"PartOf={unit}"} for one in running]

    def process_environment(self, unit: str, names: Iterable[str]) -> dict[str, str]:
        found = self.environments.get(self.active.get(unit, 0), {})
        return {name: value for name, value in found.items() if name in names}

    def unit_environment(self, unit: str, also: Iterable[str] = ()) -> dict[str, Any]:
        path = f"/etc/systemd/system/{unit}.d/zz-gpu-memory.conf"
        name, value = self.never_reads.get(unit, ("", ""))
        environment = {name: value} if name else {}
        source = {"kind": "drop-in", "path": path, "environment": environment, "resets": False, "unsets": []}
        return {
            "name": unit,
            "load_state": self._load_state(unit),
            "need_daemon_reload": False,
            "fragment_path": f"/etc/systemd/system/{unit}",
            "drop_in_paths": [] if unit in self.needs_reload else [path],
            "environment": {},
            "own": [path],
            "gone": [],
            "sources": [source],
            **self.lacks.get(unit, {}),
        }

    def runtime(self, name: str, service: Mapping[str, Any]) -> Runtime:
        return unit_runtime.of(cast(Host, self), name, service)

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        verb, unit = arguments[0], arguments[-1]
        if verb == "reset-failed":
            if self.states.get(unit) == "failed":
                del self.states[unit]
        else:
            self.log.append(" ".join(arguments))
        if " ".join(arguments) in self.refuses:
            return self.refuses[" ".join(arguments)]
        state = self._load_state(unit)
        if verb in ("start", "restart") and state == "masked":
            return f"systemctl {verb}: Failed to {verb} {unit}: Unit {unit} is masked"
        if verb in ("start", "restart", "stop") and state == "not-found" and unit in self.load_states:
            return f"systemctl {verb}: Failed to {verb} {unit}: Unit {unit} not loaded"
        if verb == "daemon-reload":
            self.needs_reload.clear()
        elif verb in ("stop", "disable"):
            for one in (unit, *self.along.get(unit, [])):
                self._end(one)
            if self.states.get(unit) == "activating":
                del self.states[unit]
        elif verb in ("start", "restart", "enable"):
            self._start(unit)
        return "Warning! D-Bus connection terminated." if " ".join(arguments) in self.loses else ""

    def _end(self, unit: str) -> None:
        pid = self.active.pop(unit, None)
        if pid and unit in self.lingers:
            self.going[pid] = self.now + self.lingers[unit]

    def _start(self, unit: str) -> None:
        self._end(unit)
        self.invocations[unit] = self.invocations.get(unit, 0) + 1
        along = [one for one in self.along.get(unit, []) if self.active.pop(one, None)]
        if unit in self.broken or (unit in self.lingers and not self.listens and self.still_running(self.going)):
            self.states[unit] = "failed"
        else:
            self.next_pid += 1
            self.active[unit] = self.next_pid
            for one in along:
                self._start(one)
            if unit in self.pulls_in:
                self._start(self.pulls_in[unit])

    def start_transient(self, unit: str, command: Sequence[str], directory: str, user: str) -> str:
        self.log.append(f"run {unit} as {user} in {directory}: {list(command)}")
        self._start(unit)
        return ""

    def find_processes(self, match: str, directory: str) -> list[int]:
        return [pid for pid, command in self.pids.items() if re.search(match, command)]

    def signal(self, pid: int, number: int) -> None:
        self.log.append(f"signal {int(number)} to {pid}")
        if number == 9 or not self.ignores_sigterm:
            del self.pids[pid]

    def http_status(self, url: str) -> tuple[int | None, str]:
        status = self.answers.get(url, 200)
        return (status, f"answered {status}") if status else (None, f"{url}: connection refused")

    def mismatch(self, unit: str, url: str) -> str | None:
        return self.strangers.get(url)

    def journal(self, unit: str, since: float) -> list[str]:
        return self.lines

    def never_show(self, services: Mapping[str, Any]) -> None:
        self.never_shown.append(services)

    def mask(self, text: str) -> str:
        return masking.without_secrets(text)
