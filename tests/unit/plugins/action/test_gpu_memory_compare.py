"""The plan of a host: the result, the two files, and what a host that cannot be read gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_side_by_side import host

VARIABLES = {"inventory_hostname": "gpu01"}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_the_plan_is_the_result_and_lies_in_two_files(act: Act, tmp_path: Path, check_mode: bool) -> None:
    report = tmp_path / "report"
    result = act(
        "gpu_memory_compare",
        VARIABLES,
        check_mode=check_mode,
        declared=builders.declared(),
        read=host(),
        report_dir=str(report),
    )
    assert (result["host"], result["changed"], result["problems"]) == ("gpu01", False, [])
    assert [profile["name"] for profile in result["profiles"]] == ["baseline", "stable", "conservative"]
    if check_mode:
        assert not report.exists() and "files" not in result
        return
    assert result["files"] == [str(report / "gpu01.plan.json"), str(report / "gpu01.plan.svg")]
    written = json.loads((report / "gpu01.plan.json").read_text())
    assert written == {name: result[name] for name in written}
    assert (report / "gpu01.plan.svg").read_text().startswith("<svg")


def test_a_host_that_could_not_be_read_is_a_problem_with_its_message(act: Act, tmp_path: Path) -> None:
    given = {"declared": builders.declared(), "report_dir": str(tmp_path)}
    result = act("gpu_memory_compare", VARIABLES, **given, read={"failed": True, "msg": "sudo: a password is required"})
    assert result["problems"] == ["sudo: a password is required"] and result["profiles"] == []
    assert "failed" not in result  # the report at the end has it
    assert act("gpu_memory_compare", VARIABLES, **given, read={})["problems"] == ["the host could not be read"]


def test_bandwidths_that_are_given_are_used(act: Act) -> None:
    given = {"check_mode": True, "declared": builders.declared(), "report_dir": "x"}
    unknown = host(**{"nvml__gpus__0__name": "NVIDIA Prototype"})
    without, with_them = (
        act("gpu_memory_compare", VARIABLES, read=unknown, **given, **bandwidths)
        for bandwidths in ({}, {"gpu_gb_per_s": "288", "host_gb_per_s": 60})
    )
    assert without["profiles"] != with_them["profiles"]
