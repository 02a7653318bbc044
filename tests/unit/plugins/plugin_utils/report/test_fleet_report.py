from __future__ import annotations

import json

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report, host_record
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet
from ansible_collections.selo.gpu_memory.tests.unit.builders import changed

UNDO = "ansible-playbook selo.gpu_memory.rollback --limit {host}"


def of(verdict, **changes):
    record = changed(recorded_fleet.recorded(verdict), {path.replace("__", "."): to for path, to in changes.items()})
    return fleet_report.fleet([record], 1.0)["hosts"][0]


def test_the_counts_of_a_fleet():
    fleet = fleet_report.fleet(recorded_fleet.records(100), 5.0)
    assert (fleet["schema"], fleet["at"], len(fleet["hosts"])) == (1, 5.0, 100)
    assert sum(fleet["counts"].values()) == 100
    assert fleet["counts"]["pass"] > 80


def test_no_hosts():
    assert fleet_report.fleet([], 1.0) == {"schema": 1, "at": 1.0, "counts": {}, "hosts": []}


@pytest.mark.no_cover
@pytest.mark.parametrize("hosts, most", [(1, 500), (80, 500), (200, 200), (1000, 60)])
def test_a_timeline_is_thinned_to_what_the_number_of_hosts_allows(hosts, most):
    saw = [[at / 10, 1000 + at % 2] for at in range(900)]
    saw[451][1] = 9999
    record = recorded_fleet.recorded("pass")
    record["gpus"][0]["timeline"] = saw
    timeline = fleet_report.fleet([record] * hosts, 1.0)["hosts"][-1]["gpus"][0]["timeline"]
    assert len(timeline) <= most
    assert max(used for _unused, used in timeline) == 9999


def test_points_on_a_flat_line_are_left_out():
    record = recorded_fleet.recorded("pass")
    record["gpus"][0]["timeline"] = [[0, 5], [1, 5], [2, 5], [3, 9], [4, 9], [5, 9], [6, 9]]
    (host,) = fleet_report.fleet([record], 1.0)["hosts"]
    assert host["gpus"][0]["timeline"] == [[0, 5], [2, 5], [3, 9], [6, 9]]


@pytest.mark.no_cover
def test_a_thousand_hosts_that_say_a_lot_stay_a_few_mb():
    record = recorded_fleet.recorded("fail")
    record["reasons"] = ["x" * 100_000]
    record["journal"]["failures"] = [{"severity": "fatal", "at": 1.0, "line": f"{n}" + "y" * 9_000} for n in range(50)]
    fleet = fleet_report.fleet([record] * 20, 1.0)
    assert len(json.dumps(fleet)) / 20 < 100_000


def test_texts_from_hosts_are_cut_and_made_printable():
    host = of("fail", reasons=["a\x1b[31mb\u202ec\nd\u2028e"], reason="z" * 3000, journal__failures=[])
    assert host["reasons"] == ["a?[31mb?c d e"]
    assert len(host["reason"]) == fleet_report.TEXT_MOST
    assert host["reason"].endswith("…")


def test_the_row_of_a_host_that_passed():
    row = fleet_report.row(of("pass"), UNDO)
    assert (row["peak"], row["threshold"], row["headroom"], row["card"]) == (11690, 12288, 598, 16380)
    assert row["settings_when"] is None
    assert row["undo"] == "ansible-playbook selo.gpu_memory.rollback --limit gpu01"
    assert row["faults"] == []
    assert dict(row["facts"])["ollama"] == "0.32.15"
    assert [each["state"] for each in row["settings"]] == ["in force"] * 4 + ["partial"] + ["no effect"] * 2 + ["void"]


def test_the_row_of_a_host_that_was_put_back():
    row = fleet_report.row(of("rolled_back"), UNDO)
    assert row["undo"] is None
    assert row["settings_when"] == "as they were under load, before the host went back"
    assert dict(row["facts"])["put back"] == "generation 0001"
    often = {fault["text"]: fault["count"] for fault in row["faults"]}
    assert often["alloc_tensor_range: failed to allocate CUDA0 buffer of size 2147483648"] == 3
    assert {fault["source"] for fault in row["faults"]} == {"journal", "request"}


def test_the_row_of_a_host_that_was_lost():
    (host,) = fleet_report.fleet([host_record.lost("a")], 1.0)["hosts"]
    row = fleet_report.row(host)
    assert (row["peak"], row["headroom"], row["card"], row["bars"], row["moments"]) == (None, None, None, [], [])
    assert row["reasons"][0].startswith("no result")


def test_the_fault_of_a_gpu():
    host = of("pass", gpus__0__error="GPU is lost")
    assert fleet_report.faults(host) == [{"source": "GPU 0", "severity": "fatal", "text": "GPU is lost", "count": 1}]


def test_what_was_expected_of_the_gpu():
    assert fleet_report.expected_mib(of("pass")) == 9054 + 1836 + 800  # as predicted, and others as measured
    assert fleet_report.expected_mib(of("pass", memory=None)) == 9054 + 800  # others as they were before
    assert fleet_report.expected_mib(of("pass", predicted=None)) is None
    two = [{"index": 0, "uuid": "GPU-0", "peak_used_mib": 900}, {"index": 1, "uuid": "GPU-1", "peak_used_mib": 5100}]
    assert fleet_report.expected_mib(of("pass", gpus=two)) is None
    gpus = [{"uuid": "GPU-0", "total_mib": 0, "others_mib": 800}, {"uuid": "GPU-1", "total_mib": 5063, "others_mib": 7}]
    predicted = {**of("pass")["predicted"], "gpus": gpus}
    assert fleet_report.expected_mib(of("pass", gpus=two, predicted=predicted)) == 5070, "the fullest's"


def test_the_bars_add_up():
    predicted, measured, gpu = fleet_report.bars(of("pass"))
    assert predicted["label"] == "predicted, without the backend"
    assert sum(part["mib"] for part in predicted["parts"]) == 9054 + 800
    assert sum(part["mib"] for part in measured["parts"]) == 11690
    assert [part["name"] for part in measured["parts"]][-2:] == ["backend", "Xorg"]
    assert gpu["label"] == "GPU 0 at 8.1 s"
    assert sum(part["mib"] for part in gpu["parts"]) == 16380
    assert [part["kind"] for part in gpu["parts"]] == ["ollama", "backend", "others", "free"]


def test_what_is_reserved_is_drawn_last_so_that_only_what_is_used_reaches_the_threshold():
    sizes = {"ollama": 9054, "reserved": 300, "not attributed": 100, "free": 6926}
    whole = [{"what": what, "name": what, "mib": mib} for what, mib in sizes.items()]
    gpu = fleet_report.bars(of("pass", gpus__0__parts=whole))[-1]
    assert [part["kind"] for part in gpu["parts"]] == ["ollama", "not attributed", "free", "reserved"]


def test_memory_of_ollama_that_the_journal_does_not_tell_apart_is_in_the_bar():
    measured = fleet_report.bars(of("pass", memory__terms_mib={}))[1]
    assert measured["parts"][0] == {"kind": "runtime_mib", "name": "Ollama, not told apart", "mib": 9054}


def test_a_record_without_measurements_has_no_bars():
    assert fleet_report.bars(of("pass", memory=None, predicted=None, gpus__0__parts=None)) == []
    assert [one["label"] for one in fleet_report.bars(of("pass", memory=None))] == ["predicted", "GPU 0 at 8.1 s"]


def test_the_moments_keep_the_peak():
    moments = fleet_report.moments(of("pass"))
    assert len(moments) <= fleet_report.MOMENTS
    assert max(used for _unused, used in moments) == 11690


def test_of_what_was_tried_before_a_host_fell_back_only_the_story_is_kept():
    first = recorded_fleet.recorded("rolled_back")
    (host,) = fleet_report.fleet([{**recorded_fleet.recorded("pass"), "verdict": "fell_back", "first": first}], 1.0)[
        "hosts"
    ]
    assert set(host["first"]) == {"profile", "verdict", "reasons", "peak_used_mib"}
    assert fleet_report.row(host, UNDO)["undo"]
