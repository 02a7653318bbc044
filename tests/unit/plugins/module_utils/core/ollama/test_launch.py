"""What llama-server is told in the end, and what that keeps from the GPU."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch, llama_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import placement


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LLAMA_ARG_DEVICE", "none", "the whole model"),
        ("LLAMA_ARG_DEVICE", "CUDA0", None),
        ("LLAMA_ARG_KV_OFFLOAD", "0", "the KV cache"),
        ("LLAMA_ARG_KV_OFFLOAD", "1", None),
        ("LLAMA_ARG_N_CPU_MOE", "0", None),
        ("LLAMA_ARG_N_CPU_FFN", "3", "what the first 3 layers have of dense feed-forward weights"),
        ("LLAMA_ARG_CPU_MOE", "0", None),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "a=CPU,b=CUDA1,c.x=CPU", "what tensors match a or c.x"),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "b=CUDA1", None),
        ("LLAMA_ARG_FIT", "off", None),
    ],
)
def test_what_a_setting_keeps_from_the_gpu(variable, value, words):
    assert launch.keeps_off(variable, llama_args.taken(variable, value)) == words


@pytest.mark.parametrize(("value", "read"), [("ffn_.*=CPU", True), ("[=CPU", False), ("a=CPU,(=CPU", False)])
def test_a_pattern_that_is_no_regular_expression_is_seen(value, read):
    assert launch.patterns_are_read(value) == read


def test_what_no_plan_counts_is_named():
    environment = {
        "LLAMA_ARG_SPLIT_MODE": "row",
        "LLAMA_ARG_KV_UNIFIED": "off",
        "LLAMA_ARG_SPEC_TYPE": "ngram-mod",
        "LLAMA_ARG_MOE_CACHE_MIB": "0",
        "LLAMA_ARG_SWA_FULL": "1",
    }
    assert launch.unplanned(llama_args.read(environment)) == ["LLAMA_ARG_SPEC_TYPE", "LLAMA_ARG_SPLIT_MODE"]
    of_some_gpus = llama_args.read({"LLAMA_ARG_DEVICE": "CUDA1", "LLAMA_ARG_TENSOR_SPLIT": "3,1"})
    assert len(launch.unplanned(of_some_gpus)) == 2
    assert launch.unplanned(of_some_gpus, for_linter=True) == []


def told(environment=None, parameters=None, options=None, version=(0, 32, 15)):
    return launch.told(environment or {}, parameters or {}, options or {}, version)


def test_a_request_wins_over_the_modelfile_and_that_over_the_server():
    environment = {"OLLAMA_CONTEXT_LENGTH": "2048", "OLLAMA_NUM_PARALLEL": "2"}
    assert told(environment).scenario == {"num_ctx": 2048, "num_parallel": 2, "on_cpu": []}
    assert told(environment, {"num_ctx": 8192}).scenario["num_ctx"] == 8192
    assert told(environment, {"num_ctx": 8192}, {"num_ctx": 1024}).scenario["num_ctx"] == 1024
    assert told(environment, {"num_ctx": 8192}, {"num_ctx": None}).scenario["num_ctx"] == 8192


@pytest.mark.parametrize(
    ("environment", "scenario"),
    [
        ({"LLAMA_ARG_SWA_FULL": "1"}, {"full_windows": True}),
        ({"LLAMA_ARG_NO_KV_OFFLOAD": "0"}, {"cache_on_gpu": False}),
        ({"LLAMA_ARG_KV_UNIFIED": "1"}, {"unified_cache": True}),
        ({"LLAMA_ARG_EMBEDDINGS": "1"}, {"every_output": True}),
        ({"LLAMA_ARG_EMBEDDINGS": "0", "LLAMA_ARG_POOLING": "rank"}, {"every_output": True}),
        ({"LLAMA_ARG_POOLING": "none"}, {"pooled": False}),
        (
            {"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "LLAMA_ARG_CACHE_TYPE_V": "q4_0"},
            {"kv_cache_type": "q8_0", "v_cache_type": "q4_0"},
        ),
        ({"LLAMA_ARG_CACHE_TYPE_K": "q8_0"}, {"kv_cache_type": "q8_0", "v_cache_type": "f16"}),
        ({"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "OLLAMA_KV_CACHE_TYPE": "Q4_0"}, {"kv_cache_type": "q4_0"}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "5abc"}, {"num_gpu": 5}),
        ({"LLAMA_ARG_DEVICE": "none"}, {"num_gpu": 0}),
        ({"LLAMA_ARG_CTX_SIZE": "1", "LLAMA_ARG_BATCH": "1"}, {}),  # Ollama's own flags win
        ({"OLLAMA_FLASH_ATTENTION": "no"}, {"flash_attention": "on"}),  # what is no boolean counts as true
        ({"OLLAMA_FLASH_ATTENTION": "0"}, {"flash_attention": "off"}),
        ({"LLAMA_ARG_N_CPU_MOE": "2"}, {"on_cpu": placement.of_first(2, placement.EXPERTS)}),
        ({"LLAMA_ARG_OVERRIDE_TENSOR": "a=CPU,b=CUDA0"}, {"on_cpu": ["a"]}),
    ],
)
def test_what_llama_servers_own_variables_make_of_a_load(environment, scenario):
    assert told(environment).scenario == {"on_cpu": [], **scenario}


def test_before_0_30_nobody_reads_them():
    assert told({"LLAMA_ARG_DEVICE": "none", "LLAMA_ARG_CTX_SIZE": "abc"}, version=(0, 24, 0)).scenario == {}


@pytest.mark.parametrize(
    ("environment", "options", "fits"),
    [
        ({}, {}, True),
        ({}, {"num_gpu": -1}, True),
        ({}, {"num_gpu": 40}, False),
        ({"LLAMA_ARG_FIT": "off"}, {}, False),
        ({"LLAMA_ARG_N_GPU_LAYERS": "all"}, {}, False),
        ({"LLAMA_ARG_N_GPU_LAYERS": "auto"}, {}, True),
        ({"LLAMA_ARG_N_CPU_MOE": "2"}, {}, False),  # "tensor_buft_overrides already set by user, abort"
        ({"LLAMA_ARG_N_CPU_MOE": "0"}, {}, True),
    ],
)
def test_whether_layers_are_fitted(environment, options, fits):
    assert told(environment, {}, options).fits == fits


def test_the_margin_of_others_is_what_is_taken_of_it():
    assert told({"LLAMA_ARG_FIT_TARGET": "1GiB,2048"}).margin_mib == 1
    assert told({"LLAMA_ARG_FIT_TARGET": "-1"}).margin_mib == 0
    assert told().margin_mib is None


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"LLAMA_ARG_CTX_SIZE": "abc"}, "llama-server does not start: LLAMA_ARG_CTX_SIZE=abc"),
        ({"LLAMA_ARG_SPEC_TYPE": "ngram-mod"}, "LLAMA_ARG_SPEC_TYPE: it moves GPU memory in a way that no plan counts"),
        ({"LLAMA_ARG_DEVICE": "CUDA1"}, "LLAMA_ARG_DEVICE: it moves GPU memory"),
        ({"LLAMA_ARG_TENSOR_SPLIT": "3,1"}, "LLAMA_ARG_TENSOR_SPLIT: it moves GPU memory"),
        ({"LLAMA_ARG_MAIN_GPU": "1"}, "LLAMA_ARG_MAIN_GPU: it moves GPU memory"),
        ({"LLAMA_ARG_NO_MMPROJ_OFFLOAD": "1"}, "LLAMA_ARG_MMPROJ_OFFLOAD: it moves GPU memory"),
    ],
)
def test_what_cannot_be_planned_is_refused(environment, why):
    assert (told(environment).refused or "").startswith(why)


@pytest.mark.parametrize("environment", [{"LLAMA_ARG_DEVICE": "none"}, {"LLAMA_ARG_MAIN_GPU": "0"}])
def test_what_chooses_no_gpu_is_planned(environment):
    assert told(environment).refused is None
