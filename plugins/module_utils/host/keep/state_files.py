# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing what this collection keeps on a managed host: whole files, and the lock around changes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    SCHEMA,
    Paths,
    StateError,
    as_json,
    begun,
    digest_of,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Restoring


class Busy(StateError):
    """Another command has the lock."""


def make_directory(path: str) -> None:
    """A directory that root alone may enter."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    if stat.S_IMODE(os.stat(path).st_mode) != 0o700:  # nothing is asked of one that is immutable, and right
        os.chmod(path, 0o700)


def sync_directory(path: str) -> None:
    """Make what was created, renamed or removed in a directory outlive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a file of our own as a whole or not at all."""
    try:
        atomic_files.write(path, content, atomic_files.Ownership(mode, os.geteuid(), os.getegid()))
    except atomic_files.CannotWrite as problem:
        raise StateError(str(problem)) from None


def remove_file(path: str) -> None:
    """Take a file of our own away, or what has taken its place; nothing is asked of a place that has nothing."""
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            atomic_files.remove(path)
    except OSError as problem:
        raise StateError(atomic_files.explain(path, problem)) from None
    except atomic_files.CannotWrite as problem:
        raise StateError(str(problem)) from None


def write_json(path: str, value: Mapping[str, object], mode: int = 0o600) -> None:
    """With a digest as its seal, so that a damage that leaves it JSON is seen. What has taken its place goes."""
    if os.path.islink(path) or os.path.isdir(path):
        remove_file(path)
    value = {"schema": SCHEMA, **value}
    write_file(path, as_json({**value, "digest": digest_of(value)}), mode)


def write_kept(paths: Paths, path: str, value: Mapping[str, object]) -> None:
    """Write a file of the state, and a second time where a run or a restore has its second place."""
    if os.path.isdir(paths.second):
        with contextlib.suppress(StateError):  # it is there for when the first is lost
            write_json(paths.again(path), value)
    write_json(path, value)


def remove_kept(paths: Paths, path: str) -> None:
    for place in (paths.again(path), path):
        remove_file(place)


@contextlib.contextmanager
def locked(paths: Paths, wait_s: float) -> Iterator[None]:
    """Hold the host's one lock, which also a restore in progress holds; StateError if that takes too long."""
    with contextlib.suppress(OSError):  # whoever writes there says why that fails
        make_directory(paths.root)
    handle = _opened(paths)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    refuse_while_restoring(paths)
                    raise Busy(
                        "another command works on this host's generations just now; try again in a moment"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _opened(paths: Paths) -> int:
    """The lock, for whatever has taken its place can be locked as well; else what is kept a second time."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        if os.path.islink(paths.lock):
            os.unlink(paths.lock)
        return os.open(paths.lock, flags | os.O_CREAT, 0o600)
    except OSError as problem:
        for place in (paths.lock, paths.second):
            with contextlib.suppress(OSError):
                return os.open(place, flags)
        raise StateError(f"{paths.lock} cannot be locked: {problem.strerror}; take it away") from None


def going_back(restoring: Restoring) -> str:
    """What a restore is about and, if a service is not in place, which and the cure."""
    since = f"to generation {restoring['generation']} since {utc.text(restoring['since'])} ({restoring['reason']})"
    error = restoring.get("error")
    return f"{since}; {error}" if error else since


def refuse_while_restoring(paths: Paths) -> None:
    restoring = begun(paths)
    if restoring:
        raise Busy(f"this host is going back {going_back(restoring)}; see on the host: gpu-memory status")
