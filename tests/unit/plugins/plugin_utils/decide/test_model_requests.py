from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import prompt_texts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import model_requests


def ask(shown: Any, num_ctx: int = 4096, version: Any = (0, 32, 15)) -> dict[str, Any]:
    return model_requests.request("m", shown, "http://o", num_ctx, 3, version)


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
