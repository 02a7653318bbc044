# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an architecture's name says that its tensors do not. Data only.

Widths, heads' sizes, gates, experts, norms and biases are read from the tensors; only what llama.cpp decides by the
architecture's name stands here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp treats one `general.architecture`.

    `measured`: the compute rule was compared with llama.cpp's own projection for this architecture.
    """

    measured: bool = False
    # sliding windows: of every `swa_period` layers one sees everything, the last (or, dense first, the first); 0: none
    swa_period: int = 0
    swa_dense_first: bool = False
    swa_default_window: int = 0  # where the metadata name none
    encoder: bool = False  # no KV cache, one batch through the whole stack
    single_slot: bool = False  # Ollama forces num_parallel to 1
    recurrent: bool = False  # all or some layers keep a state instead of keys and values
    parallel_residual: bool = False  # attention and feed-forward both read the layer's normed input
    extra_inputs: int = 0  # further activations of the embedding's width kept from the input


def _known(**kwargs: object) -> Architecture:
    return Architecture(measured=True, **kwargs)  # type: ignore[arg-type]


ARCHITECTURES: dict[str, Architecture] = {
    "llama": _known(),
    "qwen2": _known(),
    "gemma2": _known(swa_period=2, swa_default_window=4096),
    "gemma3": _known(swa_period=6),
    "gpt-oss": _known(swa_period=2),
    "cohere2": _known(swa_period=4, parallel_residual=True),
    "command-r": _known(parallel_residual=True),
    "bert": _known(encoder=True),
    "nomic-bert": _known(encoder=True),
    **{
        name: _known()
        for name in (
            "gemma",
            "granite",
            "granitemoe",
            "mistral3",
            "olmo2",
            "olmoe",
            "phi3",
            "qwen2moe",
            "qwen3",
            "qwen3moe",
            "starcoder2",
        )
    },
}

# Families for which Ollama forces one slot (server/sched.go); a family may differ from the architecture.
SINGLE_SLOT_FAMILIES = frozenset(
    {
        "mllama",
        "qwen3vl",
        "qwen3vlmoe",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "nemotron_h_omni",
    }
)
