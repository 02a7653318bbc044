"""What a tuning run is to do on a host, which host of a kind is tuned for the others, and what has come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_tune_declare import GIVEN
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_tune_text import BEST, result

VARIABLES = {"inventory_hostname": "gpu01"}
PLANNED = {"problems": [], "note": None, "threshold_mib": 9000, "base_profile": "stable"}


def tuned(**changes: Any) -> dict[str, Any]:
    """What the module answers: a result without what is added here."""
    added = ("host", "hosts", "problems", "profile", "files")
    found = {name: value for name, value in result(**changes).items() if name not in added}
    return {"deployed_cache_type": "f16", "changed": False, "invocation": {}, **found}


def given(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    group = {"hosts": ["gpu01", "gpu02"], "tunes": True}
    return {
        "at": "result",
        "planned": PLANNED,
        "group": group,
        "tuned": tuned(),
        "report_dir": str(tmp_path / "report"),
        **changes,
    }


def test_a_found_setting_is_a_profile_and_three_files(act: Act, tmp_path: Path) -> None:
    answer = act("gpu_memory_tune_plan", VARIABLES, **given(tmp_path, profiles={"mine": {"extends": "stable"}}))
    assert (answer["host"], answer["hosts"], answer["changed"]) == ("gpu01", ["gpu01", "gpu02"], False)
    assert answer["best"] == BEST and "invocation" not in answer
    assert answer["profile"]["extends"] == "stable"
    assert list(answer["profiles"]) == ["mine", "tuned"] and answer["profiles"]["tuned"] == answer["profile"]
    report = tmp_path / "report"
    assert answer["files"] == [str(report / f"gpu01.tune.{kind}") for kind in ("json", "svg", "yml")]
    assert json.loads((report / "gpu01.tune.json").read_text())["best"] == BEST
    assert (report / "gpu01.tune.svg").read_text().startswith("<svg")
    assert "tuned" in str(yaml.safe_load((report / "gpu01.tune.yml").read_text()))


def test_where_nothing_holds_there_is_no_profile(act: Act, tmp_path: Path) -> None:
    answer = act("gpu_memory_tune_plan", VARIABLES, **given(tmp_path, tuned=tuned(best=None, why="nothing held")))
    assert "profile" not in answer and answer["why"] == "nothing held"
    assert [path.rpartition(".")[2] for path in answer["files"]] == ["json", "svg"]


@pytest.mark.parametrize(
    ("changes", "problems"),
    [
        ({"planned": {**PLANNED, "problems": ["no model is declared"]}}, ["no model is declared"]),
        ({"failure": "lost the connection"}, ["lost the connection"]),
        ({"planned": {**PLANNED, "problems": ["a"]}, "failure": "b", "tuned": None}, ["a", "b"]),
    ],
)
def test_problems_are_the_result_and_nothing_is_written(
    act: Act, tmp_path: Path, changes: dict[str, Any], problems: list[str]
) -> None:
    answer = act("gpu_memory_tune_plan", VARIABLES, **given(tmp_path, **changes))
    assert answer == {"changed": False, "host": "gpu01", "hosts": ["gpu01", "gpu02"], "problems": problems}
    assert not (tmp_path / "report").exists()


def test_a_host_of_a_kind_says_which_one_is_tuned_for_it(act: Act, tmp_path: Path) -> None:
    group = {"hosts": ["gpu00", "gpu01"], "tunes": False}
    answer = act("gpu_memory_tune_plan", VARIABLES, **given(tmp_path, group=group, tuned={"skipped": True}))
    assert answer["because"] == "gpu00 is tuned for it" and not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (BEST, "check mode; first would be num_gpu 29, num_ctx 4096 x 2, num_batch 512, f16: it fits best"),
        (None, "check mode; it fits best"),
    ],
)
def test_check_mode_says_what_would_be_tried_first(act: Act, tmp_path: Path, first: Any, words: str) -> None:
    proposed = {"proposed": {"first": first, "why": "it fits best"}}
    answer = act("gpu_memory_tune_plan", VARIABLES, check_mode=True, **given(tmp_path, tuned=proposed))
    assert (answer["because"], answer["changed"]) == (words, False)
    assert not (tmp_path / "report").exists()


def test_of_a_host_the_run_or_every_reason_against_it(act: Act) -> None:
    given = {"at": "host", "declared": builders.declared(models=[builders.MODEL]), "read": builders.read()}
    result = act("gpu_memory_tune_plan", tune=GIVEN, **given)
    assert (result["problems"], result["changed"]) == ([], False)
    assert (result["run"]["model"], result["run"]["max_used_mib"]) == (builders.MODEL, 12288)
    wrong = act("gpu_memory_tune_plan", tune={**GIVEN, "mode": "guess", "max_probes": 0}, **given)
    assert len(wrong["problems"]) == 2 and "guess" in wrong["problems"][1]


def test_the_first_of_a_kind_is_tuned_for_all_of_it(act: Act) -> None:
    keys = {"gpu01": "16 GB", "gpu02": "24 GB", "gpu03": "16 GB", "gpu04": None}
    play = {
        "ansible_play_hosts_all": list(keys),
        "hostvars": {host: {"__gpu_memory_tune": {"key": key}} if key else {} for host, key in keys.items()},
    }
    found = {host: act("gpu_memory_tune_plan", {**play, "inventory_hostname": host}, at="group") for host in keys}
    assert {host: one["tunes"] for host, one in found.items() if keys[host]} == {
        "gpu01": True, "gpu02": True, "gpu03": False,
    }  # fmt: skip
    assert found["gpu03"]["hosts"] == found["gpu01"]["hosts"] == ["gpu01", "gpu03"]
