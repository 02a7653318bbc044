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
