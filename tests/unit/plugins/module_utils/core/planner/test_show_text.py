"""What `ollama show --verbose` prints."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import show_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import ModelUnreadable
from hypothesis import given
from hypothesis import strategies as some

DUMP = """\
  Model
    architecture        llama
    parameters          8.0B

  Parameters
    num_ctx    32768
    stop       "<|eot_id|>"

  Metadata
    general.architecture               llama
    general.parameter_count            8.030261312e+09
    llama.block_count                  32
    llama.rope.freq_base               500000
    llama.expert                       <nil>
    tokenizer.ggml.tokens              [! " # ...+128253 more]
    tokenizer.ggml.add_bos_token       true

  Tensors
    token_embd.weight         Q4_K    [4096 128256]
    blk.0.attn_norm.weight    F32     [4096]

  License
    LLAMA 3.1 COMMUNITY LICENSE
"""


def test_each_section_is_that_of_an_answer() -> None:
    assert show_text.show(DUMP) == {
        "model_info": {
            "general.architecture": "llama",
            "general.parameter_count": 8030261312.0,
            "llama.block_count": 32,
            "llama.rope.freq_base": 500000,
            "llama.expert": None,
            "tokenizer.ggml.tokens": None,
            "tokenizer.ggml.add_bos_token": True,
        },
        "tensors": [
            {"name": "token_embd.weight", "type": "Q4_K", "shape": [4096, 128256]},
            {"name": "blk.0.attn_norm.weight", "type": "F32", "shape": [4096]},
        ],
        "parameters": 'num_ctx 32768\nstop "<|eot_id|>"',
    }


def test_without_verbose_there_are_no_tensors() -> None:
    with pytest.raises(ModelUnreadable, match="ollama show --verbose"):
        show_text.show(DUMP.partition("  Metadata")[0])


@given(some.text(max_size=300))
def test_any_text_is_read_or_refused(noise: str) -> None:
    try:
        show_text.show(f"  Tensors\n{noise}")
    except ModelUnreadable:
        return
