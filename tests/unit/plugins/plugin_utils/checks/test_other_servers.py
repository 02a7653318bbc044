"""Where a unit listens instead, and what another Ollama holds."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import other_servers

URL = "http://127.0.0.1:11434"
OTHER = {"pid": 7, "command": "ollama", "user": "joe", "kind": "unit", "name": "x.service", "alone": False}


def test_where_the_unit_listens_instead():
    there = ["http://127.0.0.1:1"]
    assert other_servers.elsewhere("ollama.service", URL, [], False) is None
    assert "gpu_memory_ollama.url=http://127.0.0.1:1" in other_servers.elsewhere("ollama.service", URL, there, False)
    for url in ("http://127.0.0.1:1/", "http://localhost:1"):
        assert other_servers.elsewhere("ollama.service", url, there, False) is None, "it listens there, and is silent"
    assert other_servers.elsewhere("ollama.service", "http://[::1]:1", there, False)
    apart = other_servers.elsewhere("ollama.service", URL, there, True)
    assert "gpu_memory_ollama.url=" not in apart and "a network namespace of its own" in apart


def test_what_another_ollama_holds():
    alone = {**OTHER, "kind": "process", "name": None, "alone": True}
    assert "run: kill 7" in other_servers.other_note(alone, 9000)
    assert "9000 MiB" in other_servers.other_note(alone, 9000)
    assert other_servers.short(OTHER) == "ollama 7 of x.service"
    assert "counts as memory of others" in other_servers.other_note(OTHER, 1)
