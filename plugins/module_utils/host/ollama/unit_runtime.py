# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd as what runs an Ollama or its backend: `runtime.Runtime`, and which of them a service has."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import signal
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    unit_environment,
    unit_states,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_log, server_process
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import (
    STOP_S,
    Moment,
    Runtime,
    ServiceError,
)

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import WallClock
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal, Process
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServiceState
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent, Unit

# Which Ollama, for AnsibleModule.
ARGUMENTS: dict[str, Any] = {
    "unit": {"type": "str", "default": "ollama.service"},
    "url": {"type": "str", "default": "http://127.0.0.1:11434"},
}
SILENT_S = 600  # of journal, at least, in which a server says why it does not answer
TRANSIENT_UNIT = "gpu-memory-backend.service"
TERMINATE_S = 10
ERROR_LINE = re.compile(
    r"error|fatal|panic|fail|out of memory|cannot|unable|invalid|denied|no such|not found|203/EXEC|in use|status=[1-9]",
    re.I,
)
ERROR_LINES = 5
LINE_CHARACTERS = 300
POLL_S = 0.5


def of(host: Host, name: str, service: Mapping[str, Any]) -> Runtime:
    """What runs a service of a plan (`service_control`)."""
    if compose.is_one(service.get("unit")):
        return ComposeRuntime(host, service["unit"])
    if name == "ollama":
        return UnitRuntime(host, service["unit"])
    if service["kind"] == "command":
        return CommandRuntime(host, service)
    return UnitRuntime(host, service["unit"], journal_is_private=True)


class UnitRuntime:
    """Ollama, or a backend, that systemd knows by a unit. A backend's journal may hold anything: it is not shown."""

    def __init__(self, host: Host, unit: str, journal_is_private: bool = False) -> None:
        self.host = host
        self.unit = unit
        self.journal_is_private = journal_is_private

    def read(self, keys: Iterable[str] = ()) -> Unit:
        return host_read.read_unit(self.unit, keys)

    def environment(self, found: Unit, keys: Iterable[str] = ()) -> Process | None:
        serving = server_process.server_of(found)  # what the unit was started by may be a shell
        return host_read.read_process(serving, keys) if serving else None

    def log(self, since: float | None, clock: WallClock | None = None) -> Journal:
        return server_log.read(self.unit, since, self.host.mask, clock)

    def pid(self) -> int:
        return int(self.host.show(self.unit).get("MainPID") or 0)

    def state(self) -> ServiceState:
        facts = self.host.show(self.unit)
        return {
            "active_state": facts.get("ActiveState") or "unknown",
            "unit_file_state": facts.get("UnitFileState") or "",
        }

    def moment(self) -> Moment:
        facts = self.host.show(self.unit)
        process = [facts.get(name, "") for name in ("MainPID", "ActiveEnterTimestampMonotonic")]
        return Moment(facts.get("ActiveState") or "unknown", process, facts.get("ActiveEnterTimestamp") or None)

    def dependents(self) -> list[Dependent]:
        return self.host.dependents(self.unit)

    def start_problems(self) -> list[str]:
        """Why it would not start."""
        return unit_states.start_problems(self.host.unit_environment(self.unit))

    def processes(self) -> list[int]:
        return self.host.processes(self.unit)

    def runs(self) -> bool:
        return not unit_states.is_stopped(self.state()["active_state"])

    def is_gone(self) -> bool:
        return self.host.show(self.unit).get("LoadState") == "not-found"

    def read_again(self) -> list[str]:
        """systemd reads its units again where its memory of this one is stale; what of our drop-in it lacks then."""
        found = self.host.unit_environment(self.unit)
        if unit_environment.must_be_read_again(found):
            if self.host.systemctl("daemon-reload"):  # systemd may just have executed itself anew
                self._settled(self.host.monotonic() + STOP_S)
                _check(self.host.systemctl("daemon-reload"))
            found = self.host.unit_environment(self.unit)
        return unit_environment.not_in_memory(found)

    def mismatch(self, url: str) -> str | None:
        return self.host.mismatch(self.unit, url)

    def forget_failure(self) -> None:
        self.host.systemctl("reset-failed", self.unit)

    def stop(self) -> None:
        if self.runs() or not self.is_gone():
            problem = self._control("stop")
            if problem:
                raise ServiceError(f"{self.unit}: {problem}")

    def start(self, waits: bool = True) -> None:
        self._start("start", waits)

    def restart(self, waits: bool = True) -> None:
        self._start("restart", waits)

    def _start(self, verb: str, waits: bool) -> None:
        began = self.host.monotonic()
        self.forget_failure()  # a start limit that earlier crashes have used up
        problem = self._control(verb, *([] if waits else ["--no-block"]))
        if problem:
            raise ServiceError(f"{problem}. {self.explain(began)}")

    def _control(self, verb: str, *options: str) -> str:
        """Have systemd do it; what went wrong, or nothing. What counts is the unit, not whoever waits for its job.

        That may lose the connection as systemd executes itself anew, and a job its time before the unit is through.
        Where nothing has come of it, it is asked once more.
        """
        deadline = self.host.monotonic() + STOP_S
        before = self.host.show(self.unit).get("InvocationID", "")
        problem = self.host.systemctl(verb, *options, self.unit, timeout_s=STOP_S)
        if not problem:
            return ""
        facts = self._settled(deadline)
        came = unit_states.came_of(verb, before, facts)
        remaining_s = deadline - self.host.monotonic()
        if came == unit_states.NOTHING and remaining_s > 0:
            problem = self.host.systemctl(verb, *options, self.unit, timeout_s=remaining_s)
            if not problem:
                return ""
            facts = self._settled(deadline)
            came = unit_states.came_of(verb, before, facts)
        return "" if came == unit_states.DONE else problem + unit_states.job_timeout(facts)

    def _settled(self, deadline: float) -> Mapping[str, str]:
        """What systemd says of the unit once it answers and has nothing more to do with it, or at the deadline."""
        while True:
            facts = self.host.show(self.unit)
            if unit_states.is_settled(facts) or self.host.monotonic() >= deadline:
                return facts
            self.host.sleep(POLL_S)

    def explain(self, since: float) -> str:
        facts = self.host.show(self.unit)
        text = f"{self.unit} is {facts.get('ActiveState')} ({facts.get('SubState')}), result {facts.get('Result')}"
        if facts.get("ExecMainStatus") != "0":  # 0 also where it was ExecStartPre= that failed
            text += f", exit status {facts.get('ExecMainStatus')}"
        if self.journal_is_private:
            return f"{text}; see on the host: journalctl -u {self.unit} -n 50"
        known_as = facts.get("Id") or self.unit  # the journal knows no alias
        # The line with the whole configuration may hold a proxy's password.
        lines = [line for line in self.host.journal(known_as, since) if "server config" not in line]
        said = [line.strip()[:LINE_CHARACTERS] for line in lines if ERROR_LINE.search(line)][-ERROR_LINES:]
        return f"{text}; its journal: {' | '.join(said)}" if said else f"{text}; its journal has no error"


class ComposeRuntime(UnitRuntime):
    """A service of Docker Compose. Compose makes its container anew where that is to have another environment.

    The other services of its project are left alone, and no image is pulled.
    """

    def start_problems(self) -> list[str]:
        known = self.host.show(self.unit).get("LoadState")
        if known == "loaded":
            return []
        return [
            f"{self.unit} has no container on this host, so that it would not start again; make it where its Compose "
            "file is: docker compose up -d"
            if known
            else f"Docker does not answer, so that {self.unit} would not start again; see: docker ps"
        ]

    def read_again(self) -> list[str]:
        """What of our env file Compose would not give the container: it is asked before anything restarts."""
        found = self.host.unit_environment(self.unit)
        if found["own"] and not found["drop_in_paths"]:
            return [f"no env_file of {self.unit} is {found['own'][0]} any more; see: docker compose config"]
        return unit_environment.not_in_memory(found)

    def forget_failure(self) -> None:
        pass  # Docker has no limit of starts that a crash uses up

    def _control(self, verb: str, *options: str) -> str:
        return self.host.compose(self.unit, verb)


class CommandRuntime(UnitRuntime):
    """A backend that is a command, as in `python main.py`.

    Whoever started it, it is found by its command line and its working directory. We start it as a transient unit: it
    outlives our session, but not a reboot, just as the command itself.
    """

    def __init__(self, host: Host, backend: Mapping[str, Any]) -> None:
        super().__init__(host, TRANSIENT_UNIT, journal_is_private=True)
        self.backend = backend

    def _processes(self) -> list[int]:
        try:
            return self.host.find_processes(self.backend["process_match"], self.backend["directory"])
        except OSError as problem:
            raise ServiceError(
                f"the backend's processes cannot be told: {problem.filename}: {problem.strerror}"
            ) from None

    def pid(self) -> int:
        return super().pid() or next(iter(self._processes()), 0)

    def state(self) -> ServiceState:
        """Whoever has started it. No unit file starts it at boot."""
        return {"active_state": "active" if self.pid() else "inactive", "unit_file_state": ""}

    def dependents(self) -> list[Dependent]:
        return []  # nobody's file names a transient unit of ours

    def start_problems(self) -> list[str]:
        directory = self.backend["directory"]
        if self.host.is_directory(directory):
            return []
        return [f"the backend's directory {directory} is missing on this host, so that it would not start again"]

    def processes(self) -> list[int]:
        return []  # `stop` waits until they have ended

    def stop(self) -> None:
        if self.host.show(self.unit).get("ActiveState") in ("active", "activating", "deactivating"):
            super().stop()
        for number, patience_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, TERMINATE_S)):
            for pid in self._processes():
                self.host.signal(pid, number)
            deadline = self.host.monotonic() + patience_s
            while self._processes() and self.host.monotonic() < deadline:
                self.host.sleep(POLL_S)
            if not self._processes():
                return
        raise ServiceError(f"the backend's process {self._processes()[0]} does not end, not even by SIGKILL")

    def start(self, waits: bool = True) -> None:
        self.forget_failure()
        directory = self.backend["directory"]
        words = shlex.split(self.backend["command"])
        user = self.backend.get("user") or _owner(directory)
        before = self.host.show(self.unit).get("InvocationID", "")
        problem = self.host.start_transient(self.unit, words, directory, user)
        if problem and unit_states.came_of("start", before, self._settled(self.host.monotonic() + STOP_S)) != (
            unit_states.DONE
        ):
            raise ServiceError(f"the backend's command {words[0]} did not start in {directory}: {problem}")


def _owner(directory: str) -> str:
    try:
        number = os.stat(directory).st_uid
    except OSError as problem:
        raise ServiceError(f"the backend's directory {directory}: {problem.strerror}") from None
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _check(problem: str) -> None:
    if problem:
        raise ServiceError(problem)


def why_silent(host: Host, unit: str) -> str:
    """The state of a unit whose server does not answer, with the last errors since its last start, masked."""
    recently = host.monotonic() - SILENT_S
    began = int(host.show(unit).get("InactiveExitTimestampMonotonic") or 0) / 1e6
    return host.runtime("ollama", {"unit": unit}).explain(min(recently, began or recently))
