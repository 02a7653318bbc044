# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that is killed at a random moment of an apply: each host is proven-new or back, with nobody's help."""

from __future__ import annotations

import os
import queue
import random
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import AT_ONCE
from tests.faults.fault_lab import (
    ANSWERS,
    BACKEND,
    DROP_IN,
    KEPT,
    MOMENTS,
    NEW_RUNS,
    PICTURE,
    RESTORE_AFTER_S,
    SETTLED,
    Host,
    playbook,
)

TIMES = int(os.environ.get("KILLED_TIMES", "40"))
SEED = 20260131
WITHIN_S = 300
ENV_LINES = f"sort {BACKEND}/.env"
PROVEN = f"grep -q '\"proof\"' {KEPT}/pointers.json"
# How far an apply had come, the latest first.
PHASES = {
    "proven": PROVEN,
    "loading": MOMENTS["loading"],
    "restarted": NEW_RUNS,
    "writing": f"test -e {DROP_IN}",
    "kept": MOMENTS["kept"],
}


@dataclass(frozen=True)
class Killed:
    at_s: float
    phase: str
    ended: str
    after_s: float
    problem: str


def killed_at(fraction: float, whole_s: float, host: Host, directory: Path) -> Killed:
    host.wait_until(ANSWERS, 120)
    before, lines = host.read(PICTURE), host.read(ENV_LINES)
    run = playbook(host, directory)
    began = time.monotonic()
    while time.monotonic() - began < fraction * whole_s and run.poll() is None:
        time.sleep(0.05)
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    died = time.monotonic()
    phase = next((name for name, condition in PHASES.items() if host.holds(condition)), "nothing done")
    problem, ended = "", ""
    try:
        host.wait_until(f"{SETTLED} && {{ {ANSWERS}; }}", WITHIN_S)
    except AssertionError as still:
        problem = str(still)
    after_s = time.monotonic() - died
    after = host.read(PICTURE)
    if after == before and not host.holds(NEW_RUNS):
        ended = "back"
    elif host.holds(f"{PROVEN} && {NEW_RUNS}"):
        ended = "proven"
    else:
        problem += f"neither back nor proven: {set(before.splitlines()) ^ set(after.splitlines())}"
    names = {line.partition("=")[0] for line in lines.splitlines()}
    lost = names - {line.partition("=")[0] for line in host.read(ENV_LINES).splitlines()}
    if lost:
        problem += f"keys lost: {lost}"
    return Killed(died - began, phase, ended, after_s, problem)


@pytest.mark.repeated
def test_every_host_is_proven_or_back(hosts: queue.Queue[Host], tmp_path: Path) -> None:
    def fresh(directory: str, fraction: float, whole_s: float) -> Killed:
        host = hosts.get()
        try:
            host.reset()
            place = tmp_path / directory
            place.mkdir()
            killed = killed_at(fraction, whole_s, host, place)
            came_to = f"{killed.ended or 'BAD':6} after {killed.after_s:5.1f} s {killed.problem}"
            print(f"{directory:9} at {killed.at_s:6.1f} s, {killed.phase:12}  {came_to}", flush=True)
            return killed
        finally:
            hosts.put(host)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        whole = fresh("whole", 1, 900)  # how long an apply takes here and now
        whole_s = whole.at_s
        moments = random.Random(SEED)
        fractions = [moments.random() for _ in range(TIMES)]
        killed = list(pool.map(lambda n: fresh(f"killed-{n}", fractions[n], whole_s), range(TIMES)))
    slowest = max(one.after_s for one in killed)
    ends = Counter("bad" if one.problem else one.ended for one in killed)
    print(
        f"figure: killed {len(killed)} times within the {whole_s:.0f} s of an apply: {dict(ends)}, "
        f"the slowest after {slowest:.0f} s, with restore_after {RESTORE_AFTER_S} s"
    )
    assert not [one for one in [whole, *killed] if one.problem]
    assert slowest <= WITHIN_S
