# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the backend runs with its env files as they are now. Pure.

A file's time tells that somebody has touched it, and not how: a `chmod` and a hard link move it like an edit, or an old
file that is put in its place. So a proof keeps which processes it was of, and what they had read.
"""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import BackendRun
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import File


def of_proven(after: HostFacts) -> BackendRun | None:
    """The processes of a backend that was proven just now, with what is in its env files; None where there is none."""
    backend = after["backend"]
    if not backend["pids"] or backend["started_s"] is None:
        return None
    files = {file["path"]: file["sha256"] for file in backend["env_files"] if file["sha256"]}
    return {
        "boot": after["host"]["boot_id"],
        "pids": backend["pids"],
        "started_s": backend["started_s"],
        "files": files,
    }


def has_read(read: HostFacts, file: File) -> bool:
    """Whether the backend that runs was started with an env file as it is now.

    A file from the future tells of a clock that was set back, and not when it was written.
    """
    started, written = read["backend"]["started_s"], file.get("modified_s")
    if started is None or written is None or written <= started:
        return True
    proven = _proven_run(read)
    return bool(proven and file["sha256"] and proven["files"].get(file["path"]) == file["sha256"])


def _proven_run(read: HostFacts) -> BackendRun | None:
    """What the kept proof says of the processes that run now: a newer one among them has read a file later."""
    backend, proven = read["backend"], (read["state"].get("proof") or {}).get("backend")
    if not proven or proven["boot"] != read["host"]["boot_id"] or proven["started_s"] != backend["started_s"]:
        return None
    return proven if set(backend["pids"]) <= set(proven["pids"]) else None
