# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A path whose directory is held open: what is done with it is done there, wherever its names lead by then.

Whoever owns a directory can put a link in the place of anything in it, also between a look and a deed of root's. So a
path is walked once, name by name and without the kernel following a link, and all the rest goes by descriptors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

LINKS = 40  # as many as the kernel follows
MODE = 0o775  # what is carried over of a file's mode: no set-uid, no set-gid, no writing by everybody
MOST_BYTES = 16 * 1024 * 1024  # settings, not data
_WALK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Misleading(OSError):
    """A name that root must not follow or write to; `strerror` says why, with the cure."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ELOOP, text)


class Held(NamedTuple):
    """The place of a file that may be there. OSError from each method; on one, what was there is as it was."""

    directory: int
    real_directory: str
    name: str

    @property
    def path(self) -> str:
        return os.path.join(self.real_directory, self.name)

    def status(self) -> os.stat_result | None:
        """Of the file or link itself; None where there is none."""
        try:
            return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open(self, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file that is there."""
        descriptor = open_regular(self.name, flags, self.directory, follow=False)
        try:
            self._refuse_another_users(os.fstat(descriptor))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def read(self) -> tuple[bytes, os.stat_result, dict[str, bytes]]:
        """Content, status and extended attributes of the regular file that is there."""
        with os.fdopen(self.open(), "rb") as file:
            content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES // 1024 // 1024} MiB", self.path)
            return content, os.fstat(file.fileno()), xattrs(file.fileno())

    def replace(self, content: bytes, attribute: Callable[[int], None]) -> None:
        """Put a new file in the place: whole, and only after `attribute` has given it owner, mode and the like."""
        with self._new_file() as (descriptor, new):
            _fill(descriptor, content)
            attribute(descriptor)
            os.fsync(descriptor)
            os.rename(new, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def overwrite(self, content: bytes, attribute: Callable[[int], None]) -> None:
        """Write into the very file that is there, with the space for it reserved beforehand."""
        descriptor = self.open(os.O_RDWR)
        try:
            old = os.read(descriptor, os.fstat(descriptor).st_size)
            try:
                if len(content) > len(old):
                    os.posix_fallocate(descriptor, len(old), len(content) - len(old))
                _fill(descriptor, content)
                attribute(descriptor)
            except OSError:
                _fill(descriptor, old)
                raise
        finally:
            os.close(descriptor)

    def link(self, target: str, uid: int, gid: int) -> None:
        """Put a symbolic link in the place."""
        new = self._unheard_of()
        os.symlink(target, new, dir_fd=self.directory)
        os.chown(new, uid, gid, dir_fd=self.directory, follow_symlinks=False)
        os.rename(new, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def remove(self) -> bool:
        """Whether there was a file or a link to take away."""
        try:
            os.unlink(self.name, dir_fd=self.directory)
        except FileNotFoundError:
            return False
        return True

    def sync(self) -> None:
        """Make what was created, renamed or removed here outlive a power cut, as far as we may: it is done already."""
        with contextlib.suppress(OSError), self.directory_for_reading() as descriptor:
            os.fsync(descriptor)

    @contextlib.contextmanager
    def directory_for_reading(self) -> Iterator[int]:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _new_file(self) -> Iterator[tuple[int, str]]:
        """An empty file beside the place, by descriptor and name, locked; gone where an error ends it.

        Nobody knows its name beforehand: whose directory it is could have something else there.
        """
        self.remove_left_over()
        new = self._unheard_of()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(new, flags, 0o600, dir_fd=self.directory)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield descriptor, new
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new, dir_fd=self.directory)
            raise
        finally:
            os.close(descriptor)

    def _unheard_of(self) -> str:
        return f".{self.name}.{os.urandom(8).hex()}.gpu-memory"

    def remove_left_over(self) -> None:
        """What a killed writer of ours has left; one that still writes has its file locked."""
        ours = re.compile(rf"\.{re.escape(self.name)}\.[0-9a-f]{{16}}\.gpu-memory\Z")
        with contextlib.suppress(OSError), self.directory_for_reading() as directory:
            for name in filter(ours.match, os.listdir(directory)):
                with contextlib.suppress(OSError):
                    self._remove_unlocked(name)

    def _remove_unlocked(self, name: str) -> None:
        descriptor = open_regular(name, os.O_RDONLY, self.directory, follow=False)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=self.directory)
        finally:
            os.close(descriptor)

    def _refuse_another_users(self, status: os.stat_result) -> None:
        """Where hard links are not protected, a user can give another one's file a name of his own."""
        owner = os.fstat(self.directory).st_uid
        if status.st_nlink > 1 and owner not in _trusted() and status.st_uid != owner:
            raise Misleading(
                f"{self.path} is one of several names (hard links) of a file of uid {status.st_uid}, and its directory "
                f"belongs to uid {owner}, who may have made them; give it a file of its own (cp, then mv)"
            )


@contextlib.contextmanager
def hold(path: str, follow: bool = True) -> Iterator[Held]:
    """The place that a path stands for; where the last name is a link, with `follow` the place that it leads to.

    OSError where a directory is missing or no directory. Misleading where a link belongs to somebody else than root, us
    or the owner of what it leads to: whoever owns a directory could make root read or write anywhere.
    """
    opened, names = [os.open("/", _WALK | os.O_DIRECTORY)], [""]
    links: list[tuple[int, str, str]] = []
    name, ahead = ".", _parts(os.path.join(os.getcwd(), path))
    try:
        while ahead:
            name = ahead.pop()
            if name == "..":
                name = "."
                if len(opened) > 1:
                    os.close(opened.pop())
                    names.pop()
                continue
            link = _link(name, opened[-1]) if ahead or follow else None
            if link:
                links.append((link[0], "/".join([*names, name]), link[1]))
                if len(links) > LINKS:
                    raise Misleading(f"{path} is a loop of symbolic links; take it away")
                ahead += _parts(link[1])
                name = "."
                if link[1].startswith("/"):
                    while len(opened) > 1:
                        os.close(opened.pop())
                        names.pop()
            elif ahead:
                opened.append(os.open(name, _WALK | os.O_DIRECTORY, dir_fd=opened[-1]))
                names.append(name)
        held = Held(opened[-1], "/".join(names) or "/", name)
        _refuse_strangers(held, links)
        yield held
    finally:
        for descriptor in opened:
            os.close(descriptor)


def beginning(path: str, most: int) -> bytes:
    """The first bytes of a regular file, for what systemd or a shell reads as well, so that links are followed.

    Nothing of what is no file, or cannot be read; a pipe in its place makes nobody wait.
    """
    with contextlib.suppress(OSError), open(open_regular(path), "rb") as file:
        return file.read(most)
    return b""


def text(path: str | None, most: int) -> str:
    """The same as text; nothing where there is no path."""
    return beginning(path, most).decode(errors="replace") if path else ""


def open_regular(path: str, flags: int = os.O_RDONLY, directory: int | None = None, follow: bool = True) -> int:
    """A descriptor of the regular file that a path leads to; OSError for anything else, which is never opened.

    To open a device is to use it: a tape rewinds, a watchdog begins to count.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW), dir_fd=directory)
    try:
        mode = os.fstat(place).st_mode
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        return os.open(f"/proc/self/fd/{place}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(place)


def contents_of(path: str, most: int) -> bytes:
    """The first bytes of a file of root's own. OSError names the file."""
    with open(open_regular(path), "rb") as file:
        try:
            return file.read(most)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, path) from None


def carried(mode: int) -> int:
    """What of a file's mode a new one in its place gets."""
    return stat.S_IMODE(mode) & MODE


def xattrs(descriptor: int) -> dict[str, bytes]:
    """Extended attributes (ACLs, SELinux label, users'); no capabilities, and none that the kernel makes anew."""
    made = ("security.ima", "security.evm", "security.capability")
    try:
        return {name: os.getxattr(descriptor, name) for name in os.listxattr(descriptor) if name not in made}
    except OSError as problem:
        if problem.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise


def set_xattrs(descriptor: int, wanted: dict[str, bytes]) -> None:
    """Give a file these extended attributes and no others."""
    present = xattrs(descriptor)
    for name in present.keys() - wanted.keys():
        if not name.startswith("security."):  # a label cannot be taken away, only changed
            os.removexattr(descriptor, name)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(descriptor, name, value)


def own(descriptor: int, uid: int, gid: int) -> None:
    """Change the owner only if it differs: a user who is not root may not even ask for it."""
    status = os.fstat(descriptor)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(descriptor, uid, gid)


def _parts(path: str) -> list[str]:
    """The names on the way, the first one last."""
    return [part for part in path.split("/")[::-1] if part not in ("", ".")]


def _link(name: str, directory: int) -> tuple[int, str] | None:
    """Owner and target of a symbolic link, of one and the same; None where there is none."""
    try:
        descriptor = os.open(name, _WALK, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        return (status.st_uid, os.readlink("", dir_fd=descriptor)) if stat.S_ISLNK(status.st_mode) else None
    finally:
        os.close(descriptor)


def _refuse_strangers(held: Held, links: list[tuple[int, str, str]]) -> None:
    strangers = [link for link in links if link[0] not in _trusted()]
    if strangers:
        status = held.status()
        owners = {os.fstat(held.directory).st_uid, *([status.st_uid] if status else [])}
        for uid, link, target in strangers:
            if uid not in owners:
                raise Misleading(
                    f"{link} is a symbolic link to {target} that belongs to uid {uid}, who owns neither {held.path} "
                    "nor its directory, and could lead root anywhere; make the link root's "
                    f"(chown -h root {link}), or take it away"
                )


def _trusted() -> set[int]:
    return {0, os.geteuid()}


def _fill(descriptor: int, content: bytes) -> None:
    at = 0
    while at < len(content):
        at += os.pwrite(descriptor, content[at:], at)
    os.ftruncate(descriptor, len(content))
    os.fsync(descriptor)
