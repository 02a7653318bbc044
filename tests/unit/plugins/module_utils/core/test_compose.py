# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Docker and Compose say of a service, in the words of a unit."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_docker import (
    IDENTITY,
    UNIT,
    container,
)

OWN = "/srv/llm/gpu-memory.env"


def shown(state: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    given = container(**changes)
    given["State"].update(state or {})
    return compose.properties(UNIT, given, compose.Process(7.5, f"/docker/{IDENTITY}"), has_env_file=True)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("compose:llm/ollama", ("llm", "ollama")),
        ("compose:llm_1-a/Ollama.gpu", ("llm_1-a", "Ollama.gpu")),
        ("ollama.service", None),
        ("compose:llm", None),
        ("compose:llm/-o", None),
        ("compose:LLM/ollama", None),
        ("compose:llm/ollama\n", None),
        ("compose:llm/../x", None),
        (None, None),
    ],
)
def test_a_name(name: str | None, found: tuple[str, str] | None) -> None:
    assert compose.parse(name) == found


def test_a_container_by_its_labels() -> None:
    assert compose.name_of(container()) == UNIT
    assert compose.name_of(container(Config={"Labels": None})) is None
    assert compose.env_file(container()) == OWN


def test_compose_is_run_as_the_container_was_made() -> None:
    labels = {
        "project": "llm",
        "project.working_dir": "/srv/llm",
        "project.config_files": "/srv/llm/compose.yaml,/srv/gpu.yaml",
        "project.environment_file": "/srv/llm.env",
    }
    made = container(Config={"Labels": {f"{compose.LABEL}.{name}": value for name, value in labels.items()}})
    files = ["--file", "/srv/llm/compose.yaml", "--file", "/srv/gpu.yaml", "--env-file", "/srv/llm.env"]
    assert compose.options(made) == ["--project-name", "llm", "--project-directory", "/srv/llm", *files]


def test_of_two_containers_the_one_that_runs_counts_and_then_the_newest() -> None:
    old, new = container(Created="2026-01-01"), container(Created="2026-01-02", State={"Running": False})
    older = container(Created="2025-01-01", State={"Running": False})
    assert compose.current([new, old]) is old
    assert compose.current([new, older]) is new
    assert compose.current([]) is None


def test_a_container_is_told_as_a_unit() -> None:
    told = shown()
    assert (told["LoadState"], told["ActiveState"], told["UnitFileState"]) == ("loaded", "active", "enabled")
    assert told["ActiveEnterTimestamp"] == "Tue 2026-12-01 03:01:08 UTC"
    assert unit_text.moment(told["ActiveEnterTimestamp"]) == 1796094068
    assert told["ActiveEnterTimestampMonotonic"] == "7500000"
    assert (told["DropInPaths"], told["FragmentPath"]) == (OWN, "/srv/llm/compose.yaml")
    assert compose.as_shown(told, "Id,Nothing,MainPID") == f"Id={UNIT}\nMainPID=0\n"
    assert compose.properties(UNIT, None, compose.NO_PROCESS, False)["LoadState"] == "not-found"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"Status": "restarting"}, ("activating", "auto-restart")),
        ({"Status": "exited", "ExitCode": 0}, ("inactive", "exited")),
        ({"Status": "exited", "ExitCode": 137}, ("inactive", "exited")),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, ("failed", "exited")),
        ({"Status": "exited", "ExitCode": 1}, ("failed", "exited")),
        ({"Status": "created"}, ("inactive", "created")),
    ],
)
def test_states(state: dict[str, Any], told: tuple[str, str]) -> None:
    properties = shown(state)
    assert (properties["ActiveState"], properties["SubState"]) == told


def test_who_does_not_start_at_boot() -> None:
    assert shown(HostConfig={"RestartPolicy": {"Name": "on-failure"}})["UnitFileState"] == "disabled"


@pytest.mark.parametrize("value", ["1", "a b", 'say "x" \\ `$HOME`', "two\nlines", "it's\n", "tab\tand \\n"])
def test_an_environment_survives_the_words_of_systemd(value: str) -> None:
    text = compose.as_shown(shown(Config={"Labels": {}, "Env": [f"A={value}", "B=2"]}), "Id,Environment")
    assert unit_text.parse_show(text)["Environment"] == {"A": value, "B": "2"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-12-01T03:01:08Z", 1796094068.0),
        ("2026-12-01T03:01:08.250000000Z", 1796094068.25),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_a_time_of_dockers(text: str, found: float | None) -> None:
    assert compose.moment(text) == found


def test_a_line_of_a_log() -> None:
    assert compose.line_of_log("2026-12-01T03:01:08.5Z time=a  b") == (1796094068.5, "time=a  b")
    assert compose.line_of_log("no time at all") is None
    assert compose.line_of_log("") is None


@pytest.mark.parametrize(
    "environment", [["OLLAMA_NUM_PARALLEL=${N:-3}", "HOME"], {"OLLAMA_NUM_PARALLEL": 3, "HOME": None}]
)
def test_what_compose_files_say(environment: object) -> None:
    files = [{"path": "/srv/llm/a.env"}, "/srv/llm/./gpu-memory.env", {"path": "/srv/llm/b.env"}]
    written = {"services": {"ollama": {"environment": environment, "env_file": files}}}
    resolved = {"OLLAMA_NUM_PARALLEL": "3", "OLLAMA_KEEP_ALIVE": "$$x", "HOME": None}
    found = compose.declared("ollama", OWN, written, {"services": {"ollama": {"environment": resolved}}})
    assert found.names_ours
    assert (found.before, found.after) == (["/srv/llm/a.env"], ["/srv/llm/b.env"])
    assert found.pinned == {"OLLAMA_NUM_PARALLEL": "3"}
    assert found.resolved == {"OLLAMA_NUM_PARALLEL": "3", "OLLAMA_KEEP_ALIVE": "$x"}


@pytest.mark.parametrize("written", [None, {}, {"services": {"ollama": {"env_file": "/srv/llm/a.env"}}}])
def test_compose_files_that_do_not_name_ours(written: object) -> None:
    found = compose.declared("ollama", OWN, written, {})
    assert not found.names_ours and found.after == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a:\n  environment:\n    - OLLAMA_NUM_PARALLEL=3\n", 3),
        ("environment:\n  OLLAMA_NUM_PARALLEL: 3\n", 2),
        ("environment: {'OLLAMA_NUM_PARALLEL': 3}\n", None),
        ('    - "OLLAMA_NUM_PARALLEL=3"', 1),
        ("# OLLAMA_NUM_PARALLEL=3\n", None),
        ("    - MY_OLLAMA_NUM_PARALLEL=3", None),
    ],
)
def test_the_line_that_sets_a_variable(text: str, line: int | None) -> None:
    assert compose.line_that_sets("OLLAMA_NUM_PARALLEL", text) == line


@pytest.mark.parametrize(
    ("said", "is_made_anew"),
    [
        (" DRY-RUN MODE -  Container ollama  Running \n", False),
        (" DRY-RUN MODE -  Container ollama  Created \n DRY-RUN MODE -  Container ollama  Starting \n", False),
        (" DRY-RUN MODE -  Container ollama  Recreate \n DRY-RUN MODE -  Container ollama  Recreated \n", True),
        (" DRY-RUN MODE -  Container ollama  Creating \n", True),
        (" DRY-RUN MODE -  Network llm_default  Creating \n", False),
    ],
)
def test_whether_an_up_makes_a_container_anew(said: str, is_made_anew: bool) -> None:
    assert compose.is_made_anew(said) == is_made_anew


@pytest.mark.parametrize(
    ("path", "is_mounted"),
    [
        ("/root/.ollama/models", True),
        ("/root/.ollama", True),
        ("/root/.ollama2", False),
        ("/models", False),
    ],
)
def test_what_outlives_a_container(path: str, is_mounted: bool) -> None:
    assert compose.is_mounted(path, container()) == is_mounted


def test_what_a_container_has_otherwise_than_compose_would_give_it() -> None:
    of_image = {"OLLAMA_HOST": "0.0.0.0:11434"}
    assert compose.differing(container(), {"OLLAMA_KEEP_ALIVE": "24h"}, of_image) == []
    assert compose.differing(container(), {"A": "1"}, of_image) == ["A", "OLLAMA_KEEP_ALIVE"]
