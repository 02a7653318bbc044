# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A managed host's clocks: what tests replace."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol


class BootTime(NamedTuple):
    """A moment that no change of the wall clock moves: which start of the system, and seconds on CLOCK_BOOTTIME."""

    boot: str
    seconds: float


class WallClock(NamedTuple):
    """How the wall clock went at a moment: in which start of the kernel, and how far ahead of CLOCK_MONOTONIC.

    What is told by the same one stays in order, whatever the clock of the host is set to meanwhile.
    """

    boot: str
    ahead_s: float

    def at(self, monotonic_s: float) -> float:
        """A moment of CLOCK_MONOTONIC in Unix time."""
        return monotonic_s + self.ahead_s


class Clock(Protocol):
    def boot_time(self) -> BootTime: ...

    def wall(self) -> WallClock: ...

    def unix_time(self) -> float: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real clocks."""

    def boot_time(self) -> BootTime:
        # A restarted container keeps the kernel's boot id; the start of PID 1 tells its starts apart.
        kernel = _boot_id()
        with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
            started = file.read().rpartition(")")[2].split()[19]
        return BootTime(f"{kernel}/{started}", time.clock_gettime(time.CLOCK_BOOTTIME))

    def wall(self) -> WallClock:
        return WallClock(_boot_id(), round(time.time() - time.monotonic(), 6))

    def unix_time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def slept_s() -> float:
    """How long the host has been suspended since its boot, which CLOCK_MONOTONIC does not count."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
