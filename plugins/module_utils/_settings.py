# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which setting each Ollama version honours: from intent to the environment of the server.

Source of every row: envconfig/config.go, server/sched.go, server/routes.go and llm/ of the tags v0.0.1 to v0.33.0-rc2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Version = tuple[int, int, int]
NEWEST: Version = (9999, 0, 0)
MIB = 1024 * 1024


def parse_version(text: Any) -> Version | None:
    """`0.32.15`, `v0.33.0-rc2` → numbers; None for what is no release (a build from source says `0.0.0`)."""
    match = re.match(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?!\d)", str(text or ""))
    version = tuple(map(int, match.groups())) if match else None
    return version if version and version != (0, 0, 0) else None  # type: ignore[return-value]


def _plain(value: Sequence[int]) -> str:
    return str(value[0])


def _mib_list(margins: Sequence[int]) -> str:
    """One number where all GPUs agree, else one for each GPU (`--fit-target`)."""
    return str(margins[0]) if len(set(margins)) == 1 else ",".join(map(str, margins))


def _bytes_of_largest(margins: Sequence[int]) -> str:
    """OLLAMA_GPU_OVERHEAD is one number for all GPUs: the largest margin keeps every threshold."""
    return str(max(margins) * MIB)


@dataclass(frozen=True)
class Honoured:
    """A variable that Ollama reads for an intent, from `first` to `last` release, and how the value is written."""

    intent: str
    variable: str
    first: Version
    last: Version = NEWEST
    write: Callable[[Sequence[int]], str] = _plain


OLLAMA_READS = (
    Honoured("num_parallel", "OLLAMA_NUM_PARALLEL", (0, 1, 33)),
    Honoured("max_loaded_models", "OLLAMA_MAX_LOADED_MODELS", (0, 1, 33)),
    # Without it 0.15.5 and later choose by the sum of all GPUs' memory, up to 262144 (server/routes.go).
    Honoured("num_ctx", "OLLAMA_CONTEXT_LENGTH", (0, 5, 13)),
    # The margin: memory that fitting leaves free. Between 0.1.45 and 0.3.9 nothing carries it.
    Honoured("margin_mib", "OLLAMA_GPU_OVERHEAD", (0, 3, 10), (0, 29, 999), _bytes_of_largest),
    Honoured("margin_mib", "LLAMA_ARG_FIT_TARGET", (0, 30, 0), NEWEST, _mib_list),
)

MARGINS = frozenset(row.variable for row in OLLAMA_READS if row.intent == "margin_mib")

# Set by many a guide, compose file and unit, and read by no release of Ollama.
NOBODY_READS = {
    "OLLAMA_GPU_LAYERS": "no release of Ollama reads it",
    "OLLAMA_NUM_GPU": "no release of Ollama reads it (forks do)",
    "OLLAMA_NUM_CTX": "no release of Ollama reads it; OLLAMA_CONTEXT_LENGTH is the name",
    "OLLAMA_NUM_THREADS": "no release of Ollama reads it",
    "OLLAMA_MAX_VRAM": "dead since Ollama 0.1.45",
    "TORCH_CUDA_MEMORY_FRACTION": "no PyTorch reads it",
}

# Values that may be read on a host and shown: settings of memory, never a secret. Names outside are not even read.
SHOWN = frozenset(
    {honoured.variable for honoured in OLLAMA_READS}
    | set(NOBODY_READS)
    | {
        "OLLAMA_FLASH_ATTENTION",
        "OLLAMA_KV_CACHE_TYPE",
        "OLLAMA_KEEP_ALIVE",
        "OLLAMA_LOAD_TIMEOUT",
        "OLLAMA_MAX_QUEUE",
        "OLLAMA_SCHED_SPREAD",
        "OLLAMA_NEW_ENGINE",
        "OLLAMA_MULTIUSER_CACHE",
        "OLLAMA_LLM_LIBRARY",
        "OLLAMA_VULKAN",
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "CUDA_VISIBLE_DEVICES",
        "PYTORCH_CUDA_ALLOC_CONF",
        "LLAMA_ARG_FIT",
        "LLAMA_ARG_N_GPU_LAYERS",
        "LLAMA_ARG_KV_OFFLOAD",
        "LLAMA_ARG_N_CPU_MOE",
        "LLAMA_ARG_CPU_MOE",
        "LLAMA_ARG_TENSOR_SPLIT",
        "LLAMA_ARG_SPLIT_MODE",
    }
)


def shown(environment: Mapping[str, str]) -> dict[str, str]:
    """Only what may be shown (see `SHOWN`)."""
    return {name: value for name, value in environment.items() if name in SHOWN}


def ollama_environment(
    intent: Mapping[str, int], margins_mib: Sequence[int], version: Version | None
) -> tuple[dict[str, str], list[str]]:
    """The variables that make this version of Ollama follow the intent, and the intents that it cannot follow.

    `margins_mib`: for each GPU used, what fitting must leave free; empty where the profile has no threshold.
    """
    values: dict[str, Sequence[int]] = {name: [value] for name, value in intent.items()}
    if margins_mib:
        values["margin_mib"] = margins_mib
    environment = {}
    for row in OLLAMA_READS:
        if row.intent in values and version is not None and row.first <= version <= row.last:
            environment[row.variable] = row.write(values[row.intent])
    carried = {row.intent for row in OLLAMA_READS if row.variable in environment}
    translated = {row.intent for row in OLLAMA_READS}
    return environment, sorted(set(values) & translated - carried)


def margins_mib(gpus: Sequence[Mapping[str, Any]], max_used_mib: int | None) -> list[int]:
    """For each GPU: NVML total − reserved − threshold, at least 0. MiB."""
    if max_used_mib is None:
        return []
    return [max(0, gpu["total_mib"] - (gpu.get("reserved_mib") or 0) - max_used_mib) for gpu in gpus]
