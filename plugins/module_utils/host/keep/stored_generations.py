# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept on a host as it is read: the generations, which of them is which, the lease, the timer and the tool."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import leases, tries
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    Damaged,
    Paths,
    StateError,
    begun,
    read_json,
    read_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host, LinuxHost

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        Generation,
        Manifest,
        Pointers,
        State,
    )

TIMER = "gpu-memory-restore.timer"
GENERATION = re.compile(r"[0-9]{4,}\Z")


class StoredGenerations:
    """See `generations` for the files. StateError where one is damaged, or not there."""

    def __init__(self, paths: Paths, host: Host) -> None:
        self.paths, self.host = paths, host

    def manifest(self, generation: str) -> Manifest:
        manifest: Manifest | None = read_kept(self.paths, self._manifest_path(generation))
        if manifest is None:
            known = ", ".join(self.ids()) or "none"
            raise StateError(f"generation {generation} is not on this host; it has: {known}")
        return manifest

    def _manifest_path(self, generation: str) -> str:
        return os.path.join(self.paths.generations, generation, "manifest.json")

    def readable(self) -> Iterator[Manifest]:
        """Every generation that can be read: another one's damage is not this one's."""
        for generation in self.ids():
            with contextlib.suppress(StateError):
                yield self.manifest(generation)

    def pointers(self) -> Pointers:
        pointers: Pointers | None = read_json(self.paths.pointers)
        return pointers or {}

    def about(self, generation: str) -> Generation:
        manifest = self.manifest(generation)
        return {
            "id": manifest["id"],
            "at": manifest["at"],
            "kind": manifest["kind"],
            "holder": manifest["holder"],
            "run_id": manifest["run_id"],
            "paths": paths_of(manifest),
        }

    def _directories(self, place: str | None = None) -> list[str]:
        try:
            names = os.listdir(place or self.paths.generations)
        except OSError:  # what is kept a second time says what was in it
            return []
        return sorted((name for name in names if GENERATION.match(name)), key=int)

    def ids(self) -> list[str]:
        """Whole generations, oldest first."""
        return [name for name in self._directories() if os.path.exists(self._manifest_path(name))]

    def summary(self) -> State:
        """All that is kept, as plain data without any content of a file; for the read, the report and `list`.

        {generations: [{id, at, kind, holder, run_id, paths}], previous, proven, proof: {..., at, generation}
        | None, lease: {run_id, holder, generation, since, until, left_s, live} | None, restoring,
        last_restore, timer, tool: what the host tool bears as its digest | None}.
        """
        lease = leases.stored(self.paths)
        pointers = self.pointers()
        tried = tries.of(self.paths)
        proof = pointers.get("proof")
        restoring, error = None, None
        try:
            restoring = begun(self.paths)
        except Damaged as problem:  # which tells to look here for a generation's number
            error = str(problem)
        return {
            "generations": [self.about(manifest["id"]) for manifest in self.readable()],
            "previous": pointers.get("previous"),
            "proven": pointers.get("proven"),
            "proof": {**proof, "generation": pointers["proven"]} if proof else None,
            "calibration": pointers.get("calibration") or [],
            "lease": leases.described(lease, self.host) if lease else None,
            "restoring": restoring,
            "last_restore": leases.last_restore(self.paths),
            "tries": {"count": tried["count"], "left_s": tries.left_s(tried, self.host)},
            "timer": timer_state(self.host),
            "tool": tool_digest(self.paths),
            "error": error,
        }


def summary() -> State:
    """`StoredGenerations.summary` of this host; where it cannot be read, `error` says why."""
    try:
        return StoredGenerations(Paths(), LinuxHost()).summary()
    except (OSError, StateError) as problem:
        return {"generations": [], "lease": None, "proof": None, "error": str(problem)}


def paths_of(manifest: Manifest) -> list[str]:
    return [state["path"] for state in manifest["files"]]


def timer_state(host: Host) -> str:
    """`armed` while it looks, else what systemd says."""
    active = host.show(TIMER).get("ActiveState") or "unknown"
    return "armed" if active == "active" else active


def tool_digest(paths: Paths) -> str | None:
    """That of what the host tool is made of; None where there is none, and empty of one that does not bear it."""
    try:
        with zipfile.ZipFile(paths.tool) as tool:
            return tool.comment.decode(errors="replace")
    except FileNotFoundError:
        return None
    except (OSError, zipfile.BadZipFile):
        return ""
