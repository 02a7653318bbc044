"""What root does below a directory of somebody else's stays there, whenever that one swaps something.

Every system call of an operation that goes by a name is a moment: at each of them in turn, each swap is made once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import file_state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, held_path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play two users")
OWNER = 1234
MINE, SECRET = b"MINE=1\n", b"SECRET=1\n"
# The calls that go by a name. A swap before one that goes by a descriptor is one before the next of these.
CALLS = ("access", "chown", "mkdir", "open", "readlink", "rename", "rmdir", "stat", "statvfs", "symlink", "unlink")


@dataclass
class Ground:
    """root's file, and somebody's directory with theirs."""

    root: Path
    calls: int = 0
    swap_at: int = -1
    swap: Callable[[Ground], None] = field(default=lambda _unused: None)

    @property
    def env(self) -> Path:
        return self.root / "home" / "app" / ".env"

    @property
    def victim(self) -> Path:
        return self.root / "etc" / ".env"

    def lay_out(self) -> None:
        for path in (self.env, self.victim):
            path.parent.mkdir(parents=True)
        self.victim.write_bytes(SECRET)
        self.victim.chmod(0o4711)
        self.env.write_bytes(MINE)
        self.env.chmod(0o6666)
        for mine in (self.env.parent.parent, self.env.parent, self.env):
            os.chown(mine, OWNER, OWNER)
        self.env.chmod(0o6666)

    def called(self) -> None:
        self.calls += 1
        if self.calls == self.swap_at:
            self.swap(self)

    def stolen(self) -> list[str]:
        """What of root's is not as it was."""
        status = self.victim.lstat()
        found = [path.name for path in self.victim.parent.iterdir() if path.name != ".env"]
        if self.victim.read_bytes() != SECRET or stat.S_IMODE(status.st_mode) != 0o4711 or status.st_uid != 0:
            found.append("root's own file")
        return found


def theirs(path: Path, target: Path) -> None:
    path.symlink_to(target)
    os.chown(path, OWNER, OWNER, follow_symlinks=False)


def file_for_a_link(ground: Ground) -> None:
    ground.env.unlink(missing_ok=True)
    theirs(ground.env, ground.victim)


def directory_for_a_link(ground: Ground) -> None:
    ground.env.parent.rename(ground.env.parent.with_name("moved"))
    theirs(ground.env.parent, ground.victim.parent)


def file_for_another_name_of_roots(ground: Ground) -> None:
    """As where hard links are not protected."""
    ground.env.unlink(missing_ok=True)
    os.link(ground.victim, ground.env)


def file_for_a_pipe(ground: Ground) -> None:
    ground.env.unlink(missing_ok=True)
    os.mkfifo(ground.env)


def file_for_a_chain(ground: Ground) -> None:
    ground.env.unlink(missing_ok=True)
    theirs(ground.env, ground.env.with_name("next"))
    theirs(ground.env.with_name("next"), ground.victim.parent / "new")


def new_file_for_a_link(ground: Ground) -> None:
    for beside in ground.env.parent.glob(".*.gpu-memory"):
        beside.unlink()
        theirs(beside, ground.victim)


SWAPS = [
    file_for_a_link,
    directory_for_a_link,
    file_for_another_name_of_roots,
    file_for_a_pipe,
    file_for_a_chain,
    new_file_for_a_link,
]


def read(ground: Ground) -> None:
    assert atomic_files.read(str(ground.env)) in (MINE, None)


def write(ground: Ground) -> None:
    atomic_files.write(str(ground.env), b"NEW=1\n", atomic_files.Ownership(0o600, None, None))


LINK = os.link  # no call of the operation


def write_in_place(ground: Ground) -> None:
    LINK(ground.env, ground.env.with_name("other"))
    write(ground)


def keep(ground: Ground) -> None:
    state, content = file_state.read(str(ground.env))
    assert content in (MINE, b"")
    assert not state.get("mode", 0) & 0o7002


def restore(kind: str) -> Callable[[Ground], None]:
    def put_back(ground: Ground) -> None:
        kept = {
            "file": {"mode": 0o6666, "uid": OWNER, "gid": OWNER, "mtime_ns": 1, "xattrs": {}, "sha256": ""},
            "link": {"target": "elsewhere", "uid": OWNER, "gid": OWNER},
            "absent": {"parent_absent": True},
        }[kind]
        file_state.put_back({"path": str(ground.env), "kind": kind, **kept}, b"KEPT=1\n")

    put_back.__name__ = f"restore_{kind}"
    return put_back


def remove(ground: Ground) -> None:
    atomic_files.remove(str(ground.env))


OPERATIONS = [read, write, write_in_place, keep, restore("file"), restore("link"), restore("absent"), remove]


@contextlib.contextmanager
def watched(ground: Ground) -> Iterator[None]:
    """The operation's system calls are counted, with the swap before its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, _told(ground, getattr(os, name)))
        patch.setattr(os, "fsync", lambda _unused: None)  # a thousand of them take long
        yield


def _told(ground: Ground, call: Callable[..., object]) -> Callable[..., object]:
    busy = []

    def told(*arguments: object, **options: object) -> object:
        if not busy:
            busy.append(1)
            try:
                ground.called()
            finally:
                busy.clear()
        return call(*arguments, **options)

    return told


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("swap", SWAPS, ids=lambda one: one.__name__)
def test_no_swap_leads_root_elsewhere(
    operation: Callable[[Ground], None], swap: Callable[[Ground], None], tmp_path: Path
) -> None:
    moment = 0
    while True:
        moment += 1
        ground = Ground(tmp_path / str(moment), swap_at=moment, swap=lambda ground: once(ground, swap))
        ground.lay_out()
        with contextlib.suppress(OSError, atomic_files.CannotWrite), watched(ground):
            operation(ground)
        assert ground.stolen() == [], f"at call {moment}"
        if ground.calls < moment:
            break
    assert moment > 5


def once(ground: Ground, swap: Callable[[Ground], None]) -> None:
    ground.swap_at = -1
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        swap(ground)


@pytest.mark.parametrize("operation", [write, restore("file"), restore("link")], ids=lambda one: one.__name__)
def test_nobody_can_be_in_the_way_of_a_new_file(operation: Callable[[Ground], None], tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.lay_out()
    for name in ("..env.gpu-memory", "..env.new", f"..env.{'0' * 16}.gpu-memory"):
        ground.env.with_name(name).mkdir()
    operation(ground)
    assert ground.env.is_symlink() or ground.env.read_bytes() != MINE


def test_what_a_killed_writer_has_left_goes_with_the_next_one_and_nobody_elses(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.lay_out()
    left, written, others = (ground.env.with_name(f"..env.{digit * 16}.gpu-memory") for digit in "abc")
    for path in (left, written, others):
        path.write_bytes(SECRET)
    os.chown(others, OWNER, OWNER)
    with written.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write(ground)
    assert [path.exists() for path in (left, written, others)] == [False, True, True]


def test_a_strangers_link_is_named_with_a_cure(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    ground.lay_out()
    file_for_a_link(ground)
    with pytest.raises(
        atomic_files.CannotWrite,
        match=rf"{ground.env} is a symbolic link to {ground.victim} .*chown -h root {ground.env}",
    ):
        atomic_files.check(str(ground.env))


@pytest.mark.parametrize("follow", [True, False])
def test_what_is_no_regular_file_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow: bool) -> None:
    """To open a device is to use it; only its place is looked at."""
    really, opened = os.open, list[str]()

    def noting(path: str, flags: int, *rest: Any, **more: Any) -> int:
        opened.extend([] if flags & os.O_PATH else [path])
        return really(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", noting)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "device", "loop", "missing", "."):
        assert held_path.beginning(str(tmp_path / name), 1) == b""
        with pytest.raises(OSError):
            held_path.open_regular(str(tmp_path / name), follow=follow)
        with held_path.hold(str(tmp_path / name), follow=False) as held, pytest.raises(OSError):
            held.open()
    assert opened == []
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")
    assert held_path.beginning(str(tmp_path / "link"), 3) == b"tex"
    assert all(path.startswith("/proc/self/fd/") for path in opened)
