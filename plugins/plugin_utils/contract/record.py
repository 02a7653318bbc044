# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a host, `<report_dir>/<host>.json`: what was predicted, measured and read back. Times are Unix s."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Failure, GpuProcess, Log
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import Restarted, Restored

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class PredictedGpu(TypedDict):
    """What one of several GPUs will hold of Ollama's models at most, its bounds, and what others hold there, in MiB.

    `judged`: whether the threshold is held against it.
    """

    index: int
    uuid: str
    judged: bool
    total_mib: int
    band_mib: list[int]
    others_mib: int
    others: list[str]


class Predicted(TypedDict):
    """What models that load together will take, in MiB; `measured_at` where compute and runtime were measured.

    `gpus`: where Ollama has several, what each will hold, as it counts them.
    """

    models: list[str]
    weights_mib: int
    kv_mib: int
    compute_mib: int
    op_offload_mib: int
    runtime_mib: int
    total_mib: int
    host_mib: int
    band_mib: list[int]
    offloaded_layers: int
    offloadable_layers: int
    partial_layers: NotRequired[int]
    others_mib: int
    others: NotRequired[list[str]]
    measured_at: NotRequired[dict[str, float | None]]
    gpus: NotRequired[list[PredictedGpu]]
    warnings: list[str]


class Row(TypedDict):
    """A setting: what is wanted, what runs, who overrides it, and what each place says (`readback.drift.drift`)."""

    name: str
    wanted: str
    effect: str
    state: str
    read_by: str
    set_by: str
    seen: NotRequired[dict[str, object]]
    source: NotRequired[str | None]


class Effects(TypedDict, total=False):
    """What the running system does: settings of the runner that counts, its layers, and what its model cannot have."""

    num_ctx_total: int | None
    num_parallel: int | None
    num_gpu: int | None
    num_batch: int | None
    kv_cache_type: str | None
    num_ctx: int | None
    sent: dict[str, int]
    runner: bool
    offloaded: int | None
    offloadable: int | None
    embedder: bool
    one_slot: bool
    trained_ctx: int | None


class Part(TypedDict):
    """A part of a GPU's memory in MiB: what kind of holder, and its name."""

    what: str
    name: str
    mib: int


class PartOfOthers(TypedDict):
    """What a process that is not Ollama's held at its most, in MiB."""

    name: str
    peak_mib: int | None


class MemorySplit(TypedDict):
    """Who held the memory under load, in MiB; `loaded`: whether that is a size of a model.

    `ollama_mib` is the largest runner's; `runners` is how many there were, `all_mib` what they held, each at its most.
    """

    ollama_mib: int
    runners: NotRequired[int]
    all_mib: NotRequired[int]
    loaded: NotRequired[bool]
    terms_mib: dict[str, int]
    others: list[PartOfOthers]


class RecordedGpu(TypedDict, total=False):
    """A GPU as a load test saw it or, without one, as it was read; its parts are those of `parts_at_s`."""

    index: int
    uuid: str
    name: str | None
    total_mib: int
    reserved_mib: int | None
    memory_api: str
    error: str | None
    # Of a load test:
    baseline_mib: int | None
    peak_used_mib: int | None
    peak_at_s: float | None
    bound_mib: int | None
    samples: int
    interval_ms: float
    max_gap_ms: float
    errors: dict[str, int]
    timeline: list[list[float]]
    evidence: str
    # Without one:
    pci_bus_id: str | None
    used_mib: int
    free_mib: int
    compute_capability: str | None
    compute_mode: str | None
    mig: bool
    accounting: str
    persistence: bool | None
    processes: list[GpuProcess]
    parts: list[Part] | None
    parts_at_s: float | None


class Sampling(TypedDict, total=False):
    """How a load was sampled, in ms."""

    samples: int | None
    interval_ms: float | None
    max_gap_ms: float | None


class Versions(TypedDict):
    """Releases of Ollama and of the driver."""

    ollama: str | None
    driver: str | None


class RecordedJournal(TypedDict, total=False):
    """What the log told of a load; `not_read` says why it tells nothing."""

    failures: list[Failure]
    loads: int
    reloads: int
    reloads_per_turn: float | None
    reloads_beyond_plan: int
    longest_prompt: int | None
    longest_sent: int | None
    most_reused: int | None
    truncated: int | None
    log: Log | None
    not_read: str | None


class Calibration(TypedDict):
    """What a load has measured of a model, in MiB; `key`: what it was measured with."""

    key: list[object]
    model: str
    compute_mib: float
    runtime_mib: float
    at: float


class Change(TypedDict):
    """What changed since the host's last record, in words."""

    what: str
    before: str | None
    now: str | None


class RememberedRow(TypedDict):
    """A setting as the next record keeps it."""

    name: str
    wanted: str
    effect: str
    state: str


class Remembered(TypedDict):
    """What the next record keeps of this one: enough to say what changed."""

    at: float | None
    verdict: str
    profile: str | None
    max_used_mib: int | None
    peak_used_mib: int | None
    speed: float | None
    versions: Versions | None
    generation: str | None
    settings: list[RememberedRow]


class Record(TypedDict):
    """Everything known about a host at the end of a run; what was not measured is None."""

    schema: int
    host: str
    profile: str | None
    verdict: str
    reason: str | None
    reasons: list[str]
    max_used_mib: int | None
    peak_used_mib: int | None
    gpus: list[RecordedGpu]
    ignored: NotRequired[list[RecordedGpu]]
    evidence: str | None
    predicted: Predicted | None
    settings: list[Row]
    load: Figures | None
    sampling: Sampling | None
    versions: Versions
    generation: str | None
    wave: int | None
    notes: list[str]
    speed: float | None
    speed_is_of: NotRequired[list[str]]
    before: str | None
    memory: MemorySplit | None
    journal: RecordedJournal | None
    calibration: NotRequired[list[Calibration]]
    restarts: Restarted | None
    restored: Restored | None
    acted: bool
    effects: NotRequired[Effects]
    # Once the run has ended:
    ok: NotRequired[bool]
    first: NotRequired[Record | None]
    proven_at: NotRequired[float]
    at: NotRequired[float]
    previous: NotRequired[Remembered | None]
    changes: NotRequired[list[Change]]
