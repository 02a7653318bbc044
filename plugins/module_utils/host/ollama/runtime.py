# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to what runs an Ollama, or its backend: all that is asked of it. Today units of systemd (`unit_runtime`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import WallClock
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal, Process
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServiceState
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent, Unit


STOP_S = 100  # systemd kills after TimeoutStopSec, 90 s unless set otherwise


class ServiceError(Exception):
    """A service that did not do what was awaited; the text names it, what was awaited, and its state."""


class Moment(NamedTuple):
    """`active_state` in systemd's words; `process`: what differs after a restart; `entered`: active since when."""

    active_state: str
    process: Sequence[str]
    entered: str | None


class Runtime(Protocol):
    """ServiceError where a service does not do what was asked."""

    # Its name, in what is said of it.
    unit: str

    def read(self, keys: Iterable[str] = ()) -> Unit:
        """All that is set of it, as `host_read.read_unit` has it."""

    def environment(self, found: Unit, keys: Iterable[str] = ()) -> Process | None:
        """What the process that serves was started with, as `host_read.read_process` has it; `found`: of `read`."""

    def log(self, since: float | None, clock: WallClock | None = None) -> Journal:
        """What it has logged, wherever that goes, as `server_log.read` has it, with secrets masked."""

    def pid(self) -> int: ...

    def processes(self) -> list[int]:
        """All of them, also those of one that has ended and has left some behind."""

    def state(self) -> ServiceState:
        """`active_state`, and `unit_file_state`: whether it starts at boot."""

    def moment(self) -> Moment: ...

    def runs(self) -> bool: ...

    def is_gone(self) -> bool:
        """Whether there is nothing of this name any more."""

    def dependents(self) -> list[Dependent]:
        """The running services that stop or restart along with it."""

    def start_problems(self) -> list[str]:
        """Why it would not start."""

    def read_again(self) -> list[str]:
        """Have it take what is declared where it holds something older; what of ours it lacks then."""

    def mismatch(self, url: str) -> str | None:
        """Why what answers at a URL is not this one, in words; None where it is."""

    def stop(self) -> None: ...

    def start(self, waits: bool = True) -> None: ...

    def restart(self, waits: bool = True) -> None: ...

    def forget_failure(self) -> None: ...

    def explain(self, since: float) -> str:
        """Its state and its errors since a moment of `Clock.monotonic`, in words."""
