# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown of a host: its plan (`plan.side_by_side.compare`), and its status. MiB everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuSize, LogLine
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Part, Record

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class LayerRow(TypedDict):
    """So many layers on the GPU: memory and predicted speed, None for a model that only embeds."""

    layers: int
    gpu_mib: int
    host_mib: int
    fits: bool
    tokens_per_s: float | None
    speed_percent: int | None


class PlannedModel(TypedDict):
    """One model under one profile, with the largest settings that its room allows."""

    name: str
    asked_layers: int | None
    layers: int
    offloadable_layers: int
    num_ctx: int
    num_parallel: int
    num_batch: int
    gpu_mib: int
    host_mib: int
    speed_percent: int | None
    tokens_per_s: float | None
    room_mib: int
    largest_num_gpu: int
    largest_num_ctx: int | None
    layer_table: list[LayerRow]


class ComparisonRow(TypedDict):
    """A row of the guide's table: its words, and the real figure or one by model."""

    setting: str
    guide: str | None
    really: dict[str, str] | str


class UsedBy(TypedDict):
    """What somebody holds of a GPU now."""

    name: str
    used_mib: int


class GpuBudget(TypedDict):
    """What a profile will take of one of several GPUs at most, against what it may."""

    index: int
    card_mib: int
    terms: dict[str, int]
    ollama_mib: int
    ollama_band_mib: list[int]
    others: list[UsedBy]
    sum_mib: int
    limit_mib: int
    headroom_mib: int


class Column(TypedDict, total=False):
    """A profile in a plan; with `problems` it has nothing but its name.

    `gpus` and `tightest`: where Ollama has several; the sum, the limit and the headroom are then those of the tightest.
    """

    name: str
    label: str
    chosen: bool
    problems: list[str]
    changed: list[str]
    intent: Intent
    max_used_mib: int | None
    limit_mib: int
    margin_mib: int | None
    margin: str
    loaded_together: list[str]
    terms: dict[str, int]
    terms_band: dict[str, list[int]]
    ollama_mib: int
    ollama_band_mib: list[int]
    host_mib: int
    backend_mib: int | None
    sum_mib: int
    headroom_mib: int
    fits: bool
    fits_surely: bool
    gpus: list[GpuBudget]
    tightest: GpuBudget
    refused: bool
    models: list[PlannedModel]
    measured: dict[str, str]
    comparison: list[ComparisonRow]
    warnings: list[str]


class PlannedGpu(GpuSize):
    """The GPU that is planned for, as it is now."""

    index: int
    uuid: str
    name: str | None
    used_mib: int
    parts: list[Part]


class BackendUse(TypedDict):
    """What the backend itself takes on the GPU: now, and as the last proof measured it with the settings `env`."""

    now_mib: int
    measured_mib: int | None
    profile: str | None
    day: str | None
    env: dict[str, str]


class Bandwidth(TypedDict):
    """Of memory, in GB/s."""

    gpu: float
    host: float


class HostPlan(TypedDict):
    """All profiles of a host side by side; what stands in the way is in `problems`."""

    host: NotRequired[str]
    schema: int
    problems: list[str]
    notes: list[str]
    ollama: str | None
    models: list[str]
    gpu: PlannedGpu | None
    gpus: NotRequired[list[PlannedGpu]]
    others: list[UsedBy]
    backend: BackendUse | None
    bandwidth_gb_per_s: NotRequired[Bandwidth]
    profiles: list[Column]
    files: NotRequired[list[str]]


class Fleet(TypedDict):
    """The records of many hosts, with the counts of their verdicts, at a time (Unix s)."""

    schema: int
    at: float
    counts: dict[str, int]
    hosts: list[Record]


class ProofAge(TypedDict):
    """When the host was proven (Unix s), how long ago, and whether that still holds."""

    at: float
    age_s: float
    holds: bool


class HolderNow(TypedDict):
    """A process with GPU memory, and whose it is."""

    name: str
    what: str
    pid: int
    kind: str
    used_mib: int | None


class MemoryNow(TypedDict):
    """Who holds how much of a GPU; one that is `ignored` judges nothing."""

    index: int
    used_mib: int
    total_mib: int
    allowed_mib: int | None
    ignored: bool
    holders: list[HolderNow]
    parts: list[Part]


class Status(TypedDict):
    """How a host is, why in sentences, and what to do next."""

    host: str
    profile: str | None
    proof: ProofAge | None
    failures: list[LogLine]
    memory: list[MemoryNow]
    notes: list[str]
    loaded: list[str]
    state: str
    wrong: list[str]
    next: str
