from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("qwen3", "qwen3:latest"),
        ("Qwen3:8B", "Qwen3:8B"),
        ("library/qwen3:8b", "qwen3:8b"),
        ("registry.ollama.ai/library/qwen3", "qwen3:latest"),
        ("https://Registry.Ollama.ai/Library/qwen3", "qwen3:latest"),
        ("registry.ollama.ai/somebody/own:1", "somebody/own:1"),
        ("somebody/own", "somebody/own:latest"),
        ("hf.co/somebody/own-GGUF:Q4_K_M", "hf.co/somebody/own-GGUF:Q4_K_M"),
        ("example.org:5000/library/qwen3", "example.org:5000/library/qwen3:latest"),
        ("qwen3:8b:local", "qwen3:8b"),
        ("qwen3:local", "qwen3:latest"),
        ("locally:8b", "locally:8b"),
    ],
)
def test_a_name_as_ollama_lists_it(name: str, full: str) -> None:
    assert model_name.full(name) == full


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("QWEN3:8B", "qwen3:8b"),
        ("registry.ollama.ai/library/qwen3:8b", "qwen3:8b"),
        ("Own", "own:latest"),
        ("qwen3", None),
        ("somebody/own", None),
    ],
)
def test_a_name_is_found_as_ollama_finds_it(name: str, found: str | None) -> None:
    assert model_name.listed(name, ["qwen3:8b", "own:latest"]) == found
