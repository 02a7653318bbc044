# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting a generation back: its files, then the services that they concern. What is cut off is carried on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_states
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    file_state,
    in_force,
    leases,
    restore_timer,
    service_control,
    take_back,
    tries,
    what_is_ours,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generation_store import GenerationStore
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError, begun
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    remove_file,
    remove_kept,
    write_json,
    write_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import paths_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import Clock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        FileState,
        KeysOfFile,
        Manifest,
        Restoring,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
        FoundService,
        Restored,
        ServicePlan,
    )

FIRST_PAUSE_S = 10  # after a try of a restore that has failed
RESTORE_S = 300  # what a restore may take beside its services


class GoingBack:
    """Each method raises StateError with cause and cure. Whoever calls has the lock."""

    def __init__(self, stored: GenerationStore) -> None:
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
        cut_off = self.begun()
        found = cut_off.get("found") if cut_off and cut_off["generation"] == generation else None
        if found:
            return self.restore(generation, reason, None, check, found)
        found = self._found_now(self.stored.manifest(generation)["services"])
        result = self.restore(generation, reason, None, check, found, by_hand=True)
        known = [path for manifest in self.stored.readable() for path in paths_of(manifest)]
        problems = [*filter(None, [result["error"]]), *unit_files.strays(self.paths.units, known)]
        return {**result, "error": "; ".join(problems) or None}

    def _found_now(
        self, services: ServicePlan, before: Mapping[str, FoundService | None] | None = None
    ) -> dict[str, FoundService | None]:
        """How services are left by whoever goes by what runs now: what is stopped stays stopped.

        What has failed, does not come up or does not answer may do so under our settings: there `before` counts, how a
        generation has found them.
        """
        before = before or services.get("found") or {}
        now = service_control.states(services, self.host)
        return {
            name: before.get(name) if unit_states.is_in_trouble(one["active_state"]) or one.get("unhealthy") else one
            for name, one in now.items()
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
        ours = what_is_ours.keys_of([*others, manifest])
        way = take_back.way_back(manifest, contents, [*others, manifest])
        compared = [(state, file_state.different(state)) for state in way.states]
        different = [(state, what) for state, what in compared if what]
        restoring = self.begun()
        resumed = restoring is not None and restoring["generation"] == generation
        plan = manifest["services"]
        started = service_control.started_since(plan, self.host)  # since, be it without any change of a file
        values = self._our_values(manifest, contents, others, ours)
        stale = in_force.stale(plan, values, self.host)
        was_tried = bool(restoring and restoring.get("error")) and not different
        concerned = self._concerned(plan, bool(different) or resumed, was_tried, started)
        restart = [name for name in service_control.names(plan) if name in {*concerned, *stale}]
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
        _tidy(way.states)
        if result["changed"]:
            about = self._begin(result, plan, resumed)
            self._put_files_back(different, way.contents, result)
            self._restart(result, plan, restart, values, about)
        waits = result["error"] is not None
        left = [*filter(None, [result["error"]]), *way.lost]
        if way.missing:
            left += in_force.elsewhere(plan, values, self.host)
        result["error"] = "; ".join(left) or None
        (self._record if waits else self._end)(result)
        return result

    def _concerned(self, plan: ServicePlan, acts: bool, was_tried: bool, started: list[str]) -> list[str]:
        """The services that restart; where all have been restarted once, those that are not in place."""
        if was_tried:
            return service_control.out_of_place(plan, self.host, tries.of(self.paths)["old"])
        return plan["restart"] if acts else started

    def begun(self) -> Restoring | None:
        """The restore that is not over; what is damaged is for nobody to go on with."""
        with contextlib.suppress(StateError):
            return begun(self.paths)
        return None

    def _still_ours(self, plan: ServicePlan, values: Mapping[str, in_force.Values]) -> str | None:
        """What runs, or systemd has in memory, is what was kept; or why it is not."""
        stale = in_force.stale(plan, values, self.host)
        if stale:
            return f"{' and '.join(stale)} still runs with what the apply has set"
        if in_force.is_unread(plan, values, self.host):
            return "systemd still has in memory what the apply has set; see: systemctl daemon-reload"
        return None

    def _in_the_way(self, way: take_back.WayBack, plan: ServicePlan, removes: bool) -> list[str]:
        """Why going back would stop half way; whoever takes all away goes on without what is lost."""
        obstacles = service_control.obstacles(plan, self.host, gone_is_fine=removes)
        return [*(() if removes else way.lost), *way.unwritable(), *obstacles]

    def _begin(self, result: Restored, plan: ServicePlan, resumed: bool) -> Restoring:
        """From here on a restore that is cut off is taken up again, services included.

        All of this may fail on a full disk; the files may still go back.
        """
        about: Restoring = {
            "generation": result["generation"] or "",
            "reason": result["reason"],
            "run_id": result["run_id"],
            "since": result["at"],
            "found": plan.get("found"),
        }
        if resumed:
            about["since"] = (self.begun() or about)["since"]
        with contextlib.suppress(StateError):
            if not resumed:
                write_kept(self.paths, self.paths.restoring, about)
            if leases.stored(self.paths) is None:
                self.arm(plan)
        return about

    def arm(self, plan: ServicePlan) -> None:
        """Have the timer look; a restore that it starts may take as long as the services of a plan can."""
        restore_timer.arm(self.paths, self.host, RESTORE_S + service_control.longest_s(plan))

    def _restart(
        self,
        result: Restored,
        plan: ServicePlan,
        restart: list[str],
        values: Mapping[str, in_force.Values],
        about: Restoring,
    ) -> None:
        """Restart those, and bring back what went along with the others; what is not in place then is tried again."""
        is_written = self.begun() is not None
        these: ServicePlan = {**plan, "restart": restart}
        whole: ServicePlan = {**plan, "restart": [*dict.fromkeys([*plan["restart"], *restart])]}
        old = service_control.processes(these, self.host)
        restarted = service_control.restart(whole, self.host, insist=False, only=restart)
        result["services"], result["downtime_s"] = restarted["services"], restarted["downtime_s"]
        result["error"] = restarted["error"] or self._still_ours(plan, values)
        result["at"] = self.host.unix_time()
        is_let_go = is_written and self.begun() is None  # by somebody who did not wait for us
        if result["error"] and not is_let_go:
            now = service_control.processes(these, self.host)
            self._go_on_trying(result, about, {name: sorted(old[name] & now[name]) for name in old if name in now})

    def _go_on_trying(self, result: Restored, about: Restoring, old: dict[str, list[int]]) -> None:
        """The files are back, and a service is not: the timer tries that again, until it is or somebody lets go.

        `old`: the processes that were to go, and have not. Where it cannot be written, the lease stays for the same.
        """
        result["error"] = (
            f"{result['error']}. What is not in place is tried again by itself, with growing pauses: mend that and "
            "wait, or let go of the host as it is with gpu-memory release"
        )
        add_try(self.paths, self.host, old)
        with contextlib.suppress(StateError):
            write_kept(self.paths, self.paths.restoring, {**about, "error": result["error"]})
            remove_kept(self.paths, self.paths.lease)  # its run is over

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
        remove_kept(self.paths, self.paths.restoring)
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

        Its services restart where one of their files differs. The one that is not over yet is gone on with.
        """
        cut_off = self.begun()
        begun_with = next(
            (one for one in self.stored.readable() if cut_off and one["id"] == cut_off["generation"]), None
        )
        if cut_off and begun_with and begun_with["kind"] == "origin":
            as_begun: ServicePlan = {**begun_with["services"], "found": cut_off.get("found")}
            return {**begun_with, "services": as_begun}, self.stored.copies_of(begun_with)
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
        env = what_is_ours.keys_of(kept)
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
        way = take_back.way_back(origin, contents, [*self.stored.readable(), origin])
        changed = [state["path"] for state in way.states if file_state.different(state)]
        concerned = {
            "ollama": ollama is not None and any(what_is_ours.is_drop_in_of(path, ollama["unit"]) for path in changed),
            "backend": any(path in way.env_files for path in changed),
        }
        restart = [name for name in service_control.names(services) if concerned[name]]
        return {**origin, "services": {**services, "restart": restart, "found": found}}, contents

    def _record(self, result: Restored) -> None:
        with contextlib.suppress(StateError):  # a full disk; the result is told to whoever asked, and to the journal
            write_json(self.paths.restored, result)


def let_go(stored: GenerationStore) -> None:
    """End what a run, or a restore, holds the host for.

    What was kept a second time goes first: alone it would mean that the first was lost.
    """
    stored.make_whole()
    stored.forget_second()
    forget_tries(stored.paths)
    remove_file(stored.paths.lease)
    restore_timer.disarm(stored.paths, stored.host)
    stored.prune()


def _tidy(states: Iterable[FileState]) -> None:
    for state in states:
        atomic_files.tidy(state["path"])


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


def pause_s(count: int) -> int:
    """How long nothing is done after so many tries: twice as long each time."""
    return int(min(FIRST_PAUSE_S * 2 ** min(count - 1, 10), tries.LONGEST_PAUSE_S))


def add_try(paths: Paths, clock: Clock, old: dict[str, list[int]]) -> int:
    """One more has failed; how many s nothing is done now."""
    count = tries.of(paths)["count"] + 1
    pause = pause_s(count)
    with contextlib.suppress(StateError):
        write_json(paths.tries, {"count": count, "again_s": clock.boot_time().seconds + pause, "old": old}, mode=0o644)
    return pause


def forget_tries(paths: Paths) -> None:
    with contextlib.suppress(StateError):
        remove_file(paths.tries)
