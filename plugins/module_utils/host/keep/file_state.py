# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exact state of a path, as data, and putting a path back into it.

A state is one of
`{path, kind: "file", sha256, mode, uid, gid, mtime_ns, xattrs: {name: base64}}`,
`{path, kind: "link", target}` and
`{path, kind: "absent", parent_absent}`. ACLs and SELinux labels are extended attributes. A state to put a path into may
have None for `mtime_ns`: any time will do.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import sync_directory

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import FileState


MAX_BYTES = 16 * 1024 * 1024  # settings, not data
LINKS = 40  # as many as the kernel follows


def link_chain(path: str) -> list[str]:
    """The path and what it links to, link by link; the last one is no link."""
    chain = [os.path.normpath(path)]
    while os.path.islink(chain[-1]):
        if len(chain) > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        chain.append(os.path.normpath(os.path.join(os.path.dirname(chain[-1]), os.readlink(chain[-1]))))
    return chain


def read(path: str) -> tuple[FileState, bytes]:
    """The state of a path (a link is not followed) and its content; OSError where it is neither file nor link."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return {"path": path, "kind": "absent", "parent_absent": not os.path.isdir(os.path.dirname(path))}, b""
    if stat.S_ISLNK(status.st_mode):
        return {"path": path, "kind": "link", "target": os.readlink(path)}, b""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is neither a file nor a link", path)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(MAX_BYTES + 1)
        xattrs = _xattrs(file.fileno())
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES // 1024 // 1024} MiB", path)
    return {
        "path": path,
        "kind": "file",
        "sha256": hashlib.sha256(content).hexdigest(),
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
        "xattrs": {name: base64.b64encode(value).decode() for name, value in xattrs.items()},
    }, content


def differences(now: FileState, kept: FileState) -> list[str]:
    """What of a path is not as kept, in words that show no content."""
    if now["kind"] != kept["kind"]:
        return [f"{now['kind']} instead of {kept['kind']}"]
    words = {"sha256": "content", "uid": "owner", "gid": "group", "mtime_ns": "time", "xattrs": "extended attributes"}
    compared = {name for name, value in kept.items() if value is not None} - {"path", "parent_absent"}
    return sorted(words.get(name, name) for name in compared if now.get(name) != kept.get(name))


def different(kept: FileState) -> list[str]:
    """What of a path is not as kept, in words."""
    try:
        return differences(read(kept["path"])[0], kept)
    except OSError as problem:
        return [problem.strerror or str(problem)]


def put_back(kept: FileState, content: bytes) -> None:
    """Bring a path into a kept state. OSError if that cannot be done; then the path is as it was before."""
    path = kept["path"]
    if kept["kind"] == "absent":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        if kept["parent_absent"]:
            with contextlib.suppress(OSError):  # gone already, or in use by others by now
                os.rmdir(os.path.dirname(path))
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.dirname(path))  # of a unit's drop-ins; no place of anybody else's is made again
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.gpu-memory")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of a restore that was cut off
    if kept["kind"] == "link":
        os.symlink(kept["target"], temporary)
        os.replace(temporary, path)
    elif _written_in_place(path):
        _overwrite(kept, content)
    else:
        try:
            _replace(temporary, kept, content)
        except OSError as problem:
            # No room for a second file, or a file that is mounted by itself: its own blocks can still be written.
            if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY) or not os.path.isfile(path):
                raise
            _overwrite(kept, content)
    sync_directory(os.path.dirname(path))


def _written_in_place(path: str) -> bool:
    """Whether a file has other names (hard links), which a replaced file would lose."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 1


def _replace(temporary: str, kept: FileState, content: bytes) -> None:
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            _set_attributes(file.fileno(), kept)
            os.fsync(file.fileno())
        os.replace(temporary, kept["path"])
    except OSError:
        os.unlink(temporary)
        raise


def _overwrite(kept: FileState, content: bytes) -> None:
    handle = os.open(kept["path"], os.O_WRONLY | os.O_NOFOLLOW)
    with os.fdopen(handle, "wb") as file:
        if content:
            os.posix_fallocate(handle, 0, len(content))  # fails before anything is overwritten
        file.write(content)
        file.truncate()
        file.flush()
        _set_attributes(handle, kept)
        os.fsync(handle)


def _set_attributes(handle: int, kept: FileState) -> None:
    os.fchown(handle, kept["uid"], kept["gid"])
    os.fchmod(handle, kept["mode"])
    wanted = {name: base64.b64decode(value) for name, value in kept["xattrs"].items()}
    present = _xattrs(handle)
    for name in present.keys() - wanted.keys():
        if not name.startswith("security."):  # a label cannot be taken away, only changed
            os.removexattr(handle, name)
    for name, value in wanted.items():
        if present.get(name) != value:
            os.setxattr(handle, name, value)
    if kept["mtime_ns"] is not None:
        os.utime(handle, ns=(kept["mtime_ns"], kept["mtime_ns"]))


def _xattrs(handle: int) -> dict[str, bytes]:
    try:
        return {name: os.getxattr(handle, name) for name in os.listxattr(handle)}
    except OSError as problem:
        if problem.errno in (errno.ENOTSUP, errno.ENOSYS):
            return {}
        raise
