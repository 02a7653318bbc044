"""A container as what runs an Ollama: no unit of systemd, and nothing started. What it says is written down before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import Moment, Runtime, ServiceError
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import WallClock
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal, Process
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServiceState
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent, Unit

READ = {"load_state": "loaded", "active_state": "active", "main_pid": 0, "control_group": None, "error": None}


class RecordedContainer:
    """`host`: whose clock and log of changes it shares. `ends`: it does so after each start.

    `stranger`: who answers in its place. `set_to`: what its process was started with; `lines`: what it has logged.
    """

    def __init__(self, host: FakeHost, name: str = "the container ollama") -> None:
        self.unit, self.host = name, host
        self.number, self.state_now = 1, "active"
        self.ends, self.stranger = False, ""
        self.problems: list[str] = []
        self.set_to: dict[str, str] = {}
        self.lines: list[str] = []

    def read(self, keys: Iterable[str] = ()) -> Unit:
        return cast("Unit", {**READ, "name": self.unit, "id": self.unit, "active_state": self.state_now})

    def environment(self, found: Unit, keys: Iterable[str] = ()) -> Process | None:
        return cast("Process", {"pid": self.pid(), "started_s": 1.0, "environment": self.set_to})

    def log(self, since: float | None, clock: WallClock | None = None) -> Journal:
        read = log_lines.parse([(self.host.unix_time(), line) for line in self.lines], self.host.mask)
        place = {"where": self.unit, "problem": None, "dropped": 0, "cut": False, "filtered": False, "lines": 1}
        return cast("Journal", {**read, "server_at": None, "last_load": None, "log": place})

    def pid(self) -> int:
        return 4194305 + self.number if self.state_now == "active" else 0

    def processes(self) -> list[int]:
        return [self.pid()] if self.pid() else []

    def state(self) -> ServiceState:
        return {"active_state": self.state_now, "unit_file_state": "enabled"}

    def moment(self) -> Moment:
        return Moment(self.state_now, [str(self.number)], f"start {self.number}")

    def runs(self) -> bool:
        return self.state_now == "active"

    def is_gone(self) -> bool:
        return False

    def dependents(self) -> list[Dependent]:
        return []

    def start_problems(self) -> list[str]:
        return self.problems

    def read_again(self) -> list[str]:
        return []

    def mismatch(self, url: str) -> str | None:
        return self.stranger or None

    def stop(self) -> None:
        self.host.log.append(f"stop {self.unit}")
        self.state_now = "inactive"

    def start(self, waits: bool = True) -> None:
        self.host.log.append(f"start {self.unit}")
        self.number += 1
        self.state_now = "failed" if self.ends else "active"

    def restart(self, waits: bool = True) -> None:
        if self.problems:
            raise ServiceError(f"{self.unit} does not start")
        self.stop()
        self.start(waits)

    def forget_failure(self) -> None:
        pass

    def explain(self, since: float) -> str:
        return f"{self.unit} is {self.state_now}; it said: {' | '.join(self.lines)}"


class ContainerHost(FakeHost):
    """A host whose Ollama is a container, and everything else a unit."""

    def __init__(self) -> None:
        super().__init__()
        self.container = RecordedContainer(self)

    def runtime(self, name: str, service: Mapping[str, Any]) -> Runtime:
        return self.container if name == "ollama" else super().runtime(name, service)
