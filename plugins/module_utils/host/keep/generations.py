# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generations: kept states of a host, from before a change and from after a proof, and going back to them.

On disk, under `Paths.root` (root alone may enter; copies of env files hold secrets):

- `generations/0007/manifest.json` and, beside it, the copies, each named by the SHA-256 of its content;
- `lease.json`: who changes this host now, and which generation comes back if nothing more is heard of them;
- `pointers.json`: `previous`, `proven` and its proof, and `finished`, the kept generation of the last finished run;
- `restoring.json`, `restored.json`: a restore in progress, and the last one.

Every change of state is one atomic write: an apply has begun once its lease is written, and has ended once `finished`
is the generation that the lease holds. Whatever is cut off in between is taken up by the restore timer.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_states, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    file_state,
    in_force,
    leases,
    restore_timer,
    service_control,
    take_back,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    Paths,
    StateError,
    locked,
    make_directory,
    read_json,
    refuse_while_restoring,
    remove_file,
    sync_directory,
    write_file,
    write_json,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host, LinuxHost

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.kept import (
        About,
        ChangingFile,
        FileState,
        Generation,
        Held,
        KeysOfFile,
        Manifest,
        Pointers,
        Proof,
        Removed,
        State,
        StoredLease,
    )
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.record import Calibration
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.services import (
        FoundService,
        Restored,
        ServicePlan,
    )

LATEST = 5  # generations kept besides the previous, the proven, the held one, and the first of each file
CALIBRATIONS = 50  # kept at most
GENERATION = re.compile(r"[0-9]{4,}\Z")


class Generations:
    """What is kept on one host, and every change of it. Each method raises StateError with cause and cure."""

    def __init__(self, paths: Paths | None = None, host: Host | None = None, wait_s: float = 10) -> None:
        self.paths = paths or Paths()
        self.host = host or LinuxHost()
        self.wait_s = wait_s  # for another command on this host to end

    # What an apply does, in its order.

    def keep(
        self,
        *,
        run_id: str,
        holder: str,
        files: Iterable[ChangingFile],
        services: ServicePlan,
        restore_after_s: float,
        tool: bytes,
        check: bool = False,
    ) -> Held:
        """Keep `files`, take the lease and arm the restore timer.

        `files`: [{path, sha256 as it was read, None for absent, env: {keys, readers} for an env file of which only
        these keys are about to change}]. When this returns, the host comes back by itself. A second keep of the same
        run adds the files that it does not have yet. Returns {changed, run_id, generation, until}; in check mode
        {changed, run_id}, as nothing is kept: changed if something is to be written or restarted afterwards.
        """
        files = list(files)
        with self._locked(check):
            service_control.check(services)
            refuse_while_restoring(self.paths)
            lease = leases.refuse_others(self.paths, self.host, run_id)
            manifest = self._manifest(lease["generation"]) if lease else None
            kept = list(manifest["files"]) if manifest else []
            known = {state["path"] for state in kept}
            states, copies = self._read_as_expected(file for file in files if file["path"] not in known)
            if check:
                return {"changed": bool(states or services["restart"] and not lease), "run_id": run_id}
            generation = lease["generation"] if lease else self._next_id()
            restarts = set(services["restart"]) | set(manifest["services"]["restart"] if manifest else ())
            if states or not lease:
                found = manifest["services"].get("found") if manifest else service_control.states(services, self.host)
                restart = [name for name in service_control.names(services) if name in restarts]
                plan: ServicePlan = {**services, "restart": restart, "found": found}
                env = {**(manifest.get("env", {}) if manifest else {}), **_env_of(files)}
                about: About = {"run_id": run_id, "holder": holder, "kind": "kept", "env": env}
                self._save(generation, about, [*kept, *states], copies, plan)
            if not lease:
                self._install(tool)
                restore_timer.arm(self.paths, self.host, restore_timer.period_s(restore_after_s))
            try:
                lease = leases.new(
                    self.host,
                    run_id=run_id,
                    holder=holder,
                    generation=generation,
                    restore_after_s=restore_after_s,
                )
                write_json(self.paths.lease, lease)
            except StateError:
                if not manifest:
                    restore_timer.disarm(self.paths, self.host)
                raise
            until = leases.described(lease, self.host)["until"]
            return {
                "changed": bool(states) or not manifest,
                "run_id": run_id,
                "generation": generation,
                "until": until,
            }

    def renew(self, run_id: str) -> Held:
        """Put the restore off by as long as the lease was taken for. Returns {changed, generation, until}."""
        lease = leases.renew(self.paths, self.host, run_id, self.wait_s)
        until = leases.described(lease, self.host)["until"]
        return {"changed": False, "generation": lease["generation"], "until": until}

    def prove(self, run_id: str, proof: Proof, check: bool = False) -> Held:
        """Keep the present state as proven, with its proof; let go of the host. Returns {changed, generation}.

        The proven generation has every file of the one before it, too, so that it is the whole state.
        """
        if check:
            return {"changed": True}
        with self._locked():
            kept = self._manifest(self._own_lease(run_id)["generation"])
            generation = self._pointers().get("proven", "")
            last = self._manifest(generation) if generation else None
            states, copies = self._read_present([*(_paths(last) if last else []), *_paths(kept)])
            if last is None or last["files"] != states:
                generation = self._next_id()
                found = service_control.states(kept["services"], self.host)
                restart = service_control.names(kept["services"])
                plan: ServicePlan = {**kept["services"], "restart": restart, "found": found}
                env = take_back.keys_of([*([last] if last else []), kept])
                about: About = {"run_id": run_id, "holder": kept["holder"], "kind": "proven", "env": env}
                self._save(generation, about, states, copies, plan)
            # What the proven load measured outlives its proof, for whoever plans the same again.
            record = proof.get("record")
            measured = (record.get("calibration") if record else None) or []
            calibration = _newest(self._pointers().get("calibration") or [], measured)
            proven: Proof = {**proof, "at": self.host.unix_time()}
            self._finish(kept, {"proven": generation, "proof": proven, "calibration": calibration})
            return {"changed": True, "generation": generation}

    def release(self, run_id: str, check: bool = False) -> Held:
        """Let go of the host as it is now, without a proof. Returns {changed, generation}."""
        if check:
            return {"changed": True}
        with self._locked():
            kept = self._manifest(self._own_lease(run_id)["generation"])
            self._finish(kept, {})
            return {"changed": True, "generation": kept["id"]}

    def drop(self) -> None:
        """Let go of the host, whoever holds it and whatever is damaged; for an operator who has mended it by hand."""
        with locked(self.paths, self.wait_s):
            remove_file(self.paths.restoring)
            self._let_go()

    # Going back.

    def restore(
        self, *, run_id: str | None = None, generation: str | None = None, reason: str, check: bool = False
    ) -> Restored:
        """Put back what `run_id` has kept or, where nobody holds the host, `previous`, `proven` or a number.

        The latter leaves stopped what is stopped now.

        Returns {changed, generation, files: [{path, what, removed}], started, stale, missing, services, error, reason,
        at, run_id}; `error` if the files are back and a service is not, or what is not back; `by_itself` if the restore
        timer was first. If a file cannot be put back: StateError, and the restore timer goes on. By hand, StateError
        before anything is touched where something is in the way.
        """
        with self._locked(check):
            lease = read_json(self.paths.lease)
            if run_id is None:
                leases.refuse_others(self.paths, self.host, None)
                return self._roll_back(self._id_of(generation or "previous"), reason, check)
            if lease is None and check:
                return _nothing_to_restore(reason)  # check mode has kept nothing either
            restored: Restored | None = read_json(self.paths.restored)
            if lease is None and restored and restored["run_id"] == run_id:
                # The restore timer was first. What this run has written since goes back as well, unless the host is
                # another run's by now.
                if restored["generation"] == self._newest_kept():
                    what = str(restored["generation"]), restored["reason"], run_id
                    if self._restore(*what, check=True)["changed"]:
                        return {**self._restore(*what, check), "by_itself": True}
                return {**restored, "changed": False, "by_itself": True}
            lease = leases.own(self.paths, self.host, run_id)
            return self._restore(lease["generation"], reason, run_id, check)

    def abort(self, reason: str) -> Restored:
        """Put back what the present holder of the lease has kept, whoever it is."""
        with self._locked():
            lease = read_json(self.paths.lease)
            if lease is None:
                return _nothing_to_restore(reason)
            return self._restore(lease["generation"], reason, lease["run_id"])

    def restore_if_expired(self) -> Restored | None:
        """What the restore timer does: put back what a run has kept that is not heard of any more; else None."""
        with self._locked():
            lease = read_json(self.paths.lease)
            if lease is None:
                rollback = read_json(self.paths.restoring)
                if rollback:
                    found = rollback.get("found")  # none of an older release
                    return self._restore(rollback["generation"], rollback["reason"], rollback["run_id"], found=found)
                restore_timer.disarm(self.paths, self.host)
                return None
            now = self.host.boot_time()
            if leases.left_s(lease, now) > 0:
                return None
            reason = "the host was restarted during the apply"
            if lease["boot"] == now.boot:
                reason = f"nothing was heard of the apply for {lease['restore_after_s']:g} s"
            return self._restore(lease["generation"], reason, lease["run_id"])

    def remove(self, check: bool = False) -> Removed:
        """Put every file back to before this collection first changed it, then take away all that is kept here.

        Of an env file only this collection's keys go back, and a drop-in that somebody else has written since stays.
        Returns what `restore` returns, and the paths that were `removed`, and `left` to whom has written them. The
        files go back as a generation of their own, so that this, too, is carried on if it is cut off; if a service does
        not come back, or a file, `error` says so and what is kept stays. It also names what is left of us elsewhere.
        """
        result = _nothing_to_restore("this collection is taken away")
        removed = [path for path in self._own_paths() if os.path.lexists(path)]
        if not removed:
            return {**result, "removed": [], "left": [], "error": "; ".join(in_force.strays(self.paths.units)) or None}
        with self._locked(check):
            leases.refuse_others(self.paths, self.host, None)
            origin = self._origin()
            left: list[str] = []
            if origin:
                manifest, contents = origin
                left = manifest["left"]
                if not check:
                    self._save(manifest["id"], manifest, manifest["files"], contents, manifest["services"])
                result = self._put_in_place(manifest, contents, result["reason"], None, check, by_hand=True)
            if not check and not result["error"]:
                self._vanish([*removed, self.paths.root])
            removed = [path for path in removed if check or not os.path.lexists(path)]
            known = [file["path"] for file in result["files"]] if check else []
            problems = in_force.strays(self.paths.units, known)
            if result["error"]:
                until = f"what is kept stays until that is mended; if it never can be, delete {self.paths.root}"
                problems = [result["error"], until, *problems]
            return {
                **result,
                "removed": removed,
                "left": left,
                "changed": True,
                "error": "; ".join(problems) or None,
            }

    # What is there.

    def summary(self) -> State:
        """All that is kept, as plain data without any content of a file; for the read, the report and `list`.

        {generations: [{id, at, kind, holder, run_id, paths}], previous, proven, proof: {..., at, generation}
        | None, lease: {run_id, holder, generation, since, until, left_s, live} | None, restoring,
        last_restore, timer}.
        """
        lease = read_json(self.paths.lease)
        pointers = self._pointers()
        proof = pointers.get("proof")
        return {
            "generations": [self._about(generation) for generation in self._ids()],
            "previous": pointers.get("previous"),
            "proven": pointers.get("proven"),
            "proof": {**proof, "generation": pointers["proven"]} if proof else None,
            "calibration": pointers.get("calibration") or [],
            "lease": leases.described(lease, self.host) if lease else None,
            "restoring": read_json(self.paths.restoring),
            "last_restore": read_json(self.paths.restored),
            "timer": restore_timer.state(self.host),
            "error": None,
        }

    # How it is done.

    @contextlib.contextmanager
    def _locked(self, check: bool = False) -> Iterator[None]:
        """The lock; check mode takes none, as it writes nothing. A run that was cut off while it ended is ended."""
        if check:
            yield
            return
        with locked(self.paths, self.wait_s):
            lease = read_json(self.paths.lease)
            if lease is not None and leases.is_finished(lease, self.paths):
                self._let_go()
            yield

    def _own_lease(self, run_id: str) -> StoredLease:
        refuse_while_restoring(self.paths)
        return leases.own(self.paths, self.host, run_id)

    def _finish(self, kept: Manifest, pointers: Pointers) -> None:
        """End the run that holds the host. What it has kept is `previous`, if it has changed anything."""
        changed_host = any(file_state.different(state) for state in kept["files"])
        previous = {"previous": kept["id"]} if changed_host else {}
        write_json(self.paths.pointers, {**self._pointers(), **previous, **pointers, "finished": kept["id"]})
        self._let_go()

    def _let_go(self) -> None:
        remove_file(self.paths.lease)
        restore_timer.disarm(self.paths, self.host)
        self._prune()

    def _restore(
        self,
        generation: str,
        reason: str,
        run_id: str | None,
        check: bool = False,
        found: Mapping[str, FoundService | None] | None = None,
        by_hand: bool = False,
    ) -> Restored:
        """`found`: how the services are to be left, if not as the generation says."""
        manifest = self._manifest(generation)
        if found:
            manifest = {**manifest, "services": {**manifest["services"], "found": found}}
        return self._put_in_place(manifest, self._copies_of(manifest), reason, run_id, check, by_hand)

    def _roll_back(self, generation: str, reason: str, check: bool) -> Restored:
        """Go back by hand, perhaps long after the generation: by what runs now, unless that is being carried on."""
        begun = read_json(self.paths.restoring) or {}
        if begun.get("generation") == generation and begun.get("found"):
            return self._restore(generation, reason, None, check, begun["found"])
        found = self._found_now(self._manifest(generation)["services"])
        result = self._restore(generation, reason, None, check, found, by_hand=True)
        known = [path for manifest in self._others() for path in _paths(manifest)]
        problems = [*filter(None, [result["error"]]), *in_force.strays(self.paths.units, known)]
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

    def _put_in_place(
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
        way = self._way_back(manifest, contents)
        compared = [(state, file_state.different(state)) for state in way.states]
        different = [(state, what) for state, what in compared if what]
        resumed = read_json(self.paths.restoring) is not None
        plan = manifest["services"]
        started = service_control.started_since(plan, self.host)  # since, be it without any change of a file
        values = self._our_values(manifest, contents)
        stale = in_force.stale(plan, values, self.host)
        named = {*(plan["restart"] if different or resumed else started), *stale}
        restart = [name for name in service_control.names(plan) if name in named]
        is_unread = in_force.is_unread(plan, values, self.host)
        removes = manifest["kind"] == "origin"
        if by_hand and not resumed:
            in_the_way = [
                *(() if removes else way.lost),
                *way.unwritable(),
                *service_control.obstacles({**plan, "restart": restart}, self.host, gone_is_fine=removes),
            ]
            if in_the_way:
                raise StateError(
                    f"generation {generation} cannot go back: {'; '.join(in_the_way)}. Nothing was touched"
                )
        result: Restored = {
            "changed": bool(different or restart or is_unread) or resumed,
            "generation": generation,
            "files": [
                {"path": state["path"], "what": what, "removed": state["kind"] == "absent"} for state, what in different
            ],
            "started": started,
            "stale": stale,
            "missing": way.missing,
            "services": {},
            "downtime_s": 0.0,
            "error": None,
            "reason": reason,
            "run_id": run_id,
            "at": self.host.unix_time(),
        }
        if check:
            return result
        if result["changed"]:
            # From here on a restore that is cut off is taken up again, services included. All of this may fail on a
            # full disk; the files may still go back.
            with contextlib.suppress(StateError):
                if not resumed:
                    about = {"generation": generation, "reason": reason, "run_id": run_id, "since": result["at"]}
                    write_json(self.paths.restoring, {**about, "found": plan.get("found")})
                if read_json(self.paths.lease) is None:
                    restore_timer.arm(self.paths, self.host)
            problems = _put_back(different, way.contents)
            if problems:
                result["error"] = f"generation {generation} is not back yet: {'; '.join(problems)}"
                self._record(result)
                raise StateError(f"{result['error']}; the host tries again by itself, see: gpu-memory status")
            restarted = service_control.restart({**plan, "restart": restart}, self.host, insist=False)
            result["services"], result["downtime_s"] = restarted["services"], restarted["downtime_s"]
            result["error"] = restarted["error"]
            result["at"] = self.host.unix_time()
        left = [*filter(None, [result["error"]]), *way.lost]
        if way.missing:
            left += in_force.elsewhere(plan, values, self.host)
        result["error"] = "; ".join(left) or None
        self._record(result)
        remove_file(self.paths.restoring)
        self._let_go()
        self._record(result)  # once more: on a full disk, what was just removed makes room for it
        return result

    def _way_back(self, manifest: Manifest, contents: Mapping[str, bytes]) -> take_back.WayBack:
        return take_back.way_back(manifest, contents, take_back.keys_of([*self._others(), manifest]))

    def _our_values(self, manifest: Manifest, contents: Mapping[str, bytes]) -> dict[str, in_force.Values]:
        """By service, what this collection has set that is not what a generation goes back to."""
        ours = take_back.keys_of([*self._others(), manifest])
        copies = []
        for other in self._others():
            with contextlib.suppress(StateError):
                copies.append((other, self._copies_of(other)))
        kept = in_force.values_of([(manifest, contents)], manifest["services"], ours)
        found = in_force.values_of(copies, manifest["services"], ours)
        return {
            service: {name: values - kept[service].get(name, set()) for name, values in by_name.items()}
            for service, by_name in found.items()
        }

    def _others(self) -> Iterator[Manifest]:
        """Every generation that can be read: another one's damage is not this one's."""
        for generation in self._ids():
            with contextlib.suppress(StateError):
                yield self._manifest(generation)

    def _origin(self) -> tuple[Manifest, dict[str, bytes]] | None:
        """A generation of every file as it was before the first run that changed it, and its contents; None without.

        Its services restart where one of their files differs.
        """
        manifests = map(self._manifest, self._ids())
        kept = [manifest for manifest in manifests if manifest["kind"] == "kept"]
        if not kept:
            return None
        files: dict[str, FileState] = {}
        contents: dict[str, bytes] = {}
        for manifest in kept:
            new = [state for state in manifest["files"] if state["path"] not in files]
            contents.update(self._copies_of({**manifest, "files": new}))
            files.update((state["path"], state) for state in new)
        left = [path for path, state in files.items() if _taken_over(state) and file_state.different(state)]
        env = take_back.keys_of(kept)
        services = kept[-1]["services"]
        origin: Manifest = {
            "id": self._next_id(),
            "run_id": None,
            "holder": "remove",
            "kind": "origin",
            "files": [state for path, state in files.items() if path not in left],
            "left": left,
            "env": env,
            "services": services,
        }
        found = self._found_now(services, kept[0]["services"].get("found") or {})
        ollama = services.get("ollama")
        drop_ins = f"{ollama['unit']}.d" if ollama else None
        way = self._way_back(origin, contents)
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

    def _read_as_expected(self, files: Iterable[ChangingFile]) -> tuple[list[FileState], dict[str, bytes]]:
        """The states of files and of the links to them, and their contents by SHA-256; StateError if not as read."""
        states: dict[str, FileState] = {}
        copies: dict[str, bytes] = {}
        problems = []
        for file in files:
            try:
                chain = file_state.link_chain(file["path"])
                found, content = self._read_present(chain)
            except OSError as problem:
                problems.append(f"{file['path']} cannot be kept: {problem.strerror}")
                continue
            if found[-1].get("sha256") != file["sha256"]:
                problems.append(f"{file['path']} was changed by somebody else since it was read; run again")
            states.update((state["path"], state) for state in found)
            copies.update(content)
        if problems:
            raise StateError("; ".join(problems))
        return list(states.values()), copies

    def _read_present(self, paths: Iterable[str]) -> tuple[list[FileState], dict[str, bytes]]:
        states, copies = [], {}
        for path in dict.fromkeys(paths):
            state, content = file_state.read(path)
            states.append(state)
            if state["kind"] == "file":
                copies[state["sha256"]] = content
        return states, copies

    def _save(
        self,
        generation: str,
        about: About,
        states: list[FileState],
        copies: Mapping[str, bytes],
        services: ServicePlan,
    ) -> None:
        """Write a generation; it is one from the moment its manifest is there."""
        directory = os.path.join(self.paths.generations, generation)
        make_directory(self.paths.generations)
        make_directory(directory)
        sync_directory(self.paths.root)
        sync_directory(self.paths.generations)
        for name, content in copies.items():
            write_file(os.path.join(directory, name), content)
        write_json(
            os.path.join(directory, "manifest.json"),
            {**about, "id": generation, "at": self.host.unix_time(), "files": states, "services": services},
        )

    def _copies_of(self, manifest: Manifest) -> dict[str, bytes]:
        """A generation's contents by SHA-256; StateError before anything is touched if one is damaged."""
        contents = {}
        for state in manifest["files"]:
            if state["kind"] != "file":
                continue
            path = os.path.join(self.paths.generations, manifest["id"], state["sha256"])
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as problem:
                raise StateError(_damaged(manifest, state, problem.strerror)) from None
            if hashlib.sha256(content).hexdigest() != state["sha256"]:
                raise StateError(_damaged(manifest, state, "its content is not what was kept"))
            contents[state["sha256"]] = content
        return contents

    def _manifest(self, generation: str) -> Manifest:
        manifest = read_json(os.path.join(self.paths.generations, generation, "manifest.json"))
        if manifest is None:
            known = ", ".join(self._ids()) or "none"
            raise StateError(f"generation {generation} is not on this host; it has: {known}")
        return manifest

    def _id_of(self, name: str) -> str:
        """The number of a generation that is named by its number, or as `previous` or `proven`."""
        if GENERATION.match(name.zfill(4)):
            return name.zfill(4)
        if name not in ("previous", "proven"):
            raise StateError(f"generation = {name!r} is not known; allowed: previous, proven, or a number as in `list`")
        number = self._pointers().get(name)
        if number is None:
            strays = in_force.strays(self.paths.units)
            lost = f", or what it has kept is gone: {'; '.join(strays)}" if strays else ""
            raise StateError(f"this host has no {name} generation: no apply has ended here yet{lost}")
        return str(number)

    def _pointers(self) -> Pointers:
        pointers: Pointers | None = read_json(self.paths.pointers)
        return pointers or {}

    def _about(self, generation: str) -> Generation:
        manifest = self._manifest(generation)
        return {
            "id": manifest["id"],
            "at": manifest["at"],
            "kind": manifest["kind"],
            "holder": manifest["holder"],
            "run_id": manifest["run_id"],
            "paths": _paths(manifest),
        }

    def _directories(self) -> list[str]:
        try:
            return sorted((name for name in os.listdir(self.paths.generations) if GENERATION.match(name)), key=int)
        except FileNotFoundError:
            return []

    def _ids(self) -> list[str]:
        """Whole generations, oldest first."""
        return [
            name
            for name in self._directories()
            if os.path.exists(os.path.join(self.paths.generations, name, "manifest.json"))
        ]

    def _newest_kept(self) -> str | None:
        """The generation that the last run has kept."""
        return next((name for name in reversed(self._ids()) if self._manifest(name)["kind"] == "kept"), None)

    def _next_id(self) -> str:
        """A number that no generation has had: `finished` must never mean a later run."""
        used = [*self._directories(), self._pointers().get("finished", "0000")]
        return f"{max(int(name) for name in used) + 1:04d}"

    def _prune(self) -> None:
        """Remove what nothing needs: all but the previous, the proven, the latest, and each file's first."""
        pointers = self._pointers()
        files = {name: _paths(self._manifest(name)) for name in self._ids()}
        ids = [name for name, paths in files.items() if paths]
        firsts = {path: name for name in reversed(ids) for path in files[name]}
        needed = {*firsts.values(), *ids[-LATEST:], pointers.get("previous"), pointers.get("proven")}
        for name in self._directories():
            if name not in needed:
                shutil.rmtree(os.path.join(self.paths.generations, name), ignore_errors=True)

    def _install(self, tool: bytes) -> None:
        """The host tool, for when there is no controller; and a name for it, where /usr/local can be written."""
        make_directory(os.path.dirname(self.paths.tool))
        write_file(self.paths.tool, tool, 0o700)
        with contextlib.suppress(OSError):
            os.symlink(self.paths.tool, self.paths.command)

    def _own_paths(self) -> list[str]:
        """Everything that this collection has on a host beside the files it was asked to change."""
        link = self.paths.command
        ours = os.path.islink(link) and os.readlink(link) == self.paths.tool
        units = [os.path.join(self.paths.units, unit) for unit in (restore_timer.TIMER, restore_timer.SERVICE)]
        return [*units, *([link] if ours else []), *self.paths.volatile, self.paths.root]

    def _vanish(self, paths: Iterable[str]) -> None:
        restore_timer.disarm(self.paths, self.host)
        for path in paths:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(path)
        left = [path for path in paths if os.path.lexists(path) and not _is_empty_mount(path)]
        if left:
            raise StateError(f"{', '.join(left)} cannot be removed; see the file systems they are on, and run again")


def summary() -> State:
    """`Generations.summary` of this host; where it cannot be read, `error` says why."""
    try:
        return Generations().summary()
    except (OSError, StateError) as problem:
        return {"generations": [], "lease": None, "proof": None, "error": str(problem)}


def _is_empty_mount(path: str) -> bool:
    return os.path.ismount(path) and not os.listdir(path)


def _env_of(files: Iterable[ChangingFile]) -> dict[str, KeysOfFile]:
    """By the path that an env file's name leads to: which keys in it are this collection's, and who reads it."""
    return {file_state.link_chain(file["path"])[-1]: env for file in files if (env := file.get("env"))}


def _paths(manifest: Manifest) -> list[str]:
    return [state["path"] for state in manifest["files"]]


def _newest(old: Iterable[Calibration], new: list[Calibration]) -> list[Calibration]:
    """Of what loads have measured the newest figure for each key, and of those the newest `CALIBRATIONS`."""
    keys = [entry["key"] for entry in new]
    return [*(entry for entry in old if entry["key"] not in keys), *new][-CALIBRATIONS:]


def _taken_over(kept: FileState) -> bool:
    """Whether a file that a generation has is a drop-in which another than the role gpu_memory has written since."""
    if os.path.basename(kept["path"]) != unit_text.DROP_IN:
        return False
    try:
        content = file_state.read(kept["path"])[1]
    except OSError:
        return False
    return bool(content) and unit_text.writer_of(content.decode(errors="replace")) is not None


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


def _nothing_to_restore(reason: str) -> Restored:
    return {
        "changed": False,
        "generation": None,
        "files": [],
        "started": [],
        "stale": [],
        "missing": [],
        "services": {},
        "downtime_s": 0.0,
        "error": None,
        "reason": reason,
    }


def _damaged(manifest: Manifest, state: FileState, why: str | None) -> str:
    return (
        f"generation {manifest['id']} is damaged: the copy of {state['path']} ({why}); nothing was touched. "
        "Put the file back by hand, then on the host: gpu-memory release"
    )
