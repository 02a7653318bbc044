"""A URL taken apart: what is connected to, what is asked for, what may be shown."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import urls


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "shown"),
    [
        ("http://gpu01:11434", "gpu01", 11434, "/", "http://gpu01:11434"),
        ("https://me:secret@gpu01/api?key=secret", "gpu01", None, "/api?key=secret", "https://gpu01/api"),
        ("http://[::1]:11434/api/ps", "::1", 11434, "/api/ps", "http://[::1]:11434/api/ps"),
    ],
)
def test_its_parts(text: str, host: str, port: int | None, path: str, shown: str) -> None:
    found = urls.parse(text)
    assert (found.host, found.port, found.path, found.shown) == (host, port, path, shown)


@pytest.mark.parametrize("text", ["", "gpu01:11434", "ftp://me:secret@gpu01", "http://", "http://me:secret@gpu01:port"])
def test_what_cannot_be_asked_is_refused_without_what_it_holds(text: str) -> None:
    with pytest.raises(ValueError, match="not a URL") as refused:
        urls.parse(text)
    assert "secret" not in str(refused.value)
