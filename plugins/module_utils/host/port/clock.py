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


class Clock(Protocol):
    def boot_time(self) -> BootTime: ...

    def unix_time(self) -> float: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real clocks."""

    def boot_time(self) -> BootTime:
        # A restarted container keeps the kernel's boot id; the start of PID 1 tells its starts apart.
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            kernel = file.read().strip()
        with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
            started = file.read().rpartition(")")[2].split()[19]
        return BootTime(f"{kernel}/{started}", time.clock_gettime(time.CLOCK_BOOTTIME))

    def unix_time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
