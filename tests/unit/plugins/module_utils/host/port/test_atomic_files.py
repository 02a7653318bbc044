"""Replacing a file: all of it or nothing, and everything about it but its content stays."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, held_path

NEW = atomic_files.Ownership(0o600, os.geteuid(), os.getegid())
SECRET = b"OLD=1\n"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def env(tmp_path: Path) -> Path:
    path = tmp_path / ".env"
    path.write_bytes(SECRET)
    path.chmod(0o640)
    return path


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_new_file_gets_what_it_was_given(tmp_path: Path) -> None:
    atomic_files.write(str(tmp_path / ".env"), b"A=1\n", NEW)
    assert (tmp_path / ".env").read_bytes() == b"A=1\n"
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert names(tmp_path) == [".env"]


def test_mode_and_user_attributes_stay(env: Path) -> None:
    os.setxattr(env, "user.note", b"mine")
    inode = env.stat().st_ino
    atomic_files.write(str(env), b"A=1\n", NEW)
    assert env.read_bytes() == b"A=1\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o640
    assert os.getxattr(env, "user.note") == b"mine"
    assert env.stat().st_ino != inode, "it was overwritten, not replaced"
    assert names(env.parent) == [".env"]


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel takes it: (tag, permissions, id) in its order."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def test_an_acl_stays_and_a_default_one_is_not_added(env: Path) -> None:
    nobody = 0xFFFFFFFF
    mine = acl((1, 6, nobody), (2, 4, 1234), (4, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody))
    default = acl((1, 7, nobody), (2, 7, 4321), (4, 7, nobody), (0x10, 7, nobody), (0x20, 0, nobody))
    plain = env.with_name("plain")
    plain.write_bytes(SECRET)
    try:
        os.setxattr(env, "system.posix_acl_access", mine)
        os.setxattr(env.parent, "system.posix_acl_default", default)
    except OSError:
        pytest.skip("no ACLs here")
    for path in (env, plain):
        atomic_files.write(str(path), b"A=1\n", NEW)
    assert os.getxattr(env, "system.posix_acl_access") == mine
    assert "system.posix_acl_access" not in os.listxattr(plain)


@needs_root
def test_the_owner_stays(env: Path) -> None:
    os.chown(env, 1234, 4321)
    atomic_files.write(str(env), b"A=1\n", NEW)
    assert (env.stat().st_uid, env.stat().st_gid) == (1234, 4321)


def test_a_symbolic_link_stays_and_its_target_is_written(env: Path) -> None:
    link = env.with_name("link")
    link.symlink_to(".env")
    atomic_files.write(str(link), b"A=1\n", NEW)
    assert link.is_symlink()
    assert env.read_bytes() == b"A=1\n"


@needs_root
def test_a_link_that_a_stranger_made_is_refused(env: Path) -> None:
    link = env.with_name("link")
    link.symlink_to(".env")
    os.chown(link, 1234, 1234, follow_symlinks=False)
    with pytest.raises(atomic_files.CannotWrite, match="belongs to uid 1234"):
        atomic_files.write(str(link), b"A=1\n", NEW)
    os.chown(env, 1234, 1234)
    atomic_files.write(str(link), b"A=1\n", NEW)
    assert env.read_bytes() == b"A=1\n"


def test_other_names_of_a_file_see_the_change(env: Path) -> None:
    other = env.with_name("other")
    os.link(env, other)
    for content in (b"A=1\nB=2\nC=3\n", b"A\n", b""):
        atomic_files.write(str(env), content, NEW)
        assert other.read_bytes() == content
    assert env.stat().st_nlink == 2


def test_a_mount_point_is_overwritten(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_unused: str, **_places: int) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(os, "rename", busy)  # as the kernel answers for a file that is mounted
    inode = env.stat().st_ino
    atomic_files.write(str(env), b"A=1\nB=2\n", NEW)
    assert env.read_bytes() == b"A=1\nB=2\n"
    assert env.stat().st_ino == inode
    assert names(env.parent) == [".env"]


@pytest.mark.parametrize("call", ["fsync", "rename", "fchmod"])
def test_a_failure_leaves_the_old_file_alone(env: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_unused: object, **_places: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(atomic_files.CannotWrite, match="no space is left"):
        atomic_files.write(str(env), b"A=1\n", NEW)
    assert env.read_bytes() == SECRET
    assert names(env.parent) == [".env"]


def test_a_failure_in_place_puts_the_old_content_back(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(env, env.with_name("other"))
    write, calls = os.pwrite, []

    def half(descriptor: int, content: bytes, at: int) -> int:
        calls.append(at)
        if len(calls) == 2:
            raise OSError(errno.EIO, "broken")
        return write(descriptor, content[:3] if len(calls) == 1 else content, at)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(atomic_files.CannotWrite):
        atomic_files.write(str(env), b"AAAAAAAAAAAAAAA", NEW)
    assert env.read_bytes() == SECRET


@pytest.fixture
def immutable(env: Path) -> Iterator[Path]:
    if subprocess.run(["chattr", "+i", env], capture_output=True, check=False).returncode:
        pytest.skip("no chattr here")
    yield env
    subprocess.run(["chattr", "-i", env], check=True)


@needs_root
def test_an_immutable_file_is_named_before_anything_is_tried(immutable: Path) -> None:
    for step in (atomic_files.check, lambda path: atomic_files.write(path, b"A=1\n", NEW)):
        with pytest.raises(atomic_files.CannotWrite, match=r"immutable.*chattr -i"):
            step(str(immutable))
    assert immutable.read_bytes() == SECRET


def test_flags_are_read_where_the_file_system_has_them(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "ioctl", lambda *_unused: struct.pack("l", 0x20))
    with pytest.raises(atomic_files.CannotWrite, match="append-only"):
        atomic_files.check(str(env))


def test_a_missing_parent_and_a_directory_in_its_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(atomic_files.CannotWrite, match=f"the directory {tmp_path}/no is missing; create it"):
        atomic_files.write(str(tmp_path / "no" / ".env"), b"", NEW)
    (tmp_path / ".env").mkdir()
    with pytest.raises(atomic_files.CannotWrite, match="no regular file; move it away"):
        atomic_files.write(str(tmp_path / ".env"), b"", NEW)
    with pytest.raises(atomic_files.CannotWrite, match="no regular file; move it away"):
        atomic_files.read(str(tmp_path / ".env"))
    (tmp_path / "null").symlink_to("/dev/null")
    with pytest.raises(atomic_files.CannotWrite, match="no regular file"):
        atomic_files.write(str(tmp_path / "null"), b"", NEW)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(atomic_files.CannotWrite, match="loop of symbolic links"):
        atomic_files.read(str(tmp_path / "loop"))


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner", "cause"),
    [(0o700, 0, "permission denied"), (0o755, 1234, "permission denied"), (0o777, 0, "belongs to uid 0")],
)
def test_a_user_who_may_not_write_is_told_who_may(mode: int, owner: int, cause: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        env = Path(directory, ".env")
        env.write_bytes(SECRET)
        os.chown(env, owner, owner)
        os.chmod(directory, mode)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setgid(1234)
                os.setuid(1234)
                atomic_files.write(str(env), b"A=1\n", NEW)
            except atomic_files.CannotWrite as problem:
                status = 0 if cause in str(problem) and "become" in str(problem) else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert env.read_bytes() == SECRET


def test_remove(env: Path) -> None:
    atomic_files.remove(str(env))
    atomic_files.remove(str(env))
    assert names(env.parent) == []


def test_what_the_system_says_comes_with_the_path(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_unused: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(held_path.Held, "status", broken)
    for action in (atomic_files.read, atomic_files.check):
        with pytest.raises(atomic_files.CannotWrite) as refused:
            action(str(env))
        assert str(env) in str(refused.value) and "input/output error" in str(refused.value).lower()


def test_a_file_system_that_is_mounted_read_only_is_named_before_anything_is_tried(
    env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(env)

    class ReadOnly:
        f_flag = real.f_flag | os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _unused: ReadOnly)
    with pytest.raises(atomic_files.CannotWrite, match="(?i)read-only"):
        atomic_files.check(str(env))


def test_a_file_system_without_extended_attributes_is_written_all_the_same(
    env: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_unused: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "listxattr", unsupported)
    atomic_files.write(str(env), b"A=2\n", NEW)
    assert env.read_bytes() == b"A=2\n"


def test_attributes_that_cannot_be_read_leave_the_old_file(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = env.read_bytes()

    def broken(*_unused: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "listxattr", broken)
    with pytest.raises(atomic_files.CannotWrite):
        atomic_files.write(str(env), b"A=2\n", NEW)
    assert env.read_bytes() == before and names(env.parent) == [env.name]
