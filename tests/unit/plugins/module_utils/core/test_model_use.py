from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import model_use


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
    assert model_use.embeds_only(shown) is expected


TAGS = [{"name": "a:latest", "remote": False}, {"name": "b:cloud", "remote": True}, {"name": "own:cloud"}]


@pytest.mark.parametrize(
    ("model", "expected"),
    [("a", False), ("b:cloud", True), ("own:cloud", False), ("c:120b-cloud", True), ("d", False)],
)
def test_is_elsewhere(model: str, expected: bool) -> None:
    assert model_use.is_elsewhere(model, TAGS) is expected


def read(loaded: list[str], started: list[str]) -> dict[str, Any]:
    loads = [{"command": ["llama-server", "--model", blob]} for blob in started]
    api = {"loaded": [{"name": name} for name in loaded], "show": {"a": {"blob": "/a"}, "b": {"blob": "/b"}}}
    return {"api": api, "journal": {"loads": loads}}


@pytest.mark.parametrize(
    ("before", "loaded", "started", "expected"),
    [
        ([], [], [], ["a", "b"]),
        ([], ["a:latest"], [], ["b"]),
        (["b"], [], ["/a"], []),
        ([], [], ["/b"], ["a"]),
    ],
)
def test_not_loaded(before: list[str], loaded: list[str], started: list[str], expected: list[str]) -> None:
    assert model_use.not_loaded(["a", "b", "unknown"], read(before, []), read(loaded, started)) == expected
