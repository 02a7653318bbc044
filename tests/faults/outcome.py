"""One fault on one host: an apply, and what the host is like when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import records
from tests.faults.fault_lab import (
    ANSWERS,
    LEFT_BEHIND,
    MOMENTS,
    NEW_RUNS,
    PICTURE,
    RESTORE_AFTER_S,
    SETTLED,
    Host,
    playbook,
)
from tests.faults.table import Fault

RUN_S = 600
SETTLE_S = RESTORE_AFTER_S + 90  # 10 s for the timer to look, and a restart of both services


@dataclass(frozen=True)
class Outcome:
    record: dict[str, Any]
    output: str
    before: str
    after: str
    settled: bool
    answers: bool
    new_runs: bool
    left_behind: str
    proven: bool


def attempt(fault: Fault, host: Host, directory: Path) -> Outcome:
    host.read(fault.prepare)
    if fault.moment == "before":
        host.read(fault.script)
    before = host.read(PICTURE)
    rival = None
    if fault.rival:
        rival = playbook(host, directory / "rival")
        host.wait_until(MOMENTS[fault.moment], RUN_S)
    elif fault.moment != "before" and not fault.reboots:
        host.strike_at(fault.moment, fault.script)
    run = playbook(host, directory, **fault.variables)
    if fault.reboots:
        host.restart_at(fault.moment)
    output, _ = run.communicate(timeout=RUN_S)
    if rival:
        rival.communicate(timeout=RUN_S)
        assert rival.returncode == 0
    path = directory / f"{host.name}.json"
    record = records.read(path) if path.exists() else {}
    return look(host, record, output, before, SETTLE_S if fault.settles else 0)


def look(host: Host, record: dict[str, Any], output: str, before: str, settle_s: float) -> Outcome:
    """The host once it is at rest, or after `settle_s`."""
    try:
        host.wait_until(f"{SETTLED} && {ANSWERS}", settle_s)
        settled = True
    except AssertionError:
        settled = host.holds(SETTLED)
    return Outcome(
        record=record,
        output=output,
        before=before,
        after=host.read(PICTURE),
        settled=settled,
        answers=host.holds(ANSWERS),
        new_runs=host.holds(NEW_RUNS),
        left_behind=host.read(LEFT_BEHIND),
        proven=host.holds("grep -q '\"proof\"' /var/lib/gpu-memory/pointers.json"),
    )
