# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit is asked of systemd, and a service of Compose of Docker."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, service_properties
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_docker import UNIT, Docker


def test_who_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker(tmp_path)
    monkeypatch.setattr(commands, "run", docker.run)
    assert service_properties.of(UNIT, "Id,LoadState") == {"Id": UNIT, "LoadState": "loaded"}
    assert all(words[0] == "docker" for words in docker.asked)
    service_properties.show("ollama.service", "Id")
    service_properties.show(None, "Environment")
    assert docker.asked[-2:] == [
        ["systemctl", "show", "ollama.service", "--property", "Id"],
        ["systemctl", "show", "--property", "Environment"],
    ]
