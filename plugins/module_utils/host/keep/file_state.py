# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The exact state of a path, as data, and putting a path back into it.

A state is one of
`{path, kind: "file", sha256, mode, uid, gid, mtime_ns, xattrs: {name: base64}}`,
`{path, kind: "link", target, uid, gid, leads_to}` and
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

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.held_path import LINKS, Held

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import FileState


def link_chain(path: str) -> list[str]:
    """The path and what it links to, link by link; the last one is no link."""
    chain = [os.path.normpath(path)]
    while os.path.islink(chain[-1]):
        if len(chain) > LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        chain.append(_led_to(chain[-1], os.readlink(chain[-1])))
    return chain


def _led_to(link: str, target: str) -> str:
    """Where a link leads, by the directory that it really stands in, as the kernel has it."""
    path = os.path.join(os.path.dirname(link), target)
    return os.path.realpath(path) if os.path.basename(path) in ("", ".", "..") else place_of(path)


def place_of(path: str) -> str:
    """A path with the links of its directory followed, and its own not."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def read(path: str) -> tuple[FileState, bytes]:
    """The state of a path (a link is not followed) and its content; OSError where it is neither file nor link."""
    try:
        with held_path.hold(path, follow=False) as place:
            return _read(path, place)
    except FileNotFoundError:
        return {"path": path, "kind": "absent", "parent_absent": True}, b""


def _read(path: str, place: Held) -> tuple[FileState, bytes]:
    status = place.status()
    if status is None:
        return {"path": path, "kind": "absent", "parent_absent": False}, b""
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(place.name, dir_fd=place.directory)
        uid, gid, leads_to = status.st_uid, status.st_gid, _led_to(path, target)
        return {"path": path, "kind": "link", "target": target, "uid": uid, "gid": gid, "leads_to": leads_to}, b""
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is neither a file nor a link", path)
    content, status, xattrs = place.read()
    return {
        "path": path,
        "kind": "file",
        "sha256": hashlib.sha256(content).hexdigest(),
        "mode": held_path.carried(status.st_mode),
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
    compared = {name for name, value in kept.items() if value is not None} - {"path", "parent_absent", "leads_to"}
    goal = {**kept, "mode": held_path.carried(kept["mode"])} if "mode" in kept else kept  # as an older one has kept it
    return sorted(words.get(name, name) for name in compared if now.get(name) != goal.get(name))


def different(kept: FileState) -> list[str]:
    """What of a path is not as kept, in words."""
    try:
        return differences(read(kept["path"])[0], kept)
    except OSError as problem:
        return [problem.strerror or str(problem)]


def put_back(kept: FileState, content: bytes) -> None:
    """Bring a path into a kept state. OSError if that cannot be done; then the path is as it was before."""
    path = kept["path"]
    directory = os.path.dirname(path)
    if kept["kind"] == "absent":
        with contextlib.suppress(FileNotFoundError), held_path.hold(path, follow=False) as place:
            place.remove()
        if kept["parent_absent"]:
            with contextlib.suppress(OSError), held_path.hold(directory, follow=False) as above:
                os.rmdir(above.name, dir_fd=above.directory)  # unless gone already, or in use by others by now
        return
    with contextlib.suppress(FileExistsError), held_path.hold(directory, follow=False) as above:
        os.mkdir(above.name, dir_fd=above.directory)  # of a unit's drop-ins; no place of anybody else's is made again
    with held_path.hold(path, follow=False) as place:
        if kept["kind"] == "link":
            owner = os.fstat(place.directory)  # of what an older collection has kept
            place.link(kept["target"], kept.get("uid", owner.st_uid), kept.get("gid", owner.st_gid))
        else:
            _put_file_back(place, kept, content)
        place.sync()


def _put_file_back(place: Held, kept: FileState, content: bytes) -> None:
    status = place.status()
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    if status is not None and is_file and status.st_nlink > 1:  # its other names would be lost
        place.overwrite(content, lambda same: _set_attributes(same, kept))
        return
    try:
        place.replace(content, lambda created: _set_attributes(created, kept))
    except OSError as problem:
        # No room for a second file, or a file that is mounted by itself: its own blocks can still be written.
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY) or not is_file:
            raise
        place.overwrite(content, lambda same: _set_attributes(same, kept))


def _set_attributes(handle: int, kept: FileState) -> None:
    os.fchown(handle, kept["uid"], kept["gid"])
    os.fchmod(handle, held_path.carried(kept["mode"]))
    held_path.set_xattrs(handle, {name: base64.b64decode(value) for name, value in kept["xattrs"].items()})
    if kept["mtime_ns"] is not None:
        os.utime(handle, ns=(kept["mtime_ns"], kept["mtime_ns"]))
