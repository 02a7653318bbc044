"""What is kept on a host: damaged or newer state is refused by name; lock and lease say who is in the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, leases, state, state_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import Managed


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}", b'{"schema": 1}', b"[" * 200_000, b"9" * 9000])
def test_a_file_that_cannot_be_trusted_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lease.json"
    path.write_bytes(content)
    with pytest.raises(state.Damaged, match=f"{path} is damaged"):
        state.read_json(str(path))


def test_a_file_of_a_newer_collection_is_for_that(tmp_path: Path) -> None:
    path = str(tmp_path / "lease.json")
    state_files.write_json(path, {"schema": 2})
    with pytest.raises(StateError, match="has schema 2, this collection knows up to 1; use the collection that wrote"):
        state.read_json(path)


def test_what_was_written_is_read_by_root_alone(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    assert state.read_json(str(path)) is None
    state_files.write_json(str(path), {"run_id": "run1"})
    assert state.read_json(str(path)) == {"schema": 1, "run_id": "run1"}
    assert path.stat().st_mode & 0o777 == 0o600
    state_files.remove_file(str(path))
    state_files.remove_file(str(path))
    assert not path.exists()


def test_where_nothing_can_be_written_the_path_and_the_cause_are_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=f"the directory {tmp_path}/no is missing"):
        state_files.write_json(str(tmp_path / "no" / "lease.json"), {})
    (tmp_path / "taken").touch()
    with pytest.raises(StateError, match="a part of the path is no directory"):
        state_files.write_json(str(tmp_path / "taken" / "lease.json"), {})


@pytest.mark.parametrize("taken", ["directory", "link", "loop"])
def test_what_has_taken_the_place_of_a_file_of_ours_goes(tmp_path: Path, taken: str) -> None:
    path, stranger = tmp_path / "lease.json", tmp_path / "stranger"
    for write in (lambda: state_files.write_json(str(path), {"a": 1}), lambda: state_files.remove_file(str(path))):
        stranger.write_text("theirs")
        path.unlink(missing_ok=True)
        if taken == "directory":
            (path / "within").mkdir(parents=True)
        else:
            path.symlink_to(stranger if taken == "link" else path)
        write()
        assert stranger.read_text() == "theirs" and not path.is_symlink()
    assert not path.exists()


@pytest.fixture
def managed(tmp_path: Path) -> Managed:
    return Managed(tmp_path)


def test_a_lock_that_is_let_go_in_time_is_waited_for(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    with state_files.locked(managed.paths, 0):
        with pytest.raises(StateError, match="another command works on this host's generations just now"):
            managed.store.release("run1")
        other = os.open(managed.paths.lock, os.O_RDWR)
    os.close(other)
    slept: list[float] = []
    first = state_files.locked(managed.paths, 0)
    first.__enter__()

    def let_go(seconds: float) -> None:
        slept.append(seconds)
        first.__exit__(None, None, None)

    monkeypatch.setattr(state_files.time, "sleep", let_go)
    with state_files.locked(managed.paths, 10):
        assert len(slept) == 1


def refused(action: Callable[[], Any]) -> str:
    with pytest.raises(StateError) as problem:
        action()
    return str(problem.value)


def test_who_has_no_lease_is_told_who_has_it_or_what_became_of_it(managed: Managed) -> None:
    assert refused(lambda: managed.store.renew("run1")) == (
        "run run1 does not hold this host: nobody does; start a new run"
    )
    managed.keep()
    text = refused(lambda: managed.store.renew("run2"))
    assert "run run2 does not hold this host: this host is held by alice applies stable (run run1) since" in text
    managed.host.now += 241
    text = refused(lambda: managed.store.renew("run2"))
    assert "has ended without a verdict, and this host is going back to generation 0001; wait 40 seconds" in text
    managed.write()
    managed.store.restore_if_expired()
    text = refused(lambda: managed.store.renew("run1"))
    assert "this host was put back to generation 0001 at 20" in text and "start a new run" in text


def test_a_lease_of_another_boot_has_expired(managed: Managed) -> None:
    managed.keep()
    lease = state.read_json(managed.paths.lease)
    assert lease and leases.left_s(lease, managed.host.boot_time()) == 240
    managed.host.boot = "second-boot"
    assert leases.left_s(lease, managed.host.boot_time()) == 0
    assert not leases.described(lease, managed.host)["live"]


def test_nothing_is_due_only_while_a_live_run_has_the_host(managed: Managed) -> None:
    def holds() -> bool:
        return leases.holds(managed.paths, managed.host)

    assert not holds()
    managed.keep()
    assert holds()
    managed.host.now += 239
    assert holds()
    managed.host.now += 1
    assert not holds()
    managed.store.renew("run1")
    assert holds()
    # Cut off between its end and letting go of the host.
    state_files.write_json(managed.paths.pointers, {"finished": "0001"})
    assert not holds()
    Path(managed.paths.pointers).unlink()
    assert holds()
    Path(managed.paths.lease).write_text("{")
    assert holds()
    shutil.rmtree(managed.paths.second)
    assert not holds()


def test_what_lasts_long_renews_its_lease_well_before_it_expires(managed: Managed) -> None:
    def left_s() -> float:
        return float(managed.store.stored.summary()["lease"]["left_s"])

    managed.keep()
    managed.host.now += 100
    renewal = lease_holding.Renewal("run1", managed.paths, managed.host)
    renewal()
    assert left_s() == 240
    managed.host.now += 59
    renewal()
    assert left_s() == 181
    renewal(at_once=True)
    assert left_s() == 240
    managed.host.now += 60
    renewal()
    assert left_s() == 240
    managed.store.drop()
    renewal()  # nobody looks at every call
    assert "nobody does" in refused(lambda: renewal(at_once=True))
    managed.host.now += 4
    renewal()
    managed.host.now += 1
    assert "nobody does" in refused(renewal)
    lease_holding.Renewal(None, managed.paths, managed.host)(at_once=True)


def test_a_lease_is_renewed_also_while_its_run_is_blocked(managed: Managed) -> None:
    managed.keep()
    managed.host.now += 100
    with lease_holding.Renewal("run1", managed.paths, managed.host).in_background():
        until = time.monotonic() + 30
        while managed.store.stored.summary()["lease"]["left_s"] < 240 and time.monotonic() < until:
            time.sleep(0.05)
    assert managed.store.stored.summary()["lease"]["left_s"] == 240
    managed.store.release("run1")
    with lease_holding.Renewal("run1", managed.paths, managed.host).in_background():
        pass  # what fails there is for whoever calls it


@pytest.mark.parametrize(("restore_after_s", "lives_s"), [(60, 260), (240, 260), (660, 660)])
def test_a_step_that_may_be_alone_does_not_let_its_lease_grow(
    managed: Managed, restore_after_s: int, lives_s: int
) -> None:
    """A controller that died during a restart: its host is back within five minutes."""
    managed.keep(restore_after_s=restore_after_s)
    renewal = lease_holding.Renewal("run1", managed.paths, managed.host, most_s=260)
    began = managed.host.now
    while managed.host.now - began < 1000 and leases.holds(managed.paths, managed.host):
        renewal()
        managed.host.now += 1
    assert restore_after_s <= managed.host.now - began <= lives_s
    managed.host.now += 5
    managed.write()
    managed.store.restore_if_expired()
    assert "this host was put back to generation 0001" in refused(renewal)


def test_figures_of_the_moment_are_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.json"
    assert progress_file.problem_of(None) is progress_file.problem_of(str(path)) is None
    assert progress_file.problem_of(str(tmp_path / "no" / "progress")) == (
        f"progress_path is {tmp_path}/no/progress, its directory must exist"
    )
    progress_file.write(str(path), {"ok": 1})

    def full(*_unused: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    progress_file.write(str(path), {"ok": 2})  # must not end what is being watched
    assert json.loads(path.read_text()) == {"ok": 1} and os.listdir(tmp_path) == ["progress.json"]


def test_who_waits_is_seen_by_each_sign_once_and_by_no_clock(tmp_path: Path) -> None:
    now = 100.0
    path = str(tmp_path / "progress.json")
    sign = Path(waiting.sign(path))
    sign.touch()
    signs = progress_file.Waiting(path, lambda: now)
    assert not signs.has_come() and not signs.is_recent()  # it was there before
    os.utime(sign, ns=(1, 1))
    assert signs.has_come() and not signs.has_come()
    now += progress_file.RECENT_S
    assert signs.is_recent()
    now += 1
    assert not signs.is_recent()
    os.utime(sign, ns=(2, 2))
    assert signs.is_recent()
    sign.unlink()
    assert not signs.has_come()


def test_what_jobs_leave_that_were_killed_is_ours_where_it_is_there(tmp_path: Path) -> None:
    names = ("gpu-memory-load.aB3xYz", "gpu-memory-tune.env", "gpu-memory-verify.x1", ".progress-x1")
    left = [tmp_path / name for name in names]
    paths = state.Paths(run=str(tmp_path), jobs=str(tmp_path / "jobs"))
    always = [str(tmp_path / "gpu-memory"), paths.lock, paths.tries, paths.jobs]
    always += [str(tmp_path / name) for name in state.PROGRESS]
    (tmp_path / "somebody's").touch()
    assert paths.volatile == always
    for path in left:
        path.touch()
    assert paths.volatile == [*always, *map(str, left)]
