"""One fault on one host: an apply, and what the host is like when it is over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.fault_lab import ANSWERS, LEFT_BEHIND, NEW_RUNS, PICTURE, SETTLED, Host, playbook
from tests.faults.table import Fault

RUN_S = 300
SETTLE_S = 150  # 60 s for the lease, 10 s for the timer to look, and a restart of both services


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
    if fault.moment != "before":
        host.strike_at(fault.moment, fault.script)
    run = playbook(host, directory, **fault.variables)
    output, _ = run.communicate(timeout=RUN_S)
    path = directory / f"{host.name}.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    return look(host, record, output, before)


def look(host: Host, record: dict[str, Any], output: str, before: str) -> Outcome:
    """The host once it is at rest, or after `SETTLE_S`."""
    try:
        host.wait_until(SETTLED, SETTLE_S)
        settled = True
    except AssertionError:
        settled = False
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
