from __future__ import annotations

import json

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


def test_what_is_no_record_of_the_host_is_none(tmp_path):
    assert record_files.read(tmp_path, "a") is None
    for content in ("", "[]", "{", '{"schema": 99, "host": "a"}', json.dumps({"schema": 1, "host": "b"})):
        (tmp_path / "a.json").write_text(content)
        assert record_files.read(tmp_path, "a") is None


def test_a_record_that_no_file_can_have_says_so_itself(tmp_path):
    record = recorded_fleet.recorded("pass")
    assert record_files.written(tmp_path, record) == (record, str(tmp_path / "gpu01.json"))
    (tmp_path / "file").touch()
    kept, file = record_files.written(tmp_path / "file", record)
    assert file is None and {**kept, "notes": record["notes"]} == record
    assert kept["notes"][-1].startswith("no file has this record. gpu_memory_report_dir: on the controller ")
