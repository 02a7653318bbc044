# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing the generations on a host's disk, and which of them stay."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import own_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError, read_json
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    make_directory,
    sync_directory,
    write_file,
    write_json,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import (
    GENERATION,
    StoredGenerations,
    paths_of,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        About,
        FileState,
        Manifest,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan

LATEST = 5  # generations kept besides the previous, the proven, the held one, and the first of each file


class GenerationStore(StoredGenerations):
    """The same to whoever has the lock and changes it."""

    def save(
        self,
        generation: str,
        about: About,
        states: list[FileState],
        copies: Mapping[str, bytes],
        services: ServicePlan,
    ) -> None:
        """Write a generation; it is one from the moment its manifest is there.

        What a run goes back to is kept twice.
        """
        manifest = {**about, "id": generation, "at": self.host.unix_time(), "files": states, "services": services}
        directory = os.path.join(self.paths.generations, generation)
        try:
            if about["kind"] == "kept":
                make_directory(self.paths.second)
                _save(self.paths.again(directory), manifest, copies)
            _save(directory, manifest, copies)
        except OSError as problem:
            raise StateError(atomic_files.explain(problem.filename or directory, problem)) from None

    def copies_of(self, manifest: Manifest) -> dict[str, bytes]:
        """A generation's contents by SHA-256; StateError before anything is touched if one is damaged."""
        contents = {}
        for state in manifest["files"]:
            if state["kind"] != "file":
                continue
            path = os.path.join(self.paths.generations, manifest["id"], state["sha256"])
            damage = []
            for place in (path, self.paths.again(path)):
                try:
                    contents[state["sha256"]] = _copy(place, state["sha256"])
                    break
                except OSError as problem:
                    damage.append(problem.strerror)
            else:
                raise StateError(_damaged(manifest, state, damage[0]))
        return contents

    def make_whole(self) -> None:
        """What is kept a second time, where the first was lost; as far as that can be written."""
        for generation in self._directories(self.paths.again(self.paths.generations)):
            with contextlib.suppress(StateError, OSError):
                kept = self.manifest(generation)
                copies = self.copies_of(kept)
                directory = os.path.join(self.paths.generations, generation)
                if not _is_whole(directory, copies):
                    _save(directory, {**kept}, copies)
        with contextlib.suppress(StateError, OSError):
            own_files.bring_back(self.paths)

    def id_of(self, name: str) -> str:
        """The number of a generation that is named by its number, or as `previous` or `proven`."""
        if GENERATION.match(name.zfill(4)):
            return name.zfill(4)
        if name not in ("previous", "proven"):
            raise StateError(f"generation = {name!r} is not known; allowed: previous, proven, or a number as in `list`")
        number = self.pointers().get(name)
        if number is None:
            strays = unit_files.strays(self.paths.units)
            lost = f", or what it has kept is gone: {'; '.join(strays)}" if strays else ""
            raise StateError(f"this host has no {name} generation: no apply has ended here yet{lost}")
        return str(number)

    def forget_second(self) -> None:
        """It holds copies of env files, so that it lasts no longer than it must."""
        shutil.rmtree(self.paths.second, ignore_errors=True)

    def newest_kept(self) -> str | None:
        """The generation that the last run has kept."""
        kept = [manifest["id"] for manifest in self.readable() if manifest["kind"] == "kept"]
        return kept[-1] if kept else None

    def next_id(self) -> str:
        """A number that no generation has had: `finished` must never mean a later run."""
        second = self._directories(self.paths.again(self.paths.generations))
        used = [*self._directories(), *second, self.pointers().get("finished", "0000")]
        return f"{max(int(name) for name in used) + 1:04d}"

    def prune(self) -> None:
        """Remove what nothing needs: all but the previous, the proven, the latest, and each file's first.

        Of what is damaged nobody knows whether it is needed.
        """
        try:
            pointers = self.pointers()
        except StateError:
            return
        files = {manifest["id"]: paths_of(manifest) for manifest in self.readable()}
        ids = [name for name, paths in files.items() if paths]
        firsts = {path: name for name in reversed(ids) for path in files[name]}
        needed = {*firsts.values(), *ids[-LATEST:], pointers.get("previous"), pointers.get("proven")}
        needed |= {name for name in self.ids() if name not in files}
        for name in self._directories():
            if name not in needed:
                shutil.rmtree(os.path.join(self.paths.generations, name), ignore_errors=True)


def _save(directory: str, manifest: Mapping[str, object], copies: Mapping[str, bytes]) -> None:
    above = os.path.dirname(directory)
    make_directory(above)
    make_directory(directory)
    sync_directory(os.path.dirname(above))
    sync_directory(above)
    for name, content in copies.items():
        write_file(os.path.join(directory, name), content)
    write_json(os.path.join(directory, "manifest.json"), manifest)


def _copy(path: str, sha256: str) -> bytes:
    """OSError where it is not what was kept."""
    content = held_path.contents_of(path, held_path.MOST_BYTES + 1)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(errno.EIO, "its content is not what was kept", path)
    return content


def _is_whole(directory: str, copies: Mapping[str, bytes]) -> bool:
    try:
        for name in copies:
            _copy(os.path.join(directory, name), name)
        return read_json(os.path.join(directory, "manifest.json")) is not None
    except (OSError, StateError):
        return False


def _damaged(manifest: Manifest, state: FileState, why: str | None) -> str:
    return (
        f"generation {manifest['id']} is damaged: the copy of {state['path']} ({why}); nothing was touched. "
        "Put the file back by hand, then on the host: gpu-memory release"
    )
