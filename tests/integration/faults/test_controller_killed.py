# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that is killed at a random moment of an apply: each host is proven-new or back, with nobody's help."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.faults.conftest import AT_ONCE
from tests.integration.faults.fault_lab import (
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


@dataclass(frozen=True)
class Moment:
    """So many seconds after an apply has said so many lines: one place of its work, however busy the machine is."""

    lines: int
    then_s: float

    @classmethod
    def of(cls, fraction: float, said: Sequence[float]) -> Moment:
        """`said`: when an undisturbed apply has said each of its lines, in seconds since its begin."""
        at = fraction * said[-1]
        lines = sum(each <= at for each in said)
        return cls(lines, at - (said[lines - 1] if lines else 0.0))


def killed_at(moment: Moment | None, host: Host, directory: Path) -> tuple[Killed, list[float]]:
    """What became of a host whose controller died at a moment (None: lives), and when it had said each line."""
    host.wait_until(ANSWERS, 120)
    before, lines = host.read(PICTURE), host.read(ENV_LINES)
    run = playbook(host, directory)
    began = time.monotonic()
    said: list[float] = []
    listener = threading.Thread(target=lambda: said.extend(time.monotonic() - began for _line in run.stdout or ()))
    listener.start()
    while moment is not None and len(said) < moment.lines and run.poll() is None:
        time.sleep(0.02)
    if moment is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(moment.then_s)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    listener.join()
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
    return Killed(died - began, phase, ended, after_s, problem), said


@pytest.mark.repeated
def test_every_host_is_proven_or_back(hosts: queue.Queue[Host], tmp_path: Path) -> None:
    def fresh(directory: str, moment: Moment | None) -> tuple[Killed, list[float]]:
        host = hosts.get()
        try:
            host.reset()
            place = tmp_path / directory
            place.mkdir()
            killed, said = killed_at(moment, host, place)
            came_to = f"{killed.ended or 'BAD':6} after {killed.after_s:5.1f} s {killed.problem}"
            print(f"{directory:9} at {killed.at_s:6.1f} s, {killed.phase:12}  {came_to}", flush=True)
            return killed, said
        finally:
            hosts.put(host)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        whole, said = fresh("whole", None)
        chance = random.Random(SEED)
        moments = [Moment.of(chance.random(), said) for _ in range(TIMES)]
        killed = list(pool.map(lambda n: fresh(f"killed-{n}", moments[n])[0], range(TIMES)))
    slowest = max(one.after_s for one in killed)
    ends = Counter("bad" if one.problem else one.ended for one in killed)
    print(
        f"figure: killed {len(killed)} times within an apply, as far as {dict(Counter(one.phase for one in killed))}: "
        f"{dict(ends)}, the slowest after {slowest:.0f} s, with restore_after {RESTORE_AFTER_S} s"
    )
    assert not [one for one in [whole, *killed] if one.problem]
    assert slowest <= WITHIN_S
