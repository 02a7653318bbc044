# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody changes while a profile is proven, by who wrote it and whether it will start again."""

from __future__ import annotations

from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_states
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import lasting, verdicts
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.builders import DROP_IN_PATH, ENV_PATH, MODEL, UNIT_PATH

MEMORY = "ollama.service in systemd's memory"
OTHER = "/etc/systemd/system/ollama.service.d/10-owner.conf"
STARTS = {UNIT_PATH: "a", DROP_IN_PATH: "b", ENV_PATH: "c", MEMORY: "d"}
OLD = {
    "backend__env_files__0__values": {**builders.env_file()["values"], "CHAT_NUM_CTX": "8192"},
    "ollama__drop_ins__own": builders.drop_in(None),
}


def read(starts: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {**builders.read(**changes), "starts": starts}


def changed(before: Any, after: Any, restarted: Any = None, acts: bool = True) -> lasting.Changed:
    declared = builders.declared(models=[MODEL])
    decision = decisions.decide(declared, before, acts)
    assert not decision["problems"] and decision["acts"] == (acts and bool(decision["files"]))
    return lasting.changed(declared, decision, before, restarted, after)


def test_what_an_apply_itself_has_written_is_no_change() -> None:
    before = read({UNIT_PATH: "a", ENV_PATH: "old", MEMORY: "old"}, **OLD)
    assert changed(before, read(STARTS), {"starts": STARTS}) == lasting.NOTHING
    assert changed(before, read({UNIT_PATH: "a", ENV_PATH: "c", MEMORY: "old", DROP_IN_PATH: "b"})) == lasting.NOTHING


def test_a_file_or_memory_of_a_unit_that_is_another_since_the_restart_is_named() -> None:
    before = read({**STARTS, ENV_PATH: "old", MEMORY: "old"}, **OLD)
    for now, name in (
        ({**STARTS, UNIT_PATH: "x"}, UNIT_PATH),
        ({**STARTS, OTHER: "x"}, OTHER),
        ({**STARTS, MEMORY: "x"}, MEMORY),
        ({path: digest for path, digest in STARTS.items() if path != UNIT_PATH}, UNIT_PATH),
    ):
        found = changed(before, read(now), {"starts": STARTS})
        assert (found.ours, len(found.units), found.lines) == ([], 1, {})
        assert found.units[0].startswith(f"{name} was changed meanwhile")


def test_a_unit_that_would_not_start_again_is_told_where_that_is_new() -> None:
    gone = {"ollama__unit__missing": {unit_states.NOT_EXECUTABLE: ["/usr/local/bin/ollama"]}}
    (problem,) = changed(read(STARTS), read(STARTS, **gone), acts=False).units
    assert "starts /usr/local/bin/ollama, which nobody may execute, so that it would not start again" in problem
    before = read(STARTS, **gone)
    decision = decisions.decide(builders.declared(), read(STARTS), False)
    assert lasting.changed(builders.declared(), decision, before, None, before) == lasting.NOTHING


def test_what_a_service_writes_itself_is_no_change() -> None:
    before, path = read(STARTS, **OLD), "/srv/backend/answers"
    for began, now in (("a", start_script.WRITTEN), (start_script.WRITTEN, "a"), ("a", "b")):
        found = changed(before, read({**STARTS, path: now}), {"starts": {**STARTS, path: began}})
        assert len(found.units) == (start_script.WRITTEN not in (began, now))


def test_a_service_that_was_not_restarted_is_compared_with_what_was_read_at_first() -> None:
    before = read(STARTS)
    assert changed(before, read(STARTS), acts=False) == lasting.NOTHING
    assert len(changed(before, read({**STARTS, UNIT_PATH: "x"}), acts=False).units) == 1
    before = read({**STARTS, ENV_PATH: "old"}, backend__env_files__0__values__CHAT_NUM_CTX="8192")
    restarted = {"starts": {ENV_PATH: "c", "selo-backend.service in systemd's memory": "e"}}
    now = {**STARTS, **restarted["starts"]}
    assert changed(before, read(now), restarted) == lasting.NOTHING
    assert len(changed(before, read({**now, UNIT_PATH: "x"}), restarted).units) == 1


def test_our_drop_in_must_be_the_one_that_was_written_or_found() -> None:
    other = {"ollama__drop_ins__own": builders.drop_in({"OLLAMA_NUM_PARALLEL": "8"})}
    for before, acts in ((read(STARTS, **OLD), True), (read(STARTS), False)):
        for now in (other, {"ollama__drop_ins__own": builders.drop_in(None)}):
            found = changed(before, read({**STARTS, DROP_IN_PATH: "x"}, **now), {"starts": STARTS}, acts)
            assert found.units == [] and len(found.ours) == 1 and found.ours[0].startswith(DROP_IN_PATH)


def test_a_quadlets_drop_in_is_the_one_that_was_written() -> None:
    before = read(STARTS, **{**OLD, "ollama__drop_ins__own": builders.drop_in(None, builders.OF_QUADLET)})
    written = builders.drop_in(builders.STABLE_ON_0_32, builders.OF_QUADLET)
    assert changed(before, read(STARTS, ollama__drop_ins__own=written), {"starts": STARTS}) == lasting.NOTHING


def test_of_an_env_file_a_key_of_the_profile_is_told_from_its_owners_lines() -> None:
    before = read(STARTS, **OLD)
    for value, said in (("16384", "is 16384 now"), (None, "is not set now")):
        key = read({**STARTS, ENV_PATH: "x"}, backend__env_files__0__values__CHAT_NUM_CTX=value)
        found = changed(before, key, {"starts": STARTS})
        assert (found.units, found.lines, len(found.ours)) == ([], {}, 1)
        assert f"{ENV_PATH}: CHAT_NUM_CTX was 4096 when this was proven, and {said}" in found.ours[0]
    found = changed(before, read({**STARTS, ENV_PATH: "x"}), {"starts": STARTS})
    assert found.ours == found.units == [] and f"other lines of {ENV_PATH}" in found.lines[ENV_PATH]
    after = read({**STARTS, ENV_PATH: "x"}, backend__env_files__0__modified_s=9000.0)
    assert verdicts.judge_load(builders.declared(), builders.load(), after)[0] == "fail"
    started = as_started(before, {"starts": STARTS}, after, found)
    verdict = verdicts.judge_load(builders.declared(), builders.load(), started, None, found)
    assert verdict == ("inconclusive", list(found.lines.values()))


def as_started(before: Any, restarted: Any, after: Any, found: lasting.Changed = lasting.NOTHING) -> Any:
    decision = decisions.decide(builders.declared(models=[MODEL]), before, bool(restarted))
    return lasting.as_started(decision, before, restarted, after, found)


def test_an_env_file_that_was_touched_under_load_says_what_it_said() -> None:
    touched: dict[str, Any] = {"backend__env_files__0__modified_s": 9000.0}
    for before, restarted, expected in (
        (read(STARTS), None, 5000.0),  # nothing was restarted: as old as it was found
        (read(STARTS, **touched), None, 9000.0),  # the backend had not read it
        (read(STARTS, **OLD, backend__env_files__0__sha256="1" * 64), {"starts": STARTS}, None),
        (read(STARTS, **OLD, backend__env_files__0__sha256="1" * 64), {"starts": {}}, 9000.0),
    ):
        after = as_started(before, restarted, read(STARTS, **touched))
        assert after["backend"]["env_files"][0]["modified_s"] == expected
    after = as_started(read(STARTS), None, read(STARTS, **touched, backend__env_files__0__sha256="1" * 64))
    assert after["backend"]["env_files"][0]["modified_s"] == 9000.0


def test_a_model_that_was_made_anew_is_another() -> None:
    before = read(STARTS)
    after = read(STARTS, ollama__api__models__0__digest="d2")
    assert changed(before, after, acts=False).units[0].startswith(f"the model {MODEL} was changed")
    before = read(STARTS, ollama__api__models=[])
    assert lasting._models(builders.declared(models=[MODEL]), before, after) == []


def test_a_host_that_tells_no_digests_says_nothing_of_changes() -> None:
    assert changed(read({}), read(STARTS), acts=False) == changed(read(STARTS), read({}), acts=False) == lasting.NOTHING


def test_what_was_loaded_runs_to_the_end() -> None:
    before = read(STARTS, ollama__unit__main_pid=400)
    same = {"ollama__unit__main_pid": 400}
    again: Any = {"starts": STARTS, "services": {"backend": {"pid_after": 700}, "ollama": {"pid_after": 600}}}
    assert changed(before, read(STARTS, backend__pids=[500, 501], **same)).ours == []
    assert changed(before, read(STARTS, backend__pids=[699, 700], ollama__unit__main_pid=600), again).ours == []
    for pids, said in (([], "has ended"), ([701], "was started anew")):
        found = changed(before, read(STARTS, backend__pids=pids, **same))
        assert len(found.ours) == 1 and found.ours[0].startswith(f"the backend {said} meanwhile")
    ours = changed(before, read(STARTS, **same), again).ours  # both are those from before the restart
    assert [reason.partition(" meanwhile")[0] for reason in ours] == [
        "ollama.service was started anew",
        "the backend was started anew",
    ]


def test_who_has_started_ollama_anew_is_told_and_comes_first() -> None:
    before = read(STARTS, ollama__unit__main_pid=400)
    for restarts, who in (
        (0, "somebody did it; apply again without that"),
        (2, "systemd did it, since it had crashed"),
    ):
        after = read(STARTS, ollama__unit__main_pid=77, ollama__unit__restarts=restarts)
        found = changed(before, after)
        assert found.ours == [f"ollama.service was started anew meanwhile, as process 77: {who}"]
        failed = builders.load(breached=True, load__ok=0, msg="3 of 3 requests failed")
        verdict, reasons = verdicts.judge_load(builders.declared(), failed, after, before, found)
        assert (verdict, reasons[0]) == ("fail", found.ours[0])


def test_a_clock_that_was_set_meanwhile_starts_nothing_anew() -> None:
    read_before = read(STARTS, ollama__unit__main_pid=400)
    later = {
        **read_before,
        "ollama": {**read_before["ollama"], "journal": builders.journal(server_at=builders.NOW + 9)},
    }
    assert changed(read_before, later) == lasting.NOTHING
    assert verdicts.judge_load(builders.declared(), builders.load(), later, read_before) == ("pass", [])


def test_what_is_down_after_a_load_is_told_and_proves_nothing() -> None:
    health = {"ok": False, "status": None, "error": "connection refused"}
    for change, said in (
        ({"backend__health": health}, "the backend is not healthy: connection refused"),
        ({"ollama__unit__active_state": "inactive"}, "ollama.service is inactive"),
    ):
        verdict, reasons = verdicts.judge_load(builders.declared(), builders.load(), read(STARTS, **change))
        assert verdict == "fail" and said in reasons


def test_an_ollama_that_is_down_says_nothing_of_its_models() -> None:
    down = read(STARTS, ollama__api__models=[], ollama__api__error="connection refused")
    assert changed(read(STARTS), down).units == []


def test_a_unit_that_systemd_does_not_show_is_told_as_that() -> None:
    after = read(STARTS)
    after["ollama"] = {
        **after["ollama"],
        "unit": {"name": "ollama.service", "id": "ollama.service", "error": "no answer"},
    }
    assert lasting.down(after) == ["ollama.service is no answer"]
    assert changed(read(STARTS, ollama__unit__main_pid=400), after).ours == []
