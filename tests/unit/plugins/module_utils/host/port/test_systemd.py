# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the port quotes of others has no secret in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, systemd


def row(message: str, monotonic_s: int) -> bytes:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    times = {"__REALTIME_TIMESTAMP": str(1_790_000_000_000_000 - monotonic_s), "_BOOT_ID": boot}
    return json.dumps({**times, "__MONOTONIC_TIMESTAMP": f"{monotonic_s}000000", "MESSAGE": message}).encode()


SAID = {
    "journalctl": (0, b"\n".join(map(row, ("second vault-word", "first of-the-unit"), (3, 2))), b""),
    "systemctl": (1, b"", b"Job failed for vault-word"),
    "systemd-run": (1, b"", b"Failed to run vault-word"),
    "show": (0, b"Environment=A=of-the-unit\n", b""),
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> systemd.LinuxHost:
    def run(words: list[str], *_unused: object, **_more: object) -> commands.Done:
        return commands.Done(*SAID["show" if words[1] == "show" and "ollama.service" in words else words[0]])

    monkeypatch.setattr(commands, "run", run)
    (tmp_path / ".env").write_text("A=vault-word\n")
    host = systemd.LinuxHost(secrets.Masking(paths=Paths(root=str(tmp_path / "kept"))))
    host.never_show({"backend": {"kind": "none"}, "restart": [], "private_files": [str(tmp_path / ".env")]})
    return host


def test_a_journal_is_shown_without_what_its_unit_and_the_services_keep(host: systemd.LinuxHost) -> None:
    assert host.journal("ollama.service", 0) == ["first ********", "second ********"]
    # By no clock that can be set: the first was written 2 s after the boot, whatever it says.
    assert host.journal("ollama.service", 2.5) == ["second ********"]


def test_what_a_command_says_is_shown_without_what_the_services_keep(host: systemd.LinuxHost) -> None:
    assert host.systemctl("restart", "ollama.service") == "systemctl restart: Job failed for ********"
    assert host.start_transient("a.service", ["x"], "/", "root") == "systemd-run a.service: Failed to run ********"
