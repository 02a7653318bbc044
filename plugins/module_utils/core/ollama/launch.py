# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama-server will be told in the end: for the plan, the verdict, drift and the linter alike. Pure.

Ollama lays the request's options over those of the model's Modelfile, and these over what its own variables say
(server/routes.go, modelOptions). What then becomes a flag wins over llama-server's own variables, LLAMA_ARG_*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args

DEVICE, KV_OFFLOAD, OVERRIDES = "LLAMA_ARG_DEVICE", "LLAMA_ARG_KV_OFFLOAD", "LLAMA_ARG_OVERRIDE_TENSOR"
CPU_MOE, N_CPU_MOE, N_CPU_FFN = "LLAMA_ARG_CPU_MOE", "LLAMA_ARG_N_CPU_MOE", "LLAMA_ARG_N_CPU_FFN"
MMPROJ_OFFLOAD = "LLAMA_ARG_MMPROJ_OFFLOAD"
SPLIT_MODE = "LLAMA_ARG_SPLIT_MODE"
ON_CPU = "CPU"


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


def moves_memory_unplanned(name: str, taken: llama_args.Value) -> bool:
    """Whether a setting, with this value, moves GPU memory in a way that no plan counts."""
    if name == SPLIT_MODE:
        return taken in ("row", "tensor")
    if llama_args.ARGS[name].effect != llama_args.NOT_PLANNED:
        return False
    return taken not in (False, 0, "", "none") and not (name == "LLAMA_ARG_POOLING" and taken is None)


def unplanned(values: Mapping[str, llama_args.Value]) -> list[str]:
    """The settings that move GPU memory in a way that no plan counts."""
    return [name for name, taken in values.items() if moves_memory_unplanned(name, taken)]
