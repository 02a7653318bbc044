"""What llama-server is told in the end, and what that keeps from the GPU."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch, llama_args


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
