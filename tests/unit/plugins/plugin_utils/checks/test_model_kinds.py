"""What a model is for, by what Ollama shows of it."""

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import model_kinds


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (None, False),
        ({}, False),
        ({"capabilities": ["embedding"]}, True),
        ({"capabilities": ["completion", "embedding"]}, False),
        ({"capabilities": ["completion", "tools"], "details": {"family": "bert"}}, False),
        ({"model_info": {"bert.pooling_type": 1}}, True),
        ({"details": {"family": "nomic-bert"}, "model_info": {}}, True),
        ({"details": {"family": "llama"}, "model_info": {"llama.block_count": 32}}, False),
    ],
)
def test_embeds_only(shown: Any, expected: bool) -> None:
    assert model_kinds.embeds_only(shown) is expected


def test_none_of() -> None:
    assert model_kinds.none_of(["a", "B", "c:1"], ["a:latest", "b:latest", "c:2"]) == ["c:1"]
