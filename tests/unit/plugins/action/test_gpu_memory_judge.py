"""The verdict of a load and of a host's whole run, and the record that is left of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import backend_run
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act

VARIABLES = {"inventory_hostname": "gpu01"}
OPEN = {"open": True, "wave": 2, "reason": None}
BREACH = builders.load(breached=True, peak_used_mib=13000, msg="GPU 0 reached 13000 MiB, max_used_mib is 12288")


def given(tmp_path: Path, at: str, **changes: Any) -> dict[str, Any]:
    declared = builders.declared()
    read = builders.read(**{"backend__env_files__0__values__CHAT_NUM_CTX": "8192"})
    return {
        "at": at,
        "declared": declared,
        "report_dir": str(tmp_path / "report"),
        "gate": OPEN,
        "read": read,
        "decision": {**decisions.decide(declared, read, True)},
        "kept": {"generation": "0001"},
        "load": builders.load(),
        "after": builders.read(),
        **changes,
    }


def judge(act: Act, given: dict[str, Any], check_mode: bool = False) -> Any:
    return act("gpu_memory_judge", VARIABLES, check_mode=check_mode, **given)


def test_a_load_that_went_well_passes_with_its_record(act: Act, tmp_path: Path) -> None:
    result = judge(act, given(tmp_path, "load", enforce=True))
    assert (result["verdict"], result["reasons"], result["changed"]) == ("pass", [], False)
    assert result["proof_backend"] == backend_run.of_proven(builders.read())
    record = result["record"]
    assert (record["schema"], record["host"], record["verdict"]) == (verdicts.SCHEMA, "gpu01", "pass")
    assert (record["peak_used_mib"], record["max_used_mib"], record["generation"]) == (11690, 12288, "0001")
    assert not (tmp_path / "report").exists()  # that is for the end


@pytest.mark.parametrize("enforce", [True, False])
def test_a_breach_fails_the_task_only_where_something_was_deployed(act: Act, tmp_path: Path, enforce: bool) -> None:
    result = judge(act, given(tmp_path, "load", load=BREACH, enforce=enforce))
    assert (result["verdict"], bool(result.get("failed")), "record" in result) == ("fail", enforce, False)
    assert any("13000" in reason for reason in result["reasons"])
    if enforce:
        assert result["msg"] == "\n".join(["fail:", *(f"- {reason}" for reason in result["reasons"])])


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_the_end_of_a_run_that_passed_is_recorded(act: Act, tmp_path: Path, check_mode: bool) -> None:
    result = judge(act, given(tmp_path, "end", judged={"verdict": "pass", "reasons": []}), check_mode)
    assert (result["verdict"], result["ok"], result["wave"], result["serves"]) == ("pass", True, 2, True)
    assert (result["falls_back"], result["drained"], result["previous"]) == (False, False, None)
    path = tmp_path / "report" / "gpu01.json"
    assert path.exists() != check_mode
    if not check_mode:
        record = json.loads(path.read_text())
        assert record.items() <= result.items() and "serves" not in record
        again = judge(act, given(tmp_path, "end", judged={"verdict": "pass", "reasons": []}))
        assert again["previous"]["at"] == record["at"]


def test_a_host_that_a_closed_gate_left_untouched_is_not_well(act: Act, tmp_path: Path) -> None:
    gate = {"open": False, "wave": 2, "reason": "wave 1 closed the gate: gpu00 fail"}
    result = judge(act, given(tmp_path, "end", gate=gate, load={"skipped": True}, kept={"skipped": True}))
    assert (result["verdict"], result["ok"], result["reason"]) == ("untouched", False, gate["reason"])
    assert result["peak_used_mib"] is None


def test_a_host_that_was_put_back_is_not_well_and_says_why(act: Act, tmp_path: Path) -> None:
    back = {
        "judged": {"verdict": "fail", "reasons": ["GPU 0 reached 13000 of 12288 MiB"], "failed": True},
        "failure": {"task": "Judge the load", "message": "fail"},
        "restored": {"changed": True, "generation": "0001", "services": {}, "error": None, "files": []},
        "load": BREACH,
    }
    result = judge(act, given(tmp_path, "end", **back))
    assert (result["verdict"], result["ok"], result["falls_back"]) == ("rolled_back", False, False)
    assert any("13000" in reason for reason in result["reasons"])
    fallback = builders.declared(fallback_profile="conservative")
    assert judge(act, given(tmp_path, "end", **back, declared=fallback))["falls_back"]


def test_problems_are_a_refusal_with_all_of_them(act: Act, tmp_path: Path) -> None:
    decision = {"problems": ["a", "b"], "acts": False}
    nothing = {"load": None, "after": None, "kept": None, "decision": decision}
    result = judge(act, given(tmp_path, "end", **nothing))
    assert (result["verdict"], result["reasons"], result["ok"]) == ("refused", ["a", "b"], False)


def test_a_read_that_failed_counts_as_none(act: Act, tmp_path: Path) -> None:
    lost = {"failed": True, "msg": "lost the connection to gpu01 during gpu_memory_info"}
    failure = {"task": "Read the host", "message": lost["msg"], "lost_connection": True}
    nothing = {"load": None, "after": None, "kept": None, "decision": None}
    result = judge(act, given(tmp_path, "end", **nothing, read=lost, failure=failure))
    assert (result["verdict"], result["ok"]) == ("untouched", False)
    assert "lost the connection" in result["reason"]


def test_users_that_are_still_kept_away_are_named(act: Act, tmp_path: Path) -> None:
    hook = "gpu_memory_after_proof failed: connection refused"
    passed = {"judged": {"verdict": "pass", "reasons": []}}
    result = judge(act, given(tmp_path, "end", **passed, drained=True, hook_failure=hook))
    assert (result["ok"], result["reasons"]) == (False, [hook, "users may still be kept away"])


@pytest.mark.parametrize(("hook", "said"), [({}, False), ({"commands": ["/usr/local/bin/join"]}, True)])
def test_users_are_kept_away_only_by_a_hook(act: Act, tmp_path: Path, hook: dict[str, Any], said: bool) -> None:
    judged = {"verdict": "fail", "reasons": ["it broke"]}
    declared = builders.declared(after_proof=hook)
    result = judge(act, given(tmp_path, "end", judged=judged, declared=declared, drained=True))
    assert not result["serves"]
    assert ("users are still kept away" in str(result["reasons"])) is said


def test_a_proof_that_still_holds_is_recorded_again_with_its_date(act: Act, tmp_path: Path) -> None:
    first = judge(act, given(tmp_path, "load"))["record"]
    decision = {"problems": [], "acts": False, "notes": ["a note"], "proof": {"record": first, "at": 1000.0}}
    result = judge(act, given(tmp_path, "end", decision=decision, load=None, after=None, kept=None))
    assert (result["verdict"], result["acted"], result["proven_at"]) == ("pass", False, 1000.0)
    assert (result["notes"], result["peak_used_mib"]) == (["a note"], 11690)
    # The proof is the host's, whatever an inventory called it then.
    decision["proof"]["record"]["host"] = "old-name"
    assert judge(act, given(tmp_path, "end", decision=decision, load=None, after=None, kept=None))["host"] == "gpu01"
    assert [path.name for path in (tmp_path / "report").glob("*.json")] == ["gpu01.json"]


@pytest.mark.parametrize("missing", ["declared", "gate"])
def test_the_end_of_a_role_that_was_begun_in_the_middle_is_told_and_not_recorded(
    act: Act, tmp_path: Path, missing: str
) -> None:
    with pytest.raises(AnsibleActionFail, match="begun in the middle"):
        judge(act, given(tmp_path, "end", **{missing: None}))
    assert not (tmp_path / "report").exists()


def test_a_host_that_has_begun_is_a_lost_one_until_its_end(act: Act) -> None:
    result = act("gpu_memory_judge", VARIABLES, at="begin")
    assert (result["verdict"], result["ok"], result["wave"]) == ("inconclusive", False, None)
    assert "the host was lost" in result["reason"]


def test_a_when_on_the_role_that_looks_at_its_result_is_refused_before_the_result_changes(act: Act) -> None:
    act.when = ["inventory_hostname != 'gpu09'", "not gpu_memory_result.ok"]
    with pytest.raises(AnsibleActionFail, match="use include_role with that `when`"):
        act("gpu_memory_judge", VARIABLES, at="begin")


def test_a_record_that_cannot_be_written_is_in_the_result_all_the_same(act: Act, tmp_path: Path) -> None:
    assert judge(act, given(tmp_path, "end"))["file"] == str(tmp_path / "report" / "gpu01.json")
    assert judge(act, given(tmp_path, "end"), check_mode=True)["file"] is None
    (tmp_path / "file").touch()
    result = judge(act, given(tmp_path, "end", report_dir=str(tmp_path / "file")))
    assert result["file"] is None and not result.get("failed")
    assert "no file has this record" in result["notes"][-1]


def test_what_an_owner_writes_into_an_env_file_meanwhile_costs_no_rollback(act: Act, tmp_path: Path) -> None:
    restarted, path = {"starts": {builders.ENV_PATH: "a", builders.UNIT_PATH: "a"}}, builders.ENV_PATH
    for now, verdict, failed in (
        ({path: "a", builders.UNIT_PATH: "a"}, "pass", False),
        ({path: "b", builders.UNIT_PATH: "a"}, "inconclusive", False),
        ({path: "b", builders.UNIT_PATH: "b"}, "inconclusive", True),
    ):
        after = {**builders.read(), "starts": now}
        result = judge(act, given(tmp_path, "load", restarted=restarted, after=after, enforce=True))
        assert (result["verdict"], bool(result.get("failed"))) == (verdict, failed)


def test_a_key_that_was_changed_meanwhile_fails(act: Act, tmp_path: Path) -> None:
    after = builders.read(backend__env_files__0__values__CHAT_NUM_CTX="16384")
    result = judge(act, given(tmp_path, "load", after=after, enforce=True))
    assert result["failed"] and "CHAT_NUM_CTX was 4096 when this was proven, and is 16384 now" in result["msg"]
