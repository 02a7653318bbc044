"""May the next wave start? The records of the waves before it decide, and what their hosts say when read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.selo.gpu_memory.plugins.action import gpu_memory_gate
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act

HOSTS = ["canary", "gpu02", "gpu03"]


def ended(host: str, verdict: str = "pass", **changes: Any) -> dict[str, Any]:
    return {"host": host, "wave": 1, "verdict": verdict, "ok": verdict == "pass", "acted": True, **changes}


def play(*results: dict[str, Any] | None, batch: list[str] | None = None) -> dict[str, Any]:
    """The variables of the second wave after hosts that have ended with `results`, None for one that the play lost."""
    lost = [host for host, result in zip(HOSTS, results) if result is None]
    leases = {"restore_after": 240, "restore_after_alone": 120}
    begun = {"__gpu_memory_declared": leases, "gpu_memory_result": {"wave": None, "ok": False}}
    return {
        "inventory_hostname": HOSTS[len(results) % len(HOSTS)],
        "ansible_play_batch": batch or HOSTS[len(results) :],
        "ansible_play_hosts_all": HOSTS,
        "ansible_play_hosts": [host for host in HOSTS if host not in lost],
        "hostvars": {
            host: {} if host in lost else {**begun, **({"gpu_memory_result": result} if result else {})}
            for host, result in zip(HOSTS, [*results, *[None] * len(HOSTS)])
        },
    }


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(gpu_memory_gate.time, "sleep", seconds.append)
    return seconds


def test_the_first_wave_starts(act: Act) -> None:
    result = act("gpu_memory_gate", play(batch=["canary"]))
    assert (result["open"], result["wave"], result["reason"], result["changed"]) == (True, 1, None, False)
    assert (result["restore_after"], result["watchers"], result["did_not_last"]) == (120, {}, [])


def test_a_good_wave_lets_the_next_start_and_its_hosts_wait_for_each_other(act: Act) -> None:
    result = act("gpu_memory_gate", play(ended("canary")))
    assert (result["open"], result["wave"], result["restore_after"]) == (True, 2, 260)


@pytest.mark.parametrize("allowed", [None, 0, "50"])
def test_a_bad_wave_closes_the_gate_and_says_who(act: Act, allowed: Any) -> None:
    result = act("gpu_memory_gate", play(ended("canary", "rolled_back")), max_fail_percentage=allowed)
    assert (result["open"], result["reason"]) == (False, "wave 1 closed the gate: canary rolled_back")
    assert act("gpu_memory_gate", play(None), max_fail_percentage=allowed)["reason"].endswith("canary lost")


def test_as_many_may_fail_as_was_said(act: Act) -> None:
    assert act("gpu_memory_gate", play(ended("canary", "fail")), max_fail_percentage=100)["open"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"max_fail_percentage": "many"},
            "gpu_memory_max_fail_percentage = 'many' must be a percentage, from 0 to 100",
        ),
        ({"max_fail_percentage": 101}, "gpu_memory_max_fail_percentage = 101 must be"),
        ({"bake_minutes": -1}, "gpu_memory_bake_minutes = -1 must be minutes, from 0 to 10080"),
        ({"bake_minutes": True}, "gpu_memory_bake_minutes = True must be"),
    ],
)
def test_what_is_no_number_stops_the_run_by_name(act: Act, given: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleActionFail, match=message):
        act("gpu_memory_gate", play(), **given)


def test_between_waves_it_waits_and_the_next_wave_looks_after_the_earlier(act: Act, slept: list[float]) -> None:
    result = act("gpu_memory_gate", play(ended("canary")), bake_minutes="1.5")
    assert slept == [90]
    assert result["watchers"] == {"gpu02": ["canary"]}
    assert "the gate is open; wave 2 starts at " in act.text()


@pytest.mark.parametrize(
    ("variables", "check_mode"),
    [
        (play(), False),
        (play(ended("canary", "fail")), False),
        (play(ended("canary", acted=False)), False),
        (play(ended("canary")), True),
    ],
    ids=["first wave", "closed", "nothing was changed", "check mode"],
)
def test_it_waits_for_nothing_else(act: Act, slept: list[float], variables: Any, check_mode: bool) -> None:
    assert act("gpu_memory_gate", variables, check_mode=check_mode, bake_minutes=1)["watchers"] == {}
    assert slept == []


def watched(**changes: Any) -> dict[str, Any]:
    return {"__gpu_memory_watched": {"results": [{"gpu_memory_watched_host": "canary", **builders.read(**changes)}]}}


def test_a_host_that_did_not_last_closes_the_gate_and_its_record_says_so(act: Act, tmp_path: Path) -> None:
    variables = play(ended("canary"))
    variables["hostvars"]["gpu02"].update(watched(**{"ollama__unit__active_state": "failed"}))
    result = act("gpu_memory_gate", variables, watched=True, report_dir=str(tmp_path))
    assert (result["open"], result["reason"]) == (False, "wave 1 closed the gate: canary fail")
    record = json.loads((tmp_path / "canary.json").read_text())
    assert (record["verdict"], record["ok"]) == ("fail", False)
    assert record["reason"] == "it passed, but did not last: ollama.service is failed"
    assert result["did_not_last"] == [record]


def test_a_host_that_lasts_stays_as_it_was_recorded(act: Act, tmp_path: Path) -> None:
    variables = play(ended("canary"))
    variables["hostvars"]["gpu02"].update(watched())
    result = act("gpu_memory_gate", variables, watched=True, report_dir=str(tmp_path))
    assert (result["open"], result["did_not_last"], list(tmp_path.iterdir())) == (True, [], [])


def test_a_role_that_is_begun_in_the_middle_is_told_so(act: Act) -> None:
    variables = play(batch=["canary"])
    variables["hostvars"]["canary"] = {}
    with pytest.raises(AnsibleActionFail, match="begun in the middle"):
        act("gpu_memory_gate", variables)


def test_hosts_that_when_leaves_out_are_of_no_wave_and_watch_nobody(act: Act, slept: list[float]) -> None:
    variables = play(ended("canary"), batch=["gpu02", "gpu03"])
    variables["hostvars"]["gpu02"] = {}
    result = act("gpu_memory_gate", variables, bake_minutes=1)
    assert (result["open"], result["wave"], result["watchers"]) == (True, 2, {"gpu03": ["canary"]})
    assert result["restore_after"] == 240  # it waits for nobody


def test_an_earlier_host_that_when_left_out_closes_no_gate_and_one_that_began_and_did_not_end_does(act: Act) -> None:
    variables = play(ended("canary"), batch=["gpu03"])
    variables["hostvars"]["gpu02"] = {}
    assert act("gpu_memory_gate", variables)["open"]
    variables["hostvars"]["gpu02"] = variables["hostvars"]["gpu03"]
    assert act("gpu_memory_gate", variables)["reason"] == "wave 1 closed the gate: gpu02 lost"


@pytest.mark.parametrize("strategy", ["free", "ansible.builtin.host_pinned"])
def test_where_each_host_asks_for_itself_it_looks_after_all(act: Act, slept: list[float], strategy: str) -> None:
    act.strategy = strategy
    result = act("gpu_memory_gate", play(ended("canary")), bake_minutes=1)
    assert result["watchers"] == {"gpu02": ["canary"]}


def before_the_role(**told: list[str]) -> dict[str, Any]:
    """The variables of a batch whose first host is out of the play before it came to the role, as Ansible tells it."""
    return {
        **play(batch=["gpu02"]),
        "ansible_play_hosts": ["gpu02", "gpu03"],
        "ansible_current_hosts": ["gpu02"],
        **told,
    }


@pytest.mark.parametrize(
    ("told", "lost"),
    [
        ({"ansible_failed_hosts": ["canary"]}, False),
        ({"ansible_current_hosts": ["canary", "gpu02"]}, False),  # in an earlier play
        ({}, True),  # it cannot be reached
    ],
    ids=["a task failed it", "a task of an earlier play failed it", "unreachable"],
)
def test_a_host_that_was_failed_before_the_role_is_of_no_wave_and_one_that_was_lost_is(
    act: Act, told: Any, lost: bool
) -> None:
    variables = before_the_role(**told)
    variables["hostvars"]["canary"] = {}
    gate = act("gpu_memory_gate", variables)
    assert (gate["open"], gate["failed_before"]) == (not lost, [] if lost else ["canary"])
    # The next wave is told of its own batch alone.
    later = play(ended("canary"), ended("gpu02"))
    later["hostvars"].update(canary={}, gpu02={**later["hostvars"]["gpu02"], "__gpu_memory_gate": gate})
    later["ansible_play_hosts"] = ["gpu02", "gpu03"]
    assert act("gpu_memory_gate", later)["reason"] == ("wave 1 closed the gate: canary lost" if lost else None)


def test_a_host_that_the_role_itself_has_failed_at_its_first_task_is_lost(act: Act) -> None:
    variables = before_the_role(ansible_failed_hosts=["canary"])
    variables["hostvars"]["canary"] = {"__gpu_memory_declared": {"failed": True}}
    assert act("gpu_memory_gate", variables)["reason"] == "wave 1 closed the gate: canary lost"
