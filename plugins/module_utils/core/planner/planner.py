# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much GPU memory an Ollama model takes: weights, cache, compute, CUDA's runtime. Pure logic.

Everything is MiB at this module's border and bytes inside. docs/planner.md has every rule with its source.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama.settings import CACHE_TYPES
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.compute import (
    Batch,
    Part,
    compute_bytes,
    draft_bytes,
    host_bytes,
    offload_bytes,
    part_bytes,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.fitting import Layout, fitted_layout
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import (
    MIB,
    TYPES,
    ModelUnreadable,
    row_bytes,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.model_shape import MAX_RANK, Block, Model
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.placement import Kept, NotPlanned

__all__ = [
    "Calibration",
    "Model",
    "ModelUnreadable",
    "Plan",
    "Scenario",
    "ScenarioInvalid",
    "auto_num_batch",
    "combined",
    "effective_parallel",
    "fitted",
    "largest_set",
    "max_num_gpu",
    "mib_read_per_token",
    "plan",
]

ALL_LAYERS = -1
RUNTIME_MIB = 305  # CUDA context, cuBLAS and pools of one process, measured three times on a 16 GB card
RUNTIME_BAND_MIB = (135, 457)  # a Tesla T4; what Ollama itself reserves
_CELLS = 256  # llama.cpp pads a slot's cache to this
_OFFLOAD_TOKENS = 32  # CUDA works for layers on the host from this batch on
_PROJECTOR_HEADROOM_MIB = 1024  # what Ollama keeps free for a projector's own graph
_BATCH_SURCHARGE_MIB = ((2048, 2048), (1024, 768))  # what Ollama reckons for a batch of so many tokens
_LEAST_KEPT = 0.1  # of the compute buffer, where much is computed on the host
_PLAIN_CACHES = ("f32", "f16", "bf16")
_UNKNOWN_CACHES = ("f32", "bf16", "q4_1", "iq4_nl", "q5_0", "q5_1")  # before 0.30
_LIMITS = {
    "num_gpu": (-1, 100_000),
    "num_ctx": (1, 1 << 24),
    "num_parallel": (1, 256),
    "num_batch": (1, 1 << 20),
    "draft_num_predict": (0, 1024),
}


class ScenarioInvalid(ValueError):
    """A scenario (or the version) has a value that cannot be; the message names key, value and what is allowed."""


@dataclass(frozen=True)
class Engine:
    """How one Ollama release runs a model."""

    output_first: bool  # num_gpu counts the output layer first; before, last
    slot_logits: bool  # logits are kept for one token a slot, not for the whole batch
    llama_server: bool

    @classmethod
    def of(cls, ollama_version: object) -> Engine:
        """Raises ScenarioInvalid for what is no version."""
        match = re.match(r"v?(\d{1,6})\.(\d{1,6})(?:\.\d{1,6})?(?:[-+.].*)?$", str(ollama_version).strip())
        if not match:
            raise ScenarioInvalid(f"ollama_version is {ollama_version!r}; a release such as 0.32.13 is needed")
        release = int(match[1]), int(match[2])
        return cls(release >= settings.ENGINE[:2], release >= settings.SLOT_LOGITS[:2], release >= settings.ENGINE[:2])


@dataclass(frozen=True)
class Scenario:
    """Settings of one load. None: what Ollama chooses by itself."""

    num_gpu: int = ALL_LAYERS
    num_ctx: int = 4096
    num_parallel: int = 1
    num_batch: int | None = None
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    v_cache_type: str | None = None  # of the values, where kv_cache_type is only that of the keys
    # further tokens to predict, by a model that has blocks for it, or another model; unset: none, or 4 by another
    draft_num_predict: int | None = None
    full_windows: bool = False  # sliding windows have a cache of the whole context
    cache_on_gpu: bool = True
    unified_cache: bool = False  # all slots share one
    every_output: bool = False  # results are kept of every token of a batch, where a model is no embedder
    pooled: bool = True  # an embedder makes one result of a text
    fitted: bool = False  # layers are as llama-server has fitted them, which leaves a projector on the GPU
    on_cpu: tuple[str, ...] = ()  # expressions of the tensors that stay on the host whatever their block does

    @classmethod
    def from_dict(cls, values: object) -> Scenario:
        """Raises ScenarioInvalid that names the key, its value and what is allowed."""
        if not isinstance(values, Mapping):
            raise ScenarioInvalid(f"a scenario is a dictionary, not {values!r}")
        allowed = [each.name for each in fields(cls)]
        given = {key: value for key, value in values.items() if value is not None}
        for key in given:
            if key not in allowed:
                raise ScenarioInvalid(f"a scenario has no {key!r}; known are {', '.join(allowed)}")
        for key, (low, high) in _LIMITS.items():
            if key in given:
                given[key] = _whole_number(key, given[key], low, high)
        for key in ("kv_cache_type", "v_cache_type"):
            if key in given:
                given[key] = str(given[key] or "f16").lower()
                if given[key] not in CACHE_TYPES:
                    raise ScenarioInvalid(f"{key} is {given[key]!r}; allowed are {', '.join(CACHE_TYPES)}")
        if "flash_attention" in given:
            given["flash_attention"] = _switch(given["flash_attention"])
        given["on_cpu"] = tuple(map(str, given.get("on_cpu", ())))
        return cls(**given)


def _whole_number(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ScenarioInvalid(f"{key} is {value!r}; a whole number from {low} to {high} is allowed")
    return value


def _switch(value: object) -> bool | None:
    word = str(value).strip().lower()
    if word in ("on", "true", "1", "yes", "enabled"):
        return True
    if word in ("off", "false", "0", "no", "disabled"):
        return False
    if word in ("auto", "-1", ""):
        return None
    raise ScenarioInvalid(f"flash_attention is {value!r}; allowed are on, off and auto")


@dataclass(frozen=True)
class Calibration:
    """What a proven load of the same model and settings showed."""

    compute_mib: float | None = None  # size_vram - weights - KV; holds the copies for host layers too
    runtime_mib: float | None = None  # the process's memory by NVML - size_vram

    @classmethod
    def from_dict(cls, values: object) -> Calibration:
        """Raises ScenarioInvalid that names the key and its value."""
        if values is None:
            return cls()
        names = [each.name for each in fields(cls)]
        if not isinstance(values, Mapping) or not set(values) <= set(names):
            raise ScenarioInvalid(f"calibration is {values!r}; a dictionary with {' and '.join(names)} is needed")
        for name, value in values.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
                raise ScenarioInvalid(f"calibration {name} is {value!r}; MiB from 0 on are allowed")
        return cls(**values)


@dataclass(frozen=True)
class Plan:
    """Predicted memory. `band_mib` has low and high of every term that is not exact, and of the total."""

    weights_mib: float
    kv_mib: float
    compute_mib: float
    op_offload_mib: float
    runtime_mib: float
    total_mib: float
    host_mib: float
    offloaded_layers: int
    offloadable_layers: int
    partial_layers: int  # of those on the GPU: parts of them stay on the host
    num_ctx: int
    num_parallel: int
    num_batch: int
    band_mib: dict[str, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # what Ollama predicts for itself before it lets a further model in
    admission_mib: float = 0.0
    # of several GPUs: each one's terms, in the order in which their memory was given
    gpus: list[dict[str, float]] = field(default_factory=list)


def effective_parallel(model: Model, num_parallel: int) -> int:
    """The slots that Ollama really uses: embedders and some families get one."""
    return 1 if model.single_slot else num_parallel


def auto_num_batch(
    total_ctx: int,
    *,
    flash_attention: bool = True,
    embedding: bool = False,
    predicted_mib: float = 0,
    available_mib: float = 0,
    gpu_mib: float = 0,
) -> int:
    """The batch that Ollama >= 0.30 takes where num_batch is unset (server/sched.go, automaticGenerationBatch).

    `total_ctx` is num_ctx x num_parallel. 0 for a memory means unknown, which Ollama takes as enough.
    """
    if embedding:
        return min(2048, total_ctx)
    if not flash_attention:
        return 256 if total_ctx > 4096 and 0 < gpu_mib <= 8192 else 512
    wanted = 2048 if total_ctx > 32768 else 1024 if total_ctx > 4096 else 512
    for (batch, surcharge_mib), headroom in zip(_BATCH_SURCHARGE_MIB, (0.60, 0.75)):
        if batch > wanted:
            continue
        if not predicted_mib or not available_mib:
            return batch
        if predicted_mib <= headroom * available_mib and predicted_mib + surcharge_mib <= 0.80 * available_mib:
            return batch
    return 512


def batches_unasked(total_ctx: int, version: settings.Version | None) -> list[int]:
    """The batches that a model which writes may have without anybody asking, by what was free when it was loaded."""
    if version is not None and version < settings.ENGINE:
        return [512]
    return [batch for batch in (256, 512, 1024, 2048) if batch <= auto_num_batch(total_ctx)]


def _pad(tokens: int) -> int:
    return ceil(tokens / _CELLS) * _CELLS


@dataclass(frozen=True)
class _Load:
    """A scenario with everything decided that Ollama would decide."""

    batch: Batch
    num_ctx: int
    warnings: tuple[str, ...]
    predicted: int = 0  # tokens that a second context predicts
    kept: Kept = Kept({})
    fitted: bool = False


def _decide(model: Model, scenario: Scenario, engine: Engine) -> _Load:
    warnings = list(model.notes)
    slots = effective_parallel(model, scenario.num_parallel)
    if slots != scenario.num_parallel:
        warnings.append(f"num_parallel {scenario.num_parallel} has no effect: Ollama gives this model 1 slot")
    ctx = scenario.num_ctx
    if model.context_length and ctx > model.context_length:
        warnings.append(f"num_ctx {ctx} is cut to the model's context_length {model.context_length}")
        ctx = model.context_length
    (k_type, v_type), flash, counted = _cache_and_flash(model, scenario, engine)
    warnings += counted
    predicted = scenario.draft_num_predict or 0 if model.predicting and engine.llama_server else 0
    _refuse(model, scenario, engine, predicted)
    if model.predicting and not predicted:
        warnings.append(
            f"the last {len(model.predicting)} blocks predict further tokens: not loaded without draft_num_predict"
        )
    elif scenario.draft_num_predict and not predicted:
        warnings.append("draft_num_predict has no effect: the model has no blocks that predict, or Ollama is too old")
    embedding = model.embedder
    tokens = scenario.num_batch
    if tokens is None:
        tokens = auto_num_batch(ctx * slots, flash_attention=flash, embedding=embedding) if engine.llama_server else 512
        if tokens > 512 and not embedding:
            warnings.append(
                f"num_batch is not set: {tokens} assumed for {ctx * slots} tokens of context, "
                "less if Ollama finds too little memory free; set it to be sure"
            )
    if model.projector_bytes:
        warnings.append(
            "the model has a projector: its weights are counted with all layers on the GPU, "
            f"its own compute (up to {_PROJECTOR_HEADROOM_MIB} MiB by Ollama's reckoning) is in the band only"
        )
    if engine.llama_server and not engine.slot_logits:
        warnings.append(
            "Ollama 0.30: from some build on logits are kept for the slots only; counted for the whole batch"
        )
    sharing = slots if scenario.unified_cache else 1
    cells = _pad(ctx * sharing)
    if embedding or not model.traits.encoder:  # of what attends to a whole batch llama.cpp cuts none
        tokens = min(tokens, ctx * slots)
    # an embedder is started as one, whatever the environment says of it
    all_kept = not scenario.pooled if embedding else scenario.every_output
    batch = Batch(
        tokens=tokens,
        slots=slots,
        cells=cells,
        cells_sliding=cells if scenario.full_windows else _sliding(model, cells, sharing, tokens),
        outputs=slots if engine.slot_logits and not all_kept else tokens,
        flash_attention=flash,
        cache_type=k_type,
        v_cache_type=v_type,
        cache_on_gpu=scenario.cache_on_gpu,
        unified=scenario.unified_cache,
    )
    try:
        kept = Kept.of([*model.blocks, *(model.predicting if predicted else ())], scenario.on_cpu)
    except NotPlanned as why:
        raise ScenarioInvalid(f"which tensors stay on the CPU is not planned: {why}") from None
    return _Load(batch, ctx, tuple(warnings), predicted, kept, scenario.fitted)


def _refuse(model: Model, scenario: Scenario, engine: Engine, predicted: int) -> None:
    """Raises ScenarioInvalid for what is loaded and not planned."""
    if model.drafted and engine.llama_server and scenario.draft_num_predict != 0:
        raise ScenarioInvalid(
            "a model in a file of its own predicts further tokens (DRAFT), and what it takes is not in the answer: "
            "plan with draft_num_predict 0, and load with it"
        )
    if not scenario.cache_on_gpu and (predicted or any(block.reads >= 0 for block in model.blocks)):
        raise ScenarioInvalid(
            "a KV cache on the CPU is not planned where blocks read each other's, nor beside a second context"
        )
    apart = any(block.k_width and not block.feeds for block in model.blocks)
    if apart and not scenario.cache_on_gpu and scenario.flash_attention is False:
        raise ScenarioInvalid(
            "a KV cache on the CPU without flash attention is not planned where attention is a block of its own: "
            "llama.cpp computes some of it on the CPU"
        )


def _sliding(model: Model, cells: int, sharing: int, tokens: int) -> int:
    return _pad(min(cells, model.window * sharing + tokens)) if model.window else cells


def _cache_and_flash(model: Model, scenario: Scenario, engine: Engine) -> tuple[tuple[str, str], bool, list[str]]:
    """The cache's types (keys, values) and whether flash attention is on, as this release takes them; with warnings."""
    types = scenario.kv_cache_type, scenario.v_cache_type or scenario.kv_cache_type
    flash = scenario.flash_attention
    warnings: list[str] = []
    for cache_type in () if engine.llama_server else dict.fromkeys(types):
        if cache_type in _UNKNOWN_CACHES:
            warnings.append(f"kv_cache_type {cache_type} is unknown before Ollama 0.30: counted as f16")
        elif cache_type not in _PLAIN_CACHES and flash is not True:
            warnings.append(f"kv_cache_type {cache_type} needs flash_attention on before Ollama 0.30: counted as f16")
    if warnings:
        types = "f16", "f16"
    if engine.llama_server and flash is False and types[1] not in _PLAIN_CACHES:
        raise ScenarioInvalid(
            f"kv_cache_type {types[1]} with flash_attention off: llama-server refuses to load this; "
            "use f16 or switch flash attention on"
        )
    if engine.llama_server and types[0] != types[1] and any(block.has("attn_k_b") for block in model.blocks):
        raise ScenarioInvalid(
            f"keys of {types[0]} and values of {types[1]}: with latent attention the values are a part of the keys, "
            "llama-server refuses to load this; use one type"
        )
    # without flash attention rows are enough, as those of all heads are
    for cache_type in types if engine.llama_server and flash is not False else ():
        of_cache = TYPES[cache_type.upper()][0]  # elements of a block
        uneven = next((head for each in model.blocks for head in (each.k_head, each.v_head) if head % of_cache), 0)
        if uneven:
            raise ScenarioInvalid(
                f"kv_cache_type {cache_type} with heads of {uneven} elements, no multiple of its {of_cache}: "
                "llama-server refuses to load this; use f16"
            )
    if model.traits.no_flash and flash is not False:
        warnings.append(f"flash attention is not possible with architecture {model.architecture!r}: counted as off")
        flash = False
    return types, engine.llama_server if flash is None else flash, warnings


def _cache_bytes(model: Model, block: Block, load: _Load) -> float:
    """Keys, values and recurrent state of one block for all slots."""
    kept, batch = 0, load.batch
    if block.k_width and block.cached:
        # without flash attention V is kept transposed, every block's as wide as the widest
        values = block.v_width if batch.flash_attention else max(each.v_width for each in model.blocks)
        kept = sum(row_bytes(kind, width) for kind, width in zip(batch.cache_types, (block.k_width, values)) if width)
    # a state is kept for each further token, too, as one that was predicted may have to be taken back
    states = 4 * block.state_elements * batch.slots * (1 + load.predicted)
    return kept * batch.cells_of(block) * batch.caches + states


_TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")
_NOTHING: dict[str, float] = dict.fromkeys((*_TERMS, "total_mib"), 0.0)


class _Split(NamedTuple):
    """What of a model is on the GPU."""

    layers: int
    first: int  # the first block on it
    has_output: bool

    @classmethod
    def of(cls, model: Model, num_gpu: int, engine: Engine) -> _Split:
        count = len(model.blocks)
        layers = model.offloadable if num_gpu < 0 else min(num_gpu, model.offloadable)
        if engine.output_first:
            return cls(layers, count - max(layers - 1, 0), layers > 0)
        return cls(layers, count - min(layers, count), layers > count)


def plan(
    model: Model,
    scenario: Scenario,
    *,
    ollama_version: str,
    calibration: Calibration | None = None,
    gpus_free_mib: Sequence[float] = (),
    spread: bool = False,
) -> Plan:
    """The memory of one load, on one GPU or on those whose free memory is given, in MiB and in CUDA's order.

    Raises ScenarioInvalid for settings that Ollama refuses.
    """
    engine = Engine.of(ollama_version)
    load = _decide(model, scenario, engine)
    warnings = list(load.warnings)
    if len(gpus_free_mib) > 1:
        if not engine.llama_server:
            raise ScenarioInvalid("several GPUs: how Ollama before 0.30 divides a model is not planned")
        if not all(free > 0 for free in gpus_free_mib):
            raise ScenarioInvalid(f"the GPUs' free memory is {list(gpus_free_mib)}; MiB above 0 are needed")
    if scenario.num_gpu > model.offloadable:
        warnings.append(
            f"num_gpu {scenario.num_gpu} caps nothing: the model has {model.offloadable} layers, all are on the GPU"
        )
    if scenario.num_gpu >= model.offloadable and engine.llama_server:
        warnings.append(
            "an explicit num_gpu switches Ollama's fitting off: what does not fit fails, it is not moved to the CPU"
        )
    whole = _priced(model, scenario.num_gpu, engine, load, warnings, calibration or Calibration())
    if len(gpus_free_mib) < 2 or not whole.offloaded_layers:
        return whole
    return _divided(model, load, whole, _Split.of(model, scenario.num_gpu, engine), gpus_free_mib, spread)


def _divided(model: Model, load: _Load, whole: Plan, split: _Split, free_mib: Sequence[float], spread: bool) -> Plan:
    """The same load on several GPUs: on one that Ollama expects to hold it, else on all of them.

    server/sched.go, selectLlamaServerPlacement: what it predicts must be within 80 % of what is free on the one with
    the most. llama.cpp then divides layers by free memory (llama-model.cpp, load_tensors).
    """
    most = max(free_mib)
    if not spread and _predicted(model, load) / MIB <= 0.80 * most:
        alone = {name: getattr(whole, name) for name in _TERMS} | {"total_mib": whole.total_mib}
        gpus = [alone if number == free_mib.index(most) else _NOTHING for number in range(len(free_mib))]
        return replace(whole, gpus=gpus)
    if not load.batch.cache_on_gpu:
        raise ScenarioInvalid("several GPUs with the KV cache on the CPU are not planned")
    if model.traits.held_streams:
        raise ScenarioInvalid(
            f"several GPUs: what one hands to the next of the streams of {model.architecture!r} is not planned"
        )
    parts = _parts(model, split, free_mib)
    warnings = whole.warnings + _ties(model, split, free_mib)
    gpus = [_of_part(model, load, part) if part else _NOTHING for part in parts]
    first = next(number for number, part in enumerate(parts) if part)
    gpus[first] = {**gpus[first], "op_offload_mib": whole.op_offload_mib}
    if split.layers == model.offloadable:
        gpus[first]["weights_mib"] += model.projector_bytes / MIB
    gpus = [terms | {"total_mib": sum(terms[name] for name in _TERMS)} for terms in gpus]
    sums = {name: sum(terms[name] for terms in gpus) for name in (*_TERMS, "total_mib")}
    return replace(
        whole,
        weights_mib=sums["weights_mib"],
        kv_mib=sums["kv_mib"],
        compute_mib=sums["compute_mib"],
        runtime_mib=sums["runtime_mib"],
        total_mib=sums["total_mib"],
        gpus=gpus,
        band_mib=_bands_of_parts(whole, sums, sum(map(bool, parts))),
        warnings=warnings,
    )


def _bounds(free_mib: Sequence[float]) -> list[float]:
    """Where one GPU's share of the layers ends and the next one's begins."""
    return [sum(free_mib[: number + 1]) / sum(free_mib) for number in range(len(free_mib) - 1)]


def _ties(model: Model, split: _Split, free_mib: Sequence[float]) -> list[str]:
    """Names where a layer stands on a bound itself: a rounding of free bytes decides, but for two equal GPUs."""
    if len(free_mib) == 2 and free_mib[0] == free_mib[1]:
        return []
    return [
        f"blk.{split.first + layer} may be on GPU {number} or on GPU {number + 1}: the last byte of free memory decides"
        for number, bound in enumerate(_bounds(free_mib))
        for layer in [round(bound * split.layers)]
        if abs(bound - layer / split.layers) < 1e-6
    ]


def _of_part(model: Model, load: _Load, part: Part) -> dict[str, float]:
    """One GPU's terms in MiB. What predicts further tokens is with the last blocks."""
    blocks = model.blocks[part.first : part.end]
    predicting = [block for block in model.predicting if load.predicted and part.first <= block.index < part.end]
    second = replace(load, batch=replace(load.batch, cache_type="f16", v_cache_type="f16"))
    weights = sum(load.kept.device_bytes(block) for block in [*blocks, *predicting]) + model.output_bytes * part.ends
    kv = sum(_cache_bytes(model, block, load) for block in blocks)
    kv += sum(_cache_bytes(model, block, second) for block in predicting)
    compute = part_bytes(model, load.batch, part) + (draft_bytes(model, load.batch) if predicting else 0)
    terms = {"weights_mib": weights, "kv_mib": kv, "compute_mib": compute}
    return {**_NOTHING, **{name: size / MIB for name, size in terms.items()}, "runtime_mib": float(RUNTIME_MIB)}


def _parts(model: Model, split: _Split, free_mib: Sequence[float]) -> list[Part | None]:
    """What of a model each GPU gets, None: nothing."""
    count, bounds = len(model.blocks), _bounds(free_mib)
    of_gpu = [bisect_right(bounds, (index - split.first) / split.layers) for index in range(split.first, count + 1)]
    parts: list[Part | None] = []
    for number in range(len(free_mib)):
        here = [split.first + place for place, gpu in enumerate(of_gpu) if gpu == number]
        ends = count in here
        pipelined = split.layers == model.offloadable
        part = Part(here[0], here[-1] + (not ends), any(parts), ends, pipelined) if here else None
        parts.append(part)
    return parts


def _bands_of_parts(whole: Plan, sums: Mapping[str, float], used: int) -> dict[str, list[float]]:
    """The bands of a load on one GPU, each as far from its figure in proportion; a runtime for each GPU."""
    bands = {}
    for name, (low, high) in whole.band_mib.items():
        if name not in ("total_mib", "runtime_mib"):
            was = getattr(whole, name)
            bands[name] = [sums[name] * low / was, sums[name] * high / was] if was else [low, high]
    bands["runtime_mib"] = [float(value * used) for value in RUNTIME_BAND_MIB]
    if "total_mib" in whole.band_mib:
        added = [sum(bands.get(name, (sums[name],) * 2)[end] for name in _TERMS) for end in (0, 1)]
        apart = whole.band_mib["total_mib"][1] - sum(
            whole.band_mib.get(name, (getattr(whole, name),) * 2)[1] for name in _TERMS
        )
        bands["total_mib"] = [added[0], added[1] + apart]
    return bands


def _priced(
    model: Model, num_gpu: int, engine: Engine, load: _Load, warnings: Iterable[str], calibration: Calibration
) -> Plan:
    batch, split = load.batch, _Split.of(model, num_gpu, engine)
    on_gpu, on_host = model.blocks[split.first :], model.blocks[: split.first]
    everything = split.layers == model.offloadable or load.fitted
    weights: float = sum(load.kept.device_bytes(block) for block in on_gpu)
    weights += float(model.output_bytes) if split.has_output else 0
    weights += model.projector_bytes if everything else 0
    kv = sum(_cache_bytes(model, block, load) for block in on_gpu)
    compute = float(compute_bytes(model, batch, split.first)) if split.layers else 0.0
    predicting = [block for block in model.predicting if load.predicted and block.index >= split.first]
    if predicting and split.layers:
        # a second context, which has a cache of its own, of f16 always
        second = replace(load, batch=replace(batch, cache_type="f16", v_cache_type="f16"))
        weights += sum(load.kept.device_bytes(block) for block in predicting)
        kv += sum(_cache_bytes(model, block, second) for block in predicting)
        compute += draft_bytes(model, batch)
    borrowed = copies = 0.0
    if on_host and batch.tokens >= _OFFLOAD_TOKENS:
        borrowed = float(offload_bytes(model, batch, split.first))
        # never less than the largest copy: how well the others fill the gaps differs from build to build
        copies = max(borrowed - compute, *(block.largest_matrix_bytes for block in on_host)) if split.layers else 0.0
    if batch.tokens >= _OFFLOAD_TOKENS:
        copies = max(copies, load.kept.copied_bytes(on_gpu))
    terms: dict[str, Any] = {
        "weights_mib": weights / MIB,
        "kv_mib": kv / MIB if batch.cache_on_gpu else 0.0,
        "compute_mib": compute / MIB,
        "op_offload_mib": copies / MIB,
        "runtime_mib": RUNTIME_MIB if split.layers else 0,
    }
    if split.layers and calibration.compute_mib is not None:
        terms.update(compute_mib=calibration.compute_mib, op_offload_mib=0.0)
    if split.layers and calibration.runtime_mib is not None:
        terms["runtime_mib"] = calibration.runtime_mib
    bands = _bands(model, engine, load, split, terms, calibration, borrowed / MIB)
    low, high = (sum(bands.get(name, (value, value))[end] for name, value in terms.items()) for end in (0, 1))
    less, more = _beside(model, load, on_gpu, everything) if split.layers else (0.0, 0.0)
    low, high = low - less, high + more
    if high > low:
        bands["total_mib"] = [low, high]
    warnings = [*warnings, *_why_wide(model, engine, load, bands.get("compute_mib"))]
    in_part = load.kept.layers([*on_gpu, *predicting])
    left = f"parts of {in_part} of the {split.layers} layers on the GPU, such as experts, stay on the CPU"
    return Plan(
        **terms,
        total_mib=sum(terms.values()),
        host_mib=_host_bytes(model, load, split) / MIB,
        offloaded_layers=split.layers,
        offloadable_layers=model.offloadable,
        partial_layers=in_part,
        num_ctx=load.num_ctx,
        num_parallel=batch.slots,
        num_batch=batch.tokens,
        band_mib=bands,
        warnings=[*warnings, left] if in_part else warnings,
        admission_mib=_admission(model, load) / MIB,
    )


def _host_bytes(model: Model, load: _Load, split: _Split) -> float:
    batch = load.batch
    on_gpu, on_host = model.blocks[split.first :], model.blocks[: split.first]
    host: float = model.input_bytes + sum(block.host_bytes for block in on_host) + host_bytes(model, batch)
    host += sum(load.kept.host_bytes(block) for block in on_gpu)
    host += sum(_cache_bytes(model, block, load) for block in (on_host if batch.cache_on_gpu else model.blocks))
    return host + (0 if split.has_output else model.host_output_bytes)


def _beside(model: Model, load: _Load, on_gpu: Sequence[Block], everything: bool) -> tuple[float, float]:
    """MiB by which a total may be less, and more, for what is loaded beside the layers."""
    # newer builds of llama-server leave room for a projector themselves, and by that once more
    less = model.projector_bytes / MIB if load.fitted else 0.0
    own = _PROJECTOR_HEADROOM_MIB if model.projector_bytes and everything else 0
    return less, own + _apart_at_most(model, on_gpu, everything)


def _apart_at_most(model: Model, on_gpu: Sequence[Block], everything: bool) -> float:
    """MiB that files beside the model's take at most: adapters for the blocks on the GPU, and a projector."""
    headroom = _PROJECTOR_HEADROOM_MIB if everything and model.projector_at_most else 0
    if model.apart_at_most is not None:
        return model.apart_at_most / MIB + headroom
    matrices = [tensor for block in on_gpu for tensor in block.tensors.values() if len(tensor.shape) == 2]
    most: float = model.adapters * MAX_RANK * 4 * sum(sum(tensor.shape) for tensor in matrices)
    return (most + (model.projector_at_most if everything else 0)) / MIB + headroom


def _bands(
    model: Model,
    engine: Engine,
    load: _Load,
    split: _Split,
    terms: Mapping[str, float],
    calibration: Calibration,
    borrowed_mib: float,
) -> dict[str, list[float]]:
    """Low and high of each term that is neither exact nor measured."""
    bands: dict[str, list[float]] = {}
    if split.layers and calibration.compute_mib is None:
        bands["compute_mib"] = _compute_band(model, engine, load.batch, split.first, terms["compute_mib"])
        if load.kept.tensors:  # what is computed on the host needs no room here
            bands["compute_mib"][0] *= _LEAST_KEPT
        if split.first or load.kept.tensors:
            bands["op_offload_mib"] = [0.0, terms["op_offload_mib"] * 1.25]
    if split.layers and calibration.runtime_mib is None:
        bands["runtime_mib"] = [float(value) for value in RUNTIME_BAND_MIB]
    if borrowed_mib and not split.layers:
        # llama.cpp still lends itself the GPU for long prompts where CUDA is loaded
        bands["op_offload_mib"] = [0.0, borrowed_mib]
        bands["runtime_mib"] = [0.0, float(RUNTIME_BAND_MIB[1])]
    if terms["kv_mib"] and model.window and (model.windows_guessed or not model.traits.measured):
        # which blocks have a window is not known: from every one to none
        on_gpu = model.blocks[split.first :]
        least, most = (
            sum(_cache_bytes(model, replace(block, sliding=sliding), load) for block in on_gpu) / MIB
            for sliding in (True, False)
        )
        bands["kv_mib"] = [least, most]
    return bands


def _why_wide(model: Model, engine: Engine, load: _Load, band: list[float] | None) -> list[str]:
    """Why a compute buffer's band is wider than the usual fifth to either side, and how wide."""
    if not band:
        return []
    if not model.traits.measured:
        why = "half to twice the estimate, as the architecture was never compared"
    elif engine.slot_logits and model.traits.recurrent:
        why = "a quarter to either side and 64 MiB at least, as blocks that keep a state were seen to differ so much"
    else:
        why = ""
    if load.kept.tensors:
        more = "down to a tenth, as what the CPU computes needs no room on the GPU and nothing tells how much that is"
        why = f"{why}; {more}" if why else more
    return [f"the compute buffer is {band[0]:.0f} to {band[1]:.0f} MiB: {why}"] if why else []


def _compute_band(model: Model, engine: Engine, batch: Batch, first: int, compute_mib: float) -> list[float]:
    if not model.traits.measured:
        return [compute_mib * 0.5, max(compute_mib * 2, compute_mib + 128)]
    if engine.slot_logits and model.traits.recurrent:
        return [max(min(compute_mib - 64, compute_mib * 0.75), 0), max(compute_mib + 64, compute_mib * 1.25)]
    if engine.slot_logits:
        return [max(min(compute_mib - 48, compute_mib * 0.8), 0), max(compute_mib + 48, compute_mib * 1.2)]
    if engine.llama_server:
        fewest = compute_bytes(model, replace(batch, outputs=batch.slots), first) / MIB
        return [min(fewest, compute_mib * 0.9), compute_mib * 1.1]
    return [compute_mib * 0.6, compute_mib * 1.4 + 40]


def _admission(model: Model, load: _Load) -> float:
    """Bytes that Ollama >= 0.30 predicts before a load: file, f16 cache, and more for a large batch.

    llm/llama_server.go, PredictServerVRAM; server/sched.go, generationBatchSurcharge.
    """
    surcharge = next((more for batch, more in _BATCH_SURCHARGE_MIB if load.batch.tokens >= batch), 0)
    return _predicted(model, load) + (0 if model.embedder else MIB * surcharge)


def _predicted(model: Model, load: _Load) -> float:
    file = model.input_bytes + model.host_output_bytes + model.projector_bytes
    file += sum(block.host_bytes for block in model.blocks)
    attending = [block for block in model.blocks if block.k_width and block.cached]
    if not attending:
        return file
    # the fewest of all blocks, at least 1, so that a block without attention makes it 1
    heads_kv = min(max(block.k_width // max(block.k_head, 1), 1) if block.k_width else 1 for block in model.blocks)
    head = model.embedding // max(max(block.heads for block in attending), 1)
    return file + 2 * len(model.blocks) * heads_kv * head * load.num_ctx * load.batch.slots * 2


def max_num_gpu(
    model: Model,
    scenario: Scenario,
    budget_mib: float,
    *,
    ollama_version: str,
    calibration: Calibration | None = None,
) -> int:
    """The largest num_gpu whose total is within `budget_mib`, 0 if none is.

    Every count is tried: the total is not monotone, the copies for host layers vanish with the last of them.
    """
    engine = Engine.of(ollama_version)
    load = _decide(model, scenario, engine)
    if calibration and calibration.compute_mib is not None:
        calibration = replace(calibration, compute_mib=None)  # it holds for its own num_gpu only
    for layers in range(model.offloadable, 0, -1):
        if _priced(model, layers, engine, load, (), calibration or Calibration()).total_mib <= budget_mib:
            return layers
    return 0


def fitted(
    model: Model,
    scenario: Scenario,
    free_mib: float,
    *,
    ollama_version: str,
    calibration: Calibration | None = None,
    projector_counts: bool = True,
) -> Scenario:
    """The scenario with what a release really puts on its only GPU, where nobody says how many layers.

    `free_mib` may be used. `projector_counts`: Ollama has llama-server leave room for a projector only where nobody
    else says what to leave free (llm/llama_server.go, extraEnvsForStart). Raises ScenarioInvalid for settings that
    Ollama refuses.
    """
    if calibration and calibration.compute_mib is not None:
        calibration = replace(calibration, compute_mib=None)  # it holds for its own num_gpu only
    if not Engine.of(ollama_version).llama_server:
        most = max_num_gpu(model, scenario, free_mib, ollama_version=ollama_version, calibration=calibration)
        return scenario if most == model.offloadable else replace(scenario, num_gpu=most)
    layers = model.offloadable - (0 if scenario.draft_num_predict else len(model.predicting))

    def as_laid_out(layout: Layout) -> Scenario:
        return replace(scenario, num_gpu=layout.layers, on_cpu=layout.on_cpu(layers), fitted=True)

    def used(given: Scenario) -> int:
        planned = plan(model, given, ollama_version=ollama_version, calibration=calibration)
        return ceil(planned.total_mib * MIB)

    target = int(free_mib * MIB) + (0 if projector_counts else model.projector_bytes)
    if used(scenario) <= target:
        return scenario
    return as_laid_out(fitted_layout(layers, model.has_experts, target, lambda layout: used(as_laid_out(layout))))


def mib_read_per_token(model: Model, scenario: Scenario, *, ollama_version: str) -> tuple[float, float]:
    """MiB that one token of an answer reads from the GPU and from the host.

    The weights of every block and of the output layer, of experts only those used, and one slot's whole cache.
    """
    engine = Engine.of(ollama_version)
    load = _decide(model, scenario, engine)
    one_slot = replace(load, batch=replace(load.batch, slots=1))
    _unused, first, has_output = _Split.of(model, scenario.num_gpu, engine)

    def read(blocks: Sequence[Block]) -> float:
        return sum(_used_bytes(model, block) + _cache_bytes(model, block, one_slot) for block in blocks)

    on_gpu, on_host = read(model.blocks[first:]), read(model.blocks[:first])
    on_gpu, on_host = (on_gpu + model.output_bytes, on_host) if has_output else (on_gpu, on_host + model.output_bytes)
    return on_gpu / MIB, on_host / MIB


def _used_bytes(model: Model, block: Block) -> float:
    """Weights of a block that one token reads; the last dimension of an expert tensor counts the experts."""
    return sum(
        tensor.bytes * (min(1.0, model.experts_used / tensor.shape[-1]) if "_exps" in name else 1.0)
        for name, tensor in block.tensors.items()
    )


def combined(plans: Sequence[Plan]) -> Plan:
    """Several models loaded together, as one plan: everything added up. `plans` is not empty."""
    sums: dict[str, Any] = {
        each.name: sum(getattr(one, each.name) for one in plans)
        for each in fields(Plan)
        if each.name not in ("band_mib", "warnings", "gpus")
    }
    gpus = [
        {name: sum(one[name] for one in of_gpu) for name in _NOTHING}
        for of_gpu in zip(*(one.gpus for one in plans if one.gpus))
    ]
    bands = {
        name: [sum(one.band_mib.get(name, [getattr(one, name)] * 2)[end] for one in plans) for end in (0, 1)]
        for name in {name for one in plans for name in one.band_mib}
    }
    warnings = list(dict.fromkeys(warning for one in plans for warning in one.warnings))
    return Plan(**sums, band_mib=bands, warnings=warnings, gpus=gpus)


def largest_set(
    plans: Mapping[str, Plan],
    max_loaded_models: int,
    *,
    ollama_version: str,
    gpu_total_mib: float | None = None,
    other_used_mib: float = 0,
) -> tuple[str, ...]:
    """The names of the models that together take the most GPU memory Ollama would let them have at one time.

    At most `max_loaded_models` stay loaded (0: three a GPU). Where the GPU's size is given, a further model joins only
    if Ollama expects it to fit: since 0.30 its own prediction must be within 80 % of what is free
    (server/sched.go), unless its num_gpu asks for a part of its layers; before, what it takes must be free.
    """
    engine = Engine.of(ollama_version)
    limit = min(max_loaded_models or 3, len(plans))
    if gpu_total_mib is None:
        by_size = sorted(plans, key=lambda name: plans[name].total_mib, reverse=True)
        return tuple(name for name in plans if name in by_size[:limit])
    available_mib = gpu_total_mib - other_used_mib

    def joined(names: frozenset[str]) -> set[frozenset[str]]:
        """Sets that are `names` and one more that Ollama lets in."""
        taken = sum(plans[name].total_mib for name in names)
        return {
            names | {name}
            for name in plans
            if name not in names and admitted(plans[name], available_mib - taken, engine)
        }

    reached = {frozenset([name]) for name in plans}
    possible = set(reached)
    for _unused in range(limit - 1):
        reached = {larger for names in reached for larger in joined(names)}
        possible |= reached
    largest = max(possible, key=lambda names: sum(plans[name].total_mib for name in names), default=frozenset())
    return tuple(name for name in plans if name in largest)


def admitted(last: Plan, free: float, engine: Engine) -> bool:
    """Whether Ollama loads a model beside others, where so much is free on the GPUs that it would get."""
    if not engine.llama_server:
        return last.total_mib <= free
    partial = 0 < last.offloaded_layers < last.offloadable_layers
    return partial or last.admission_mib <= 0.80 * free
