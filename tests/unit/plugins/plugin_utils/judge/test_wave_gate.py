from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import wave_gate
from hypothesis import given
from hypothesis import strategies as st


def ended(wave: int, verdict: str = "pass", acted: bool = True) -> dict:
    return {"wave": wave, "verdict": verdict, "ok": verdict == "pass", "acted": acted}


def test_the_first_wave_is_open():
    assert wave_gate.judge({}, 0) == {"open": True, "wave": 1, "reason": None}


def test_a_good_wave_opens_the_next():
    assert wave_gate.judge({"a": ended(1), "b": ended(2), "c": ended(2)}, 0) == {
        "open": True,
        "wave": 3,
        "reason": None,
    }


def test_a_bad_host_closes_the_gate_and_is_named():
    gate = wave_gate.judge({"gpu01": ended(1, "rolled_back")}, 0)
    assert gate == {"open": False, "wave": 2, "reason": "wave 1 closed the gate: gpu01 rolled_back"}


def test_a_closed_gate_stays_closed_and_names_whom_it_was_closed_by():
    gate = wave_gate.judge({"a": ended(1, "fail"), "b": ended(2, "untouched")}, 0)
    assert gate == {"open": False, "wave": 3, "reason": "wave 1 closed the gate: a fail"}


def test_many_bad_hosts_are_counted():
    reason = wave_gate.judge({f"h{number}": ended(1, "fail") for number in range(8)}, 0)["reason"]
    assert reason == "wave 1 closed the gate: h0 fail, h1 fail, h2 fail, h3 fail, h4 fail and 3 more"


@pytest.mark.parametrize(
    "allowed, bad, of, is_open",
    [
        (0, 0, 4, True),
        (0, 1, 100, False),
        (25, 1, 4, True),  # more than, as Ansible's own max_fail_percentage
        (24, 1, 4, False),
        ("25", 1, 4, True),
        (None, 1, 4, False),
        (100, 4, 4, True),
    ],
)
def test_percentage(allowed, bad, of, is_open):
    hosts = {f"h{number}": ended(1, "fail" if number < bad else "pass") for number in range(of)}
    assert wave_gate.judge(hosts, allowed)["open"] is is_open


def test_each_wave_is_judged_by_itself():
    hosts = {"a": ended(1, "fail"), **{f"h{number}": ended(2) for number in range(99)}}
    assert not wave_gate.judge(hosts, 50)["open"]


def test_a_host_without_a_record_counts_as_lost_in_the_wave_of_the_one_before_it():
    gate = wave_gate.judge({"a": ended(1), "b": ended(2), "c": None}, 0)
    assert gate["reason"] == "wave 2 closed the gate: c lost"
    assert wave_gate.judge({"a": None}, 0)["reason"] == "wave 1 closed the gate: a lost"


@pytest.mark.parametrize("junk", ["x", "", -1, 101, "nan", float("nan"), "inf", True, [], {}, [1]])
def test_no_percentage(junk):
    with pytest.raises(ValueError, match="gpu_memory_max_fail_percentage = .* must be a percentage, from 0 to 100"):
        wave_gate.judge({"a": ended(1)}, junk)


@given(
    st.dictionaries(
        st.text(min_size=1),
        st.none() | st.builds(ended, st.integers(1, 4), st.sampled_from(["pass", "fail", "refused"])),
    ),
    st.floats(0, 100),
)
def test_closed_always_has_a_reason(finished, allowed):
    gate = wave_gate.judge(finished, allowed)
    assert gate["open"] is (gate["reason"] is None)
    assert gate["wave"] >= 1


def read_again(*failures: str, state: str = "active", health: dict | None = None) -> dict:
    rows = [{"severity": "fatal", "at": 1.0, "line": line} for line in failures]
    unit = {"name": "ollama.service", "active_state": state}
    return {"ollama": {"unit": unit, "journal": {"failures": rows}}, "backend": {"health": health}}


def test_what_lasts_is_not_spoilt():
    warning = read_again()
    warning["ollama"]["journal"]["failures"] = [{"severity": "recovered", "at": 1.0, "line": "out of memory"}]
    assert wave_gate.did_not_last(read_again()) == wave_gate.did_not_last(warning) == []
    assert wave_gate.did_not_last(read_again(health={"ok": True, "status": 200, "error": None})) == []


@pytest.mark.parametrize(
    "read, reason",
    [
        (
            read_again("x died", "cudaMalloc failed: out of memory"),
            "Ollama's journal: cudaMalloc failed: out of memory",
        ),
        (read_again(state="failed"), "ollama.service is failed"),
        (read_again(health={"ok": False, "status": 503, "error": None}), "the backend is not healthy: 503"),
        ({"failed": True, "msg": "lost the connection"}, "it cannot be read again: lost the connection"),
    ],
)
def test_what_did_not_last(read, reason):
    assert wave_gate.did_not_last(read) == [reason]


def test_a_record_is_corrected_only_where_something_did_not_last():
    record = {**ended(1), "host": "a", "reasons": [], "reason": None}
    assert wave_gate.corrected(record, read_again()) is None
    assert wave_gate.corrected(None, read_again(state="failed")) is None
    reason = "it passed, but did not last: ollama.service is failed"
    bad = wave_gate.corrected(record, read_again(state="failed"))
    assert bad == {**record, "verdict": "fail", "ok": False, "reasons": [reason], "reason": reason}
    assert record["ok"]


@pytest.mark.parametrize(
    ("finished", "wanted"),
    [
        ({}, False),
        ({"a": None}, False),
        ({"a": ended(1), "b": ended(2, acted=False)}, False),
        ({"a": ended(1, acted=False), "b": ended(2, acted=False), "c": ended(2)}, True),
    ],
)
def test_only_the_last_wave_is_asked_whether_it_changed_anything(finished, wanted):
    assert wave_gate.changed_last(finished) is wanted


def test_the_next_wave_shares_the_watch_of_the_good_hosts():
    finished = {"a": ended(1), "x": ended(1, "fail"), "b": ended(1), "lost": None, "e": ended(2)}
    assert wave_gate.watchers(["c", "d"], finished) == {"c": ["a", "e"], "d": ["b"]}
    assert wave_gate.watchers(["c"], {}) == {}


@pytest.mark.parametrize("junk", ["x", -1, True, "nan", 20000])
def test_no_minutes(junk):
    with pytest.raises(ValueError, match="gpu_memory_bake_minutes = .* must be minutes, from 0 to 10080"):
        wave_gate.minutes(junk)


def test_good_hosts_outlast_a_bad_one():
    def after(*seconds, is_alone=False):
        declared = [{"restore_after": one, "restore_after_alone": 120} for one in seconds]
        return wave_gate.restore_after_s(declared, is_alone)

    assert after(240, is_alone=True) == 120
    assert after(240) == 240
    assert after(240, 660, 240) == 680
