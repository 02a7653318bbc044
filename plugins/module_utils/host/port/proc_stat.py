# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What /proc says of a process to everybody; also for the monitor, which has no right to see more."""

from __future__ import annotations

import os
import time


def fields(pid: int) -> list[str]:
    """/proc/PID/stat from its third field, the state, on: the second, a name, may hold anything."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def start_s(pid: int) -> float:
    """When a process started, in seconds since boot (/proc/PID/stat, field 22)."""
    return int(fields(pid)[22 - 3]) / os.sysconf("SC_CLK_TCK")


def ran_at(pid: int, monotonic_s: float) -> bool:
    """Whether the process that has this id now is the one that had it at a moment of CLOCK_MONOTONIC, or one of the
    minute after: ids are used again. How long the host was suspended before that is not known.
    """
    try:
        started = start_s(pid)
    except (OSError, IndexError, ValueError):
        return False
    return started - (time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()) <= monotonic_s + 60
