# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which setting each Ollama version honours: from intent to the environment of the server.

Source of every row: envconfig/config.go, server/sched.go, server/routes.go and llm/ of the tags v0.0.1 to v0.33.0-rc2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuSize


Version = tuple[int, int, int]
NEWEST: Version = (9999, 0, 0)
# Since when what has changed besides the variables, whose releases stand in their rows.
ENGINE: Version = (0, 30, 0)  # Ollama starts llama.cpp's own llama-server
LAST_OWN_ENGINE: Version = (0, 29, 999)
LAST_NEW_ENGINE: Version = (0, 24, 999)  # the last release before it that has an engine beside llama.cpp's
MODELFILE_IN_BODY: Version = (0, 1, 10)  # before, /api/create reads a file of the host
EMBED_ROUTE: Version = (0, 2, 6)  # before, /api/embeddings
SWITCHES_TAKE_ANY_TEXT: Version = (0, 3, 2)  # before, a switch that cannot be read is ignored
PARAMETERS_IN_BODY: Version = (0, 5, 5)  # before, /api/create takes a Modelfile
CONTEXT_BY_MEMORY: Version = (0, 15, 5)
CLOUD_BY_TAG: Version = (0, 17, 6)  # before, a cloud model is one that was pulled as such
SLOT_LOGITS: Version = (0, 31, 0)  # logits are kept for one token a slot, not for the whole batch
PROJECTOR_ADDED: Version = (0, 31, 2)  # Ollama leaves room for a model's projector by itself
MIB = 1024 * 1024


def parse_version(text: object) -> Version | None:
    """`0.32.15`, `v0.33.0-rc2` → numbers; None for what is no release (a build from source says `0.0.0`)."""
    match = re.match(r"v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?!\d)", str(text or ""))
    version = tuple(map(int, match.groups())) if match else None
    return version if version and version != (0, 0, 0) else None  # type: ignore[return-value]


def _plain(value: object) -> str:
    return str(value)


def _until_029(kind: str) -> str | None:
    return kind if kind in CACHE_TYPES_UNTIL_029 else None


def _if_quantised(kind: str) -> str | None:
    """Ollama's own engines quantise the cache with flash attention alone; llama-server switches it on by itself."""
    return "true" if kind.startswith("q") and _until_029(kind) else None


def _mib_list(margins: Sequence[int]) -> str:
    """One number where all GPUs agree, else one for each GPU (`--fit-target`)."""
    return str(margins[0]) if len(set(margins)) == 1 else ",".join(map(str, margins))


def _bytes_of_largest(margins: Sequence[int]) -> str:
    """OLLAMA_GPU_OVERHEAD is one number for all GPUs: the largest margin keeps every threshold."""
    return str(max(margins) * MIB)


class Honoured(NamedTuple):
    """A variable that Ollama reads for an intent, from `first` to `last` release, and how the value is written.

    `write` gives None where the variable is not needed, or cannot carry the value.
    """

    intent: str
    variable: str
    first: Version
    last: Version = NEWEST
    write: Callable[[Any], str | None] = _plain


OLLAMA_READS = (
    Honoured("num_parallel", "OLLAMA_NUM_PARALLEL", (0, 1, 33)),
    Honoured("max_loaded_models", "OLLAMA_MAX_LOADED_MODELS", (0, 1, 33)),
    # Without it 0.15.5 and later choose by the sum of all GPUs' memory, up to 262144 (server/routes.go).
    Honoured("num_ctx", "OLLAMA_CONTEXT_LENGTH", (0, 5, 13)),
    Honoured("kv_cache_type", "OLLAMA_FLASH_ATTENTION", (0, 5, 0), LAST_OWN_ENGINE, _if_quantised),
    Honoured("kv_cache_type", "OLLAMA_KV_CACHE_TYPE", (0, 5, 0), LAST_OWN_ENGINE, _until_029),
    Honoured("kv_cache_type", "OLLAMA_KV_CACHE_TYPE", ENGINE),
    # The margin: memory that fitting leaves free. Between 0.1.45 and 0.3.9 nothing carries it.
    Honoured("margin_mib", "OLLAMA_GPU_OVERHEAD", (0, 3, 10), LAST_OWN_ENGINE, _bytes_of_largest),
    Honoured("margin_mib", "LLAMA_ARG_FIT_TARGET", ENGINE, NEWEST, _mib_list),
)

OURS = frozenset(row.variable for row in OLLAMA_READS)  # all that our drop-in ever sets
MODELS_A_GPU = 3  # what stays loaded where OLLAMA_MAX_LOADED_MODELS says nothing (server/sched.go)
GO_FALSE = ("0", "f", "F", "FALSE", "false", "False")
MARGINS = frozenset(row.variable for row in OLLAMA_READS if row.intent == "margin_mib")

# How a value is written; `checks.forms` knows what each form allows.
COUNT, BYTES, SWITCH, DURATION, CACHE_TYPE, TEXT = (
    "a whole number",
    "bytes, a whole number",
    "1 or 0",
    "a duration such as 5m, or seconds",
    "a cache type",
    "text",
)
IGNORED = "the default is used, with a warning in the journal"


class Variable(NamedTuple):
    """A variable that Ollama reads from `first` to `last` release; `llama_args` has those of its llama-server.

    `what`: what it does. `invalid`: what becomes of a value that is not of the `form`.
    """

    name: str
    form: str
    first: Version
    what: str
    last: Version = NEWEST
    invalid: str = IGNORED


VARIABLES = (
    Variable("OLLAMA_NUM_PARALLEL", COUNT, (0, 1, 33), "requests at once; the KV cache is num_ctx times this"),
    Variable("OLLAMA_MAX_LOADED_MODELS", COUNT, (0, 1, 33), "models loaded at once; 0: three for each GPU"),
    Variable("OLLAMA_MAX_QUEUE", COUNT, (0, 1, 34), "requests that wait; more are answered 503"),
    Variable("OLLAMA_CONTEXT_LENGTH", COUNT, (0, 5, 13), "num_ctx of requests that carry none"),
    Variable("OLLAMA_FLASH_ATTENTION", SWITCH, (0, 1, 39), "flash attention", invalid="it counts as true"),
    Variable(
        "OLLAMA_KV_CACHE_TYPE",
        CACHE_TYPE,
        (0, 5, 0),
        "type of the KV cache; a quantised one needs flash attention",
        LAST_OWN_ENGINE,
        "f16 is used, with a warning in the journal",
    ),
    Variable("OLLAMA_KV_CACHE_TYPE", CACHE_TYPE, ENGINE, "type of the KV cache", invalid="every load fails"),
    Variable("OLLAMA_GPU_OVERHEAD", BYTES, (0, 3, 10), "memory of each GPU that fitting leaves free", LAST_OWN_ENGINE),
    Variable("OLLAMA_KEEP_ALIVE", DURATION, (0, 1, 29), "how long a model stays loaded", invalid="5m is used"),
    Variable("OLLAMA_LOAD_TIMEOUT", DURATION, (0, 3, 10), "how long a load may stall", invalid="5m is used"),
    Variable("OLLAMA_SCHED_SPREAD", SWITCH, (0, 1, 45), "spread a model over all GPUs", invalid="it counts as true"),
    Variable("OLLAMA_MAX_VRAM", BYTES, (0, 1, 29), "memory that the estimate may use", (0, 1, 44)),
    Variable("OLLAMA_NEW_ENGINE", SWITCH, (0, 5, 12), "Ollama's own engine", LAST_NEW_ENGINE, "it counts as true"),
    Variable("OLLAMA_NEW_ESTIMATES", SWITCH, (0, 11, 5), "measured layouts", (0, 11, 10), "it counts as true"),
    Variable("OLLAMA_MULTIUSER_CACHE", SWITCH, (0, 3, 13), "prompt cache", LAST_NEW_ENGINE, "it counts as true"),
    Variable("OLLAMA_LLM_LIBRARY", TEXT, (0, 1, 21), "which GPU library is loaded"),
    Variable("OLLAMA_VULKAN", SWITCH, (0, 12, 11), "Vulkan as a GPU library", invalid="it counts as true"),
    Variable("CUDA_VISIBLE_DEVICES", TEXT, (0, 1, 33), "which GPUs CUDA sees"),
    Variable(
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY", TEXT, (0, 3, 13), "lets CUDA spill into RAM, where NVML does not see it"
    ),
)

# Set by many a guide, compose file and unit, and read by no release of Ollama: why, and what is meant.
NOBODY_READS = {
    "OLLAMA_GPU_LAYERS": "no release of Ollama reads it",
    "OLLAMA_NUM_GPU": "no release of Ollama reads it (forks do)",
    "OLLAMA_NUM_CTX": "no release of Ollama reads it",
    "OLLAMA_NUM_THREADS": "no release of Ollama reads it",
    "OLLAMA_MAX_VRAM": "dead since Ollama 0.1.45",
    "TORCH_CUDA_MEMORY_FRACTION": "no PyTorch reads it",
}
CURES = {
    "OLLAMA_GPU_LAYERS": "a cap is num_gpu, in requests or in a derived model",
    "OLLAMA_NUM_GPU": "a cap is num_gpu, in requests or in a derived model",
    "OLLAMA_NUM_CTX": "set OLLAMA_CONTEXT_LENGTH instead",
    "OLLAMA_NUM_THREADS": "num_thread is an option of requests",
    "OLLAMA_MAX_VRAM": "a profile's max_used_mib is its successor",
    "TORCH_CUDA_MEMORY_FRACTION": "torch.cuda.set_per_process_memory_fraction() is a call",
}

# Values that may be read on a host and shown: settings of memory, never a secret. Names outside are not even read.
SHOWN = frozenset(
    {variable.name for variable in VARIABLES} | llama_args.NAMES | set(NOBODY_READS) | {"PYTORCH_CUDA_ALLOC_CONF"}
)

CACHE_TYPES_UNTIL_029 = ("f16", "q8_0", "q4_0")
CACHE_TYPES = llama_args.CACHE_TYPES


def as_ollama_reads(value: str) -> str:
    """A variable's value without what Ollama takes off it: spaces, then quotes (envconfig/config.go, Var)."""
    return value.strip().strip("\"'")


def switch(value: str) -> bool | None:
    """None where nothing is said; text that is no boolean counts as true (envconfig/config.go, BoolWithDefault)."""
    text = as_ollama_reads(value)
    return text not in GO_FALSE if text else None


def cache_type(value: str) -> str:
    """OLLAMA_KV_CACHE_TYPE as llama-server gets it (llm/server.go); empty where it is not passed on."""
    return as_ollama_reads(value).lower()


def default_num_ctx(gpus: Sequence[GpuSize], version: Version | None) -> int:
    """The context where nothing sets one: since 0.15.5 by the memory of all GPUs together (server/routes.go)."""
    if version is not None and version < CONTEXT_BY_MEMORY:
        return 4096
    together = sum(gpu["total_mib"] - (gpu.get("reserved_mib") or 0) for gpu in gpus)
    return next((context for least, context in ((47 * 1024, 262144), (23 * 1024, 32768)) if together >= least), 4096)


def contexts_unasked(environment: Mapping[str, str], gpus: Sequence[GpuSize], version: Version | None) -> list[int]:
    """The contexts that a model may have without anybody asking for one; `environment`: the server's.

    Where the server says none either, Ollama takes a smaller one if the first does not fit.
    """
    told = as_ollama_reads(environment.get("OLLAMA_CONTEXT_LENGTH", ""))[:12]
    if told.isascii() and told.isdigit() and int(told):
        return [int(told)]
    most = default_num_ctx(gpus, version)
    return [context for context in (4096, 32768, 262144) if context <= most]


def known(name: str, version: Version) -> Variable | None:
    """The row for a variable in a release; None where that release does not read it."""
    return next((row for row in VARIABLES if row.name == name and row.first <= version <= row.last), None)


def shown(environment: Mapping[str, str]) -> dict[str, str]:
    """Only what may be shown (see `SHOWN`)."""
    return {name: value for name, value in environment.items() if name in SHOWN}


def ollama_environment(
    intent: Intent, margins_mib: Sequence[int], version: Version | None
) -> tuple[dict[str, str], list[str]]:
    """The variables that make this version of Ollama follow the intent, and the intents that it cannot follow.

    `margins_mib`: for each GPU used, what fitting must leave free; empty where the profile has no threshold.
    """
    values: dict[str, Any] = dict(intent)
    if margins_mib:
        values["margin_mib"] = margins_mib
    environment = {}
    for row in OLLAMA_READS:
        if row.intent in values and version is not None and row.first <= version <= row.last:
            written = row.write(values[row.intent])
            environment.update({} if written is None else {row.variable: written})
    carried = {row.intent for row in OLLAMA_READS if row.variable in environment}
    translated = {row.intent for row in OLLAMA_READS}
    return environment, sorted(set(values) & translated - carried)


def margins_mib(gpus: Sequence[GpuSize], max_used_mib: int | None) -> list[int]:
    """For each GPU: NVML total − reserved − threshold, at least 0. MiB."""
    if max_used_mib is None:
        return []
    return [max(0, gpu["total_mib"] - (gpu.get("reserved_mib") or 0) - max_used_mib) for gpu in gpus]
