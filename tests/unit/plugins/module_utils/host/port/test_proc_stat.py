# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import proc_stat

NOBODY = 1 << 22  # above the highest id that a process can have


def test_a_process_that_runs_ran_since_it_started(monkeypatch) -> None:
    me, now = os.getpid(), time.monotonic()
    assert proc_stat.ran_at(me, now)
    started = now - time.clock_gettime(time.CLOCK_BOOTTIME) + proc_stat.start_s(me)
    monkeypatch.setattr(time, "time", lambda: 0.0)  # whatever the clock is set to
    assert proc_stat.ran_at(me, started)
    assert not proc_stat.ran_at(me, started - 3600), "another process had this id an hour before"


def test_a_process_that_is_gone_runs_no_more() -> None:
    assert not proc_stat.ran_at(NOBODY, time.monotonic())


def test_a_name_may_hold_anything(tmp_path) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write("a) Z 1 (b")
        os.write(write, b"x")
        time.sleep(60)
        os._exit(0)
    try:
        os.read(read, 1)
        assert int(proc_stat.fields(pid)[4 - 3]) == os.getpid()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
