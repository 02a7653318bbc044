# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarting the services, and putting a kept state back: the plan, and what became of it. Times are Unix s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import (
    BackendProcess,
    HealthCheck,
    OllamaService,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class BackendService(BackendProcess, total=False):
    """The backend as a restart needs to know it."""

    health: HealthCheck | None
    timeout_s: int


class ServiceState(TypedDict):
    """Whether a unit runs, and whether it starts at boot."""

    active_state: str
    unit_file_state: str


class FoundService(ServiceState):
    """How a service was found, and which running units go along with it.

    `unhealthy`: it ran, and did not answer as a healthy one does.
    """

    dependents: NotRequired[list[Dependent]]
    unhealthy: NotRequired[bool]


class ServicePlan(TypedDict):
    """The two services, and which of them restart; a restore's plan also has how they were found.

    `private_files`: env files whose values no message has.
    """

    ollama: NotRequired[OllamaService]
    backend: BackendService
    restart: list[str]
    private_files: NotRequired[list[str]]
    found: NotRequired[Mapping[str, FoundService | None] | None]


class RestoredFile(TypedDict):
    """A file that was put back, what of it was not as kept, and whether it is gone."""

    path: str
    what: list[str]
    removed: NotRequired[bool]


class RestartedService(TypedDict, total=False):
    """What a restart has made of a service: restarted, stopped (`gone`: the unit is not there any more), starting,
    unhealthy (it runs) or failed.
    """

    unit: str
    state: str
    gone: bool
    pid_before: int | None
    pid_after: int | None
    stopped_at: float | None
    ready_at: float | None
    active_enter_timestamp: str | None


class Restarted(TypedDict, total=False):
    """The result of gpu_memory_restart."""

    changed: bool
    failed: bool
    services: dict[str, RestartedService]
    downtime_s: float
    starts: dict[str, str]  # as of HostFacts, of what was restarted
    error: str | None


class Restored(Restarted, total=False):
    """What became of a restore; `by_itself`: the host was first. `missing`: env files that somebody has deleted.

    `left`: files in which that stays which somebody else has written since.
    """

    generation: str | None
    files: list[RestoredFile]
    started: list[str]
    stale: list[str]
    missing: list[str]
    left: list[str]
    reason: str
    run_id: str | None
    at: float
    by_itself: bool
    msg: str
    diff: object
    invocation: object
    lost_connection: bool
