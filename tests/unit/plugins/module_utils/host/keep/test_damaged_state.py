# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong with one place of what is kept, a host goes back from the other, and is let go as ever."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    host_tool,
    leases,
    state,
    state_files,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import RESTARTS, Managed

WRONG = (None, True, -1, 9, 1e400, "", "0009", "x" * 5000, [], [[]], {}, {"a": {}})
LAST_RESTORE = {"run_id": "run0", "generation": "0000", "reason": "test", "at": 1.0, "error": None}
FILES = ("lease.json", "generations/0001/manifest.json", "pointers.json", "restoring.json", "restored.json")


@pytest.fixture
def managed(tmp_path: Path) -> Managed:
    """A run that has written and is not heard of any more; an earlier one has left every file that there can be."""
    managed = Managed(tmp_path)
    managed.keep()
    managed.write()
    state_files.write_json(managed.paths.pointers, {"previous": "0000", "proven": "0000"})
    state_files.write_json(managed.paths.restored, LAST_RESTORE)
    managed.host.now += 241
    return managed


def at(managed: Managed, name: str) -> Path:
    return Path(managed.paths.root) / name


def assert_it_goes_back(managed: Managed) -> None:
    host_tool.main(["status"], managed.store)  # no traceback
    result = managed.store.restore_if_expired()
    assert result is not None and result["error"] is None and managed.is_old()
    assert managed.restarts() == RESTARTS and not managed.armed()
    assert managed.store.restore_if_expired() is None and managed.restarts() == RESTARTS


def replaced(value: Any) -> Iterator[Any]:
    """The same with each key, at any depth, replaced by each wrong value, or gone."""
    if isinstance(value, dict):
        for key in value:
            yield {other: value[other] for other in value if other != key}
            yield from ({**value, key: wrong} for wrong in WRONG)
            yield from ({**value, key: within} for within in replaced(value[key]))
    elif isinstance(value, list):
        for number, within in enumerate(value):
            yield from ([*value[:number], wrong, *value[number + 1 :]] for wrong in replaced(within))


@pytest.mark.parametrize("name", FILES[:3])
def test_no_value_of_any_key_that_is_not_what_was_written_is_gone_by(managed: Managed, name: str) -> None:
    path = at(managed, name)
    written = json.loads(path.read_text())
    tried = 0
    unsealed = {key: value for key, value in written.items() if key != "digest"}
    for wrong in replaced(written):
        if wrong not in (written, unsealed):
            path.write_text(json.dumps(wrong))
            with pytest.raises(StateError):
                state.read_json(str(path))
            tried += 1
    assert tried > 12 * len(written)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: repr(wrong)[:9])
@pytest.mark.parametrize("key", ["schema", "run_id", "generation", "deadline_s", "boot", "restore_after_s", "digest"])
def test_a_host_goes_back_whatever_a_key_of_its_lease_says(managed: Managed, key: str, wrong: object) -> None:
    path = at(managed, "lease.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), key: wrong}))
    assert_it_goes_back(managed)


@pytest.mark.parametrize("change", [{"files": []}, {"files": None}, {"schema": True}, {"id": 1}, {"services": []}])
def test_what_has_lost_its_seal_does_not_come_before_what_has_one(managed: Managed, change: dict[str, object]) -> None:
    path = at(managed, "generations/0001/manifest.json")
    whole = json.loads(path.read_text())
    whole.pop("digest")
    path.write_text(json.dumps({**whole, **change}))
    assert_it_goes_back(managed)


@pytest.mark.parametrize("name", FILES)
def test_what_is_short_of_a_file_of_1_0_0_is_damaged(managed: Managed, name: str) -> None:
    at(managed, name).write_text('{"schema": 1}')
    if name != "pointers.json":  # there may be none
        with pytest.raises(state.Damaged):
            state.read_json(str(at(managed, name)))
    assert_it_goes_back(managed)


def test_a_lease_and_a_restore_of_1_0_0_which_sealed_nothing_count(managed: Managed) -> None:
    for place in (managed.paths.lease, managed.paths.again(managed.paths.lease)):
        lease = {"schema": 1, **state.read_json(place), "deadline_s": managed.host.boot_time().seconds + 100}
        Path(place).write_text(json.dumps(lease))
    assert leases.holds(managed.paths, managed.host)
    restoring = {"schema": 1, "generation": "0001", "reason": "test", "run_id": None, "since": 1.0}
    at(managed, "restoring.json").write_text(json.dumps(restoring))
    assert state.begun(managed.paths) is not None


def test_where_nobody_knows_to_what_a_host_goes_back_the_list_has_the_numbers(
    managed: Managed, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (managed.paths.restoring, managed.paths.again(managed.paths.restoring)):
        Path(place).write_text("{")
    assert host_tool.main(["list"], managed.store) == 1
    told = capsys.readouterr()
    assert "0001" in told.out and "gpu-memory rollback NUMBER" in told.err


def test_a_lease_that_lives_longer_than_it_was_taken_for_does_not_live(managed: Managed) -> None:
    """Whoever has written it: as with the clock of another machine's copy of the disk."""
    for place in (managed.paths.lease, managed.paths.again(managed.paths.lease)):
        lease = {**state.read_json(place), "deadline_s": managed.host.boot_time().seconds + 10 * 240}
        state_files.write_json(place, lease)
    assert_it_goes_back(managed)


def directory(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path / "within").mkdir(parents=True)


def loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path)


def dangling(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/gone/and/away")


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def empty(path: Path) -> None:
    path.write_text("")


def newer(path: Path) -> None:
    state_files.write_json(str(path), {"schema": 9})


@pytest.mark.parametrize("damage", [directory, loop, dangling, pipe, deep, empty, newer])
@pytest.mark.parametrize("name", FILES)
def test_a_host_goes_back_whatever_stands_in_the_place_of_a_file(
    managed: Managed, name: str, damage: Callable[[Path], None]
) -> None:
    damage(at(managed, name))
    assert_it_goes_back(managed)


@pytest.mark.parametrize("name", FILES)
def test_a_host_goes_back_where_a_file_cannot_be_read(
    managed: Managed, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, read = str(at(managed, name)), held_path.contents_of
    at(managed, name).touch()

    def contents_of(path: str, most: int) -> bytes:
        if path == bad and os.path.exists(bad):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return read(path, most)

    monkeypatch.setattr(state, "contents_of", contents_of)
    assert_it_goes_back(managed)
    told = capsys.readouterr().err
    assert name not in ("pointers.json", "restoring.json") or f"{bad} is damaged (Input/output error)" in told


def is_file(root: Path) -> None:
    shutil.rmtree(root)
    root.touch()


def leads_nowhere(root: Path) -> None:
    shutil.rmtree(root)
    root.symlink_to("/gone")


def generations_are_a_file(root: Path) -> None:
    shutil.rmtree(root / "generations")
    (root / "generations").touch()


@pytest.mark.parametrize("damage", [is_file, leads_nowhere, shutil.rmtree, generations_are_a_file])
def test_a_host_goes_back_without_the_first_place(managed: Managed, damage: Callable[[Path], None]) -> None:
    damage(Path(managed.paths.root))
    assert_it_goes_back(managed)


def test_a_host_goes_back_where_nothing_can_be_written(managed: Managed, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that is read-only; what cannot be let go of is named, and nothing restarts for it."""
    root, write, remove = managed.paths.root, state_files.atomic_files.write, state_files.atomic_files.remove

    def refuse(path: str) -> None:
        if path.startswith(root):
            raise state_files.atomic_files.CannotWrite(f"{path}: its file system is mounted read-only")

    def refused_write(path: str, *others: Any) -> None:
        refuse(path)
        write(path, *others)

    def refused_remove(path: str) -> None:
        refuse(path)
        remove(path)

    with monkeypatch.context() as readonly:
        readonly.setattr(state_files.atomic_files, "write", refused_write)
        readonly.setattr(state_files.atomic_files, "remove", refused_remove)
        for _again in range(3):
            with pytest.raises(StateError, match="lease.json: its file system is mounted read-only"):
                managed.store.restore_if_expired()
            assert managed.is_old() and managed.restarts() == RESTARTS
    managed.store.restore_if_expired()
    assert not managed.armed()


@pytest.mark.parametrize("damage", [directory, loop, dangling, pipe])
def test_the_lock_can_be_taken_whatever_stands_in_its_place(managed: Managed, damage: Callable[[Path], None]) -> None:
    damage(Path(managed.paths.lock))
    with state_files.locked(managed.paths, 0), pytest.raises(StateError, match="another command works on this host"):
        managed.store.restore_if_expired()
    assert_it_goes_back(managed)
