# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeping, proving and going back: real files in a temporary directory, a fake systemd and a fake clock."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    file_state,
    generations,
    going_back,
    leases,
    own_files,
    state_files,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host import managed_host
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import (
    HEALTH_URL,
    OLLAMA_URL,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import (
    NEW_ENV,
    OLD_ENV,
    RESTARTS,
    TIMER,
    Managed,
)


@pytest.fixture
def managed(tmp_path: Path) -> Managed:
    return Managed(tmp_path)


def test_keep_copies_for_root_alone_arms_and_holds(managed: Managed) -> None:
    kept = managed.keep()
    assert kept == {"changed": True, "run_id": "run1", "generation": "0001", "until": kept["until"]}
    assert managed.armed()
    assert managed.is_old()
    for place in (managed.paths.root, managed.paths.second):
        for directory, _unused, names in os.walk(place):
            assert os.stat(directory).st_mode & 0o777 == 0o700
            for name in names:
                assert os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0
    generation = Path(managed.paths.again(managed.paths.generations)) / "0001"
    assert len(os.listdir(generation)) == 2 and os.path.exists(managed.paths.again(managed.paths.tool))
    lease = managed.store.stored.summary()["lease"]
    assert lease["live"] and lease["holder"] == "alice applies stable" and lease["left_s"] == 240
    assert os.readlink(managed.paths.command) == managed.paths.tool


def test_the_timer_looks_every_ten_seconds(managed: Managed) -> None:
    managed.keep()
    timer = (Path(managed.paths.units) / TIMER).read_text()
    assert "\nOnActiveSec=10s\nOnUnitInactiveSec=10s\n" in timer


def test_a_live_lease_of_another_run_is_refused_by_name_and_time(managed: Managed) -> None:
    until = managed.keep()["until"]
    with pytest.raises(StateError) as refused:
        managed.keep("run2")
    assert "alice applies stable" in str(refused.value) and "run1" in str(refused.value)
    assert until in str(refused.value)


def test_a_file_that_has_changed_since_it_was_read_is_not_kept(managed: Managed) -> None:
    files = managed.files()
    managed.env.write_bytes(b"edited meanwhile\n")
    with pytest.raises(StateError, match=r"\.env was changed by somebody else since it was read"):
        managed.keep(files=files)
    assert not managed.armed()
    assert managed.store.stored.summary()["lease"] is None


def test_every_file_that_cannot_be_kept_is_named_at_once(managed: Managed, tmp_path: Path) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    files = [{"path": str(directory), "sha256": None}, {"path": str(managed.env), "sha256": "0" * 64}]
    with pytest.raises(StateError) as refused:
        managed.keep(files=files)
    assert "neither a file nor a link" in str(refused.value) and ".env" in str(refused.value)


def test_the_timer_restores_only_once_nothing_is_heard(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 239
    assert managed.store.restore_if_expired() is None
    managed.store.renew("run1")
    managed.host.now += 239
    assert managed.store.restore_if_expired() is None
    managed.host.now += 1
    managed.host.log.clear()
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None
    assert result["reason"] == "nothing was heard of the apply for 240 s"
    assert managed.host.log[: len(RESTARTS)] == RESTARTS
    assert managed.is_old()
    assert not managed.armed()
    summary = managed.store.stored.summary()
    assert summary["lease"] is None and summary["restoring"] is None
    assert summary["last_restore"]["generation"] == "0001"


def test_the_wall_clock_plays_no_part(managed: Managed) -> None:
    managed.keep()
    managed.write()
    for jump in (86400.0 * 365, -2 * 86400.0 * 365):
        managed.host.wall_offset += jump
        assert managed.store.restore_if_expired() is None
        assert managed.store.stored.summary()["lease"]["live"]


def test_a_restart_of_the_host_ends_a_run_at_once(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.host.boot = "second-boot"
    result = managed.store.restore_if_expired()
    assert result is not None and "restarted" in result["reason"]
    assert managed.is_old()


def test_nothing_restarts_if_nothing_differs(managed: Managed) -> None:
    managed.keep()
    managed.host.log.clear()
    result = managed.store.restore(run_id="run1", reason="test")
    assert not result["changed"] and managed.restarts() == []
    assert not managed.armed()


def test_prove_ends_the_run_and_both_states_can_be_gone_back_to(managed: Managed) -> None:
    managed.keep()
    managed.write()
    assert managed.store.prove("run1", {"verdict": "pass", "key": "k"})["generation"] == "0002"
    assert not managed.armed()
    summary = managed.store.stored.summary()
    assert (summary["previous"], summary["proven"], summary["lease"]) == ("0001", "0002", None)
    at = {"at": managed.host.unix_time(), "clock": managed.host.wall()._asdict()}
    assert summary["proof"] == {"verdict": "pass", "key": "k", **at, "generation": "0002"}

    assert managed.store.restore(generation="previous", reason="test")["changed"]
    assert managed.is_old()
    assert not managed.store.restore(generation="previous", reason="test")["changed"]
    assert managed.store.restore(generation="proven", reason="test")["changed"]
    assert managed.env.read_bytes() == NEW_ENV and managed.drop_in.exists()
    assert managed.store.restore(generation="1", reason="test")["generation"] == "0001"
    assert not managed.armed()


def test_a_proven_generation_has_also_what_later_runs_did_not_touch(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.store.prove("run1", {})
    managed.keep("run2", files=[file for file in managed.files() if file["path"] == str(managed.env)])
    managed.env.write_bytes(b"third\n")
    managed.store.prove("run2", {})
    managed.env.write_bytes(b"drift\n")
    managed.drop_in.unlink()
    managed.host.log.clear()
    managed.store.restore(generation="proven", reason="test")
    assert managed.env.read_bytes() == b"third\n" and managed.drop_in.exists()
    assert managed.restarts() == RESTARTS


def test_a_new_proof_of_an_unchanged_host_makes_no_new_generation(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.store.prove("run1", {"key": "a"})
    for run_id in ("run2", "run3"):
        managed.keep(run_id, files=[])
        assert managed.store.prove(run_id, {"key": run_id})["generation"] == "0002"
    summary = managed.store.stored.summary()
    assert summary["proof"]["key"] == "run3" and summary["previous"] == "0001"
    assert [kept["id"] for kept in summary["generations"]] == ["0001", "0002"]


def test_a_run_after_one_that_kept_no_file_is_a_run_of_its_own(managed: Managed) -> None:
    managed.keep(files=[])
    managed.store.release("run1")
    managed.keep("run2")
    managed.write()
    managed.host.now += 300
    assert managed.store.restore_if_expired() is not None
    assert managed.is_old()


def test_release_ends_a_run_and_what_it_changed_can_be_undone(managed: Managed) -> None:
    managed.keep()
    managed.store.release("run1")
    assert managed.store.stored.summary()["previous"] is None
    managed.keep("run2")
    managed.write()
    managed.store.release("run2")
    assert not managed.armed()
    managed.store.restore(generation="previous", reason="test")
    assert managed.is_old()


@pytest.mark.parametrize("late", ["renew", "prove", "release"])
def test_who_comes_after_the_restore_is_told_when_it_was(managed: Managed, late: str) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    managed.store.restore_if_expired()
    restored = managed.store.stored.summary()["last_restore"]
    with pytest.raises(StateError) as refused:
        managed.store.prove("run1", {}) if late == "prove" else getattr(managed.store, late)("run1")
    assert f"put back to generation 0001 at {utc.text(restored['at'])}" in str(refused.value)


def test_what_a_late_run_wrote_after_the_timer_went_back_goes_back_as_well(managed: Managed) -> None:
    managed.keep()
    managed.host.now += 300
    managed.store.restore_if_expired()  # before anything was written
    managed.write()
    managed.host.log.clear()
    result = managed.store.restore(run_id="run1", reason="test")
    assert result["by_itself"] and result["changed"] and result["reason"] == "nothing was heard of the apply for 240 s"
    assert managed.is_old() and managed.restarts() == RESTARTS and not managed.armed()


def test_a_late_run_does_not_touch_what_another_has_done_since(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    managed.store.restore_if_expired()
    managed.keep("run2")
    managed.write()
    managed.store.prove("run2", {})
    assert not managed.store.restore(run_id="run1", reason="test")["changed"]
    assert managed.env.read_bytes() == NEW_ENV and managed.drop_in.exists()


def test_a_restore_that_comes_after_the_timers_says_what_the_timer_did(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    first = managed.store.restore_if_expired()
    assert first is not None
    managed.host.log.clear()
    second = managed.store.restore(run_id="run1", reason="test")
    assert {**second, "changed": True} == {**first, "schema": 1, "by_itself": True}
    assert not second["changed"] and managed.host.log == []


def test_a_run_that_is_ended_by_hand_finds_its_host_as_it_was(managed: Managed) -> None:
    managed.keep()
    managed.write()
    ended = managed.store.end_run("released")
    assert ended is not None and ended["error"] is None
    assert managed.is_old() and managed.restarts() == RESTARTS and not managed.armed()
    for late in (lambda: managed.store.renew("run1"), lambda: managed.store.prove("run1", {})):
        with pytest.raises(StateError, match=r"this host was put back to generation 0001 .*\(released\)"):
            late()
    assert managed.store.restore(run_id="run1", reason="test")["by_itself"]
    assert managed.store.end_run("again") is None


def test_a_run_that_the_host_was_let_go_of_does_not_hold_it(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.store.prove("run1", {"verdict": "pass"})
    managed.keep("run2")
    managed.store.drop()
    for run_id in ("run1", "run2", "run3"):
        with pytest.raises(StateError, match=f"run {run_id} does not hold this host: nobody does"):
            managed.store.restore(run_id=run_id, reason="test")
    assert not managed.is_old()


def test_who_comes_during_a_restore_is_told_so_and_changes_nothing(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    told = []

    def late(*arguments: str, timeout_s: float = 30) -> str:
        if not os.path.exists(managed.paths.lease):
            return ""
        for call in (lambda: managed.store.renew("run1"), lambda: managed.store.prove("run1", {}), managed.keep):
            with pytest.raises(StateError) as refused:
                call()
            told.append(str(refused.value))
        return ""

    monkeypatch.setattr(managed.host, "systemctl", late)
    managed.store.restore_if_expired()
    assert told and all("is going back to generation 0001 since" in text for text in told)


def test_a_restore_that_was_cut_off_is_finished_services_included(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    with monkeypatch.context() as cut:
        cut.setattr(
            generations.service_control, "restart", lambda *a, **k: (_unused for _unused in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            managed.store.restore_if_expired()
    assert managed.is_old() and managed.armed()
    for call in (lambda: managed.store.renew("run1"), lambda: managed.keep("run2")):
        with pytest.raises(StateError, match="going back to generation 0001"):
            call()
    managed.host.log.clear()
    result = managed.store.restore_if_expired()
    assert result is not None and result["changed"]
    assert managed.restarts() == RESTARTS
    assert not managed.armed()


def test_a_rollback_that_was_cut_off_is_finished_by_the_timer(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()
    managed.store.prove("run1", {})
    with monkeypatch.context() as cut:
        cut.setattr(file_state, "put_back", lambda *a: (_unused for _unused in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            managed.store.restore(generation="previous", reason="test")
    assert managed.armed()
    managed.host.boot = "second-boot"
    assert managed.store.restore_if_expired() is not None
    assert managed.is_old() and not managed.armed()
    assert managed.store.stored.summary()["restoring"] is None


def test_a_file_that_cannot_go_back_is_tried_again_and_services_wait_for_it(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()
    put_back = file_state.put_back

    def full(kept: dict[str, Any], content: bytes) -> None:
        if kept["path"].endswith(".env"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put_back(kept, content)

    managed.host.log.clear()
    with monkeypatch.context() as disk:
        disk.setattr(file_state, "put_back", full)
        with pytest.raises(StateError, match=r"\.env: No space left on device"):
            managed.store.restore(run_id="run1", reason="test")
    assert not managed.drop_in.exists() and managed.restarts() == [] and managed.armed()
    managed.host.now += 300
    result = managed.store.restore_if_expired()
    assert result is not None and managed.is_old() and not managed.armed()


def test_state_that_cannot_be_written_does_not_hinder_a_restore(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()

    def full(*arguments: object) -> None:
        raise StateError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(going_back, "write_json", full)
    assert managed.store.restore(run_id="run1", reason="test")["error"] is None
    assert managed.is_old() and not managed.armed()


def going_back_without(managed: Managed, *units: str, health: int = 200) -> None:
    managed.keep()
    managed.write()
    managed.host.answers[HEALTH_URL] = health
    managed.host.broken = set(units)
    result = managed.store.restore(run_id="run1", reason="test")
    assert managed.is_old() and managed.armed()
    summary = managed.store.stored.summary()
    assert summary["last_restore"]["error"] == summary["restoring"]["error"] == result["error"]
    assert all(unit in result["error"] for unit in units) and "gpu-memory release" in result["error"]
    assert summary["lease"] is None
    managed.host.log.clear()


def test_a_service_that_does_not_come_back_is_tried_again_with_growing_pauses(managed: Managed) -> None:
    going_back_without(managed, "backend.service")
    tried = []
    for _unused in range(2500):
        if managed.store.restore_if_expired() is not None:
            tried.append(managed.host.now)
        managed.host.now += 1
    pauses = [after - before for before, after in zip(tried, tried[1:])]
    assert pauses == sorted(pauses) and 19 < pauses[0] < 30 and 600 <= pauses[-1] < 620
    assert managed.restarts().count("start backend.service") == len(tried)
    assert "restart ollama.service" not in managed.host.log  # it is in place
    managed.host.broken.clear()
    result = managed.store.abort("by hand")
    assert result["changed"] and result["error"] is None and not managed.armed()
    assert managed.store.stored.summary()["restoring"] is None and not os.path.exists(managed.paths.second)
    assert managed.store.stored.summary()["last_restore"]["error"] is None


def test_what_has_come_up_by_itself_is_not_restarted(managed: Managed) -> None:
    going_back_without(managed, health=503)
    managed.host.answers[HEALTH_URL] = 200
    managed.host.now += 60
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None
    assert managed.restarts() == [] and not managed.armed()


def test_what_a_killed_writer_and_a_killed_job_have_left_goes_with_a_restore(managed: Managed) -> None:
    managed.keep()
    new = managed.env.with_name(f"..env.{'a' * 16}.gpu-memory")
    results = Path(managed.paths.jobs, "j1.2")
    figures = Path(managed.paths.run, "gpu-memory-progress.json")
    results.parent.mkdir()
    for path in (new, results, figures):
        path.touch()
    managed.store.renew("run1")
    assert managed.store.restore_if_expired() is None and results.exists()  # its run lives
    managed.host.now += 240
    assert managed.store.restore_if_expired() is not None
    assert not (new.exists() or results.parent.exists() or figures.exists())
    assert managed.is_old()


def test_a_new_run_takes_away_what_jobs_have_left_before(managed: Managed) -> None:
    results = Path(managed.paths.jobs, "j1.2")
    results.parent.mkdir()
    results.touch()
    managed.keep()
    assert not results.parent.exists()


def test_a_backend_that_was_unhealthy_before_is_in_place_once_it_runs(managed: Managed) -> None:
    managed.host.answers[HEALTH_URL] = 503
    managed.keep()
    managed.write()
    result = managed.store.restore(run_id="run1", reason="test")
    assert result["error"] is None and managed.is_old() and not managed.armed()
    assert {name: service["state"] for name, service in result["services"].items()} == {
        "ollama": "restarted",
        "backend": "unhealthy",
    }


def test_a_backend_that_is_unhealthy_now_and_was_not_is_waited_for_by_hand(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.store.release("run1")
    managed.host.answers[HEALTH_URL] = 503
    result = managed.store.restore(reason="test")
    assert HEALTH_URL in (result["error"] or "") and managed.is_old() and managed.armed()


def test_after_a_start_of_the_host_what_is_not_in_place_is_tried_at_once(managed: Managed) -> None:
    going_back_without(managed, "backend.service")
    managed.host.boot = "second-boot"
    os.unlink(managed.paths.tries)
    managed.host.broken.clear()
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None
    assert managed.restarts() == ["stop backend.service", "start backend.service"]


def test_a_process_that_did_not_go_is_not_in_place(managed: Managed) -> None:
    managed.host.refuses["stop backend.service"] = managed.host.refuses["start backend.service"] = "it hangs"
    going_back_without(managed)
    assert managed.host.active["backend.service"] == 12  # and it answers
    managed.host.now += 60
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] and managed.armed()
    managed.host.refuses.clear()
    managed.host.now += 60
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None and managed.host.active["backend.service"] != 12


def test_a_run_is_refused_with_cause_and_cure_while_a_service_is_not_back(managed: Managed) -> None:
    going_back_without(managed, "backend.service")
    with pytest.raises(StateError, match=r"going back to generation 0001 .*backend\.service.*gpu-memory release"):
        managed.keep("run2")
    assert managed.store.drop() == ["backend"]
    assert not managed.armed() and not os.path.exists(managed.paths.second)
    managed.keep("run2")


def test_a_rollback_by_hand_to_the_same_files_does_not_end_what_is_not_in_place(managed: Managed) -> None:
    managed.keep()
    managed.store.release("run1")
    managed.keep("run2")
    managed.write()
    managed.host.broken = {"backend.service"}
    managed.store.restore(run_id="run2", reason="test")
    assert managed.store.restore(generation="1", reason="by hand")["error"] and managed.armed()
    managed.host.broken.clear()
    result = managed.store.restore(generation="1", reason="by hand")
    assert result["error"] is None and "backend.service" in managed.host.active and not managed.armed()


def test_whoever_lets_go_during_a_restore_is_not_undone_at_its_end(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed.keep()
    managed.write()
    systemctl = managed.host.systemctl

    def let_go(*arguments: str, timeout_s: float = 30) -> str:
        if arguments == ("start", "backend.service"):
            monkeypatch.setattr(managed.host, "systemctl", systemctl)
            assert managed.store.drop() == ["backend"]  # the lock is another's, who may hang
            managed.host.refuses = {"start backend.service": "cut off"}
            return "cut off"
        return systemctl(*arguments, timeout_s=timeout_s)

    monkeypatch.setattr(managed.host, "systemctl", let_go)
    assert managed.store.restore(run_id="run1", reason="test")["error"]
    assert not managed.armed() and managed.store.stored.summary()["restoring"] is None


def lose(managed: Managed, what: str) -> None:
    root = Path(managed.paths.root)
    if what == "all":
        shutil.rmtree(root)
    else:
        for path in root.rglob(what):
            path.write_bytes(path.read_bytes().replace(b"0001", b"0002")[: None if what == "manifest.json" else 20])


@pytest.mark.parametrize(
    "what", ["all", "lease.json", "manifest.json", hashlib.sha256(OLD_ENV).hexdigest(), "restored.json"]
)
def test_what_is_lost_of_what_is_kept_is_there_a_second_time(managed: Managed, what: str) -> None:
    managed.keep()
    state_files.write_json(managed.paths.restored, {"run_id": "run0"})
    managed.write()
    lose(managed, what)
    managed.store.renew("run1")  # its run goes on
    lose(managed, what)
    managed.host.now += 300
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None and managed.is_old() and not managed.armed()
    assert not os.path.exists(managed.paths.second) and own_files.tool(managed.paths) == b"tool"
    managed.keep("run2")
    managed.write()
    lose(managed, "all")
    managed.store.prove("run2", {"verdict": "pass"})
    managed.store.restore(reason="test")
    assert managed.is_old()


def test_a_lease_that_is_damaged_and_kept_nowhere_else_is_acted_on(managed: Managed) -> None:
    managed.keep()
    managed.write()
    shutil.rmtree(managed.paths.second)
    Path(managed.paths.lease).write_text("")
    result = managed.store.restore_if_expired()
    assert result is not None and result["reason"] == "what its apply holds the host by was damaged"
    assert managed.is_old() and not managed.armed()


def test_pointers_that_are_damaged_do_not_hinder_a_restore(managed: Managed) -> None:
    managed.keep()
    managed.write()
    Path(managed.paths.pointers).write_text("{")
    with pytest.raises(StateError, match="pointers.json is damaged"):
        managed.store.prove("run1", {})
    assert managed.store.restore(run_id="run1", reason="test")["error"] is None and managed.is_old()


def test_a_restore_of_which_nobody_knows_any_more_to_what_is_taken_up_by_hand(managed: Managed) -> None:
    finished_run(managed)
    Path(managed.paths.restoring).write_text("{")
    for call in (managed.keep, managed.store.restore_if_expired):
        with pytest.raises(StateError, match=r"restoring\.json is damaged .*gpu-memory rollback NUMBER, or"):
            call()
    managed.store.restore(generation="1", reason="test")
    assert managed.is_old() and not os.path.exists(managed.paths.restoring)


def test_nothing_is_held_where_it_cannot_be_kept_a_second_time(managed: Managed) -> None:
    Path(managed.paths.second).write_text("in the way")
    with pytest.raises(StateError):
        managed.keep()
    assert not managed.armed() and managed.store.stored.summary()["lease"] is None


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_copy_is_refused_before_anything_is_touched(managed: Managed, damage: str) -> None:
    managed.keep()
    managed.write()
    copy = Path(managed.paths.generations) / "0001" / hashlib.sha256(OLD_ENV).hexdigest()
    for place in (copy, Path(managed.paths.again(str(copy)))):
        place.unlink() if damage == "gone" else place.write_bytes(b"x")
    managed.host.log.clear()
    with pytest.raises(StateError, match=r"generation 0001 is damaged: the copy of .*\.env"):
        managed.store.restore(run_id="run1", reason="test")
    assert managed.env.read_bytes() == NEW_ENV and managed.drop_in.exists() and managed.host.log == []
    managed.store.drop()
    assert not managed.armed() and managed.store.stored.summary()["lease"] is None


def test_a_second_keep_of_a_run_adds_files_and_keeps_the_first_state(managed: Managed, tmp_path: Path) -> None:
    managed.keep()
    managed.write()
    other = tmp_path / ".env.conservative-16gb"
    again = managed.keep(files=[*managed.files(), {"path": str(other), "sha256": None}])
    assert again["changed"] and again["generation"] == "0001"
    other.write_bytes(b"third\n")
    assert not managed.keep()["changed"]
    managed.store.restore(run_id="run1", reason="test")
    assert managed.is_old() and not other.exists()


def test_a_link_and_its_file_both_come_back(managed: Managed, tmp_path: Path) -> None:
    real = tmp_path / "real.env"
    managed.env.rename(real)
    managed.env.symlink_to("real.env")
    managed.keep()
    managed.env.unlink()
    managed.env.write_bytes(NEW_ENV)
    real.write_bytes(NEW_ENV)
    managed.store.restore(run_id="run1", reason="test")
    assert os.readlink(managed.env) == "real.env" and real.read_bytes() == OLD_ENV


def test_check_mode_answers_as_the_real_run_and_writes_nothing(managed: Managed) -> None:
    assert managed.keep(check=True) == {"changed": True, "run_id": "run1"}
    assert not managed.keep(files=[], services={**managed_host.SERVICES, "restart": []}, check=True)["changed"]
    assert managed.store.prove("run1", {}, check=True)["changed"]
    assert managed.store.release("run1", check=True)["changed"]
    assert not managed.store.restore(run_id="run1", reason="test", check=True)["changed"]
    assert not os.path.exists(managed.paths.root) and managed.host.log == []
    with pytest.raises(StateError, match="changed by somebody else"):
        managed.keep(files=[{"path": str(managed.env), "sha256": None}], check=True)

    managed.keep()
    managed.write()
    managed.host.log.clear()
    result = managed.store.restore(run_id="run1", reason="test", check=True)
    assert result["changed"]
    assert {file["path"]: file["what"] for file in result["files"]}[str(managed.env)] == ["content", "time"]
    assert managed.env.read_bytes() == NEW_ENV and managed.armed() and managed.host.log == []


def test_few_generations_stay_and_those_that_are_needed_always(managed: Managed) -> None:
    for number in range(12):
        managed.keep(f"run{number}")
        managed.write(b"%d\n" % number)
        managed.store.prove(f"run{number}", {}) if number == 3 else managed.store.restore(
            run_id=f"run{number}", reason="test"
        )
    summary = managed.store.stored.summary()
    ids = [kept["id"] for kept in summary["generations"]]
    assert ids == ["0001", "0004", "0005", *(f"{number:04d}" for number in range(9, 14))]
    assert (summary["previous"], summary["proven"]) == ("0004", "0005")
    assert sorted(os.listdir(managed.paths.generations)) == ids


def test_a_keep_that_was_cut_off_leaves_nothing_armed(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **named: object) -> None:
        raise StateError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(generations.lease_holding, "new", full)
    with pytest.raises(StateError, match="No space left"):
        managed.keep()
    assert not managed.armed()


def test_a_timer_without_a_lease_takes_itself_away(managed: Managed) -> None:
    managed.keep()
    state_files.remove_kept(managed.paths, managed.paths.lease)
    assert managed.store.restore_if_expired() is None
    assert not managed.armed() and not os.path.exists(managed.paths.second) and managed.restarts() == []
    managed.keep("run2")


def test_a_run_that_was_cut_off_before_it_had_its_lease_is_in_nobodys_way(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_unused: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(generations.own_files, "install", cut_off)
        with pytest.raises(KeyboardInterrupt):
            managed.keep()
    assert os.path.exists(managed.paths.second)
    managed.keep("run2")


def test_a_lease_that_is_gone_from_both_places_is_acted_on(managed: Managed) -> None:
    managed.keep()
    managed.write()
    state_files.remove_kept(managed.paths, managed.paths.lease)
    assert not leases.holds(managed.paths, managed.host)
    with pytest.raises(StateError, match="is going back to generation 0001"):
        managed.keep("run2")
    result = managed.store.restore_if_expired()
    assert result is not None and result["reason"] == "what its apply holds the host by was damaged"
    assert managed.is_old() and not managed.armed() and managed.restarts() == RESTARTS


def test_a_run_that_was_cut_off_after_its_proof_stays_proven(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    managed.keep()
    managed.write()
    with monkeypatch.context() as cut:
        cut.setattr(going_back, "remove_file", lambda path: (_unused for _unused in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            managed.store.prove("run1", {"verdict": "pass"})
    managed.host.boot = "second-boot"
    assert managed.store.restore_if_expired() is None
    assert managed.env.read_bytes() == NEW_ENV and not managed.armed()
    assert managed.store.stored.summary()["proof"]["verdict"] == "pass"


def test_a_timer_that_does_not_start_means_nothing_is_held(managed: Managed) -> None:
    managed.host.broken = {TIMER}
    with pytest.raises(StateError, match="the restore timer did not start"):
        managed.keep()
    assert not managed.armed()
    assert managed.store.stored.summary()["lease"] is None


@pytest.mark.parametrize(
    ("generation", "says"),
    [
        ("previous", "no previous generation"),
        ("0007", "generation 0007 is not on this host; it has: none"),
        ("../../etc", "allowed: previous, proven, or a number"),
    ],
)
def test_a_generation_that_is_not_there_is_refused(managed: Managed, generation: str, says: str) -> None:
    with pytest.raises(StateError) as refused:
        managed.store.restore(generation=generation, reason="test")
    assert says in str(refused.value)


def test_one_command_at_a_time(managed: Managed) -> None:
    managed.keep()
    with open(managed.paths.lock) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="another command works on this host's generations"):
            managed.store.renew("run1")


def test_state_of_a_newer_collection_is_refused_by_name(managed: Managed) -> None:
    Path(managed.paths.root).mkdir()
    state_files.write_json(managed.paths.lease, {"schema": 2})
    with pytest.raises(StateError, match=r"lease\.json has schema 2, this collection knows up to 1"):
        managed.store.stored.summary()


def test_a_generation_of_schema_1_stays_readable(managed: Managed) -> None:
    """As written on disk by 1.0.0; this text must never change."""
    directory = Path(managed.paths.generations) / "0001"
    directory.mkdir(parents=True)
    content = b"OLLAMA_GPU_LAYERS=999\n"
    digest = hashlib.sha256(content).hexdigest()
    (directory / digest).write_bytes(content)
    manifest = f"""
    {{"schema": 1, "id": "0001", "at": 1795492412.5, "kind": "kept", "run_id": "5f0c", "holder": "alice applies stable",
     "files": [
      {{"path": "{managed.env}", "kind": "file", "sha256": "{digest}", "mode": 384, "uid": {os.getuid()},
        "gid": {os.getgid()}, "mtime_ns": 1600000000123456789, "xattrs": {{}}}},
      {{"path": "{managed.drop_in}", "kind": "absent", "parent_absent": true}}],
     "services": {{"ollama": {{"unit": "ollama.service", "url": "{OLLAMA_URL}", "timeout_s": 60}},
      "backend": {{"kind": "none"}}, "restart": ["ollama"]}}}}
    """
    (directory / "manifest.json").write_text(manifest)
    managed.write()
    assert managed.store.restore(generation="0001", reason="test")["error"] is None
    assert managed.env.read_bytes() == content and managed.env.stat().st_mode & 0o777 == 0o600
    assert not managed.drop_in.parent.exists()


HEADER = b"# Profile stable of selo.gpu_memory, from the inventory. The backend reads .env.\n"
OUR_KEYS = {"keys": ["OLLAMA_GPU_LAYERS", "CHAT_NUM_CTX"], "readers": ["python-dotenv"]}


def keep_as_env(managed: Managed, run_id: str = "run1") -> None:
    drop_in, env = managed.files()
    managed.keep(run_id, files=[drop_in, {**env, "env": OUR_KEYS}])


def finished_run(managed: Managed) -> None:
    keep_as_env(managed)
    managed.write(NEW_ENV + b"CHAT_NUM_CTX=4096\n")
    managed.store.prove("run1", {})


def test_what_somebody_wrote_into_an_env_file_since_outlives_a_restore(managed: Managed) -> None:
    keep_as_env(managed)
    managed.write(NEW_ENV + b"CHAT_NUM_CTX=4096\nAPI_KEY='new #1'\n")
    result = managed.store.abort("test")
    assert managed.env.read_bytes() == OLD_ENV + b"API_KEY='new #1'\n"
    assert [file["path"] for file in result["files"]] == [str(managed.drop_in), str(managed.env)]
    assert not managed.armed() and not managed.drop_in.exists()


def test_a_rollback_later_takes_our_keys_back_and_leaves_the_others(managed: Managed) -> None:
    finished_run(managed)
    managed.env.write_bytes(managed.env.read_bytes().replace(b"hunter2", b"rotated"))
    managed.store.restore(reason="test")
    assert managed.env.read_bytes() == OLD_ENV.replace(b"hunter2", b"rotated")
    managed.store.restore(generation="proven", reason="test")
    assert managed.env.read_bytes() == NEW_ENV.replace(b"hunter2", b"rotated") + b"CHAT_NUM_CTX=4096\n"


def test_an_env_file_of_which_a_crash_has_left_nothing_goes_back_as_a_whole(managed: Managed) -> None:
    keep_as_env(managed)
    managed.env.write_bytes(b"\0\0\0")
    managed.store.abort("test")
    assert managed.is_old()


def everything_under(root: Path) -> dict[str, Any]:
    return {
        str(path): (path.is_file() and path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_dir()
    }


def test_remove_takes_everything_back_to_before_the_first_run(managed: Managed, tmp_path: Path) -> None:
    before = everything_under(tmp_path)
    finished_run(managed)
    for number in range(2, 10):  # more runs than generations are kept
        keep_as_env(managed, f"run{number}")
        managed.env.write_bytes(b"CHAT_NUM_CTX=%d\n" % number + NEW_ENV)
        managed.store.prove(f"run{number}", {})
    managed.host.log.clear()
    would = managed.store.remove(check=True)
    assert would["changed"] and managed.drop_in.exists() and managed.host.log == []
    done = managed.store.remove()
    assert (done["files"], done["removed"]) == (would["files"], would["removed"])
    assert {file["path"] for file in done["files"]} == {str(managed.drop_in), str(managed.env)}
    assert everything_under(tmp_path) == before
    assert managed.restarts() == RESTARTS
    assert not os.path.lexists(managed.paths.command) and not os.path.exists(managed.paths.root)
    assert not managed.store.remove()["changed"] and not os.path.exists(managed.paths.root)


def test_remove_restarts_nothing_where_all_is_back_already(managed: Managed) -> None:
    finished_run(managed)
    managed.store.restore(reason="test")
    managed.host.log.clear()
    assert managed.store.remove()["changed"]
    assert managed.restarts() == [] and managed.is_old()


def test_remove_is_refused_while_a_run_holds_the_host(managed: Managed) -> None:
    managed.keep()
    with pytest.raises(StateError, match="this host is held by alice"):
        managed.store.remove()
    assert managed.armed()


def test_remove_that_is_cut_off_is_carried_on_by_the_timer(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(managed)

    def cut(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(generations.service_control, "restart", cut)
        with pytest.raises(KeyboardInterrupt):
            managed.store.remove()
    assert managed.armed()
    managed.host.log.clear()
    assert managed.store.restore_if_expired() is not None
    assert managed.restarts() == RESTARTS
    assert managed.store.remove()["files"] == [] and managed.is_old()


def test_what_was_kept_stays_if_a_service_does_not_come_back(managed: Managed) -> None:
    finished_run(managed)
    managed.host.broken = {"backend.service"}
    assert "backend.service" in managed.store.remove()["error"]
    assert os.path.exists(managed.paths.generations) and managed.is_old()
    assert "backend.service" in managed.store.remove()["error"]  # it is not forgotten
    assert os.path.exists(managed.paths.generations) and managed.armed()
    managed.host.broken.clear()
    assert managed.store.remove()["error"] is None and not os.path.exists(managed.paths.root)


def test_a_file_that_a_run_has_made_goes_with_its_header_unless_somebody_uses_it(managed: Managed) -> None:
    profile_file = managed.env.with_name(".env.stable")
    file = {"path": str(profile_file), "sha256": None, "env": OUR_KEYS}
    managed.keep(files=[file])
    profile_file.write_bytes(HEADER + b"CHAT_NUM_CTX=4096\n")
    managed.store.abort("test")
    assert not profile_file.exists()
    managed.keep("run2", files=[file])
    profile_file.write_bytes(HEADER + b"CHAT_NUM_CTX=4096\nTHEIRS=1\n")
    managed.store.abort("test")
    assert profile_file.read_bytes() == HEADER + b"THEIRS=1\n"


def stopped(managed: Managed, *units: str, state: str = "inactive") -> None:
    for unit in units:
        managed.host.active.pop(unit, None)
        managed.host.states[unit] = state


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_run_puts_what_was_stopped_back_as_stopped(managed: Managed, state: str) -> None:
    stopped(managed, "backend.service", state=state)
    managed.keep()
    managed.write()
    managed.host.systemctl("start", "backend.service")
    result = managed.store.restore(run_id="run1", reason="test")
    assert (result["error"], result["started"]) == (None, ["backend"])
    assert {name: service["state"] for name, service in result["services"].items()} == {
        "ollama": "restarted",
        "backend": "stopped",
    }
    assert managed.host.show("backend.service")["ActiveState"] in ("inactive", state)
    assert "ollama.service" in managed.host.active and managed.is_old()


def test_the_restore_timer_stops_what_systemd_tries_again_and_again(managed: Managed) -> None:
    stopped(managed, "ollama.service", "backend.service")
    managed.keep()
    managed.write()
    stopped(managed, "ollama.service", state="activating")  # auto-restart
    managed.host.now += 300
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None
    assert managed.host.show("ollama.service")["ActiveState"] == "inactive"
    assert not {"ollama.service", "backend.service"} & set(managed.host.active)


def test_what_a_run_has_only_started_is_stopped_and_nothing_else_restarts(managed: Managed) -> None:
    stopped(managed, "backend.service")
    managed.keep()
    managed.host.systemctl("start", "backend.service")
    would = managed.store.restore(run_id="run1", reason="test", check=True)
    assert would["changed"] and would["started"] == ["backend"] and "backend.service" in managed.host.active
    managed.host.log.clear()
    assert managed.store.restore(run_id="run1", reason="test")["changed"]
    assert managed.restarts() == ["stop backend.service"]
    assert "backend.service" not in managed.host.active
    assert not managed.store.restore(generation="0001", reason="again")["changed"]


def test_a_second_keep_of_a_run_does_not_take_what_the_run_started_for_found(managed: Managed) -> None:
    stopped(managed, "backend.service")
    first, second = managed.files()
    managed.keep(files=[first])
    managed.host.systemctl("start", "backend.service")
    managed.keep(files=[first, second])
    managed.store.restore(run_id="run1", reason="test")
    assert "backend.service" not in managed.host.active


def test_a_rollback_by_hand_goes_by_what_runs_now(managed: Managed) -> None:
    stopped(managed, "backend.service")
    finished_run(managed)
    managed.host.systemctl("start", "backend.service")
    stopped(managed, "ollama.service")
    result = managed.store.restore(generation="previous", reason="test")
    assert managed.is_old() and result["error"] is None
    assert {name: service["state"] for name, service in result["services"].items()} == {
        "ollama": "stopped",
        "backend": "restarted",
    }
    assert "backend.service" in managed.host.active and "ollama.service" not in managed.host.active


@pytest.mark.parametrize("state", ["failed", "activating"])
def test_a_rollback_by_hand_starts_what_does_not_come_up_under_our_settings(managed: Managed, state: str) -> None:
    finished_run(managed)
    stopped(managed, "ollama.service", state=state)
    result = managed.store.restore(generation="previous", reason="test")
    assert (result["error"], result["services"]["ollama"]["state"]) == (None, "restarted")


def test_a_rollback_by_hand_that_was_cut_off_still_leaves_stopped_what_was(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(managed)
    stopped(managed, "ollama.service")
    with monkeypatch.context() as cut:
        cut.setattr(file_state, "put_back", lambda *a: (_unused for _unused in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            managed.store.restore(generation="previous", reason="test")
    managed.host.boot = "second-boot"
    result = managed.store.restore_if_expired()
    assert result is not None and result["services"]["ollama"]["state"] == "stopped"
    assert managed.is_old() and "ollama.service" not in managed.host.active


def test_remove_leaves_stopped_what_is_stopped_and_running_what_runs(managed: Managed) -> None:
    stopped(managed, "backend.service")
    finished_run(managed)
    managed.host.systemctl("start", "backend.service")  # since, by somebody
    stopped(managed, "ollama.service")  # as well
    assert managed.store.remove()["error"] is None and managed.is_old()
    assert "backend.service" in managed.host.active and "ollama.service" not in managed.host.active


@pytest.mark.parametrize(("before", "after"), [("active", "active"), ("failed", "inactive")])
def test_remove_starts_what_has_failed_if_it_ran_before_us(managed: Managed, before: str, after: str) -> None:
    if before != "active":
        stopped(managed, "ollama.service", state=before)
    finished_run(managed)
    stopped(managed, "ollama.service", state="failed")
    assert managed.store.remove()["error"] is None
    assert managed.host.show("ollama.service")["ActiveState"] in (after, before)


def test_remove_leaves_a_drop_in_that_another_has_written_since(managed: Managed) -> None:
    finished_run(managed)
    theirs = unit_text.render_dropin({"OLLAMA_MODELS": "/data"}, "the role ollama")
    managed.drop_in.write_text(theirs)
    managed.host.log.clear()
    would = managed.store.remove(check=True)
    done = managed.store.remove()
    assert would["left"] == done["left"] == [str(managed.drop_in)]
    assert managed.drop_in.read_text() == theirs and managed.env.read_bytes() == OLD_ENV
    assert "restart ollama.service" not in managed.host.log


@pytest.mark.parametrize("verb", ["restore", "remove"])
def test_what_somebody_has_added_to_our_drop_in_stays(managed: Managed, verb: str) -> None:
    finished_run(managed)
    ours = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"})
    added = "[Service]\nEnvironment=OLLAMA_KEEP_ALIVE=24h\n"
    managed.drop_in.write_text(ours + added.partition("\n")[2])
    managed.host.log.clear()
    done = managed.store.remove() if verb == "remove" else managed.store.restore(reason="test")
    assert (done["left"], done["error"]) == ([str(managed.drop_in)], None)
    assert managed.drop_in.read_text() == added and managed.env.read_bytes() == OLD_ENV
    assert "restart ollama.service" in managed.host.log
    again = managed.store.remove() if verb == "remove" else managed.store.restore(reason="test")
    assert not again["changed"] and managed.drop_in.read_text() == added


def test_what_somebody_has_added_to_our_drop_in_goes_along_to_an_earlier_one(managed: Managed) -> None:
    finished_run(managed)
    proven = managed.drop_in.read_text()
    managed.drop_in.write_text(f"{proven}LimitNOFILE=65536\n")
    assert managed.store.restore(generation="proven", reason="test")["left"] == [str(managed.drop_in)]
    managed.drop_in.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "9"}) + "LimitNOFILE=65536\n")
    managed.store.restore(generation="proven", reason="test")
    assert managed.drop_in.read_text() == f"{proven}[Service]\nLimitNOFILE=65536\n"


def test_remove_brings_back_what_another_had_written_before(managed: Managed) -> None:
    theirs = unit_text.render_dropin({"OLLAMA_MODELS": "/data"}, "the role ollama")
    managed.drop_in.parent.mkdir()
    managed.drop_in.write_text(theirs)
    finished_run(managed)
    assert managed.drop_in.read_text() != theirs
    assert managed.store.remove()["left"] == [] and managed.drop_in.read_text() == theirs


# What somebody has made of the host between a run and the way back.


def test_in_an_env_file_that_has_become_a_link_our_keys_go_back_where_it_leads(
    managed: Managed, tmp_path: Path
) -> None:
    finished_run(managed)
    real = tmp_path / "etc" / "backend.env"
    real.parent.mkdir()
    managed.env.rename(real)
    managed.env.symlink_to(real)
    real.write_bytes(real.read_bytes() + b"LAST=no newline")
    real.chmod(0o604)
    managed.store.restore(reason="test")
    assert os.readlink(managed.env) == str(real)
    assert real.read_bytes() == OLD_ENV + b"LAST=no newline" and real.stat().st_mode & 0o777 == 0o604
    assert managed.store.remove()["error"] is None and managed.env.is_symlink()


def test_an_env_file_that_was_a_link_stays_what_it_is_now(managed: Managed, tmp_path: Path) -> None:
    real = tmp_path / "real.env"
    managed.env.rename(real)
    managed.env.symlink_to("real.env")
    finished_run(managed)
    managed.env.unlink()
    managed.env.write_bytes(real.read_bytes() + b"THEIRS=1\n")
    real.unlink()
    result = managed.store.restore(reason="test")
    assert not managed.env.is_symlink() and managed.env.read_bytes() == OLD_ENV + b"THEIRS=1\n"
    assert not real.exists() and (result["missing"], result["error"]) == ([], None)


def test_a_link_that_another_user_could_move_is_not_followed(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(managed)

    def refuses(path: str) -> str:
        raise atomic_files.CannotWrite("a symbolic link belongs to uid 1000")

    with monkeypatch.context() as patched:
        patched.setattr(atomic_files, "target_of", refuses)
        with pytest.raises(StateError, match=r"belongs to uid 1000\. Nothing was touched"):
            managed.store.restore(reason="test")
    assert managed.drop_in.exists()


def test_an_env_file_that_was_deleted_is_named_and_not_made_again(managed: Managed) -> None:
    finished_run(managed)
    managed.env.unlink()
    result = managed.store.restore(reason="test")
    assert (result["missing"], result["error"]) == ([str(managed.env)], None)
    assert not managed.env.exists() and not managed.drop_in.exists()
    done = managed.store.remove()
    assert (done["missing"], done["error"]) == ([str(managed.env)], None)
    assert not managed.env.exists() and not os.path.exists(managed.paths.root)


def test_a_profiles_own_file_that_a_rollback_has_taken_away_comes_back_with_its_generation(managed: Managed) -> None:
    profile_file = managed.env.with_name(".env.stable")
    managed.keep(files=[{"path": str(profile_file), "sha256": None, "env": OUR_KEYS}])
    profile_file.write_bytes(HEADER + b"CHAT_NUM_CTX=4096\n")
    managed.store.prove("run1", {})
    managed.store.restore(reason="test")
    assert not profile_file.exists()
    assert managed.store.restore(generation="proven", reason="test")["missing"] == []
    assert profile_file.read_bytes() == HEADER + b"CHAT_NUM_CTX=4096\n"


@pytest.mark.parametrize("verb", ["restore", "remove"])
def test_where_the_lines_of_a_deleted_env_file_are_now_they_are_named(managed: Managed, verb: str) -> None:
    finished_run(managed)
    managed.env.unlink()
    environment = {"OLLAMA_GPU_LAYERS": "40", "CHAT_NUM_CTX": "8192"}
    source = {"kind": "EnvironmentFile", "path": "/etc/selo/backend.env", "environment": environment}
    managed.host.lacks["backend.service"] = {"sources": [{**source, "resets": False, "unsets": []}]}
    result = managed.store.remove() if verb == "remove" else managed.store.restore(reason="test")
    assert "/etc/selo/backend.env gives backend.service this collection's OLLAMA_GPU_LAYERS; set" in result["error"]
    assert os.path.exists(managed.paths.generations)


def test_a_mode_that_somebody_has_set_since_stays(managed: Managed) -> None:
    finished_run(managed)
    managed.env.chmod(0o600)
    managed.store.restore(reason="test")
    assert managed.env.read_bytes() == OLD_ENV and managed.env.stat().st_mode & 0o777 == 0o600
    assert not managed.store.restore(reason="test")["changed"]


@pytest.fixture
def moved(managed: Managed) -> Path:
    """A host whose backend's directory was moved after a run; where to."""
    directory = managed.env.parent / "backend"
    directory.mkdir()
    managed.env = managed.env.rename(directory / ".env")
    finished_run(managed)
    managed.host.log.clear()
    return directory.rename(directory.with_name("srv"))


def test_a_directory_that_was_moved_is_refused_and_a_link_to_it_is_the_cure(managed: Managed, moved: Path) -> None:
    with pytest.raises(StateError) as refused:
        managed.store.restore(reason="test")
    assert f"the directory {managed.env.parent} is missing" in str(refused.value)
    assert managed.drop_in.exists() and managed.restarts() == [] and not managed.armed()
    managed.env.parent.symlink_to(moved)
    assert managed.store.restore(reason="test")["error"] is None
    assert (moved / ".env").read_bytes() == OLD_ENV and not managed.drop_in.exists()


def test_remove_takes_back_the_rest_and_names_a_directory_that_was_moved(managed: Managed, moved: Path) -> None:
    result = managed.store.remove()
    assert f"the directory {managed.env.parent} is missing" in result["error"]
    assert f"if it never can be, delete {managed.paths.root}" in result["error"]
    assert not managed.env.parent.exists() and not managed.drop_in.exists() and result["removed"] == []
    managed.env.parent.symlink_to(moved)
    assert managed.store.remove()["error"] is None
    assert (moved / ".env").read_bytes() == OLD_ENV and not os.path.exists(managed.paths.root)


def test_the_timer_puts_back_what_it_can_and_names_the_rest(managed: Managed) -> None:
    directory = managed.env.parent / "backend"
    directory.mkdir()
    managed.env = managed.env.rename(directory / ".env")
    keep_as_env(managed)
    managed.write()
    directory.rename(directory.with_name("srv"))
    managed.host.now += 300
    result = managed.store.restore_if_expired()
    assert result is not None and f"the directory {directory} is missing" in result["error"]
    assert not directory.exists() and not managed.drop_in.exists() and not managed.armed()
    assert managed.restarts() == RESTARTS


@pytest.mark.parametrize("verb", ["restore", "remove"])
@pytest.mark.parametrize("unit", ["ollama.service", "backend.service", "web.service"])
def test_what_would_not_start_again_is_refused_before_anything_is_touched(
    managed: Managed, unit: str, verb: str
) -> None:
    finished_run(managed)
    managed.host.active["web.service"] = 13
    managed.host.along = {"ollama.service": ["web.service"]}
    managed.host.load_states[unit] = "masked"
    managed.host.log.clear()
    with pytest.raises(StateError, match=f"systemctl unmask {unit}. Nothing was touched"):
        managed.store.remove() if verb == "remove" else managed.store.restore(reason="test")
    assert managed.env.read_bytes() != OLD_ENV and managed.drop_in.exists()
    assert managed.restarts() == [] and not managed.armed()


def test_what_is_masked_and_stopped_stands_in_nobodys_way(managed: Managed) -> None:
    finished_run(managed)
    stopped(managed, "ollama.service")
    managed.host.load_states["ollama.service"] = "masked"
    assert managed.store.restore(reason="test")["error"] is None and managed.is_old()


def test_the_timer_takes_nothing_down_that_would_not_start_again(managed: Managed) -> None:
    managed.keep()
    managed.write()
    managed.host.load_states["ollama.service"] = "masked"
    managed.host.now += 300
    result = managed.store.restore_if_expired()
    assert result is not None and "systemctl unmask ollama.service" in result["error"]
    assert managed.is_old() and managed.host.active["ollama.service"] == 11
    assert result["services"]["backend"]["state"] == "restarted"
    managed.host.load_states.clear()  # what runs is not what was kept, until it can be
    managed.host.now += 60
    result = managed.store.restore_if_expired()
    assert result is not None and managed.host.active["ollama.service"] != 11 and not managed.armed()


def test_a_unit_that_is_gone_is_refused_and_remove_goes_on_without_it(managed: Managed) -> None:
    finished_run(managed)
    stopped(managed, "ollama.service")
    managed.host.load_states["ollama.service"] = "not-found"
    with pytest.raises(StateError, match=r"the unit ollama\.service is not-found .*only gpu-memory remove takes back"):
        managed.store.restore(reason="test")
    assert managed.drop_in.exists()
    result = managed.store.remove()
    assert result["error"] is None and managed.is_old()
    assert result["services"]["backend"]["state"] == "restarted"
    assert result["services"]["ollama"]["gone"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_touched(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished_run(managed)

    def immutable(path: str) -> None:
        if path == str(managed.env):
            raise atomic_files.CannotWrite(f"{path} is immutable")

    monkeypatch.setattr(atomic_files, "check", immutable)
    with pytest.raises(StateError, match=r"\.env is immutable\. Nothing was touched"):
        managed.store.restore(reason="test")
    assert managed.drop_in.exists()


# In force, whatever the files say.


def finished_run_with_a_value(managed: Managed) -> None:
    keep_as_env(managed)
    managed.write()
    managed.drop_in.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}))
    managed.store.prove("run1", {})
    pid = managed.host.active["ollama.service"]
    managed.host.environments[pid] = {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_HOST": "0.0.0.0"}


@pytest.mark.parametrize("verb", ["restore", "remove"])
def test_what_still_runs_with_our_values_restarts_though_the_files_are_back(managed: Managed, verb: str) -> None:
    finished_run_with_a_value(managed)
    managed.env.write_bytes(OLD_ENV)
    managed.drop_in.unlink()
    managed.drop_in.parent.rmdir()
    managed.host.log.clear()
    result = managed.store.remove() if verb == "remove" else managed.store.restore(reason="test")
    assert (result["stale"], result["error"]) == (["ollama"], None)
    assert managed.restarts() == ["restart ollama.service"]


def test_a_backend_that_still_runs_with_our_values_restarts(managed: Managed) -> None:
    finished_run(managed)
    managed.host.environments[12] = {"OLLAMA_GPU_LAYERS": "40"}
    managed.env.write_bytes(OLD_ENV)
    managed.drop_in.unlink()
    managed.drop_in.parent.rmdir()
    assert managed.store.restore(reason="test", check=True)["stale"] == ["backend"]
    managed.store.restore(reason="test")
    assert not managed.store.restore(reason="test")["changed"] and 12 not in managed.host.active.values()


def test_a_value_of_the_same_kind_that_a_file_gives_restarts_nothing(managed: Managed) -> None:
    finished_run_with_a_value(managed)
    managed.env.write_bytes(OLD_ENV)
    managed.drop_in.unlink()
    managed.drop_in.parent.rmdir()
    override = {"kind": "drop-in", "path": "/x/override.conf", "environment": {"OLLAMA_NUM_PARALLEL": "2"}}
    facts = {"sources": [{**override, "resets": False, "unsets": []}], "environment": {"OLLAMA_NUM_PARALLEL": "2"}}
    managed.host.lacks["ollama.service"] = facts
    assert not managed.store.restore(reason="test")["changed"]


def test_a_drop_in_that_only_systemd_still_has_is_read_away(managed: Managed) -> None:
    finished_run(managed)
    managed.env.write_bytes(OLD_ENV)
    managed.drop_in.unlink()
    managed.drop_in.parent.rmdir()
    managed.host.lacks["ollama.service"] = {"gone": [str(managed.drop_in)]}
    managed.host.log.clear()
    assert managed.store.restore(reason="test")["changed"]
    assert "daemon-reload" in managed.host.log and managed.restarts() == []


def stray(managed: Managed, unit: str = "ollama-main.service") -> Path:
    path = Path(managed.paths.units) / f"{unit}.d" / "zz-gpu-memory.conf"
    path.parent.mkdir()
    path.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}))
    return path


def test_our_drop_in_of_a_unit_that_was_renamed_is_named(managed: Managed) -> None:
    finished_run(managed)
    managed.drop_in.unlink()
    managed.drop_in.parent.rmdir()
    path = stray(managed)
    theirs = stray(managed, "other.service")
    theirs.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}, "the role ollama"))
    for result in (managed.store.restore(reason="test"), managed.store.remove(check=True), managed.store.remove()):
        assert f"{path} is this collection's" in result["error"] and str(theirs) not in result["error"]
        assert "it sets OLLAMA_NUM_PARALLEL. Delete it" in result["error"]
        assert "systemctl restart ollama-main.service" in result["error"]
    assert not os.path.exists(managed.paths.root)  # nothing that is kept would help with it
    assert managed.store.remove()["error"]
    path.unlink()
    assert managed.store.remove()["error"] is None


def test_without_what_was_kept_both_verbs_name_our_drop_in(managed: Managed) -> None:
    path = stray(managed, "ollama.service")
    with pytest.raises(StateError, match="no apply has ended here yet, or what it has kept is gone: .*Delete it"):
        managed.store.restore(reason="test")
    assert f"{path} is this collection's" in managed.store.remove()["error"]


def test_remove_leaves_no_directory_that_it_has_made_itself(managed: Managed) -> None:
    left = Path(managed.paths.run) / "gpu-memory"
    left.mkdir(parents=True)
    assert managed.store.remove()["removed"] == [str(left)]
    assert not left.exists() and not os.path.exists(managed.paths.root)


def test_a_file_system_that_is_read_only_is_named_with_its_cure(
    managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    finished_run(managed)
    monkeypatch.setattr(os, "makedirs", read_only)
    with pytest.raises(StateError, match="its file system is mounted read-only; mount it read-write"):
        managed.store.remove()
