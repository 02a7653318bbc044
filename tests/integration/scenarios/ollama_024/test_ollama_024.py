"""Ollama 0.24 on the profile stable: every effect is read back from what its runner was sent."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.scenarios import lab_host

OVERHEAD = str(4092 * 1024 * 1024)


def settings() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in lab_host.report()["settings"]}


def test_it_passes_as_the_release_that_it_is() -> None:
    report = lab_host.report()
    assert (report["verdict"], report["versions"]["ollama"]) == ("pass", "0.24.0")


@pytest.mark.parametrize(
    ("name", "wanted", "state", "effect"),
    [
        ("CHAT_NUM_CTX", "4096", "in force", "runner was sent KvSize:8192 (= 4096 x 2)"),
        ("OLLAMA_NUM_PARALLEL", "2", "in force", "runner was sent Parallel:2"),
        ("num_batch", "512", "in force", "runner was sent BatchSize:512"),
        ("OLLAMA_GPU_LAYERS", "40", "no effect", "40 caps nothing, since the model has 33 layers"),
        ("OLLAMA_GPU_OVERHEAD", OVERHEAD, "void", "requests carry num_gpu=40"),
    ],
)
def test_an_effect_is_read_back_from_the_runner(name: str, wanted: str, state: str, effect: str) -> None:
    row = settings()[name]
    assert (row["wanted"], row["state"]) == (wanted, state)
    assert row["effect"].startswith(effect)


def test_the_drop_in_speaks_the_words_of_this_release(host: Any) -> None:
    text = host.file(lab_host.DROP_IN).content_string
    assert f'Environment="OLLAMA_GPU_OVERHEAD={OVERHEAD}"' in text
    assert "LLAMA_ARG_" not in text
