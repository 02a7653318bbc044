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
    read_json,
    read_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import BootTime, Clock, SystemClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        Lease,
        LeaseTerms,
        StoredLease,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import Restored


ROUNDING_S = 0.001


def left_s(lease: StoredLease, now: BootTime) -> float:
    """Seconds until a lease expires; one of another boot has expired. The wall clock plays no part.

    None lives longer than it was taken for.
    """
    left = float(lease["deadline_s"]) - now.seconds
    return left if lease["boot"] == now.boot and 0 < left <= float(lease["restore_after_s"]) + ROUNDING_S else 0.0


def stored(paths: Paths) -> StoredLease | None:
    """The lease of whoever holds this host.

    Of one that is damaged or gone in both places, what the newest kept generation says, as expired. What is kept a
    second time tells that there was one: it is there for as long as a run, or a restore, holds the host.
    """
    try:
        lease: StoredLease | None = read_kept(paths, paths.lease)
    except Damaged:
        lost = _lost(paths, paths.generations, paths.again(paths.generations))
        if lost is None:
            raise
        return lost
    if lease is None and not os.path.lexists(paths.restoring) and not os.path.lexists(paths.again(paths.restoring)):
        return _lost(paths, paths.again(paths.generations))
    return lease


def _lost(paths: Paths, *places: str) -> StoredLease | None:
    names: set[str] = set()
    for place in places:
        with contextlib.suppress(OSError):
            names.update(os.listdir(place))
    for name in sorted(names, reverse=True):
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
    return None


def is_lost(lease: StoredLease) -> bool:
    return not lease["boot"]


def end_of(lease: StoredLease, now: BootTime) -> str:
    """Why a lease that has expired did."""
    if is_lost(lease):
        return "what its apply holds the host by was damaged"
    if lease["boot"] != now.boot:
        return "the host was restarted during the apply"
    return f"nothing was heard of the apply for {lease['restore_after_s']:g} s"


def is_finished(lease: StoredLease, paths: Paths) -> bool:
    """Whether its run has ended, and was cut off before it could let go."""
    with contextlib.suppress(StateError):
        return bool(lease["generation"] == (read_json(paths.pointers) or {}).get("finished"))
    return False


def holds(paths: Paths | None = None, clock: Clock | None = None) -> bool:
    """Whether a run has this host, and lives: then nothing is due. What cannot be read is for whoever acts on it."""
    paths, clock = paths or Paths(), clock or SystemClock()
    with contextlib.suppress(StateError):
        lease = stored(paths)
        return lease is not None and left_s(lease, clock.boot_time()) > 0 and not is_finished(lease, paths)
    return False


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


def last_restore(paths: Paths) -> Restored | None:
    """What became of the last one; nothing depends on it, so that one that is damaged is none."""
    with contextlib.suppress(StateError):
        restored: Restored | None = read_json(paths.restored)
        return restored
    return None
