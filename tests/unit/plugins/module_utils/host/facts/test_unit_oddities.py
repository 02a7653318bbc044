# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where files are looked for that systemd does not read."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_oddities


def written(root: Path, path: str, text: str) -> str:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file)


def test_every_place_is_looked_at_and_what_is_read_is_not_told(tmp_path: Path) -> None:
    units = "etc/systemd/system"
    good = written(tmp_path, f"{units}/ollama.service.d/a.conf", "[Service]\nEnvironment=OLLAMA_DEBUG=1\n")
    bad = written(tmp_path, f"{units}/ollama.service.d/b.conf", "Environment=OLLAMA_DEBUG=1\n")
    named = written(tmp_path, "etc/default/ollama", "OLLAMA_DEBUG=1\n")
    lines = "OLLAMA_DEBUG=1\n"
    told = {
        bad,
        written(tmp_path, f"{units}/ollama.service.d/local", "[Service]\nEnvironment=OLLAMA_DEBUG=1\n"),
        written(tmp_path, f"{units}/ollama.d/c.conf", "[Service]\n"),
        written(tmp_path, "etc/environment", lines),
        written(tmp_path, "etc/sysconfig/ollama", lines),
        written(tmp_path, "etc/profile.d/ollama.sh", f"export {lines}"),
    }
    written(tmp_path, "etc/profile", "PATH=/bin\n")
    found = unit_oddities.read("ollama.service", [good, bad, str(tmp_path / "absent")], [named], str(tmp_path))
    assert sorted(one["path"] for one in found) == sorted(told)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    os.mkfifo(tmp_path / "etc" / "environment")
    assert unit_oddities.read("ollama.service", [], [], str(tmp_path)) == []


def test_of_a_quadlet_also_the_drop_ins_of_its_unit(tmp_path: Path) -> None:
    file = written(tmp_path, "etc/containers/systemd/ollama.container", "[Container]\nEnvironment=OLLAMA_DEBUG=1\n")
    for_podman = written(
        tmp_path, "etc/systemd/system/ollama.service.d/a.conf", "[Service]\nEnvironment=OLLAMA_DEBUG=1\n"
    )
    found = unit_oddities.read("ollama.service", [file], [], str(tmp_path), quadlet=file)
    assert [one["path"] for one in found] == [for_podman]
