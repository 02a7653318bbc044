# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease: one run at a time a host, for as long as it shows that it lives. It expires by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils._host import BootTime, Host
from ansible_collections.selo.gpu_memory.plugins.module_utils._state import Paths, StateError, moment, read_json

Lease = Mapping[str, Any]


def new(host: Host, *, run_id: str, holder: str, generation: str, restore_after_s: float) -> dict[str, Any]:
    """A lease from now on. `generation` is what the host gets back when nobody renews it in `restore_after_s`."""
    lease = {
        "run_id": run_id,
        "holder": holder,
        "generation": generation,
        "since": host.unix_time(),
        "restore_after_s": restore_after_s,
    }
    return renewed(lease, host.boot_time())


def renewed(lease: Lease, now: BootTime) -> dict[str, Any]:
    return {**lease, "boot": now.boot, "deadline_s": now.seconds + float(lease["restore_after_s"])}


def left_s(lease: Lease, now: BootTime) -> float:
    """Seconds until a lease expires; one of another boot has expired. The wall clock plays no part."""
    return max(0.0, float(lease["deadline_s"]) - now.seconds) if lease["boot"] == now.boot else 0.0


def described(lease: Lease, host: Host) -> dict[str, Any]:
    """A lease for people and for the planner: who, since when, until when, and whether it is live."""
    left = left_s(lease, host.boot_time())
    return {
        "run_id": lease["run_id"],
        "holder": lease["holder"],
        "generation": lease["generation"],
        "since": moment(float(lease["since"])),
        "until": moment(host.unix_time() + left),
        "left_s": round(left, 1),
        "live": left > 0,
    }


def own(paths: Paths, host: Host, run_id: str) -> dict[str, Any]:
    """The lease of this run, also one that has expired but was not acted on; StateError says what became of it."""
    lease = read_json(paths.lease)
    if lease is not None and lease["run_id"] == run_id:
        return lease
    restored = read_json(paths.restored)
    if restored is not None and restored["run_id"] == run_id:
        raise StateError(
            f"this host was put back to generation {restored['generation']} at {moment(restored['at'])} "
            f"({restored['reason']}); start a new run"
        )
    raise StateError(f"run {run_id} does not hold this host: {_holder(lease, host)}; start a new run")


def refuse_others(paths: Paths, host: Host, run_id: str | None) -> dict[str, Any] | None:
    """The lease of this run, or None if nobody has one; StateError if another run has."""
    lease = read_json(paths.lease)
    if lease is None or lease["run_id"] == run_id:
        return lease
    raise StateError(_holder(lease, host))


def _holder(lease: Lease | None, host: Host) -> str:
    if lease is None:
        return "nobody does"
    facts = described(lease, host)
    who = f"{facts['holder']} (run {facts['run_id']}) since {facts['since']}"
    if facts["live"]:
        return f"this host is held by {who} until {facts['until']}; wait, or on the host: gpu-memory restore"
    return (
        f"the run of {who} has ended without a verdict, and this host is going back to generation "
        f"{facts['generation']}; wait 20 seconds, or on the host: gpu-memory status"
    )
