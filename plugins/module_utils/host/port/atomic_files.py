# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replacing a file as a whole: readers and a power cut see the old or the new content, never a part.

The new content goes to a file beside it, gets the old one's owner, mode, ACL and other extended attributes, and takes
its place by rename. Two kinds of file cannot be replaced that way and are overwritten in place, with the space
reserved beforehand: one with several hard links (its other names must see the change) and one that is a mount point.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import tempfile
from typing import NamedTuple

# Of what a file's content is: the kernel makes them anew.
_COMPUTED_ATTRIBUTES = ("security.ima", "security.evm")
_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20


class CannotWrite(Exception):
    """A file cannot be written, and was not; the text names the cause and the cure."""


class Ownership(NamedTuple):
    """Mode and owner of a file that does not exist yet."""

    mode: int
    uid: int
    gid: int


def target_of(path: str) -> str:
    """The file that a path stands for, with symbolic links followed.

    A link that belongs to somebody else than root, us or the owner of its target is refused: whoever owns a directory
    could make root write anywhere.
    """
    seen = 0
    while os.path.islink(path):
        link = os.lstat(path)
        path = os.path.join(os.path.dirname(path), os.readlink(path))
        trusted = {0, os.geteuid()}
        with contextlib.suppress(OSError):
            trusted.add(os.stat(path).st_uid)
        if link.st_uid not in trusted:
            raise CannotWrite(
                f"a symbolic link to {path} belongs to uid {link.st_uid}, who does not own that file; "
                "give the path of the file itself"
            )
        seen += 1
        if seen > 40:
            raise CannotWrite(f"{path} is a loop of symbolic links; take it away")
    return os.path.realpath(path)


def read(path: str) -> bytes | None:
    """The content of the file that `path` stands for; None where there is none."""
    target = target_of(path)
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise CannotWrite(f"{path} is no regular file; move it away, or give another path")
        with open(target, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise CannotWrite(explain(path, problem)) from problem


def check(path: str) -> None:
    """CannotWrite where `write` would fail for a reason that can be seen without writing."""
    target = target_of(path)
    directory = os.path.dirname(target)
    place = directory
    try:
        os.stat(os.path.join(directory, ""))
        status = os.stat(target) if os.path.lexists(target) else None
    except FileNotFoundError:
        raise CannotWrite(f"the directory {directory} is missing; create it, or correct the path") from None
    except OSError as problem:
        raise CannotWrite(explain(path, problem)) from problem
    if status is not None:
        if not stat.S_ISREG(status.st_mode):
            raise CannotWrite(f"{path} is no regular file; move it away, or give another path")
        place = target if status.st_nlink > 1 else directory
        if os.geteuid() not in (0, status.st_uid):
            raise CannotWrite(f"{path} belongs to uid {status.st_uid}; run the task as that user or as root (become)")
        _check_flags(target)
    if any(os.statvfs(one).f_flag & os.ST_RDONLY for one in (directory, target) if os.path.exists(one)):
        raise CannotWrite(explain(path, OSError(errno.EROFS, "")))
    if place == directory:
        _check_flags(directory)
    if not os.access(place, os.W_OK):
        raise CannotWrite(explain(path, OSError(errno.EACCES, "")))


def write(path: str, content: bytes, new: Ownership) -> None:
    """Make `content` the content of the file that `path` stands for; `new` is for a file that does not exist.

    On CannotWrite the file is as it was.
    """
    check(path)
    target = target_of(path)
    try:
        present = os.stat(target) if os.path.exists(target) else None
        if present is not None and present.st_nlink > 1:
            _overwrite(target, content)
        else:
            _replace(target, content, present, new)
    except OSError as problem:
        raise CannotWrite(explain(path, problem)) from problem


def remove(path: str) -> None:
    """Take a file away; no error where there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise CannotWrite(explain(path, problem)) from problem
    _sync_directory(os.path.dirname(path))


def _replace(target: str, content: bytes, present: os.stat_result | None, new: Ownership) -> None:
    directory, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=f".{name}.", suffix=".new")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if present is None:
                _own(descriptor, new.uid, new.gid)
                os.fchmod(descriptor, new.mode)
            else:
                _own(descriptor, present.st_uid, present.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(present.st_mode))
                _copy_attributes(target, descriptor)
            os.fsync(descriptor)
        try:
            os.rename(temporary, target)
        except OSError as problem:
            if problem.errno != errno.EBUSY or present is None:
                raise
            _overwrite(target, content)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_directory(directory)


def _own(descriptor: int, uid: int, gid: int) -> None:
    """Change the owner only if it differs: a user who is not root may not even ask for it."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(descriptor, uid, gid)


def _copy_attributes(source: str, descriptor: int) -> None:
    """ACLs, SELinux label and user attributes; the default ones that the new file got are taken off."""
    try:
        wanted = {name: os.getxattr(source, name) for name in os.listxattr(source) if name not in _COMPUTED_ATTRIBUTES}
    except OSError as problem:
        if problem.errno != errno.ENOTSUP:
            raise
        return
    for name in os.listxattr(descriptor):
        if name not in wanted and not name.startswith("security."):  # a label cannot be taken away, only changed
            os.removexattr(descriptor, name)
    for name, value in wanted.items():
        if name not in os.listxattr(descriptor) or os.getxattr(descriptor, name) != value:
            os.setxattr(descriptor, name, value)


def _overwrite(target: str, content: bytes) -> None:
    descriptor = os.open(target, os.O_RDWR | os.O_NOFOLLOW)
    try:
        old = os.read(descriptor, os.fstat(descriptor).st_size)
        try:
            if len(content) > len(old):
                os.posix_fallocate(descriptor, len(old), len(content) - len(old))
            _fill(descriptor, content)
        except OSError:
            _fill(descriptor, old)
            raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, content: bytes) -> None:
    at = 0
    while at < len(content):
        at += os.pwrite(descriptor, content[at:], at)
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)


def _sync_directory(directory: str) -> None:
    """As far as we may: the file is in its place already."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_flags(path: str) -> None:
    """Not every file system knows these flags; where it does not, nothing stands in the way."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            flags = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))[0]
        finally:
            os.close(descriptor)
        if flags & _IMMUTABLE_OR_APPEND_ONLY:
            raise CannotWrite(f"{path} is immutable or append-only; see lsattr, and take it off with chattr -i -a")


_CURES = {
    errno.EACCES: "permission denied; run the task as its owner or as root (become)",
    errno.EPERM: "not permitted; run the task as root (become), and see lsattr for an immutable file",
    errno.EROFS: "its file system is mounted read-only; mount it read-write",
    errno.ENOSPC: "no space is left on its file system; free some",
    errno.EDQUOT: "the disk quota is used up; free some",
    errno.ENOTDIR: "a part of the path is no directory; correct the path",
    errno.ENAMETOOLONG: "the name is too long; correct the path",
}


def explain(path: str, problem: OSError) -> str:
    """Why a path was not written, and the cure."""
    cure = _CURES.get(problem.errno or 0, f"{problem.strerror or problem}; see the file and its directory")
    return f"{path}: {cure}. The file is as it was"
