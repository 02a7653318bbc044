"""What an operator has declared: one checked value for the roles, or every problem at once with where it was said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act


def declare(act: Act, task_vars: dict[str, Any] | None = None, fixed: str | None = None, **changes: Any) -> Any:
    return act("gpu_memory_declare", task_vars or {}, variables=builders.variables(**changes), fixed_profile=fixed)


def test_the_defaults_have_no_problem_and_name_the_run(act: Act) -> None:
    result = declare(act)
    assert (result["problems"], result["changed"], result["profile"]["name"]) == ([], False, "stable")
    assert re.fullmatch("[0-9a-f]{12}", result["run_id"]) and "@" in result["holder"]
    assert declare(act)["run_id"] != result["run_id"]


def test_a_fallback_is_a_run_of_its_own(act: Act) -> None:
    result = declare(act, fallback_profile="conservative")
    fallback = result["fallback"]
    assert fallback["profile"]["name"] == "conservative"
    assert fallback["run_id"] != result["run_id"] and fallback["holder"] == result["holder"]


def test_what_cannot_be_resolved_is_the_first_problem(act: Act) -> None:
    said = "Task failed: Error while resolving value for 'variables': 'nope' is undefined"
    result = act(
        "gpu_memory_declare", {}, variables=builders.variables(profile="stabel"), fixed_profile=None, unresolved=said
    )
    assert result["problems"][0].startswith("a variable of this host cannot be resolved: 'nope' is undefined; ")
    assert len(result["problems"]) == 2


def test_headers_of_the_load_are_not_in_the_result(act: Act) -> None:
    backend = {
        "kind": "unit",
        "unit": "chat.service",
        "load": {
            "url": "http://127.0.0.1:8000/chat",
            "bodies": [{"message": "hello"}],
            "headers": {"Authorization": "Bearer hunter2"},
        },
    }
    result = declare(act, backend=backend)
    assert result["problems"] == []
    assert "hunter2" not in str(result)


@pytest.mark.parametrize(("extra", "refused"), [({"gpu_memory_profile": "conservative"}, True), ({}, False)])
def test_a_playbook_of_one_profile_takes_no_other_from_the_command_line(act: Act, extra: Any, refused: bool) -> None:
    act.extra = extra
    problems = declare(act, fixed="stable")["problems"]
    assert bool(problems) == refused
    if refused:
        assert problems[0].startswith("this playbook applies the profile stable; for another one use")
        assert declare(act, fixed="stable", verify="often")["problems"][0] == problems[0]  # before all others


def test_what_only_the_command_line_may_say_is_refused_elsewhere(act: Act) -> None:
    where = {"gpu_memory_batches": [1]}
    problems = declare(act, where)["problems"]
    assert len(problems) == 1 and "gpu_memory_batches" in problems[0] and "-e" in problems[0]
    act.extra = where
    assert declare(act, where)["problems"] == []
    act.extra, act.play_vars = {}, where
    assert declare(act, where)["problems"] == []


def test_a_misspelt_variable_is_a_problem(act: Act) -> None:
    problems = declare(act, {"gpu_memory_profil": "stable"})["problems"]
    assert len(problems) == 1 and "gpu_memory_profil" in problems[0] and "gpu_memory_profile" in problems[0]


def test_a_hooks_file_is_looked_for_where_the_user_stands(
    act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hook = {"tasks": "drain.yml"}
    assert declare(act, before_restart=hook)["problems"] == [
        f"gpu_memory_before_restart.tasks: there is no file {tmp_path}/drain.yml on the controller"
    ]
    (tmp_path / "drain.yml").write_text("[]\n")
    result = declare(act, before_restart=hook)
    assert (result["problems"], result["before_restart"]["tasks"]) == ([], str(tmp_path / "drain.yml"))


def test_all_problems_come_at_once(act: Act) -> None:
    problems = declare(act, profile="fast", verify="often", after_proof={"tasks": "/no/such.yml"})["problems"]
    assert [text for word in ("'fast'", "'often'", "/no/such.yml") for text in problems if word in text] == problems


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_check_mode_is_that_of_the_task_also_for_the_fallback(act: Act, check_mode: bool) -> None:
    variables = builders.variables(fallback_profile="conservative")
    result = act("gpu_memory_declare", {}, check_mode=check_mode, variables=variables)
    assert (result["check_mode"], result["fallback"]["check_mode"]) == (check_mode, check_mode)


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_where_no_report_can_be_written_that_is_a_problem_before_a_host_is_met(
    act: Act, tmp_path: Path, check_mode: bool
) -> None:
    (tmp_path / "file").touch()
    given = {"variables": builders.variables(report_dir=str(tmp_path / "file"))}
    (problem,) = act("gpu_memory_declare", check_mode=check_mode, **given)["problems"]
    assert f"{tmp_path}/file is no directory" in problem
    assert act("gpu_memory_declare", **given, reports=False)["problems"] == []
