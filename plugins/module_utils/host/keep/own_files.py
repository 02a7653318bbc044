# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection has on a host beside the files that it was asked to change."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import restore_timer
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import make_directory, write_file
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import tool_digest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host


def install(paths: Paths, tool: bytes) -> None:
    """The host tool, for when there is no controller; and a name for it, where /usr/local can be written."""
    _put_tool(paths.tool, tool)
    with contextlib.suppress(OSError):
        os.symlink(paths.tool, paths.command)


def install_again(paths: Paths, tool: bytes) -> None:
    """The host tool beside what is kept a second time."""
    _put_tool(paths.again(paths.tool), tool)


def bring_back(paths: Paths) -> None:
    """The host tool, where it was lost or damaged and is there a second time."""
    second = _read(paths.again(paths.tool))
    if second is not None and not tool_digest(paths):
        install(paths, second)


def _put_tool(path: str, tool: bytes) -> None:
    make_directory(os.path.dirname(path))
    write_file(path, tool, 0o700)


def tool(paths: Paths) -> bytes | None:
    return _read(paths.tool)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def present(paths: Paths) -> list[str]:
    """Everything that this collection has on a host beside the files it was asked to change."""
    link = paths.command
    ours = os.path.islink(link) and os.readlink(link) == paths.tool
    return [*restore_timer.files(paths), *([link] if ours else []), *paths.volatile, paths.second, paths.root]


def remove(paths: Paths, host: Host, found: Iterable[str]) -> None:
    restore_timer.disarm(paths, host)
    _take_away(found)
    left = [path for path in found if os.path.lexists(path) and not _is_empty_mount(path)]
    if left:
        raise StateError(f"{', '.join(left)} cannot be removed; see the file systems they are on, and run again")


def forget_jobs(paths: Paths) -> None:
    """What is left of jobs whose results nobody waits for any more."""
    _take_away(paths.left_of_jobs)


def _take_away(found: Iterable[str]) -> None:
    for path in found:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _is_empty_mount(path: str) -> bool:
    return os.path.ismount(path) and not os.listdir(path)
