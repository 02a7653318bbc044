# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection keeps on a host, and `HostFacts`, all that is read from one. Times are Unix s."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.facts import (
    BackendFacts,
    HostSystem,
    Nvml,
    OllamaFacts,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.record import Calibration, Record
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.services import Restored

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class Proof(TypedDict, total=False):
    """What a load has proven, of what (`key`), when, and the record of it."""

    key: str
    verdict: str
    at: float
    generation: str
    record: Record


class Lease(TypedDict):
    """Who holds a host, since and until when in words, and whether that is heard of."""

    run_id: str
    holder: str
    generation: str
    since: str
    until: str
    left_s: float
    live: bool


class Generation(TypedDict):
    """A kept state of the host, by the paths in it."""

    id: str
    at: float
    kind: str
    holder: str
    run_id: str | None
    paths: list[str]


class Restoring(TypedDict):
    """A restore in progress."""

    generation: str
    reason: str
    run_id: str | None
    since: float


class State(TypedDict, total=False):
    """All that is kept on a host; `error` where it cannot be read."""

    generations: list[Generation]
    previous: str | None
    proven: str | None
    proof: Proof | None
    calibration: list[Calibration]
    lease: Lease | None
    restoring: Restoring | None
    last_restore: Restored | None
    timer: str
    error: str | None


class OllamaRead(TypedDict):
    """What a read says of Ollama."""

    ollama: OllamaFacts


class HostFacts(OllamaRead):
    """The result of gpu_memory_info; one that failed has only `msg`."""

    host: HostSystem
    nvml: Nvml
    backend: BackendFacts
    state: State
    failed: NotRequired[bool]
    msg: NotRequired[str]
