"""The night's table: each host's state, whom to wake for, and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act


def host(**changes: Any) -> dict[str, Any]:
    return {"__gpu_memory_declared": builders.declared(), "__gpu_memory_read": builders.read(**changes)}


def play(**hostvars: Any) -> dict[str, Any]:
    return {"ansible_play_hosts_all": list(hostvars), "hostvars": hostvars}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_hosts_that_need_someone_are_named_and_red(act: Act, tmp_path: Path, check_mode: bool) -> None:
    variables = play(down=host(ollama__unit__active_state="failed"), unproven=host(), lost={})
    result = act("gpu_memory_status", variables, check_mode=check_mode, report_dir=str(tmp_path))
    assert (result["shown"], result["changed"], result["alarmed"]) == (3, False, ["down", "lost"])
    colours = {text.split()[0]: colour for text, colour in act.shown}
    assert (colours["down"], colours["lost"], colours["unproven"]) == ("red", "red", "yellow")
    assert "no answer in this run" in act.text() and act.text().splitlines()[-1].startswith("3 hosts: ")
    path = tmp_path / "status.json"
    assert path.exists() != check_mode
    if not check_mode:
        assert [one["host"] for one in json.loads(path.read_text())["hosts"]] == ["down", "unproven", "lost"]


def test_a_read_that_failed_is_shown_with_its_message(act: Act, tmp_path: Path) -> None:
    failed = {**host(), "__gpu_memory_read": {"failed": True, "msg": "lost the connection to gpu01"}}
    result = act("gpu_memory_status", play(gpu01=failed), report_dir=str(tmp_path))
    assert result["alarmed"] == ["gpu01"] and "lost the connection to gpu01" in act.text()


def test_of_one_host_its_state_is_returned_and_nothing_is_shown_or_written(act: Act) -> None:
    variables = {**play(gpu01=host(ollama__unit__active_state="failed"), gpu02=host()), "inventory_hostname": "gpu01"}
    result = act("gpu_memory_status", variables, of="host")
    assert (result["state"], result["alarm"]) == ("down", True) and "is failed" in result["wrong"][0]
    assert act.shown == []


def test_a_host_that_when_leaves_out_is_not_shown(act: Act, tmp_path: Path) -> None:
    variables = {**play(unproven=host(), left_out={}), "ansible_play_hosts": ["unproven", "left_out"]}
    result = act("gpu_memory_status", variables, report_dir=str(tmp_path))
    assert (result["shown"], result["alarmed"]) == (1, []) and "left_out" not in act.text()
