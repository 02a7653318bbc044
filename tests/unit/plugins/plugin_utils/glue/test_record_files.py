from __future__ import annotations

import json

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import record_files
from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet


def test_a_record_says_what_changed_since_the_last_one(tmp_path):
    first = record_files.dated(tmp_path, recorded_fleet.recorded("pass"), 1.0)
    assert (first["at"], first["previous"], first["changes"]) == (1.0, None, [])
    record_files.written(tmp_path, first)
    second = record_files.dated(tmp_path, {**recorded_fleet.recorded("fail"), "host": "gpu01"}, 2.0)
    assert second["previous"]["at"] == 1.0
    assert {"what": "verdict", "before": "pass", "now": "fail"} in second["changes"]


def test_what_the_same_run_tried_before_is_not_the_last_run(tmp_path):
    record_files.written(tmp_path, record_files.dated(tmp_path, recorded_fleet.recorded("pass"), 1.0))
    tried = record_files.dated(tmp_path, {**recorded_fleet.recorded("rolled_back"), "host": "gpu01"}, 2.0)
    record_files.written(tmp_path, tried)
    fell_back = {**recorded_fleet.recorded("pass"), "verdict": "fell_back", "first": tried}
    record = record_files.dated(tmp_path, fell_back, 3.0)
    assert record["previous"]["at"] == 1.0
    assert record["changes"] == [{"what": "verdict", "before": "pass", "now": "fell_back"}]


DAMAGED = [
    ("", "can be read: Expecting"),
    ("{", "can be read: Expecting"),
    ("[" * 100_000, ""),
    ("[]", "can be read: it has no schema of one"),
    ("null", "can be read: it has no schema of one"),
    ('{"schema": 99, "host": "gpu01"}', "its schema is 99, and this release knows 1; install the release"),
    ('{"schema": 1, "host": "b"}', "it is of b"),
    ('{"schema": 1, "host": "gpu01"}', "it lacks '"),
]


@pytest.mark.parametrize(("content", "says"), DAMAGED)
def test_what_is_no_record_of_the_host_is_told_with_its_file_and_a_cure(tmp_path, content, says):
    assert record_files.read(tmp_path, "gpu01") is None
    (tmp_path / "gpu01.json").write_text(content)
    with pytest.raises(record_files.Unreadable) as told:
        record_files.read(tmp_path, "gpu01")
    assert str(told.value).startswith(f"{tmp_path}/gpu01.json") and says in str(told.value)
    assert "an apply of this host writes it anew" in str(told.value) or "install the release" in str(told.value)


@pytest.mark.parametrize("key", sorted(recorded_fleet.recorded("pass")))
@pytest.mark.parametrize("value", [7, "x", [7], {"x": 7}, None], ids=str)
def test_a_record_of_which_a_part_was_changed_is_shown_whole_or_told(tmp_path, key, value):
    record = {**recorded_fleet.recorded("pass"), key: value}
    (tmp_path / "gpu01.json").write_text(json.dumps(record))
    try:
        found = record_files.read(tmp_path, "gpu01")
    except record_files.Unreadable as problem:
        assert "gpu01.json" in str(problem)
    else:
        assert found["host"] == "gpu01"


def test_a_file_that_may_not_be_read_is_told(tmp_path):
    (tmp_path / "gpu01.json").mkdir()
    with pytest.raises(record_files.Unreadable, match="gpu01.json cannot be read: Is a directory"):
        record_files.read(tmp_path, "gpu01")


def test_a_run_after_a_damaged_record_says_so_and_writes_it_anew(tmp_path):
    (tmp_path / "gpu01.json").write_text('{"schema": 1, "host": "gpu01"}')
    record = record_files.dated(tmp_path, recorded_fleet.recorded("pass"), 1.0)
    assert record["previous"] is None and "gpu01.json has no record that can be read: it lacks" in record["notes"][-1]
    record_files.written(tmp_path, record)
    assert record_files.read(tmp_path, "gpu01") == record


def test_a_record_that_no_file_can_have_says_so_itself(tmp_path):
    record = recorded_fleet.recorded("pass")
    assert record_files.written(tmp_path, record) == (record, str(tmp_path / "gpu01.json"))
    (tmp_path / "file").touch()
    kept, file = record_files.written(tmp_path / "file", record)
    assert file is None and {**kept, "notes": record["notes"]} == record
    assert kept["notes"][-1].startswith("no file has this record. gpu_memory_report_dir: on the controller ")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("gpu01.example.org", "gpu01.example.org.json"),
        ("[2001:db8::1]", "[2001:db8::1].json"),
        ("../../x", "%2E.%2F..%2Fx.json"),
        ("/etc/cron.d/x", "%2Fetc%2Fcron.d%2Fx.json"),
        (".env", "%2Eenv.json"),
        ("all", "%61ll.json"),
        ("Status", "%53tatus.json"),
        ("gpu01.plan", "%67pu01.plan.json"),
        ("a%2Fb", "a%252Fb.json"),
        ("a\nb\0c", "a%0Ab%00c.json"),
    ],
)
def test_a_name_of_a_host_is_no_path(host, name):
    assert record_files.file_name(host) == name


def test_long_names_stay_apart_and_fit():
    first, second = (record_files.file_name("x" * 300 + end, ".plan.json") for end in "ab")
    assert first != second
    assert len(first) <= 255


def test_what_a_host_is_called_stays_in_the_directory(tmp_path):
    record = {**recorded_fleet.recorded("pass"), "host": "../../escaped"}
    record_files.written(tmp_path / "a" / "b", record)
    assert record_files.read(tmp_path / "a" / "b", "../../escaped") == record
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
