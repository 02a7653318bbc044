# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of ours is in force, whatever the files of a generation say."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import in_force
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import SERVICES

DROP_IN = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
OF_QUADLET = "/etc/containers/systemd/ollama.container.d/zz-gpu-memory.conf"
ENV = "/srv/chat/.env"
VALUES = {"ollama": {"OLLAMA_NUM_PARALLEL": {"2"}}, "backend": {}}


def copy(path: str, content: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    return {"files": [{"path": path, "kind": "file", "sha256": "s"}]}, {"s": content.encode()}


def test_our_values_are_those_of_our_drop_in_and_of_our_keys() -> None:
    ours = {ENV: {"keys": ["K"], "readers": ["python-dotenv"]}}
    theirs = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "9"}, "the role ollama")
    copies = [
        copy(ENV, "K=1\nSECRET=hunter2\n"),
        copy(ENV, "K=2  # why\n"),
        copy(DROP_IN, unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"})),
        copy(OF_QUADLET, unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "3"}, section="Container")),
        copy(DROP_IN, theirs),
        copy(DROP_IN.replace("ollama.service.d", "other.service.d"), unit_text.render_dropin({"OTHER": "1"})),
        ({"files": [{"path": DROP_IN, "kind": "absent"}]}, {}),
    ]
    found = in_force.values_of(copies, SERVICES, ours)
    assert found == {"ollama": {"OLLAMA_NUM_PARALLEL": {"2", "3"}}, "backend": {"K": {"1", "2", "2  # why"}}}


@pytest.mark.parametrize(
    ("runs_with", "file_says", "stale"),
    [("2", None, True), ("2", "4", True), ("2", "2", False), ("8", None, False), ("2", "%i", False)],
)
def test_a_process_is_stale_if_no_file_gives_it_our_value(runs_with: str, file_says: str | None, stale: bool) -> None:
    host = FakeHost()
    host.environments[11] = {"OLLAMA_NUM_PARALLEL": runs_with}
    environment = {"OLLAMA_NUM_PARALLEL": file_says} if file_says else {}
    source = {"kind": "drop-in", "path": "/x.conf", "environment": environment, "resets": False, "unsets": []}
    host.lacks["ollama.service"] = {"sources": [source]}
    assert in_force.stale(SERVICES, VALUES, host) == (["ollama"] if stale else [])


def test_what_only_systemd_has_of_ours_is_unread() -> None:
    host = FakeHost()
    assert not in_force.is_unread(SERVICES, VALUES, host)
    host.lacks["ollama.service"] = {"gone": ["/etc/systemd/system/ollama.service.d/override.conf"]}
    assert not in_force.is_unread(SERVICES, VALUES, host)
    for facts in ({"gone": [DROP_IN]}, {"environment": {"OLLAMA_NUM_PARALLEL": "2"}}):
        host.lacks["ollama.service"] = facts
        assert in_force.is_unread(SERVICES, VALUES, host)
        assert not in_force.is_unread({**SERVICES, "ollama": None}, VALUES, host)
