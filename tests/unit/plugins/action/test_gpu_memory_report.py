"""The end of a run: what is shown of each host, and the fleet's two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.selo.gpu_memory.tests.unit import builders, recorded_fleet
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_side_by_side import plan
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_tune_text import (
    result as tuning_result,
)

UNDO = "ansible-playbook selo.gpu_memory.rollback --limit {host}"
PASS = {**recorded_fleet.recorded("pass"), "host": "gpu01", "ok": True}
FAIL = {**recorded_fleet.recorded("fail"), "host": "gpu02", "ok": False}


def play(*hosts: str, everybody: list[str] | None = None, **results: Any) -> dict[str, Any]:
    hostvars = {host: {"gpu_memory_result": results[host]} if host in results else {} for host in hosts}
    return {"ansible_play_hosts_all": list(hosts), "hostvars": hostvars, "groups": {"all": everybody or list(hosts)}}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_a_run_is_shown_host_by_host_and_written_as_a_page(act: Act, tmp_path: Path, check_mode: bool) -> None:
    for record in (PASS, FAIL):
        (tmp_path / f"{record['host']}.json").write_text(json.dumps(record))
    variables = play("gpu01", "gpu02", gpu01=PASS, gpu02=FAIL)
    result = act("gpu_memory_report", variables, check_mode=check_mode, report_dir=str(tmp_path), undo=UNDO)
    colours = {text.split()[0]: colour for text, colour in act.shown if text.startswith("gpu0")}
    assert colours == {"gpu01": "green", "gpu02": "red"}
    assert (result["shown"], result["changed"]) == (2, False)
    files = [str(tmp_path / "all.json"), str(tmp_path / "report.html")]
    assert result["files"] == ([] if check_mode else files)
    assert [Path(path).exists() for path in files] == [not check_mode] * 2
    if not check_mode:
        assert [host["host"] for host in json.loads((tmp_path / "all.json").read_text())["hosts"]] == ["gpu01", "gpu02"]
        assert f"written    {tmp_path}/report.html" in act.text()


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_a_host_that_was_lost_without_a_word_gets_a_record_that_says_so(
    act: Act, tmp_path: Path, check_mode: bool
) -> None:
    result = act("gpu_memory_report", play("gpu03"), check_mode=check_mode, report_dir=str(tmp_path))
    assert result["shown"] == 1 and "the host was lost during the run" in act.text()
    assert (tmp_path / "gpu03.json").exists() != check_mode


def test_the_page_is_of_the_whole_fleet_also_where_the_run_was_of_one_host(act: Act, tmp_path: Path) -> None:
    (tmp_path / "gpu02.json").write_text(json.dumps(FAIL))
    (tmp_path / "gpu01.json").write_text(json.dumps(PASS))
    variables = play("gpu01", everybody=["gpu01", "gpu02"], gpu01=PASS)
    assert act("gpu_memory_report", variables, report_dir=str(tmp_path))["shown"] == 1
    assert [host["host"] for host in json.loads((tmp_path / "all.json").read_text())["hosts"]] == ["gpu01", "gpu02"]


def test_of_records_those_that_are_there_are_shown_and_the_others_named(act: Act, tmp_path: Path) -> None:
    (tmp_path / "gpu01.json").write_text(json.dumps(PASS))
    (tmp_path / "gpu02.json").write_text(json.dumps({**FAIL, "schema": 999}))
    result = act("gpu_memory_report", play("gpu01", "gpu02", "gpu03"), of="recorded", report_dir=str(tmp_path))
    assert result["shown"] == 2
    assert ("no record    gpu03", "yellow") in act.shown
    says = f"{tmp_path}/gpu02.json has no record that can be read: its schema is 999"
    assert says in act.text() and says in (tmp_path / "report.html").read_text()


def test_where_each_host_reports_the_first_one_alone_shows_all(act: Act, tmp_path: Path) -> None:
    variables = play("gpu01", "gpu02", gpu01=PASS, gpu02=FAIL) | {"ansible_play_batch": ["gpu01", "gpu02"]}
    shown = [
        act("gpu_memory_report", variables | {"inventory_hostname": host}, report_dir=str(tmp_path))["shown"]
        for host in ("gpu02", "gpu01")
    ]
    assert shown == [2, 0] and act.text().count("report.html") == 1


def test_each_plan_is_shown_and_what_is_wrong_is_red(act: Act) -> None:
    hostvars = {"gpu01": {"gpu_memory_planned": plan()}, "gpu02": {}}
    result = act("gpu_memory_report", {"ansible_play_hosts_all": ["gpu01", "gpu02"], "hostvars": hostvars}, of="plan")
    assert result == {"changed": False, "shown": 2, "files": []}
    (first, first_colour), (second, second_colour), *_more = act.shown
    assert "gpu01" in first and "stable" in first and first_colour is None
    assert "gpu02" in second and "no result: the host was lost during the run" in second and second_colour == "red"


def test_without_hosts_there_is_nothing_to_show(act: Act) -> None:
    assert act("gpu_memory_report", {"ansible_play_hosts_all": [], "hostvars": {}}, of="plan")["shown"] == 0
    assert builders.MODEL not in act.text()


def test_each_tuning_is_shown_also_of_a_host_that_was_lost(act: Act) -> None:
    adopted = recorded_fleet.recorded("pass")
    hostvars = {"gpu01": {"gpu_memory_tuned": tuning_result(), "gpu_memory_result": adopted}, "gpu02": {}}
    answer = act("gpu_memory_report", {"ansible_play_hosts_all": ["gpu01", "gpu02"], "hostvars": hostvars}, of="tune")
    assert answer == {"changed": False, "shown": 2, "files": []}
    (tuned, colour), (applied, _unused), (lost, lost_colour) = act.shown
    assert tuned.startswith("gpu01  llama3.1:8b") and "num_gpu 29" in tuned and colour is None
    assert adopted["host"] in applied and "PASS" in applied
    assert "the host was lost during the run" in lost and lost_colour == "red"


def test_a_host_that_when_leaves_out_gets_no_record_and_one_that_began_and_did_not_end_a_lost_one(
    act: Act, tmp_path: Path
) -> None:
    variables = play("gpu01", "gpu02", "gpu03", gpu01=PASS, gpu03={"wave": None, "ok": False, "verdict": "x"})
    variables["ansible_play_hosts"] = ["gpu01", "gpu02", "gpu03"]
    assert act("gpu_memory_report", variables, report_dir=str(tmp_path))["shown"] == 2
    assert not (tmp_path / "gpu02.json").exists() and "gpu02" not in act.text()
    assert json.loads((tmp_path / "gpu03.json").read_text())["reason"].startswith("no result: the host was lost")


@pytest.mark.parametrize(("of", "name"), [("plan", "gpu_memory_planned"), ("tune", "gpu_memory_tuned")])
def test_a_host_that_when_leaves_out_is_not_shown(act: Act, of: str, name: str) -> None:
    hosts = ["gpu01", "gpu09"]
    hostvars = {"gpu01": {name: plan() if of == "plan" else tuning_result()}, "gpu09": {}}
    variables = {"ansible_play_hosts_all": hosts, "ansible_play_hosts": hosts, "hostvars": hostvars}
    assert act("gpu_memory_report", variables, of=of)["shown"] == 1 and "gpu09" not in act.text()


def test_what_a_run_has_found_is_shown_also_where_nothing_can_be_written(act: Act, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AnsibleActionFail, match="all.json cannot be written"):
        act("gpu_memory_report", play("gpu01", "gpu03", gpu01=PASS), report_dir=str(tmp_path / "file"))
    assert "gpu01  stable  PASS" in act.text() and "gpu03  -  INCONCLUSIVE" in act.text()
    assert "no file has this record" in act.text()


def test_a_host_that_some_task_has_failed_before_the_role_keeps_its_record(act: Act, tmp_path: Path) -> None:
    variables = play("gpu01", "gpu02", gpu01=PASS)
    variables["hostvars"]["gpu01"]["__gpu_memory_gate"] = {"failed_before": ["gpu02"]}
    assert act("gpu_memory_report", variables, report_dir=str(tmp_path))["shown"] == 1
    assert ("no record    gpu02", "yellow") in act.shown and not (tmp_path / "gpu02.json").exists()
