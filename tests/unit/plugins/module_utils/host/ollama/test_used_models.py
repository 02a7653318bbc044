from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.used_models import UsedModels


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"models": [1]}', b"no JSON"])
def test_what_is_no_list_of_ollamas_tells_nothing(serve: Any, answer: bytes) -> None:
    used = UsedModels(serve(lambda handler, body: (200, answer)))
    used.look()
    assert used.names is None


def test_one_good_look_is_enough(serve: Any) -> None:
    models = [{"name": "a:latest", "size": 1, "expires_at": "1"}]
    answers = iter([(200, b'{"models": null}'), (200, json.dumps({"models": models}).encode()), (500, b"")])
    used = UsedModels(serve(lambda handler, body: next(answers)))
    used.look()
    used.look()
    assert used.names == {"a:latest"}


def test_one_without_a_size_counts_once_its_time_stands_still(serve: Any) -> None:
    """Ollama shows a model that is being loaded without a size, and one that is on the CPU alone."""

    def listed(*expires: str) -> tuple[int, bytes]:
        models = [{"name": f"{number}:latest", "size": 0, "expires_at": when} for number, when in enumerate(expires)]
        return 200, json.dumps({"models": models}).encode()

    answers = iter([listed("1"), listed("1", "2", "3"), listed("1", "4", "3")])
    used = UsedModels(serve(lambda handler, body: next(answers)))
    used.look()
    assert used.names == set()
    used.look()
    assert used.names == {"2:latest"}
