# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service of Compose read from what Docker says and from real files, by all who read a unit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_environment, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import (
    compose_files,
    host_read,
    secrets,
    unit_files,
    what_starts,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_log
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_docker import (
    IDENTITY,
    UNIT,
    Docker,
)

RECREATE = "Container ollama  Recreate"


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    made = Docker(tmp_path)
    monkeypatch.setattr(commands, "run", made.run)
    return made


def written(recorded: Docker, **environment: str) -> None:
    recorded.own.write_text(unit_text.render_dropin(environment, section=unit_text.NO_SECTION))


def in_container(recorded: Docker, *items: str) -> None:
    recorded.containers[0]["Config"]["Env"] = [*items, "OLLAMA_HOST=0.0.0.0:11434"]


def test_all_that_gives_a_service_its_environment(recorded: Docker) -> None:
    before, after = recorded.directory / "a.env", recorded.directory / "b.env"
    before.write_text("OLLAMA_NUM_PARALLEL=9\n")
    after.write_text("OLLAMA_KV_CACHE_TYPE=q4_0\n")
    written(recorded, OLLAMA_NUM_PARALLEL="2", OLLAMA_KV_CACHE_TYPE="q8_0", OLLAMA_MAX_LOADED_MODELS="1")
    recorded.env_files = [str(before), str(recorded.own), str(after)]
    recorded.environment = {"OLLAMA_MAX_LOADED_MODELS": "3", "MY_TOKEN": "not shown"}
    recorded.file.write_text("services:\n  ollama:\n    environment:\n      OLLAMA_MAX_LOADED_MODELS: 3\n")
    unit = host_read.read_unit(UNIT)
    assert unit["compose_env_file"] == str(recorded.own) and unit["drop_in_paths"] == [str(recorded.own)]
    assert unit["environment"]["OLLAMA_NUM_PARALLEL"] == "2"
    words = {name: unit_environment.last_word(name, unit["sources"]) for name in unit["environment"]}
    assert {name: (word[0]["kind"], word[1]) for name, word in words.items() if word} == {
        "OLLAMA_NUM_PARALLEL": ("env file", "2"),
        "OLLAMA_KV_CACHE_TYPE": ("env file", "q4_0"),
        "OLLAMA_MAX_LOADED_MODELS": ("Compose file", "3"),
    }
    assert [one["path"] for one in unit["environment_files"]] == [str(after), f"{recorded.file}, line 4,"]
    assert "MY_TOKEN" not in str(unit)
    problems = unit_environment.not_in_memory(unit_files.read(UNIT))
    assert [problem.split()[0] for problem in problems] == ["OLLAMA_KV_CACHE_TYPE", "OLLAMA_MAX_LOADED_MODELS"]


def test_nothing_is_in_the_way_of_what_is_declared(recorded: Docker) -> None:
    written(recorded, OLLAMA_NUM_PARALLEL="2")
    assert unit_environment.not_in_memory(unit_files.read(UNIT)) == []
    assert compose_files.refusals(UNIT) == []
    drop_ins = host_read.read_drop_ins(host_read.read_unit(UNIT), unit_text.DROP_IN, [])
    assert drop_ins["own"]["path"] == str(recorded.own)
    assert drop_ins["own"]["environment"] == {"OLLAMA_NUM_PARALLEL": "2"}
    assert drop_ins["own"]["writer"] is None and drop_ins["own"]["alone"] == []


def test_a_file_that_compose_does_not_name_is_not_in_force(recorded: Docker) -> None:
    written(recorded, OLLAMA_NUM_PARALLEL="2")
    recorded.env_files = []
    assert "does not list" in unit_environment.not_in_memory(unit_files.read(UNIT))[0]
    (refused,) = compose_files.refusals(UNIT)
    assert f"add to the service ollama in {recorded.file}: `env_file: [{{path: gpu-memory.env" in refused


def test_what_somebody_else_has_written_would_be_lost(recorded: Docker) -> None:
    written(recorded, OLLAMA_NUM_PARALLEL="2")
    recorded.own.write_text(f"{recorded.own.read_text()}OLLAMA_ORIGINS=*\nexport A=b\n")
    own = host_read.read_drop_ins(host_read.read_unit(UNIT), unit_text.DROP_IN, [])["own"]
    assert own["alone"] == ["OLLAMA_ORIGINS", "export A="]


def test_files_of_another_name_are_dropped_by_a_plain_up(recorded: Docker) -> None:
    recorded.plainly = RECREATE
    (refused,) = compose_files.refusals(UNIT)
    assert f"--file {recorded.file}, and a plain `docker compose up -d`" in refused


def test_what_the_owner_has_changed_and_not_brought_up_is_not_taken_along(recorded: Docker) -> None:
    recorded.plainly = recorded.would = RECREATE
    assert "does not run as its files or its image say now: " in compose_files.refusals(UNIT)[0]
    in_container(recorded, "OLLAMA_KEEP_ALIVE=12h", "OLLAMA_NUM_PARALLEL=2")
    assert "(OLLAMA_KEEP_ALIVE, OLLAMA_NUM_PARALLEL of its environment" in compose_files.refusals(UNIT)[0]


def test_our_own_file_that_was_lost_is_mended(recorded: Docker) -> None:
    recorded.plainly = recorded.would = RECREATE
    in_container(recorded, "OLLAMA_KEEP_ALIVE=24h", "OLLAMA_NUM_PARALLEL=2")
    assert compose_files.refusals(UNIT) == []


def test_models_in_the_container_would_be_lost(recorded: Docker) -> None:
    recorded.containers[0]["Mounts"] = []
    assert "are in the container itself (/root/.ollama/models)" in compose_files.refusals(UNIT)[0]
    recorded.environment = {"OLLAMA_KEEP_ALIVE": "24h", "OLLAMA_MODELS": "/models"}
    in_container(recorded, "OLLAMA_KEEP_ALIVE=24h", "OLLAMA_MODELS=/models")
    assert "(/models)" in compose_files.refusals(UNIT)[0]
    recorded.containers[0]["Mounts"] = [{"Destination": "/models"}]
    assert compose_files.refusals(UNIT) == []


def test_who_lives_in_its_network_would_be_cut_off(recorded: Docker) -> None:
    mode = {"NetworkMode": f"container:{IDENTITY}"}
    recorded.beside = [{"Id": "feed", "Name": "/webui", "HostConfig": mode}, {"Id": "cafe", "Name": "/other"}]
    assert compose_files.refusals(UNIT)[0].startswith("webui lives in the network")


def test_one_of_several_is_refused(recorded: Docker) -> None:
    recorded.containers.append({**recorded.containers[0], "Id": "beef"})
    assert "has 2 containers" in compose_files.refusals(UNIT)[0]


def test_files_that_are_gone_or_broken_are_said_and_nothing_else(recorded: Docker) -> None:
    recorded.fails = {"config": "yaml: line 3: password=hunter2hunter2 is wrong"}
    (refused,) = compose_files.refusals(UNIT)
    assert "docker compose config: yaml: line 3" in refused and "hunter2hunter2" not in refused
    assert host_read.read_unit(UNIT)["environment"]["OLLAMA_KEEP_ALIVE"] == "24h"
    os.unlink(recorded.file)
    assert "which is not there any more" in compose_files.refusals(UNIT)[0]


def test_a_silent_docker_is_no_missing_service(recorded: Docker) -> None:
    recorded.fails = {"docker": "Cannot connect"}
    assert "Docker does not answer" in str(host_read.read_unit(UNIT)["error"])
    assert compose_files.own_env_file(UNIT) is None
    assert "Docker does not answer" in compose_files.refusals(UNIT)[0]
    assert compose_files.refusals("ollama.service") == []


def test_what_docker_does_not_say_of_others_is_no_permission(recorded: Docker) -> None:
    recorded.beside = [{"Id": "feed"}]
    recorded.fails = {"feed": "timeout"}
    assert "does not say what its containers are" in compose_files.refusals(UNIT)[0]


def test_a_service_without_a_container_is_not_found(recorded: Docker) -> None:
    recorded.containers = []
    unit = host_read.read_unit(UNIT)
    assert (unit["error"], unit["load_state"], unit["compose_env_file"]) == (None, "not-found", None)


@pytest.mark.parametrize("name", ["compose.yaml", ".env", "gpu-memory.env", "b.env"])
def test_a_proof_is_of_every_file_that_compose_reads(recorded: Docker, name: str) -> None:
    recorded.env_files.append(str(recorded.directory / "b.env"))
    before = what_starts.read([UNIT], [])
    assert what_starts.read([UNIT], []) == before
    (recorded.directory / name).write_text("x: y\n")
    assert what_starts.read([UNIT], []) != before


def test_a_proof_is_of_the_image(recorded: Docker) -> None:
    before = what_starts.read([UNIT], [])
    recorded.containers[0]["Image"] = "sha256:def"
    assert what_starts.read([UNIT], []) != before


def test_what_a_container_keeps_is_a_secret(recorded: Docker) -> None:
    in_container(recorded, "API_TOKEN=hunter2hunter2")
    assert "hunter2hunter2" in secrets.secrets_of_host([UNIT], [])


def test_the_log_is_dockers_whichever_driver_keeps_it(recorded: Docker) -> None:
    recorded.log = "2026-12-01T03:01:09.5Z later\n2026-12-01T03:01:08.5Z earlier\r\nnot a line\n"
    lines, problem = server_log.of_container(UNIT, None, 10)
    assert (lines, problem) == ([(1796094068.5, "earlier"), (1796094069.5, "later")], None)
    assert "--since" not in recorded.asked[-1]
    server_log.of_container(UNIT, 7.5, 10)
    assert recorded.asked[-1][-3:-1] == ["--since", "7.500"]


def test_a_log_that_nobody_keeps_is_said(recorded: Docker) -> None:
    recorded.containers[0]["HostConfig"]["LogConfig"]["Type"] = "none"
    recorded.fails = {"logs": "configured logging driver does not support reading"}
    assert "goes to none, which docker logs does not read" in str(server_log.of_container(UNIT, None, 10)[1])


def test_a_clock_that_was_set_back_takes_no_line_away(recorded: Docker) -> None:
    recorded.log = "2026-12-01T03:01:09Z before\n2026-12-01T02:00:00Z after\n"
    began = 1796094069.0
    lines, _problem = server_log.of_container(UNIT, began, 10, set_back_at=began)
    assert lines == [(began, "before"), (began, "after")] and "--since" not in recorded.asked[-1]
    assert [text for _at, text in server_log.of_container(UNIT, began, 10)[0]] == ["before"]
