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
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.held_path import Held

_FS_IOC_GETFLAGS = 0x80086601
_IMMUTABLE_OR_APPEND_ONLY = 0x10 | 0x20


class CannotWrite(Exception):
    """A file cannot be written, and was not; the text names the cause and the cure."""


class MissingDirectory(CannotWrite):
    """There is no file, and no directory for it."""


class Ownership(NamedTuple):
    """Mode and owner of a file that does not exist yet; None for an owner: who owns its directory, if we are root."""

    mode: int
    uid: int | None
    gid: int | None


def target_of(path: str) -> str:
    """The file that a path stands for, with symbolic links followed; CannotWrite where one is not to be trusted."""
    try:
        with held_path.hold(path) as place:
            return place.path
    except held_path.Misleading as problem:
        raise CannotWrite(problem.strerror) from None
    except OSError:  # a directory on the way is missing, or not ours to enter
        return os.path.realpath(path)


def read(path: str) -> bytes | None:
    """The content of the file that `path` stands for; None where there is none."""
    try:
        with _place(path) as place:
            return place.read()[0] if _regular(path, place) else None
    except MissingDirectory:
        return None


def check(path: str) -> None:
    """CannotWrite where `write` would fail for a reason that can be seen without writing."""
    with _place(path) as place:
        _check(path, place)


def write(path: str, content: bytes, new: Ownership) -> None:
    """Make `content` the content of the file that `path` stands for; `new` is for a file that does not exist.

    On CannotWrite the file is as it was.
    """
    with _place(path) as place:
        present = _check(path, place)
        if present is not None and present.st_nlink > 1:
            place.overwrite(content, lambda _same: None)
        else:
            _replace(place, content, present, new)


def tidy(path: str) -> None:
    """Take away what a writer of the file has left beside it that was killed, as far as that can be told."""
    with contextlib.suppress(CannotWrite), _place(path) as place:
        place.remove_left_over()


def remove(path: str) -> None:
    """Take a file, or the link that stands in its place, away; no error where there is none."""
    with contextlib.suppress(MissingDirectory), _place(path, follow=False) as place:
        if place.remove():
            place.sync()


@contextlib.contextmanager
def _place(path: str, follow: bool = True) -> Iterator[Held]:
    """The place that a path stands for; CannotWrite for whatever the system has against what is done there."""
    try:
        with held_path.hold(path, follow) as place:
            yield place
    except held_path.Misleading as problem:
        raise CannotWrite(problem.strerror) from None
    except FileNotFoundError:
        directory = os.path.dirname(os.path.realpath(path))
        raise MissingDirectory(f"the directory {directory} is missing; create it, or correct the path") from None
    except OSError as problem:
        raise CannotWrite(explain(path, problem)) from problem


def _regular(path: str, place: Held) -> os.stat_result | None:
    """The status of the file in a place, if there is one."""
    status = place.status()
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise CannotWrite(f"{path} is no regular file; move it away, or give another path")
    return status


def _check(path: str, place: Held) -> os.stat_result | None:
    """The status of the file that is there and can be written, if there is one."""
    status = _regular(path, place)
    in_place = status is not None and status.st_nlink > 1
    if status is not None and os.geteuid() not in (0, status.st_uid):
        raise CannotWrite(f"{path} belongs to uid {status.st_uid}; run the task as that user or as root (become)")
    for name in (place.name, ".") if status is not None else (".",):
        if os.statvfs(f"/proc/self/fd/{place.directory}/{name}").f_flag & os.ST_RDONLY:
            raise CannotWrite(explain(path, OSError(errno.EROFS, "")))
    if status is not None:
        _check_flags(place, place.name)
    if not in_place:
        _check_flags(place, ".")
    if not os.access(place.name if in_place else ".", os.W_OK, dir_fd=place.directory):
        raise CannotWrite(explain(path, OSError(errno.EACCES, "")))
    return status


def _replace(place: Held, content: bytes, present: os.stat_result | None, new: Ownership) -> None:
    if present is None:
        directory = os.fstat(place.directory)
        is_root = os.geteuid() == 0
        uid = new.uid if new.uid is not None else directory.st_uid if is_root else os.geteuid()
        gid = new.gid if new.gid is not None else directory.st_gid if is_root else os.getegid()
        place.replace(content, lambda created: _give(created, uid, gid, new.mode, None))
    else:
        status, attributes = place.read()[1:]
        try:
            owner = (status.st_uid, status.st_gid, status.st_mode)
            place.replace(content, lambda created: _give(created, *owner, attributes))
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
            place.overwrite(content, lambda _same: None)  # it is mounted by itself
    place.sync()


def _give(descriptor: int, uid: int, gid: int, mode: int, attributes: dict[str, bytes] | None) -> None:
    held_path.own(descriptor, uid, gid)
    os.fchmod(descriptor, held_path.carried(mode))
    if attributes is not None:  # the default ones that the new file got are taken off
        held_path.set_xattrs(descriptor, attributes)


def _check_flags(place: Held, name: str) -> None:
    """Not every file system knows these flags; where it does not, nothing stands in the way."""
    with contextlib.suppress(OSError):
        if name == ".":
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.directory)
        else:
            descriptor = held_path.open_regular(name, directory=place.directory, follow=False)
        try:
            flags = struct.unpack("l", fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, bytes(struct.calcsize("l"))))[0]
        finally:
            os.close(descriptor)
        if flags & _IMMUTABLE_OR_APPEND_ONLY:
            path = place.real_directory if name == "." else place.path
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
