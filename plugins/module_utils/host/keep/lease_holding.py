# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking the lease of a host and renewing it, and who is in the way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.leases import (
    described,
    last_restore,
    stored,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    Paths,
    StateError,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    locked,
    refuse_while_restoring,
    write_kept,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import BootTime, Clock, SystemClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
        LeaseTerms,
        StoredLease,
    )


class NotHeld(StateError):
    """A run does not hold its host any more."""


RENEWALS = 4  # of a lease, in the time that it would take to expire
LOOK_S = 0.5  # whether one is due
RETRY_S = 5  # after one that failed, and whether the lease is still there; the shortest lease is one of 30 s
ALONE_S = 260  # with the timer's look and a restart within five minutes


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


def renew(paths: Paths, clock: Clock, run_id: str, wait_s: float = 10) -> StoredLease:
    """Put the restore off by as long as the lease of this run was taken for; the lease as it is now."""
    with locked(paths, wait_s):
        refuse_while_restoring(paths)
        lease = renewed(own(paths, clock, run_id), clock.boot_time())
        write_kept(paths, paths.lease, lease)
        return lease


@contextlib.contextmanager
def held(
    run_id: str | None, paths: Paths | None = None, clock: Clock | None = None, wait_s: float = 10
) -> Iterator[None]:
    """What a run writes, under the lock: nobody takes the host from it meanwhile.

    StateError before anything is written where it does not hold this host any more.
    """
    if not run_id:
        yield
        return
    paths, clock = paths or Paths(), clock or SystemClock()
    with locked(paths, wait_s):
        refuse_while_restoring(paths)
        own(paths, clock, run_id)
        yield


class Renewal:
    """Renews the lease of a run, for what lasts long: when it is first called, and then as often as it must.

    `most_s`: from the first call, where nobody may be there any more to whom that matters: the lease does not grow
    beyond.
    """

    def __init__(
        self, run_id: str | None, paths: Paths | None = None, clock: Clock | None = None, most_s: float | None = None
    ) -> None:
        self._run_id, self._paths, self._clock = run_id, paths or Paths(), clock or SystemClock()
        self._most_s, self._until = most_s, float("inf")
        self._look = self._due = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, at_once: bool = False, renews: bool = True) -> None:
        """NotHeld where the run does not hold this host any more; another StateError where that cannot be told.

        `renews`: else only that is looked for.
        """
        with self._lock:
            now = self._clock.monotonic()
            if not self._run_id:
                return
            if renews and (at_once or now >= self._due) and now <= self._until:
                self._look = self._due = now + RETRY_S
                restore_after_s = float(renew(self._paths, self._clock, self._run_id)["restore_after_s"])
                self._due = now + restore_after_s / RENEWALS
                if self._most_s is not None:
                    self._until, self._most_s = now + self._most_s - restore_after_s, None
            elif at_once or now >= self._look:
                self._look = now + RETRY_S
                refuse_while_restoring(self._paths)
                own(self._paths, self._clock, self._run_id)

    @contextlib.contextmanager
    def in_background(self) -> Iterator[None]:
        """Renew also while whoever calls is blocked, as by a stop that takes its time; what fails shows in a call."""
        ended = threading.Event()

        def go_on() -> None:
            while not ended.wait(LOOK_S):
                with contextlib.suppress(StateError, OSError):
                    self()

        thread = threading.Thread(target=go_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def own(paths: Paths, clock: Clock, run_id: str) -> StoredLease:
    """The lease of this run, also one that has expired but was not acted on; StateError says what became of it."""
    lease = stored(paths)
    if lease is not None and lease["run_id"] == run_id:
        return lease
    restored = last_restore(paths)
    if restored is not None and restored["run_id"] == run_id:
        raise NotHeld(
            f"this host was put back to generation {restored['generation']} at {utc.text(restored['at'])} "
            f"({restored['reason']}); start a new run"
        )
    raise NotHeld(f"run {run_id} {waiting.NOT_HELD}: {_holder(lease, clock)}; start a new run")


def refuse_others(paths: Paths, clock: Clock, run_id: str | None) -> StoredLease | None:
    """The lease of this run, or None if nobody has one; StateError if another run has."""
    lease = stored(paths)
    if lease is None or lease["run_id"] == run_id:
        return lease
    raise StateError(_holder(lease, clock))


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
