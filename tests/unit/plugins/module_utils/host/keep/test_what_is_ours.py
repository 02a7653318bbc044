"""What this collection has set, by what its generations tell."""

from __future__ import annotations

from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import what_is_ours

READERS = ["python-dotenv", "bash", "systemd"]
DROP_IN = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"


def kept_drop_in(keys: list[str] | None) -> Any:
    """A generation; of an older release, which has kept no keys, where there are none."""
    env = {"env": {DROP_IN: {"keys": keys, "readers": []}}} if keys else {}
    return {"files": [{"path": DROP_IN, "kind": "absent"}], **env}


def test_what_any_kept_run_has_set_in_our_drop_in_is_ours() -> None:
    text = 'Environment="OLLAMA_NUM_PARALLEL=2"\nEnvironment=OLLAMA_CONTEXT_LENGTH=1\nEnvironment="OTHER=1"\n'
    text = f"{unit_text.HEADER}\n[Service]\n{text}"
    assert what_is_ours.variables_of([kept_drop_in(["A"]), kept_drop_in(["B"])], DROP_IN, text) == {"A", "B"}
    for older in ([kept_drop_in(["A"]), kept_drop_in(None)], []):  # what we may set, just as we write it
        assert what_is_ours.variables_of(older, DROP_IN, text) == ["OLLAMA_NUM_PARALLEL"]


def test_the_keys_of_a_file_are_those_of_every_run() -> None:
    env = {"keys": ["K"], "readers": READERS, "values": {"K": ["40"]}}
    more = {"keys": ["K", "NEW"], "readers": ["docker"], "values": {"K": ["40", "50"]}, "profile": "stable"}
    of_an_older_release = {"keys": ["OLD"], "readers": READERS}
    found = what_is_ours.keys_of(
        [
            {"env": {"/x/.env": env}},
            {},
            {"env": {"/x/.env": more, "/y/.env": more}},
            {"env": {"/x/.env": of_an_older_release}},
        ]
    )
    assert found["/x/.env"]["keys"] == ["K", "NEW", "OLD"]
    assert found["/x/.env"]["values"] == {"K": ["40", "50"]}
    assert found["/y/.env"] == more and more["values"] == {"K": ["40", "50"]}


def test_whose_drop_in_it_is() -> None:
    of_quadlet = "/etc/containers/systemd/llm.container.d/zz-gpu-memory.conf"
    assert what_is_ours.is_drop_in_of(DROP_IN, "ollama.service")
    assert not what_is_ours.is_drop_in_of(DROP_IN, "llm.service")
    assert what_is_ours.is_drop_in_of(of_quadlet, "any.service"), "its file may give the unit any name"
    assert what_is_ours.is_drop_in_of("/srv/llm/gpu-memory.env", "compose:llm/ollama")
    assert not what_is_ours.is_drop_in_of("/srv/llm/.env", "compose:llm/ollama")
    assert not what_is_ours.is_drop_in_of("/etc/containers/systemd/llm.container.d/a.conf", "llm.service")
    text = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}, section="Container")
    assert what_is_ours.variables_of([], of_quadlet, text) == ["OLLAMA_NUM_PARALLEL"]
