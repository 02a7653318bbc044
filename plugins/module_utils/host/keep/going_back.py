# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a generation back: its files, then the services that they concern. What is cut off is carried on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_states
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    file_state,
    in_force,
    restore_timer,
    service_control,
    take_back,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    StateError,
    read_json,
    remove_file,
    write_json,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import (
    StoredGenerations,
    paths_of,
)

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        FileState,
        KeysOfFile,
        Manifest,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
        FoundService,
        Restored,
        ServicePlan,
    )


class GoingBack:
    """Each method raises StateError with cause and cure. Whoever calls has the lock."""

    def __init__(self, stored: StoredGenerations) -> None:
        self.stored, self.paths, self.host = stored, stored.paths, stored.host

    def restore(
        self,
        generation: str,
        reason: str,
        run_id: str | None,
        check: bool = False,
        found: Mapping[str, FoundService | None] | None = None,
        by_hand: bool = False,
    ) -> Restored:
        """`found`: how the services are to be left, if not as the generation says."""
        manifest = self.stored.manifest(generation)
        if found:
            manifest = {**manifest, "services": {**manifest["services"], "found": found}}
        return self.put_in_place(manifest, self.stored.copies_of(manifest), reason, run_id, check, by_hand)

    def roll_back(self, generation: str, reason: str, check: bool) -> Restored:
        """Go back by hand, perhaps long after the generation: by what runs now, unless that is being carried on."""
        begun = read_json(self.paths.restoring) or {}
        if begun.get("generation") == generation and begun.get("found"):
            return self.restore(generation, reason, None, check, begun["found"])
        found = self._found_now(self.stored.manifest(generation)["services"])
        result = self.restore(generation, reason, None, check, found, by_hand=True)
        known = [path for manifest in self.stored.readable() for path in paths_of(manifest)]
        problems = [*filter(None, [result["error"]]), *unit_files.strays(self.paths.units, known)]
        return {**result, "error": "; ".join(problems) or None}

    def _found_now(
        self, services: ServicePlan, before: Mapping[str, FoundService | None] | None = None
    ) -> dict[str, FoundService | None]:
        """How services are left by whoever goes by what runs now: what is stopped stays stopped.

        What has failed, or does not come up, may do so under our settings: there `before` counts, how a generation has
        found them.
        """
        before = before or services.get("found") or {}
        now = service_control.states(services, self.host)
        return {
            name: before.get(name) if unit_states.is_in_trouble(now[name]["active_state"]) else now[name]
            for name in now
        }

    def put_in_place(
        self,
        manifest: Manifest,
        contents: Mapping[str, bytes],
        reason: str,
        run_id: str | None,
        check: bool,
        by_hand: bool = False,
    ) -> Restored:
        """`by_hand`: touch nothing where something is in the way; else what can goes back, and the rest is named."""
        generation = manifest["id"]
        others = list(self.stored.readable())
        ours = take_back.keys_of([*others, manifest])
        way = take_back.way_back(manifest, contents, ours)
        compared = [(state, file_state.different(state)) for state in way.states]
        different = [(state, what) for state, what in compared if what]
        resumed = read_json(self.paths.restoring) is not None
        plan = manifest["services"]
        started = service_control.started_since(plan, self.host)  # since, be it without any change of a file
        values = self._our_values(manifest, contents, others, ours)
        stale = in_force.stale(plan, values, self.host)
        named = {*(plan["restart"] if different or resumed else started), *stale}
        restart = [name for name in service_control.names(plan) if name in named]
        is_unread = in_force.is_unread(plan, values, self.host)
        if by_hand and not resumed:
            in_the_way = self._in_the_way(way, {**plan, "restart": restart}, removes=manifest["kind"] == "origin")
            if in_the_way:
                raise StateError(
                    f"generation {generation} cannot go back: {'; '.join(in_the_way)}. Nothing was touched"
                )
        result: Restored = {
            **nothing_to_restore(reason),
            "changed": bool(different or restart or is_unread) or resumed,
            "generation": generation,
            "files": [
                {"path": state["path"], "what": what, "removed": state["kind"] == "absent"} for state, what in different
            ],
            "started": started,
            "stale": stale,
            "missing": way.missing,
            "left": way.left,
            "run_id": run_id,
            "at": self.host.unix_time(),
        }
        if check:
            return result
        if result["changed"]:
            self._begin(result, plan, resumed)
            self._put_files_back(different, way.contents, result)
            restarted = service_control.restart({**plan, "restart": restart}, self.host, insist=False)
            result["services"], result["downtime_s"] = restarted["services"], restarted["downtime_s"]
            result["error"] = restarted["error"]
            result["at"] = self.host.unix_time()
        left = [*filter(None, [result["error"]]), *way.lost]
        if way.missing:
            left += in_force.elsewhere(plan, values, self.host)
        result["error"] = "; ".join(left) or None
        self._end(result)
        return result

    def _in_the_way(self, way: take_back.WayBack, plan: ServicePlan, removes: bool) -> list[str]:
        """Why going back would stop half way; whoever takes all away goes on without what is lost."""
        obstacles = service_control.obstacles(plan, self.host, gone_is_fine=removes)
        return [*(() if removes else way.lost), *way.unwritable(), *obstacles]

    def _begin(self, result: Restored, plan: ServicePlan, resumed: bool) -> None:
        """From here on a restore that is cut off is taken up again, services included.

        All of this may fail on a full disk; the files may still go back.
        """
        with contextlib.suppress(StateError):
            if not resumed:
                about = {name: result[name] for name in ("generation", "reason", "run_id")}
                write_json(self.paths.restoring, {**about, "since": result["at"], "found": plan.get("found")})
            if read_json(self.paths.lease) is None:
                restore_timer.arm(self.paths, self.host)

    def _put_files_back(
        self, different: Iterable[tuple[FileState, object]], contents: Mapping[str, bytes], result: Restored
    ) -> None:
        """StateError where one cannot be put back; the restore timer goes on."""
        problems = _put_back(different, contents)
        if problems:
            result["error"] = f"generation {result['generation']} is not back yet: {'; '.join(problems)}"
            self._record(result)
            raise StateError(f"{result['error']}; the host tries again by itself, see: gpu-memory status")

    def _end(self, result: Restored) -> None:
        self._record(result)
        remove_file(self.paths.restoring)
        let_go(self.stored)
        self._record(result)  # once more: on a full disk, what was just removed makes room for it

    def _our_values(
        self,
        manifest: Manifest,
        contents: Mapping[str, bytes],
        others: Iterable[Manifest],
        ours: Mapping[str, KeysOfFile],
    ) -> dict[str, in_force.Values]:
        """By service, what this collection has set that is not what a generation goes back to."""
        copies = []
        for other in others:
            with contextlib.suppress(StateError):
                copies.append((other, self.stored.copies_of(other)))
        kept = in_force.values_of([(manifest, contents)], manifest["services"], ours)
        found = in_force.values_of(copies, manifest["services"], ours)
        return {
            service: {name: values - kept[service].get(name, set()) for name, values in by_name.items()}
            for service, by_name in found.items()
        }

    def origin(self) -> tuple[Manifest, dict[str, bytes]] | None:
        """A generation of every file as it was before the first run that changed it, and its contents; None without.

        Its services restart where one of their files differs.
        """
        manifests = map(self.stored.manifest, self.stored.ids())
        kept = [manifest for manifest in manifests if manifest["kind"] == "kept"]
        if not kept:
            return None
        files: dict[str, FileState] = {}
        contents: dict[str, bytes] = {}
        for manifest in kept:
            new = [state for state in manifest["files"] if state["path"] not in files]
            contents.update(self.stored.copies_of({**manifest, "files": new}))
            files.update((state["path"], state) for state in new)
        env = take_back.keys_of(kept)
        services = kept[-1]["services"]
        origin: Manifest = {
            "id": self.stored.next_id(),
            "run_id": None,
            "holder": "remove",
            "kind": "origin",
            "files": list(files.values()),
            "env": env,
            "services": services,
        }
        found = self._found_now(services, kept[0]["services"].get("found") or {})
        ollama = services.get("ollama")
        drop_ins = f"{ollama['unit']}.d" if ollama else None
        way = take_back.way_back(origin, contents, take_back.keys_of([*self.stored.readable(), origin]))
        changed = [state["path"] for state in way.states if file_state.different(state)]
        concerned = {
            "ollama": any(os.path.basename(os.path.dirname(path)) == drop_ins for path in changed),
            "backend": any(path in way.env_files for path in changed),
        }
        restart = [name for name in service_control.names(services) if concerned[name]]
        return {**origin, "services": {**services, "restart": restart, "found": found}}, contents

    def _record(self, result: Restored) -> None:
        with contextlib.suppress(StateError):  # a full disk; the result is told to whoever asked, and to the journal
            write_json(self.paths.restored, result)


def let_go(stored: StoredGenerations) -> None:
    """End what a run, or a restore, holds the host for."""
    remove_file(stored.paths.lease)
    restore_timer.disarm(stored.paths, stored.host)
    stored.prune()


def _put_back(different: Iterable[tuple[FileState, object]], contents: Mapping[str, bytes]) -> list[str]:
    """Put every path back that can be; what could not, and why."""
    problems = []
    for state, _unused in different:
        try:
            file_state.put_back(state, contents.get(state.get("sha256", ""), b""))
            left = file_state.different(state)
        except OSError as problem:
            left = [problem.strerror or str(problem)]
        if left:
            problems.append(f"{state['path']}: {', '.join(left)}")
    return problems


def nothing_to_restore(reason: str) -> Restored:
    return {
        "changed": False,
        "generation": None,
        "files": [],
        "started": [],
        "stale": [],
        "missing": [],
        "left": [],
        "services": {},
        "downtime_s": 0.0,
        "error": None,
        "reason": reason,
    }
