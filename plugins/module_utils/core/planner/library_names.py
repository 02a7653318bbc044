# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama.cpp gets of a file from Ollama's library, which calls some things otherwise.

Ollama translates while it loads (llama/compat in its source). What was never compared stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import Tensor

LOADED_AS = {
    "gptoss": "gpt-oss",
    "glm4moelite": "deepseek2",
    "olmo3": "olmo2",
    "qwen25vl": "qwen2vl",
    "glmocr": "glm4",
    "deepseekocr": "deepseek2-ocr",
}
_PARTS = {  # architecture -> what a tensor's name has, and what llama.cpp has there
    "gptoss": {".attn_out.": ".attn_output.", ".ffn_norm.": ".post_attention_norm."},
    "glmocr": {
        ".attn_out.": ".attn_output.",
        ".post_attn_norm.": ".post_attention_norm.",
        ".post_ffn_norm.": ".post_ffw_norm.",
    },
    "gemma-embedding": {"dense.0.": "dense_2.", "dense.1.": "dense_3."},
    "lfm2": {"output_norm.": "token_embd_norm."},
    "laguna": {".attn_g.": ".attn_gate."},
    "nemotron_h_moe": {".ffn_latent_in.": ".ffn_latent_down.", ".ffn_latent_out.": ".ffn_latent_up."},
}
_OF_PREDICTION = {  # qwen3.5's block that predicts further tokens, where it is not numbered as a block
    "mtp.fc.": "nextn.eh_proj.",
    "mtp.pre_fc_norm_embedding.": "nextn.enorm.",
    "mtp.pre_fc_norm_hidden.": "nextn.hnorm.",
    "mtp.embed_tokens.": "nextn.embed_tokens.",
    "mtp.shared_head.head.": "nextn.shared_head_head.",
    "mtp.shared_head.norm.": "nextn.shared_head_norm.",
    "mtp.norm.": "nextn.shared_head_norm.",
}
_PREDICTING = re.compile(r"mtp\.layers\.(\d+)\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
_NOT_LOADED = {"nemotron_h_moe": "mtp.", "nemotron_h_omni": "mtp."}

Tensors = dict[str, Tensor]


def architecture(named: str, info: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """The architecture as llama.cpp loads it."""
    if named == "gemma3" and "dense.0.weight" in tensors:
        return "gemma-embedding"
    if named == "nemotron_h_omni":
        return "nemotron_h_moe" if info.get("nemotron_h_omni.expert_count") else "nemotron_h"
    return LOADED_AS.get(named, named)


def as_loaded(
    named: str, info: Mapping[str, object], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, object], Tensors]:
    """What of the metadata is otherwise, and the tensors by llama.cpp's names.

    Keys are without the architecture; None: llama.cpp does not get it.
    """
    loaded = architecture(named, info, tensors)
    parts = _PARTS.get(named, _PARTS.get(loaded, {}))
    skipped = _NOT_LOADED.get(named, "\0")
    renamed = [_renamed(tensor, parts) for name, tensor in tensors.items() if not name.startswith(skipped)]
    changed: dict[str, object] = {}
    if named == "glm4moelite" and "blk.0.attn_k_b.weight" in tensors:
        rank, turned = (info.get(f"{named}.{key}") for key in ("attention.kv_lora_rank", "rope.dimension_count"))
        if isinstance(rank, int) and isinstance(turned, int):
            changed |= {"attention.head_count_kv": 1, "attention.key_length": rank + turned}
            changed["attention.value_length"] = rank
    if loaded == "gemma-embedding" and named == "gemma3":
        changed["attention.sliding_window_pattern"] = None
    if named in ("qwen3vl", "qwen3vlmoe"):
        changed |= _deepstack(named, info, tensors)
    if named in ("qwen35", "qwen35moe"):
        more, renamed = _predicting(info.get(f"{named}.block_count"), renamed)
        changed |= more
    by_name = {tensor.name: tensor for tensor in renamed}
    if loaded == "gemma-embedding" and "norm.weight" in by_name:
        by_name["output_norm.weight"] = replace(by_name.pop("norm.weight"), name="output_norm.weight")
    if named == "glmocr":
        by_name = _gates_in_up(by_name)
    if named == "gemma3n" and {"per_layer_token_embd.weight", "token_embd.weight"} <= by_name.keys():
        tokens = by_name["per_layer_token_embd.weight"].shape[1:]
        whole = by_name["token_embd.weight"]
        by_name[whole.name] = replace(whole, shape=(*whole.shape[:1], *tokens))
    return changed, by_name


def _renamed(tensor: Tensor, parts: Mapping[str, str]) -> Tensor:
    name = tensor.name
    for there, here in parts.items():
        if there in name and not name.startswith(("v.", "mm.", "a.", "s.")):
            name = name.replace(there, here, 1)
    return tensor if name == tensor.name else replace(tensor, name=name)


def _deepstack(named: str, info: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """How many blocks an image adds to; the array may be there without its values, the tensors then tell."""
    if f"{named}.n_deepstack_layers" in info:
        return {}
    listed = info.get(f"{named}.vision.deepstack_visual_indexes")
    if isinstance(listed, (list, tuple)):
        return {"n_deepstack_layers": len(listed)}
    adapters = {match[1] for name in tensors if (match := re.match(r"v\.deepstack(?:_merger)?\.(\d+)\.", name))}
    return {"n_deepstack_layers": len(adapters)}


def _predicting(count: object, tensors: list[Tensor]) -> tuple[dict[str, object], list[Tensor]]:
    """Blocks for prediction, numbered after the others as in llama.cpp; the experts of each as one tensor."""
    numbers = [int(match[1]) for tensor in tensors if (match := _PREDICTING.fullmatch(tensor.name))]
    if not numbers or not isinstance(count, int) or any(".nextn." in tensor.name for tensor in tensors):
        return {}, [tensor for tensor in tensors if not tensor.name.startswith("mtp.")]
    found: list[Tensor] = []
    experts: dict[str, list[Tensor]] = {}
    for tensor in tensors:
        match = _PREDICTING.fullmatch(tensor.name)
        expert = _EXPERT.fullmatch(match[2]) if match else None
        if match and expert:
            experts.setdefault(f"blk.{count + int(match[1])}.ffn_{expert[2]}_exps.weight", []).append(tensor)
        elif match:
            found.append(replace(tensor, name=f"blk.{count + int(match[1])}.{match[2]}"))
        else:
            of_block = {there: f"blk.{count}.{here}" for there, here in _OF_PREDICTION.items()}
            found.append(_renamed(tensor, of_block))
    found += [replace(each[0], name=name, shape=(*each[0].shape, len(each))) for name, each in experts.items()]
    predicting = max(numbers) + 1
    return {"block_count": count + predicting, "nextn_predict_layers": predicting}, found


def _gates_in_up(tensors: Tensors) -> Tensors:
    """Each block's gate, which is loaded as a part of `ffn_up`."""
    fused = dict(tensors)
    for name in tensors:
        if name.endswith(".ffn_gate.weight"):
            up = name.replace("ffn_gate", "ffn_up")
            gate = fused.pop(name)
            if up in fused:
                fused[up] = replace(fused[up], shape=(gate.shape[0], gate.shape[1] + fused[up].shape[1]))
    return fused
