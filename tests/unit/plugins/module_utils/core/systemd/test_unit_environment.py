# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether systemd's memory of a unit is what its files say, and who keeps it from being so."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_environment

UNIT, OURS, LATER = "/etc/systemd/system/ollama.service", "/e/ollama.service.d/zz.conf", "/e/ollama.service.d/zzz.conf"
PARALLEL = "OLLAMA_NUM_PARALLEL"


def source(path: str, kind: str = "drop-in", **environment: str) -> dict[str, Any]:
    return {"kind": kind, "path": path, "environment": environment, "resets": False, "unsets": []}


def unit(*more: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """A unit whose memory holds our drop-in with two settings, and the sources `more` after it."""
    whole: dict[str, Any] = {
        "name": "ollama.service",
        "load_state": "loaded",
        "need_daemon_reload": False,
        "fragment_path": UNIT,
        "drop_in_paths": [OURS],
        "environment": {"PATH": "/bin", PARALLEL: "2"},
        "own": [OURS],
        "gone": [],
        "sources": [source(UNIT, "unit", PATH="/bin"), source(OURS, **{PARALLEL: "2"}), *more],
    }
    return {**whole, **changed}


def test_a_unit_that_is_in_memory_as_its_files_say_is_left_alone() -> None:
    assert not unit_environment.must_be_read_again(unit())
    assert unit_environment.not_in_memory(unit()) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"drop_in_paths": []},  # a new directory of drop-ins, which the flag does not tell of
        {"need_daemon_reload": True},
        {"environment": {"PATH": "/bin", PARALLEL: "4"}},  # put back with its old date
        {"environment": {"PATH": "/bin", PARALLEL: "2", "OLDER": "1"}},  # it said more before
        {"own": [], "gone": [OURS], "sources": [source(UNIT, "unit")]},
    ],
)
def test_it_is_read_again_by_what_it_lacks_whatever_the_flag_says(changed: dict[str, Any]) -> None:
    assert unit_environment.must_be_read_again(unit(**changed))


def test_what_systemd_resolves_is_not_compared() -> None:
    resolved = source("/e/ollama.service.d/a.conf", OLLAMA_MODELS="%h/models")
    with_home = {"PATH": "/bin", PARALLEL: "2", "OLLAMA_MODELS": "/home/ollama/models"}
    assert not unit_environment.must_be_read_again(unit(resolved, environment=with_home))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (unit(drop_in_paths=[], load_state="masked"), ["does not list", OURS, "masked", "systemctl unmask"]),
        (unit(drop_in_paths=[], load_state="not-found"), ["not-found", "gpu_memory_ollama.unit"]),
        (unit(drop_in_paths=[LATER]), ["goes before", "systemctl cat ollama.service"]),
        (unit(source(LATER, **{PARALLEL: "4"})), [f"the drop-in {LATER} sets {PARALLEL}=4", "take the line out"]),
        (unit(source("/etc/default/ollama", "EnvironmentFile", **{PARALLEL: "1"})), ["EnvironmentFile", "PARALLEL=1"]),
        (unit({**source(LATER), "unsets": [PARALLEL]}), [f"{LATER} unsets {PARALLEL}"]),
        (unit(environment={}), ["also after a daemon-reload"]),
    ],
)
def test_what_wins_is_named(given: dict[str, Any], says: list[str]) -> None:
    (problem,) = unit_environment.not_in_memory(given)
    for words in says:
        assert words in problem


def test_a_value_of_a_variable_that_may_be_secret_is_not_shown() -> None:
    given = unit(source(LATER, MY_TOKEN="hunter2"), own=[OURS])
    given["sources"][1]["environment"]["MY_TOKEN"] = "mine"
    (problem,) = unit_environment.not_in_memory(given)
    assert "MY_TOKEN is not in force" in problem and "hunter2" not in problem
