# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease: one run at a time a host, for as long as it shows that it lives. It expires by itself.

Few imports: the restore timer looks at it again and again, and whatever lasts long renews it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    Damaged,
    Paths,
    StateError,
    locked,
    read_json,
    read_kept,
    refuse_while_restoring,
    write_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import BootTime, Clock, SystemClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        Lease,
        LeaseTerms,
        StoredLease,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import Restored


RENEWALS = 4  # of a lease, in the time that it would take to expire
RETRY_S = 5  # after one that failed; the shortest lease is one of 30 s


def new(clock: Clock, *, run_id: str, holder: str, generation: str, restore_after_s: float) -> StoredLease:
    """A lease from now on. `generation` is what the host gets back when nobody renews it in `restore_after_s`."""
    lease: LeaseTerms = {
        "run_id": run_id,
        "holder": holder,
        "generation": generation,
        "since": clock.unix_time(),
        "restore_after_s": restore_after_s,
    }
    return renewed(lease, clock.boot_time())


def renewed(lease: LeaseTerms, now: BootTime) -> StoredLease:
    return {**lease, "boot": now.boot, "deadline_s": now.seconds + float(lease["restore_after_s"])}


def left_s(lease: StoredLease, now: BootTime) -> float:
    """Seconds until a lease expires; one of another boot has expired. The wall clock plays no part."""
    return max(0.0, float(lease["deadline_s"]) - now.seconds) if lease["boot"] == now.boot else 0.0


def stored(paths: Paths) -> StoredLease | None:
    """The lease of whoever holds this host. Of one that is damaged, and kept nowhere else, what the newest kept
    generation says, as expired.
    """
    try:
        lease: StoredLease | None = read_kept(paths, paths.lease)
        if lease is not None and not lease.keys() >= {"run_id", "holder", "generation", "deadline_s", "boot"}:
            raise Damaged(f"{paths.lease} is damaged (it lacks what a lease says)")
        return lease
    except Damaged:
        for name in sorted(os.listdir(paths.generations), reverse=True) if os.path.isdir(paths.generations) else ():
            with contextlib.suppress(StateError):
                kept = read_kept(paths, os.path.join(paths.generations, name, "manifest.json"))
                if kept and kept["kind"] == "kept":
                    lost: LeaseTerms = {
                        "run_id": kept["run_id"],
                        "holder": kept["holder"],
                        "generation": kept["id"],
                        "since": kept["at"],
                        "restore_after_s": 0,
                    }
                    return {**lost, "boot": "", "deadline_s": 0}
        raise


def end_of(lease: StoredLease, now: BootTime) -> str:
    """Why a lease that has expired did."""
    if not lease["boot"]:
        return "what its apply holds the host by was damaged"
    if lease["boot"] != now.boot:
        return "the host was restarted during the apply"
    return f"nothing was heard of the apply for {lease['restore_after_s']:g} s"


def is_finished(lease: StoredLease, paths: Paths) -> bool:
    """Whether its run has ended, and was cut off before it could let go."""
    with contextlib.suppress(Damaged):
        return bool(lease["generation"] == (read_json(paths.pointers) or {}).get("finished"))
    return False


def holds(paths: Paths | None = None, clock: Clock | None = None) -> bool:
    """Whether a run has this host, and lives: then nothing is due. What cannot be read is for whoever acts on it."""
    paths, clock = paths or Paths(), clock or SystemClock()
    with contextlib.suppress(StateError, OSError):
        lease = stored(paths)
        return lease is not None and left_s(lease, clock.boot_time()) > 0 and not is_finished(lease, paths)
    return False


def renew(paths: Paths, clock: Clock, run_id: str, wait_s: float = 10) -> StoredLease:
    """Put the restore off by as long as the lease of this run was taken for; the lease as it is now."""
    with locked(paths, wait_s):
        refuse_while_restoring(paths)
        lease = renewed(own(paths, clock, run_id), clock.boot_time())
        write_kept(paths, paths.lease, lease)
        return lease


class Renewal:
    """Renews the lease of a run, for what lasts long: when it is first called, and then as often as it must."""

    def __init__(self, run_id: str | None, paths: Paths | None = None, clock: Clock | None = None) -> None:
        self._run_id, self._paths, self._clock = run_id, paths or Paths(), clock or SystemClock()
        self._due = float("-inf")

    def __call__(self, at_once: bool = False) -> None:
        """StateError where the run does not hold this host any more."""
        if self._run_id and (at_once or self._clock.monotonic() >= self._due):
            self._due = self._clock.monotonic() + RETRY_S
            lease = renew(self._paths, self._clock, self._run_id)
            self._due = self._clock.monotonic() + float(lease["restore_after_s"]) / RENEWALS


def described(lease: StoredLease, clock: Clock) -> Lease:
    """A lease for people and for the planner: who, since when, until when, and whether it is live."""
    left = left_s(lease, clock.boot_time())
    return {
        "run_id": lease["run_id"],
        "holder": lease["holder"],
        "generation": lease["generation"],
        "since": utc.text(float(lease["since"])),
        "until": utc.text(clock.unix_time() + left),
        "left_s": round(left, 1),
        "live": left > 0,
    }


def own(paths: Paths, clock: Clock, run_id: str) -> StoredLease:
    """The lease of this run, also one that has expired but was not acted on; StateError says what became of it."""
    lease = stored(paths)
    if lease is not None and lease["run_id"] == run_id:
        return lease
    restored = last_restore(paths)
    if restored is not None and restored["run_id"] == run_id:
        raise StateError(
            f"this host was put back to generation {restored['generation']} at {utc.text(restored['at'])} "
            f"({restored['reason']}); start a new run"
        )
    raise StateError(f"run {run_id} does not hold this host: {_holder(lease, clock)}; start a new run")


def refuse_others(paths: Paths, clock: Clock, run_id: str | None) -> StoredLease | None:
    """The lease of this run, or None if nobody has one; StateError if another run has."""
    lease = stored(paths)
    if lease is None or lease["run_id"] == run_id:
        return lease
    raise StateError(_holder(lease, clock))


def last_restore(paths: Paths) -> Restored | None:
    """What became of the last one; nothing depends on it, so that one that is damaged is none."""
    with contextlib.suppress(Damaged):
        restored: Restored | None = read_json(paths.restored)
        return restored
    return None


def _holder(lease: StoredLease | None, clock: Clock) -> str:
    if lease is None:
        return "nobody does"
    facts = described(lease, clock)
    who = f"{facts['holder']} (run {facts['run_id']}) since {facts['since']}"
    if facts["live"]:
        return f"this host is held by {who} until {facts['until']}; wait, or on the host: gpu-memory restore"
    return (
        f"the run of {who} has ended without a verdict, and this host is going back to generation "
        f"{facts['generation']}; wait 40 seconds, or on the host: gpu-memory status"
    )
