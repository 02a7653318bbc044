from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import change_list
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record
from ansible_collections.selo.gpu_memory.tests.unit.builders import STABLE_ON_0_32, changed, declared, load, read

DECISION = {"ollama_environment": STABLE_ON_0_32, "acts": True, "predicted": None, "notes": []}


def record(**changes):
    whole = host_record.record("a", declared(), "pass", [], decision=DECISION, before=read(), load=load(), after=read())
    return changed(whole, {path.replace("__", "."): value for path, value in changes.items()})


def since(before, now):
    return [
        (row["what"], row["before"], row["now"]) for row in change_list.changes(change_list.remembered(before), now)
    ]


def test_the_same_again_is_no_change():
    assert since(record(), record()) == []


def test_a_first_record_has_nothing_to_differ_from():
    assert change_list.remembered(None) is None
    assert change_list.changes(None, record()) == []


@pytest.mark.parametrize(
    "change, row",
    [
        ({"verdict": "fail"}, ("verdict", "pass", "fail")),
        ({"peak_used_mib": 11700}, ("peak (MiB)", "11690", "11700")),
        ({"max_used_mib": 10240}, ("threshold (MiB)", "12288", "10240")),
        ({"profile": "conservative"}, ("profile", "stable", "conservative")),
        ({"versions__ollama": "0.33.0"}, ("ollama version", "0.32.15", "0.33.0")),
        ({"versions__driver": "560.1"}, ("driver version", "550.163.01", "560.1")),
    ],
)
def test_each_figure_that_changed_has_a_row(change, row):
    assert since(record(), record(**change)) == [row]


@pytest.mark.parametrize(
    "change, now",
    [
        ({"settings__1__wanted": "2048"}, "2048, in force: runner has -c 8192 (= 4096 x 2)"),
        ({"settings__1__state": "instead"}, "4096, instead: runner has -c 8192 (= 4096 x 2)"),
        ({"settings__1__effect": "runner has -c 4096"}, "4096, in force: runner has -c 4096"),
    ],
)
def test_a_setting_changes_with_what_is_wanted_its_state_or_its_effect(change, now):
    before = "4096, in force: runner has -c 8192 (= 4096 x 2)"
    assert since(record(), record(**change)) == [("CHAT_NUM_CTX", before, now)]


def test_settings_that_came_and_went():
    fewer = record()
    row = fewer["settings"].pop()
    words = f"{row['wanted']}, {row['state']}: {row['effect']}"
    assert since(fewer, record()) == [(row["name"], None, words)]
    assert since(record(), fewer) == [(row["name"], words, None)]


def test_what_one_of_the_runs_did_not_measure_is_not_compared():
    unread = host_record.record("a", declared(), "refused", ["x"])
    assert since(record(), unread) == [("verdict", "pass", "refused")]
    assert since(unread, record()) == [("verdict", "refused", "pass")]


def test_what_is_remembered_does_not_grow_from_run_to_run():
    remembered = change_list.remembered({**record(), "previous": {"previous": {}}, "changes": ["x"]})
    assert not {"previous", "changes", "gpus", "sampling", "journal"} & set(remembered)
