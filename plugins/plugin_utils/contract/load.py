# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load test: what is asked for, and what `gpu_memory_assert` returns. MiB, ms and s as the keys say."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuMemory, Holder, WallClock

if TYPE_CHECKING:
    from typing_extensions import NotRequired, ReadOnly


class LoadOptions(TypedDict, total=False):
    """How requests are sent, as a backend's `load` says; `timeout` in s."""

    url: str
    method: str
    bodies: list[object]
    headers: dict[str, str]
    expect_status: int
    timeout: float
    prompt_at: str | None
    forget: list[str]


class ModelRequest(LoadOptions, total=False):
    """Requests for one model of Ollama's."""

    model: str | None
    prompts: str
    context_tokens: int | None
    requests: int


class LoadRequest(ModelRequest, total=False):
    """A whole load test: the requests of the load, then those for `others`, one after another."""

    concurrency: int
    seed: int | None
    others: list[ModelRequest]
    listed_at: str | None
    warm_up: int
    ramp: float
    duration: float | None


class Figures(TypedDict, total=False):
    """What became of a load's requests; what only answers tell is None where they do not.

    `wanted`: how many were to be sent; None where a load goes by time.
    """

    model: ReadOnly[str | None]
    wanted: int | None
    broken: str | None
    requests: int
    ok: int
    failed: int
    by_status: dict[str, int]
    errors: list[str]
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    reply_tokens: int | None
    longest_prompt_tokens: int | None
    tokens_per_s: float | None
    wall_s: float
    started: str
    finished: str
    started_epoch: float
    finished_epoch: float
    clock: WallClock
    seed: int
    longest_asked_tokens: int | None
    others: list[ModelFigures]
    used: list[str] | None
    loaded: list[str] | None
    not_forgotten: list[str]


class ModelFigures(Figures, total=False):
    """Those of a further model that Ollama was asked for."""

    model: ReadOnly[str]


class PeakProcess(TypedDict):
    """A process that used a GPU during a load, at its most; `command` of Ollama's own runners alone."""

    gpu: NotRequired[int]
    pid: int
    name: str | None
    kind: str
    peak_mib: int | None
    command: list[str] | None
    accounting_peak_mib: NotRequired[int | None]
    accounting_grew: NotRequired[bool]


class AtMost(TypedDict):
    """The listing nearest to a GPU's peak, `at_s` after the begin, with the memory beside it."""

    at_s: float
    memory: GpuMemory
    processes: list[Holder]


class SampledGpu(TypedDict):
    """A GPU's figures during a load; the timeline has pairs of seconds and MiB."""

    index: int
    uuid: str
    total_mib: int
    reserved_mib: int | None
    memory_api: str
    baseline_mib: int | None
    peak_used_mib: int | None
    peak_at_s: float | None
    at_most: AtMost
    bound_mib: int | None
    samples: int
    interval_ms: float
    max_gap_ms: float
    errors: dict[str, int]
    error: str | None
    timeline: list[list[float]]
    evidence: NotRequired[str]
    processes: NotRequired[list[PeakProcess]]


class Sampled(TypedDict, total=False):
    """The figures of all GPUs as one: the highest peak, the weakest evidence, the worst gap."""

    peak_used_mib: int | None
    samples: int
    interval_ms: float | None
    max_gap_ms: float | None
    evidence: str
    timeline: list[list[float]]
    processes: list[PeakProcess]
    gpus: list[SampledGpu]


class NvmlStatus(TypedDict):
    """Whether NVML could be read, in the words of `Nvml.status`."""

    status: str


class LoadResult(Sampled, total=False):
    """The result of gpu_memory_assert; `breached` where it failed, `msg` then says why."""

    max_used_mib: int | None
    load: Figures | None
    nvml: NvmlStatus
    breached: bool
    msg: str


class Accounted(TypedDict):
    """What NVML's accounting holds of a process: its peak in bytes, and whether it still runs."""

    peak: int
    running: bool


class AccountedNow(TypedDict):
    """The same of one that lived during a load; `grew`: its peak was reached meanwhile."""

    peak: int
    grew: bool


class WatchedProcess(TypedDict):
    """A process of a GPU that is sampled, while it is."""

    pid: int
    name: str | None
    kind: str
    peak_mib: int | None
    command: list[str] | None


class Progress(TypedDict, total=False):
    """The figures of a moment of a load."""

    what: str
    t_s: float
    used_mib: int
    peak_used_mib: int
    max_used_mib: int | None
    requests_done: int
    requests: int | None
