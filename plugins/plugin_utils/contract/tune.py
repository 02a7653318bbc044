# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tuning run: what is tried, and what `gpu_memory_tune` returns. MiB and tokens/s as the keys say."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class TunedSetting(TypedDict):
    """What a model is loaded with (`tune_search.Setting`)."""

    num_gpu: int
    num_ctx: int
    num_parallel: int
    num_batch: int
    kv_cache_type: str


class TunedProbe(TypedDict):
    """One load test (`tune_search.Probe`)."""

    setting: TunedSetting
    outcome: str
    use_mib: int | None
    why: str
    peak_mib: int | None
    others_mib: int | None
    tokens_per_s: float | None
    detail: dict[str, object] | None


class CurvePoint(TypedDict):
    """What is expected of so many layers, by the planner and all measurements."""

    num_gpu: int
    peak_mib: int
    tokens_per_s: float


class GuideWalk(TypedDict):
    """What the guide's walk by five layers would take, and where it would end."""

    layers: list[int]
    load_tests: int
    ends_at: int | None


class TunedGpu(TypedDict, total=False):
    """The GPU that is tuned for, and the UUIDs of the further ones that this Ollama has."""

    index: int
    further: list[str]
    uuid: str
    name: str | None
    total_mib: int
    reserved_mib: int | None


class TunedProfile(TypedDict):
    """The profile that a run has found."""

    extends: str
    models: list[str]
    intent: Intent


class Tuned(TypedDict):
    """A host's tuning run; one that was not tuned has `problems`, or `because` alone."""

    host: str
    hosts: NotRequired[list[str]]
    problems: list[str]
    because: NotRequired[str]
    model: NotRequired[str]
    mode: NotRequired[str]
    ollama: NotRequired[str]
    gpu: NotRequired[TunedGpu]
    max_used_mib: NotRequired[int]
    others_mib: NotRequired[int]
    beside: NotRequired[list[str]]
    deployed_cache_type: NotRequired[str]
    probes: NotRequired[list[TunedProbe]]
    best: NotRequired[TunedSetting | None]
    proven: NotRequired[bool]
    why: NotRequired[str]
    curve: NotRequired[list[CurvePoint]]
    guide_walk: NotRequired[GuideWalk | None]
    loaded_before: NotRequired[list[str]]
    loaded_again: NotRequired[list[str]]
    note: NotRequired[str | None]
    profile: NotRequired[TunedProfile]
    files: NotRequired[list[str]]
