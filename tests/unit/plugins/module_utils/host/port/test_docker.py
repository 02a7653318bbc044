# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker's commands, and what is made of what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, docker
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_docker import (
    UNIT,
    Docker,
    container,
)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path)
    monkeypatch.setattr(commands, "run", made.run)
    docker.service_of.cache_clear()
    return made


def test_a_service_is_found_by_its_labels(recorded: Docker) -> None:
    found = docker.current(UNIT)
    assert found is not None and found["Name"] == "/ollama"
    words = recorded.asked[0]
    assert "label=com.docker.compose.project=llm" in words and "label=com.docker.compose.service=ollama" in words
    assert docker.current("ollama.service") is None
    recorded.containers = []
    assert docker.current(UNIT) is None


def test_a_silent_docker_is_no_missing_container(recorded: Docker) -> None:
    recorded.fails = {"ps": "Cannot connect to the Docker daemon"}
    with pytest.raises(docker.Silent, match="Cannot connect"):
        docker.current(UNIT)
    assert docker.show(UNIT, "Id,LoadState") == ""
    recorded.fails = {"inspect": "timeout"}
    with pytest.raises(docker.Silent, match="does not say"):
        docker.current(UNIT)


def test_a_service_is_shown_as_a_unit(recorded: Docker) -> None:
    assert docker.show(UNIT, "LoadState,DropInPaths") == "LoadState=loaded\nDropInPaths=\n"
    recorded.own.write_text("")
    assert docker.show(UNIT, "DropInPaths") == f"DropInPaths={recorded.own}\n"
    recorded.containers[0]["State"]["Pid"] = os.getpid()
    assert int(docker.show(UNIT, "ActiveEnterTimestampMonotonic").partition("=")[2]) > 0


def test_whose_a_container_is(recorded: Docker) -> None:
    assert docker.service_of("3f1c2ab90d5e") == UNIT
    assert docker.service_of("feed") is None


def test_what_compose_refuses_is_said(recorded: Docker) -> None:
    recorded.fails = {"config": "x\nservices.ollama.ports must be a list\n"}
    with pytest.raises(docker.Silent, match="services.ollama.ports must be a list"):
        docker.config(container(str(recorded.directory)))


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("stop", ["stop", "ollama"]),
        ("start", ["up", "--detach", "--no-deps", "--no-build", "--pull", "never", "ollama"]),
        ("restart", ["up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", "ollama"]),
    ],
)
def test_a_service_is_stopped_and_made_anew_by_its_own_files(recorded: Docker, verb: str, words: list[str]) -> None:
    assert docker.control(UNIT, verb) == ""
    project = ["--project-name", "llm", "--project-directory", str(recorded.directory), "--file", str(recorded.file)]
    assert recorded.asked[-1] == ["docker", "compose", *project, *words]


def test_what_goes_wrong_is_said(recorded: Docker) -> None:
    recorded.fails = {"up": "Error response from daemon: no such image"}
    assert docker.control(UNIT, "restart") == "docker compose restart: Error response from daemon: no such image"
    recorded.containers = []
    assert "has no container on this host" in docker.control(UNIT, "start")
