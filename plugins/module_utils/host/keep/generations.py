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
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    file_state,
    lease_holding,
    leases,
    own_files,
    restore_timer,
    service_control,
    tries,
    what_is_ours,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generation_store import GenerationStore
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.going_back import (
    GoingBack,
    let_go,
    nothing_to_restore,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError, begun
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    Busy,
    locked,
    refuse_while_restoring,
    remove_kept,
    write_json,
    write_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import paths_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host, LinuxHost

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        About,
        ChangingFile,
        FileState,
        Held,
        KeysOfFile,
        Manifest,
        Pointers,
        Proof,
        Removed,
        StoredLease,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Calibration
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
        Restored,
        ServicePlan,
    )

CALIBRATIONS = 50  # kept at most


class Generations:
    """What is kept on one host, and every change of it. Each method raises StateError with cause and cure."""

    def __init__(self, paths: Paths | None = None, host: Host | None = None, wait_s: float = 10) -> None:
        self.paths = paths or Paths()
        self.host = host or LinuxHost()
        self.stored = GenerationStore(self.paths, self.host)
        self.back = GoingBack(self.stored)
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
            lease = lease_holding.refuse_others(self.paths, self.host, run_id)
            manifest = self.stored.manifest(lease["generation"]) if lease else None
            kept = list(manifest["files"]) if manifest else []
            known = {state["path"] for state in kept}
            states, copies = _read_as_expected(file for file in files if file["path"] not in known)
            if check:
                return {"changed": bool(states or services["restart"] and not lease), "run_id": run_id}
            generation = lease["generation"] if lease else self.stored.next_id()
            restarts = set(services["restart"]) | set(manifest["services"]["restart"] if manifest else ())
            found = manifest["services"].get("found") if manifest else service_control.states(services, self.host)
            restart = [name for name in service_control.names(services) if name in restarts]
            plan: ServicePlan = {**services, "restart": restart, "found": found}
            try:
                if states or not lease:
                    env = {**(manifest.get("env", {}) if manifest else {}), **_env_of(files)}
                    about: About = {"run_id": run_id, "holder": holder, "kind": "kept", "env": env}
                    self.stored.save(generation, about, [*kept, *states], copies, plan)
                if not lease:
                    own_files.forget_jobs(self.paths)
                    own_files.install(self.paths, tool)
                    own_files.install_again(self.paths, tool)
                    self.back.arm(plan)
                lease = self._take_lease(run_id, holder, generation, restore_after_s)
            except StateError:
                if not manifest:
                    self.stored.forget_second()
                    restore_timer.disarm(self.paths, self.host)
                raise
            until = leases.described(lease, self.host)["until"]
            return {
                "changed": bool(states) or not manifest,
                "run_id": run_id,
                "generation": generation,
                "until": until,
            }

    def renew_tool(self, tool: bytes, check: bool = False) -> Held:
        """Have this host tool in the place of another one. Returns {changed}."""
        with self._locked(check):
            lease_holding.refuse_others(self.paths, self.host, None)
            changed = own_files.tool(self.paths) != tool
            if changed and not check:
                own_files.install(self.paths, tool)
        return {"changed": changed}

    def renew(self, run_id: str) -> Held:
        """Put the restore off by as long as the lease was taken for. Returns {changed, generation, until}."""
        lease = lease_holding.renew(self.paths, self.host, run_id, self.wait_s)
        until = leases.described(lease, self.host)["until"]
        return {"changed": False, "generation": lease["generation"], "until": until}

    def prove(self, run_id: str, proof: Proof, check: bool = False) -> Held:
        """Keep the present state as proven, with its proof; let go of the host. Returns {changed, generation}.

        The proven generation has every file of the one before it, too, so that it is the whole state.
        """
        if check:
            return {"changed": True}
        with self._locked():
            kept = self.stored.manifest(self._own_lease(run_id)["generation"])
            generation = self.stored.pointers().get("proven", "")
            last = next((one for one in self.stored.readable() if one["id"] == generation), None)
            states, copies = _read_present([*(paths_of(last) if last else []), *paths_of(kept)])
            if last is None or last["files"] != states:
                generation = self.stored.next_id()
                found = service_control.states(kept["services"], self.host)
                restart = service_control.names(kept["services"])
                plan: ServicePlan = {**kept["services"], "restart": restart, "found": found}
                env = what_is_ours.keys_of([*([last] if last else []), kept])
                about: About = {"run_id": run_id, "holder": kept["holder"], "kind": "proven", "env": env}
                self.stored.save(generation, about, states, copies, plan)
            # What the proven load measured outlives its proof, for whoever plans the same again.
            record = proof.get("record")
            measured = (record.get("calibration") if record else None) or []
            calibration = _newest(self.stored.pointers().get("calibration") or [], measured)
            proven = cast("Proof", {**proof, "at": self.host.unix_time(), "clock": self.host.wall()._asdict()})
            self._finish(kept, {"proven": generation, "proof": proven, "calibration": calibration})
            return {"changed": True, "generation": generation}

    def release(self, run_id: str, check: bool = False) -> Held:
        """Let go of the host as it is now, without a proof. Returns {changed, generation}."""
        if check:
            return {"changed": True}
        with self._locked():
            kept = self.stored.manifest(self._own_lease(run_id)["generation"])
            self._finish(kept, {})
            return {"changed": True, "generation": kept["id"]}

    def end_run(self, reason: str) -> Restored | None:
        """End the run that holds the host: what it has written goes back, for nobody has proven it.

        None where no run does, where a restore has begun already, and where what is kept says nothing to go back to.
        """
        try:
            return self.abort(reason) if not self.back.begun() and leases.stored(self.paths) else None
        except (StateError, OSError, KeyError):
            if self.back.begun():  # by now: the timer goes on
                raise
        return None

    def drop(self) -> list[str]:
        """Let go of the host, whoever holds it and whatever is damaged; for an operator who has mended it by hand.

        A restore that the timer has started is ended; nobody waits for another command that does not end. Returns what
        of a restore that was not over is not in place.
        """
        restore_timer.stop(self.host)
        try:
            with locked(self.paths, self.wait_s):
                return self._drop()
        except Busy:
            return self._drop()

    def _drop(self) -> list[str]:
        left: list[str] = []
        with contextlib.suppress(StateError, OSError, KeyError):
            restoring = begun(self.paths)
            if restoring:
                services = self.stored.manifest(restoring["generation"])["services"]
                plan: ServicePlan = {**services, "found": restoring.get("found")}
                left = service_control.out_of_place(plan, self.host, tries.of(self.paths)["old"])
        remove_kept(self.paths, self.paths.restoring)
        let_go(self.stored)
        return left

    # Going back.

    def restore(
        self, *, run_id: str | None = None, generation: str | None = None, reason: str, check: bool = False
    ) -> Restored:
        """Put back what `run_id` has kept; or, where nobody holds the host, `previous`, `proven` or a number.

        The latter leaves stopped what is stopped now.

        Returns {changed, generation, files: [{path, what, removed}], started, stale, missing, services, error, reason,
        at, run_id}; `error` if the files are back and a service is not, or what is not back; `by_itself` if the restore
        timer was first. If a file cannot be put back: StateError, and the restore timer goes on. By hand, StateError
        before anything is touched where something is in the way.
        """
        with self._locked(check):
            lease = leases.stored(self.paths)
            if run_id is None:
                lease_holding.refuse_others(self.paths, self.host, None)
                return self.back.roll_back(self.stored.id_of(generation or "previous"), reason, check)
            if lease is None and check:
                return nothing_to_restore(reason)  # check mode has kept nothing either
            restored = leases.last_restore(self.paths)
            if lease is None and restored and restored["run_id"] == run_id:
                # The restore timer was first. What this run has written since goes back as well, unless the host is
                # another run's by now.
                if restored["generation"] == self.stored.newest_kept():
                    what = str(restored["generation"]), restored["reason"], run_id
                    if self.back.restore(*what, check=True)["changed"]:
                        return {**self.back.restore(*what, check), "by_itself": True}
                return {**restored, "changed": False, "by_itself": True}
            lease = lease_holding.own(self.paths, self.host, run_id)
            return self.back.restore(lease["generation"], reason, run_id, check)

    def abort(self, reason: str) -> Restored:
        """Put back what the present holder of the lease has kept, whoever it is; go on with a restore at once."""
        with self._locked():
            lease = leases.stored(self.paths)
            if lease is None:
                return self._go_on() or nothing_to_restore(reason)
            return self.back.restore(lease["generation"], reason, lease["run_id"])

    def restore_if_expired(self) -> Restored | None:
        """What the restore timer does: put back what a run has kept that is not heard of any more; else None."""
        with self._locked():
            lease = leases.stored(self.paths)
            if tries.wait(self.paths, self.host):
                return None
            if lease is None:
                result = self._go_on()
                if result is None:
                    restore_timer.disarm(self.paths, self.host)
                return result
            now = self.host.boot_time()
            if leases.left_s(lease, now) > 0:
                return None
            own_files.forget_jobs(self.paths)  # whoever waited for one is not there any more
            return self.back.restore(lease["generation"], leases.end_of(lease, now), lease["run_id"])

    def _go_on(self) -> Restored | None:
        """Take up a restore that is not over, if there is one."""
        restoring = begun(self.paths)
        if restoring is None:
            return None
        of = restoring["generation"], restoring["reason"], restoring["run_id"]
        return self.back.restore(*of, found=restoring.get("found"))  # none of an older release

    def remove(self, check: bool = False) -> Removed:
        """Put every file back to before this collection first changed it, then take away all that is kept here.

        Of an env file only this collection's keys go back, and a drop-in that somebody else has written since stays.
        Returns what `restore` returns, and the paths that were `removed`, and `left` to whom has written them. The
        files go back as a generation of their own, so that this, too, is carried on if it is cut off; if a service does
        not come back, or a file, `error` says so and what is kept stays. It also names what is left of us elsewhere.
        """
        result = nothing_to_restore("this collection is taken away")
        removed = [path for path in own_files.present(self.paths) if os.path.lexists(path)]
        if not removed:
            return {**result, "removed": [], "error": "; ".join(unit_files.strays(self.paths.units)) or None}
        with self._locked(check):
            lease_holding.refuse_others(self.paths, self.host, None)
            origin = self.back.origin()
            if origin:
                manifest, contents = origin
                if not check:
                    self.stored.save(manifest["id"], manifest, manifest["files"], contents, manifest["services"])
                result = self.back.put_in_place(manifest, contents, result["reason"], None, check, by_hand=True)
            if not check and not result["error"]:
                own_files.remove(self.paths, self.host, [*removed, self.paths.root, self.paths.lock])
            removed = [path for path in removed if check or not os.path.lexists(path)]
            known = [file["path"] for file in result["files"]] if check else []
            problems = unit_files.strays(self.paths.units, known)
            if result["error"]:
                until = f"what is kept stays until that is mended; if it never can be, delete {self.paths.root}"
                problems = [result["error"], until, *problems]
            return {
                **result,
                "removed": removed,
                "changed": True,
                "error": "; ".join(problems) or None,
            }

    # How it is done.

    @contextlib.contextmanager
    def _locked(self, check: bool = False) -> Iterator[None]:
        """The lock; check mode takes none, as it writes nothing. A run that was cut off while it ended is ended."""
        if check:
            yield
            return
        with locked(self.paths, self.wait_s):
            lease = leases.stored(self.paths)
            if lease is not None and (leases.is_finished(lease, self.paths) or self._has_changed_nothing(lease)):
                let_go(self.stored)
            yield

    def _has_changed_nothing(self, lease: StoredLease) -> bool:
        """Whether a run was cut off before it had its lease, or has lost it before it wrote."""
        with contextlib.suppress(StateError):
            files = self.stored.manifest(lease["generation"])["files"]
            return leases.is_lost(lease) and not any(map(file_state.different, files))
        return False

    def _take_lease(self, run_id: str, holder: str, generation: str, restore_after_s: float) -> StoredLease:
        lease = lease_holding.new(
            self.host, run_id=run_id, holder=holder, generation=generation, restore_after_s=restore_after_s
        )
        write_kept(self.paths, self.paths.lease, lease)
        return lease

    def _own_lease(self, run_id: str) -> StoredLease:
        refuse_while_restoring(self.paths)
        lease = lease_holding.own(self.paths, self.host, run_id)
        self.stored.make_whole()
        return lease

    def _finish(self, kept: Manifest, pointers: Pointers) -> None:
        """End the run that holds the host. What it has kept is `previous`, if it has changed anything."""
        changed_host = any(file_state.different(state) for state in kept["files"])
        previous = {"previous": kept["id"]} if changed_host else {}
        write_json(self.paths.pointers, {**self.stored.pointers(), **previous, **pointers, "finished": kept["id"]})
        let_go(self.stored)


def _env_of(files: Iterable[ChangingFile]) -> dict[str, KeysOfFile]:
    """By the path that an env file's name leads to: which keys in it are this collection's, and who reads it."""
    return {file_state.link_chain(file["path"])[-1]: env for file in files if (env := file.get("env"))}


def _newest(old: Iterable[Calibration], new: list[Calibration]) -> list[Calibration]:
    """Of what loads have measured the newest figure for each key, and of those the newest `CALIBRATIONS`."""
    keys = [entry["key"] for entry in new]
    return [*(entry for entry in old if entry["key"] not in keys), *new][-CALIBRATIONS:]


def _read_as_expected(files: Iterable[ChangingFile]) -> tuple[list[FileState], dict[str, bytes]]:
    """The states of files and of the links to them, and their contents by SHA-256; StateError if not as read."""
    states: dict[str, FileState] = {}
    copies: dict[str, bytes] = {}
    problems = []
    for file in files:
        try:
            chain = file_state.link_chain(file["path"])
            found, content = _read_present(chain)
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


def _read_present(paths: Iterable[str]) -> tuple[list[FileState], dict[str, bytes]]:
    states, copies = [], {}
    for path in dict.fromkeys(paths):
        state, content = file_state.read(path)
        states.append(state)
        if state["kind"] == "file":
            copies[state["sha256"]] = content
    return states, copies
