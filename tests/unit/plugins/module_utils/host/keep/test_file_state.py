# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the exact state of a path and putting it back, on real files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import file_state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path


def rewritten(path: Path) -> None:
    path.write_bytes(b"new, and longer than before\n")


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"new")
    other.chmod(0o600)
    other.replace(path)


def labelled(path: Path) -> None:
    os.setxattr(path, "user.gpu-memory-test", b"added")
    os.removexattr(path, "user.kept")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": rewritten,
    "another file": replaced,
    "mode": lambda path: path.chmod(0o666),
    "time": lambda path: os.utime(path, (1, 1)),
    "extended attributes": labelled,
    "gone": Path.unlink,
    "gone with its directory": lambda path: (path.unlink(), path.parent.rmdir()),
    "a link": lambda path: (path.unlink(), path.symlink_to("elsewhere")),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "backend" / ".env"
    path.parent.mkdir()
    path.write_bytes(b"SECRET=1\r\n\xff\n")
    path.chmod(0o640)
    os.setxattr(path, "user.kept", b"\x00\x01")
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    return path


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_comes_back_exactly(path: Path, change: Callable[[Path], object]) -> None:
    kept, content = file_state.read(str(path))
    change(path)
    now, _unused = file_state.read(str(path))
    assert file_state.differences(now, kept)
    file_state.put_back(kept, content)
    assert file_state.differences(file_state.read(str(path))[0], kept) == []
    assert path.read_bytes() == b"SECRET=1\r\n\xff\n"
    assert path.stat().st_mtime_ns == 1_600_000_000_123_456_789
    assert os.getxattr(path, "user.kept") == b"\x00\x01"
    assert os.listdir(path.parent) == [".env"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_owner_and_group_come_back(path: Path) -> None:
    os.chown(path, 12, 34)
    path.chmod(0o4640)
    kept, content = file_state.read(str(path))
    os.chown(path, 0, 0)
    path.chmod(0o644)
    assert set(file_state.differences(file_state.read(str(path))[0], kept)) == {"owner", "group", "mode"}
    file_state.put_back(kept, content)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12, 34, 0o640), "a set-uid bit came back"


@pytest.mark.parametrize("directory_was_there", [True, False])
def test_absence_comes_back(tmp_path: Path, directory_was_there: bool) -> None:
    path = tmp_path / "ollama.service.d" / "zz-gpu-memory.conf"
    if directory_was_there:
        path.parent.mkdir()
    kept, content = file_state.read(str(path))
    path.parent.mkdir(exist_ok=True)
    path.write_text("[Service]\n")
    file_state.put_back(kept, content)
    assert not path.exists()
    assert path.parent.exists() == directory_was_there


def test_a_directory_that_others_use_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "ollama.service.d" / "zz-gpu-memory.conf"
    kept, content = file_state.read(str(path))
    path.parent.mkdir()
    (path.parent / "override.conf").write_text("[Service]\n")
    file_state.put_back(kept, content)
    assert (path.parent / "override.conf").exists()


def test_other_names_of_a_file_stay_the_same_file(path: Path) -> None:
    other = path.with_name("hard link")
    os.link(path, other)
    kept, content = file_state.read(str(path))
    rewritten(path)
    file_state.put_back(kept, content)
    assert path.samefile(other)
    assert other.read_bytes() == content


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EBUSY])
def test_without_room_for_a_second_file_the_first_is_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kept, content = file_state.read(str(path))
    rewritten(path)

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    file_state.put_back(kept, content)
    assert file_state.differences(file_state.read(str(path))[0], kept) == []
    assert os.listdir(path.parent) == [".env"]


def test_links_are_followed_one_by_one(path: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.symlink_to("backend/.env")
    first.symlink_to(second)
    assert file_state.link_chain(str(first)) == [str(first), str(second), str(path)]
    assert file_state.read(str(first))[0] == {
        "path": str(first),
        "kind": "link",
        "target": str(second),
        "leads_to": str(second),
        "uid": os.geteuid(),
        "gid": os.getegid(),
    }


def test_a_ring_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        file_state.link_chain(str(tmp_path / "a"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="neither a file nor a link"):
        file_state.read(str(tmp_path))


def test_a_link_leads_from_where_it_really_stands(tmp_path: Path) -> None:
    """As Capistrano lays out what it deploys."""
    release, shared = tmp_path / "releases" / "1", tmp_path / "shared" / ".env"
    for directory in (release, shared.parent):
        directory.mkdir(parents=True)
    shared.write_text("A=1\n")
    (release / ".env").symlink_to("../../shared/.env")
    (tmp_path / "current").symlink_to("releases/1")
    env = str(tmp_path / "current" / ".env")
    assert file_state.link_chain(env) == [env, str(shared)]
    assert file_state.read(env)[0]["leads_to"] == str(shared)


def test_a_file_that_is_too_large_is_refused_with_the_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_path, "MOST_BYTES", 1024 * 1024)
    path.write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(OSError, match="larger than 1 MiB"):
        file_state.read(str(path))


def test_where_a_new_file_cannot_be_finished_the_old_one_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, content = file_state.read(str(path))
    path.write_bytes(b"new\n")
    before = sorted(os.listdir(path.parent))

    def broken(*_unused: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(file_state, "_set_attributes", broken)
    with pytest.raises(OSError, match="Input/output error"):
        file_state.put_back(kept, content)
    assert path.read_bytes() == b"new\n" and sorted(os.listdir(path.parent)) == before


def test_a_file_system_without_extended_attributes_is_fine(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(number: int) -> Callable[..., None]:
        def fail(*_unused: object) -> None:
            raise OSError(number, os.strerror(number))

        return fail

    monkeypatch.setattr(os, "listxattr", failing(errno.ENOTSUP))
    assert file_state.read(str(path))[0]["xattrs"] == {}
    monkeypatch.setattr(os, "listxattr", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        file_state.read(str(path))
