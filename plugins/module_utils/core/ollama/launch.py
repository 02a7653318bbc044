# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama-server will be told in the end: for the plan, the verdict, drift and the linter alike. Pure.

Ollama lays the request's options over those of the model's Modelfile, and these over what its own variables say
(server/routes.go, modelOptions). What then becomes a flag wins over llama-server's own variables, LLAMA_ARG_*.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import placement

DEVICE, KV_OFFLOAD, OVERRIDES = "LLAMA_ARG_DEVICE", "LLAMA_ARG_KV_OFFLOAD", "LLAMA_ARG_OVERRIDE_TENSOR"
CPU_MOE, N_CPU_MOE, N_CPU_FFN = "LLAMA_ARG_CPU_MOE", "LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_N_CPU_FFN"
OF_ALL_LAYERS = (DEVICE, KV_OFFLOAD)
OF_TENSORS = (OVERRIDES, CPU_MOE, N_CPU_MOE, N_CPU_FFN)
MMPROJ_OFFLOAD = "LLAMA_ARG_MMPROJ_OFFLOAD"
SPLIT_MODE = "LLAMA_ARG_SPLIT_MODE"
OF_SOME_GPUS = (DEVICE, "LLAMA_ARG_TENSOR_SPLIT", "LLAMA_ARG_MAIN_GPU")
KEY_TYPE, VALUE_TYPE = "LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V"
EMBEDDINGS, POOLING = "LLAMA_ARG_EMBEDDINGS", "LLAMA_ARG_POOLING"
ON_CPU = "CPU"
ALL_LAYERS = 100_000  # more than any model has
MOST_BLOCKS = 1024
LONGEST = 9  # digits
FIT_TARGET_MIB = 1024  # llama.cpp's own --fit-target
RESERVE_UNTIL_029_MIB = 457  # Ollama's own, for each CUDA GPU


def keeps_off(name: str, taken: llama_args.Value) -> str | None:
    """What a setting keeps from the GPU, in words; None where it keeps nothing."""
    if name == DEVICE and taken == "none":
        return "the whole model"
    if name == KV_OFFLOAD and taken is False:
        return "the KV cache"
    if name == MMPROJ_OFFLOAD and taken is False:
        return "a projector"
    if name == CPU_MOE and taken:
        return "what experts a model has"
    if name in (N_CPU_MOE, N_CPU_FFN) and taken:
        kind = "experts" if name == N_CPU_MOE else "dense feed-forward weights"
        return f"what the first {taken} layers have of {kind}"
    if name == OVERRIDES and (patterns := overrides(str(taken))):
        return f"what tensors match {' or '.join(patterns)}"
    return None


def overrides(taken: str) -> list[str]:
    """The patterns of tensors that LLAMA_ARG_OVERRIDE_TENSOR keeps on the CPU."""
    pairs = (part.rpartition("=") for part in taken.split(","))
    return [pattern for pattern, _equals, where in pairs if where == ON_CPU]


def patterns_are_read(taken: str) -> bool:
    """Whether each pattern is a regular expression; llama-server sees that when it loads."""
    try:
        for part in taken.split(","):
            re.compile(part.rpartition("=")[0])
    except re.error:
        return False
    return True


class Unplanned(NamedTuple):
    """With which values a setting moves GPU memory in a way that no plan counts, and whether the linter says so.

    What chooses between GPUs is right on a host with several; a plan cannot follow it.
    """

    where: Callable[[llama_args.Value], bool] = lambda taken: taken not in (False, 0, "", "none")
    linted: bool = True


UNPLANNED = {
    **{name: Unplanned() for name, arg in llama_args.ARGS.items() if arg.effect == llama_args.NOT_PLANNED},
    SPLIT_MODE: Unplanned(lambda taken: taken in ("row", "tensor")),
    MMPROJ_OFFLOAD: Unplanned(lambda taken: taken is False, linted=False),
    **{name: Unplanned(linted=False) for name in OF_SOME_GPUS},
}


def unplanned(values: Mapping[str, llama_args.Value], for_linter: bool = False) -> list[str]:
    """The settings that move GPU memory in a way that no plan counts."""
    rows = [(name, UNPLANNED[name], taken) for name, taken in values.items() if name in UNPLANNED]
    return [name for name, row, taken in rows if row.where(taken) and (row.linted or not for_linter)]


class Told(NamedTuple):
    """What a model is loaded with: `scenario` as `planner.Scenario.from_dict` takes it.

    `fits`: whether what does not fit is kept on the CPU; `margin_mib`: what fitting then leaves free, None where
    nothing says. `refused`: why nothing can be planned: llama-server does not start, or does what no plan counts.
    """

    scenario: dict[str, object]
    fits: bool
    margin_mib: int | None
    refused: str | None


def told(
    environment: Mapping[str, str],
    parameters: Mapping[str, int],
    options: Mapping[str, int | None],
    version: settings.Version | None,
) -> Told:
    """What llama-server is told of a model: by the server's environment, the Modelfile and a request, in this order.

    `environment`: of the server's process; it must say OLLAMA_CONTEXT_LENGTH where no other word of a context counts.
    """
    scenario: dict[str, object] = {
        "num_ctx": _number(environment, "OLLAMA_CONTEXT_LENGTH"),
        "num_parallel": _number(environment, "OLLAMA_NUM_PARALLEL"),
        "flash_attention": _flash_attention(environment),
        "kv_cache_type": settings.cache_type(environment.get("OLLAMA_KV_CACHE_TYPE", "")) or None,
    }
    for asked in (parameters, options):
        scenario.update({name: value for name, value in asked.items() if value is not None})
    asked_layers = scenario.get("num_gpu")
    by_request = isinstance(asked_layers, int) and asked_layers >= 0
    if version is not None and version < settings.ENGINE:
        return Told(_given(scenario), not by_request, None, None)
    try:
        values = llama_args.read(environment)
    except llama_args.Ends as why:
        return Told(_given(scenario), False, None, f"llama-server does not start: {why}")
    layers = values.get("LLAMA_ARG_N_GPU_LAYERS", -1)
    if not by_request and isinstance(layers, int) and layers != -1:
        scenario["num_gpu"] = layers if layers >= 0 else ALL_LAYERS
    if values.get(DEVICE) == "none":
        scenario["num_gpu"] = 0
    if not scenario["kv_cache_type"] and {KEY_TYPE, VALUE_TYPE} & set(values):
        scenario["kv_cache_type"], scenario["v_cache_type"] = values.get(KEY_TYPE), values.get(VALUE_TYPE, "f16")
    scenario["full_windows"] = values.get("LLAMA_ARG_SWA_FULL")
    scenario["cache_on_gpu"] = values.get(KV_OFFLOAD)
    scenario["unified_cache"] = values.get("LLAMA_ARG_KV_UNIFIED")
    scenario["every_output"] = bool(values.get(EMBEDDINGS)) or values.get(POOLING) not in (None, "none") or None
    scenario["pooled"] = False if values.get(POOLING) == "none" else None
    scenario["on_cpu"] = on_cpu(values)
    not_counted = ", ".join(unplanned(values))
    refused = f"{not_counted}: it moves GPU memory in a way that no plan counts" if not_counted else None
    # fitting says itself where tensors go, and gives up where somebody else does
    fits = not by_request and layers == -1 and values.get("LLAMA_ARG_FIT") is not False and not scenario["on_cpu"]
    return Told(_given(scenario), fits, _margin(values), refused)


def left_free_mib(margin_mib: int | None, version: settings.Version | None) -> int:
    """What fitting leaves free of a GPU; `margin_mib` where somebody says so."""
    if margin_mib is not None:
        return margin_mib
    return FIT_TARGET_MIB if version is None or version >= settings.ENGINE else RESERVE_UNTIL_029_MIB


def on_cpu(values: Mapping[str, llama_args.Value]) -> list[str]:
    """The expressions of the tensors that stay on the CPU, whatever their layers do."""
    found = overrides(str(values.get(OVERRIDES, "")))
    if values.get(CPU_MOE):
        found.append(placement.EXPERTS)
    for name, kind in ((N_CPU_MOE, placement.EXPERTS), (N_CPU_FFN, placement.DENSE)):
        blocks = values.get(name)
        found += placement.of_first(min(int(blocks), MOST_BLOCKS), kind) if isinstance(blocks, int) else []
    return found


def _given(scenario: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in scenario.items() if value is not None}


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = settings.as_ollama_reads(environment.get(name, ""))
    return int(text) or None if text.isascii() and text.isdigit() and len(text) <= LONGEST else None


def _flash_attention(environment: Mapping[str, str]) -> str | None:
    wanted = settings.switch(environment.get("OLLAMA_FLASH_ATTENTION", ""))
    return None if wanted is None else "on" if wanted else "off"


def _margin(values: Mapping[str, llama_args.Value]) -> int | None:
    """That of the first GPU."""
    margins = values.get("LLAMA_ARG_FIT_TARGET")
    return max(0, int(str(margins).split(",", maxsplit=1)[0])) if margins is not None else None
