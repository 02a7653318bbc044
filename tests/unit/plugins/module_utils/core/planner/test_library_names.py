"""A file of Ollama's library is planned like the one that llama.cpp would load."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import Tensor
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.library_names import architecture, as_loaded
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.planner import Model, Scenario, plan
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

TODAY = "0.32.15"


def as_the_library_names_it(name: str, loaded: str, named: str, parts: dict[str, str]) -> dict[str, Any]:
    """The same model's answer with the architecture and the tensors called as Ollama's library does."""
    answer = recorded_models.answer_of(name)
    info = {key.replace(f"{loaded}.", f"{named}.", 1): value for key, value in answer["model_info"].items()}
    for tensor in answer["tensors"]:
        for here, there in parts.items():
            tensor["name"] = tensor["name"].replace(here, there)
    return {"model_info": {**info, "general.architecture": named}, "tensors": answer["tensors"]}


@pytest.mark.parametrize(
    ("name", "loaded", "named", "parts"),
    [
        ("gpt-oss-20b", "gpt-oss", "gptoss", {"attn_output.": "attn_out.", "post_attention_norm": "ffn_norm"}),
        ("olmo3-7b", "olmo2", "olmo3", {}),
        ("qwen25vl-7b", "qwen2vl", "qwen25vl", {}),
        ("glm-4.7-flash", "deepseek2", "glm4moelite", {}),
        (
            "embeddinggemma-300m",
            "gemma-embedding",
            "gemma3",
            {"dense_2.": "dense.0.", "dense_3.": "dense.1.", "output_norm.": "norm."},
        ),
        ("lfm2-1.2b", "lfm2", "lfm2", {"token_embd_norm.": "output_norm."}),
    ],
)
def test_a_file_of_the_library_is_planned_like_the_one_that_llama_cpp_would_load(
    name: str, loaded: str, named: str, parts: dict[str, str]
) -> None:
    answer = as_the_library_names_it(name, loaded, named, parts)
    if named == "glm4moelite":  # a head's own widths, and as many key heads as heads
        answer["model_info"] |= {
            "glm4moelite.attention.head_count_kv": 20,
            "glm4moelite.attention.key_length": 256,
            "glm4moelite.attention.value_length": 256,
        }
    ours, theirs = (Model.from_show(each) for each in (answer, recorded_models.answer_of(name)))
    for scenario in (Scenario(num_batch=512), Scenario(num_gpu=8, num_ctx=8192, num_parallel=2)):
        assert plan(ours, scenario, ollama_version=TODAY) == plan(theirs, scenario, ollama_version=TODAY)


@pytest.mark.parametrize("verbose", [True, False])
def test_what_an_image_adds_to_the_first_blocks_follows_from_the_published_names(verbose: bool) -> None:
    published = recorded_models.answer_of("qwen3vl-8b")
    del published["model_info"]["qwen3vl.n_deepstack_layers"]
    published["model_info"]["qwen3vl.vision.deepstack_visual_indexes"] = [8, 16, 24] if verbose else None
    for number in (8, 16, 24):
        published["tensors"].append({"name": f"v.deepstack.{number}.fc1.bias", "type": "F32", "shape": [4608]})
    found = Model.from_show(published)
    assert found.input_streams == Model.from_show(recorded_models.answer_of("qwen3vl-8b")).input_streams == 4


def test_blocks_that_predict_are_found_under_their_published_names() -> None:
    loaded = recorded_models.answer_of("qwen35-9b-mtp")
    published = copy.deepcopy(loaded)
    published["model_info"]["qwen35.block_count"] = 32
    del published["model_info"]["qwen35.nextn_predict_layers"]
    others = {
        "nextn.eh_proj.": "mtp.fc.",
        "nextn.enorm.": "mtp.pre_fc_norm_embedding.",
        "nextn.hnorm.": "mtp.pre_fc_norm_hidden.",
        "nextn.shared_head_norm.": "mtp.norm.",
    }
    for tensor in published["tensors"]:
        if tensor["name"].startswith("blk.32."):
            tensor["name"] = tensor["name"].replace("blk.32.", "mtp.layers.0.")
            for here, there in others.items():
                tensor["name"] = tensor["name"].replace(f"mtp.layers.0.{here}", there)
    scenario = Scenario(num_batch=512, draft_num_predict=4)
    ours, theirs = (plan(Model.from_show(answer), scenario, ollama_version=TODAY) for answer in (published, loaded))
    assert ours == theirs


def test_a_gate_that_is_loaded_as_a_part_of_the_other_matrix_is_counted_there() -> None:
    gate, up, out = (
        Tensor(f"blk.0.{name}.weight", "Q8_0", shape)
        for name, shape in (("ffn_gate", (64, 128)), ("ffn_up", (64, 128)), ("attn_out", (64, 64)))
    )
    _changed, tensors = as_loaded("glmocr", {}, {each.name: each for each in (gate, up, out)})
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "blk.0.ffn_up.weight": (64, 256),
        "blk.0.attn_output.weight": (64, 64),
    }


@pytest.mark.parametrize(
    ("named", "more", "loaded"),
    [
        ("gemma3", {}, "gemma3"),
        ("nemotron_h_omni", {"nemotron_h_omni.expert_count": 128}, "nemotron_h_moe"),
        ("nemotron_h_omni", {}, "nemotron_h"),
        ("deepseekocr", {}, "deepseek2-ocr"),
        ("llama", {}, "llama"),
    ],
)
def test_the_architecture_is_the_one_that_is_loaded(named: str, more: dict[str, object], loaded: str) -> None:
    assert architecture(named, more, {}) == loaded


def test_gemma3n_has_as_many_tokens_as_its_per_layer_embeddings() -> None:
    tokens = Tensor("token_embd.weight", "F16", (64, 262400))
    per_layer = Tensor("per_layer_token_embd.weight", "F16", (512, 262144))
    _changed, tensors = as_loaded("gemma3n", {}, {each.name: each for each in (tokens, per_layer)})
    assert tensors["token_embd.weight"].shape == (64, 262144)


def test_experts_of_a_block_that_predicts_are_one_tensor() -> None:
    listed = [
        Tensor(f"mtp.layers.0.mlp.experts.{number}.{part}_proj.weight", "Q8_0", (64, 32))
        for number in range(4)
        for part in ("gate", "up", "down")
    ]
    changed, tensors = as_loaded("qwen35moe", {"qwen35moe.block_count": 8}, {each.name: each for each in listed})
    assert changed == {"block_count": 9, "nextn_predict_layers": 1}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        f"blk.8.ffn_{part}_exps.weight": (64, 32, 4) for part in ("gate", "up", "down")
    }
