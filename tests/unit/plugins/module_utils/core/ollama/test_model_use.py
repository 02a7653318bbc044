from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_use, prompt_texts


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


TAGS = [{"name": "a:latest", "remote": False}, {"name": "stub:latest", "remote": True}, {"name": "own:8b-cloud"}]
OLD, NEW = (0, 17, 5), (0, 17, 6)


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        ("a", NEW, False),
        ("STUB", NEW, True),
        ("registry.ollama.ai/library/stub:latest", OLD, True),
        ("c:120b-cloud", OLD, True),
        ("c:cloud", NEW, True),
        ("me/c:CLOUD", NEW, True),
        ("c:8b:cloud", NEW, True),
        ("own:8b-cloud", OLD, False),  # one of this host
        ("own:8b-cloud", NEW, True),  # cannot be asked for any more
        ("own:8b-cloud", None, True),
        ("my-cloud", NEW, False),
        ("my-cloud:latest", NEW, False),
        ("cloud", NEW, False),
        ("a:cloudy", NEW, False),
        ("d", NEW, False),
    ],
)
def test_is_elsewhere(model: str, version: Any, expected: bool) -> None:
    assert model_use.is_elsewhere(model, TAGS, version) is expected


def test_none_of() -> None:
    assert model_use.none_of(["a", "B", "c:1"], ["a:latest", "b:latest", "c:2"]) == ["c:1"]


def ask(shown: Any, num_ctx: int = 4096, version: Any = (0, 32, 15)) -> dict[str, Any]:
    return model_use.request("m", shown, "http://o", num_ctx, 3, version)


@pytest.mark.parametrize(
    ("shown", "version", "path", "at", "requests"),
    [
        (None, None, "chat", "messages.0.content", 3),
        ({"capabilities": ["completion"]}, (0, 32, 15), "chat", "messages.0.content", 3),
        ({"capabilities": ["image"]}, (0, 32, 15), "generate", "prompt", 3),
        ({"capabilities": ["embedding"]}, (0, 32, 15), "embed", "input", 1),
        ({"details": {"family": "bert"}}, (0, 2, 6), "embed", "input", 1),
        ({"details": {"family": "bert"}}, (0, 2, 5), "embeddings", "prompt", 1),
        ({"details": {"family": "bert"}}, None, "embed", "input", 1),
    ],
)
def test_a_model_is_asked_as_it_is_used(shown: Any, version: Any, path: str, at: str, requests: int) -> None:
    found = ask(shown, version=version)
    assert (found["url"], found["prompt_at"], found["requests"]) == (f"http://o/api/{path}", at, requests)
    for body in found["bodies"]:
        assert body["model"] == "m"
        assert prompt_texts.with_prompt(body, at, lambda words: words) == body
        assert (body.get("options") == {"num_predict": 256}) is (path in ("chat", "generate"))


@pytest.mark.parametrize(
    ("capability", "trained", "num_ctx", "tokens"),
    [
        ("completion", 131072, 8192, 8192),
        ("completion", 2048, 8192, 2048),
        ("completion", None, 8192, 8192),
        ("embedding", 512, 8192, 512),
        ("embedding", 8192, 8192, 2048),  # its batch
        ("embedding", 8192, 1024, 1024),
    ],
)
def test_what_fills_a_model(capability: str, trained: int | None, num_ctx: int, tokens: int) -> None:
    info = {"general.architecture": "bert", "bert.context_length": trained}
    assert ask({"capabilities": [capability], "model_info": info}, num_ctx)["context_tokens"] == tokens


@pytest.mark.parametrize(("version", "tokens"), [((0, 24, 0), 512), ((0, 30, 0), 2048), (None, 2048)])
def test_what_an_embedder_reads_at_once(version: Any, tokens: int) -> None:
    assert ask({"capabilities": ["embedding"]}, 8192, version)["context_tokens"] == tokens


def test_a_runner_of_an_embedder() -> None:
    shows = {"e": {"capabilities": ["embedding"], "blob": "/e"}, "c": {"blob": "/c"}, "gone": None}
    assert model_use.is_embedders(["llama-server", "--model", "/c", "--embedding"], {})
    assert model_use.is_embedders(["ollama", "runner", "--model", "/e"], shows)
    assert not model_use.is_embedders(["ollama", "runner", "--model", "/c"], shows)
    assert not model_use.is_embedders([], {"e": {"capabilities": ["embedding"], "blob": None}})


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, False),
        ({"details": {"family": "llama"}}, False),
        ({"details": {"family": "qwen35"}}, True),
        ({"details": {"family": "x", "families": ["mllama"]}}, True),
        ({"model_info": {"general.architecture": "lfm2"}}, True),
        ({"capabilities": ["embedding"]}, True),
    ],
)
def test_has_one_slot(shown: Any, expected: bool) -> None:
    assert model_use.has_one_slot(shown) is expected
