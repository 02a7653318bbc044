# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real clocks: the start of the system has one name as long as it runs, and its seconds go on."""

from __future__ import annotations

import time

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock


def test_the_clocks_go_on_and_the_start_of_the_system_stays() -> None:
    clock = SystemClock()
    first, monotonic, unix = clock.boot_time(), clock.monotonic(), clock.unix_time()
    clock.sleep(0.001)
    second = clock.boot_time()
    assert first.boot == second.boot and "/" in first.boot
    assert first.seconds < second.seconds and monotonic < clock.monotonic()
    assert unix <= clock.unix_time() <= time.time()
