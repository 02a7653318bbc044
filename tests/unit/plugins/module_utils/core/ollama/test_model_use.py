from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_use

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
