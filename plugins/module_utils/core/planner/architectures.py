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
    swa_period: int = 0  # sliding windows: of so many layers the last sees everything; 0: no windows
    swa_needed: bool = False  # llama.cpp does not load it without the window's size
    swa_first: bool = False  # of the period the first layer sees everything, not the last
    swa_default_window: int = 0  # where the metadata name none
    swa_fixed_window: int = 0  # whatever size the metadata name
    no_flash: bool = False  # llama.cpp switches flash attention off
    encoder: bool = False  # no KV cache, one batch through the whole stack
    caches: bool = False  # an encoder for which a cache is kept all the same
    headless: bool = False  # gives embeddings only: no output matrix on the GPU
    unused_head: bool = False  # gives embeddings only, with an output matrix on the GPU
    single_slot: bool = False  # Ollama forces num_parallel to 1
    recurrent: bool = False  # all or some layers keep a state instead of keys and values
    parallel_residual: bool = False  # attention and feed-forward both read the layer's normed input
    swa_everywhere: bool = False  # every attending layer has a window, if the metadata name one
    swa_blocks: int = 0  # only a model of so many blocks has windows; 0: any
    unrotated_period: int = 0  # of so many layers the last does not turn positions into its queries and keys; 0: none
    weighs_input: bool = False  # experts get an input that is weighted already, which takes a copy for each
    held_streams: int = 0  # further activations of the embedding's width held through all blocks
    sparse_blocks: int = 0  # so many blocks keep but the largest of their gates, for which more streams are held
    normed_values: bool = False  # values are normed before they are kept, which takes a copy
    unnormed_start: bool = False  # the first block takes the embeddings as they are
    cached_blocks: int = 0  # only so many blocks keep keys and values, the rest read theirs; 0: all


def _known(**kwargs: object) -> Architecture:
    return Architecture(measured=True, **kwargs)  # type: ignore[arg-type]


ARCHITECTURES: dict[str, Architecture] = {
    "llama": _known(),
    "qwen2": _known(),
    "gemma2": _known(swa_period=2, swa_default_window=4096),
    "gemma3": _known(swa_period=6),
    "gemma3n": _known(swa_period=5, swa_needed=True, held_streams=9, sparse_blocks=10, cached_blocks=20),
    "gemma4": _known(swa_period=6, swa_needed=True, normed_values=True),
    "gpt-oss": _known(swa_period=2, swa_needed=True),
    "cohere2": _known(swa_period=4, swa_needed=True, unrotated_period=4, parallel_residual=True),
    "command-r": _known(parallel_residual=True),
    "exaone4": _known(swa_period=4, swa_blocks=64, unrotated_period=4),
    "falcon": _known(parallel_residual=True),
    "phi2": _known(parallel_residual=True),
    "qwen3vl": _known(single_slot=True),
    "deepseek2": _known(),
    "olmo2": _known(swa_period=4),
    "glm4moe": _known(),
    "smollm3": _known(unrotated_period=4),
    "llama4": _known(
        swa_period=4, swa_default_window=8192, unrotated_period=4, weighs_input=True
    ),  # chunks, kept like windows
    "cohere2moe": _known(swa_period=4, swa_needed=True, swa_first=True, unrotated_period=4),
    "exaone-moe": _known(swa_period=4, swa_needed=True, unrotated_period=4),
    "mellum": _known(swa_period=4),
    "muse-glimmer": _known(swa_period=4, swa_needed=True, unrotated_period=4),
    "plamo3": _known(swa_period=8),
    **{name: _known(encoder=True) for name in ("dream", "llada", "llada-moe", "rnd1")},  # diffusion, without a cache
    "mamba2": _known(recurrent=True),
    "qwen3vlmoe": _known(single_slot=True),
    "gemma-embedding": _known(swa_period=6, swa_needed=True, encoder=True, unused_head=True),
    "granitehybrid": _known(recurrent=True),
    "grok": _known(no_flash=True),
    "jamba": _known(recurrent=True),
    "mamba": _known(recurrent=True),
    "falcon-h1": _known(recurrent=True),
    "lfm2": _known(recurrent=True, single_slot=True, swa_everywhere=True),
    "lfm2moe": _known(recurrent=True, single_slot=True, swa_everywhere=True),
    "qwen3next": _known(recurrent=True, single_slot=True),
    "qwen35": _known(recurrent=True, single_slot=True),
    "qwen35moe": _known(recurrent=True, single_slot=True),
    "nemotron_h": _known(recurrent=True, single_slot=True),
    "bert": _known(encoder=True, headless=True),
    "nomic-bert": _known(encoder=True, headless=True),
    "nomic-bert-moe": _known(encoder=True, headless=True),
    "modern-bert": _known(encoder=True, headless=True, swa_period=3, swa_first=True, unnormed_start=True),
    "jina-bert-v3": _known(encoder=True, headless=True),
    "neo-bert": _known(encoder=True, headless=True),
    "eurobert": _known(encoder=True, headless=True),
    "llama-embed": _known(encoder=True, caches=True, unused_head=True),
    "jina-bert-v2": _known(encoder=True, headless=True, unrotated_period=1),
    "afmoe": _known(swa_period=4, unrotated_period=4),
    "smallthinker": _known(swa_period=4, swa_first=True, swa_fixed_window=4096, unrotated_period=4),
    **{
        name: _known()
        for name in (
            "gemma",
            "granite",
            "granitemoe",
            "mistral3",
            "olmoe",
            "phi3",
            "qwen2moe",
            "qwen3",
            "qwen3moe",
            "starcoder2",
            "stablelm",
            "chatglm",
            "apertus",
            "bailingmoe2",
            "hunyuan-dense",
            "phimoe",
            "internlm2",
            "seed_oss",
            "ernie4_5",
            "exaone",
            "glm4",
            "nemotron",
            "qwen2vl",
            "arcee",
            "codeshell",
            "deci",
            "deepseek",
            "dots1",
            "ernie4_5-moe",
            "hunyuan-moe",
            "hunyuan_vl",
            "jais2",
            "maincoder",
            "minicpm",
            "minicpm3",
            "nanbeige",
            "openelm",
            "orion",
            "paddleocr",
            "pangu-embedded",
            "xverse",
        )
    },
}

# What only the name shows: layers that run several times, a state that no tensor tells of, what is loaded beside a
# model (projectors, drafts), speech, and encoders with a decoder.
UNPLANNED = frozenset(
    {
        *("hrm_text", "minimax-01"),
        *("clip", "dflash", "eagle3", "gemma4-assistant"),
        *("pockettts", "qwen3tts", "wavtokenizer-dec"),
        *("mllama", "t5", "t5encoder"),
    }
)

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
