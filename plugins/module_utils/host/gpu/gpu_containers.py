# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers on this host that use a GPU, told by what runs. Changes nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.containers import container_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.library import LIBRARY

MOST_FILES = 4096  # of one process that are looked at


def read(holders: Collection[int], ours: Collection[int] = (), proc: str = "/proc") -> list[str]:
    """The containers with a process that holds GPU memory (`holders`: their pids) or a device file open.

    `ours`: processes of the Ollama that is restarted anyway.
    """
    begin = host_read.groups_of(1, proc)
    found = set()
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) in ours:
            continue
        for path in servers.paths_here(host_read.groups_of(name, proc), begin):
            container = container_of(path)
            if container and (int(name) in holders or _has_device(proc, name)):
                found.add(container)
                break
    return sorted(found)


def _has_device(proc: str, pid: str) -> bool:
    with contextlib.suppress(OSError):
        for number in os.listdir(f"{proc}/{pid}/fd")[:MOST_FILES]:
            with contextlib.suppress(OSError):
                if os.readlink(f"{proc}/{pid}/fd/{number}").startswith(LIBRARY.DEVICES):
                    return True
    return False
