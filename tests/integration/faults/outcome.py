"""One fault on one host: an apply, and what the host is like when it is over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration import records
from tests.integration.faults.fault_lab import (
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
from tests.integration.faults.table import Fault

RUN_S = 600
# Of both services, whether they run and whether they start at boot.
RUNS = "systemctl show ollama selo-backend --property Id,ActiveState"
AT_BOOT = "systemctl show ollama selo-backend --property Id,UnitFileState"
SETTLE_S = RESTORE_AFTER_S + 90  # 10 s for the timer to look, and a restart of both services


@dataclass(frozen=True)
class Outcome:
    record: dict[str, Any]
    output: str
    before: str
    after: str
    ran: str
    runs: str
    enabled_before: str
    enabled_after: str
    settled: bool
    answers: bool
    new_runs: bool
    left_behind: str
    proven: bool
    then: bool
    restore_s: float | None


def picture(fault: Fault, host: Host) -> str:
    lines = host.read(PICTURE).splitlines()
    return "\n".join(line for line in lines if not fault.edits or fault.edits[1:] not in line)


def prepare(fault: Fault, host: Host, directory: Path) -> None:
    """The host as the run finds it."""
    host.wait_until(ANSWERS, 120)
    host.read(fault.prepare)
    for name in fault.first:
        run = playbook(host, directory / "first", name, **fault.variables)
        output, _ = run.communicate(timeout=RUN_S)
        assert run.returncode == 0, output
    if fault.moment == "before":
        host.read(fault.script)
    host.time_restore()


def attempt(fault: Fault, host: Host, directory: Path) -> Outcome:
    prepare(fault, host, directory)
    before, ran, enabled = picture(fault, host), host.read(RUNS), host.read(AT_BOOT)
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
    # The host once it is at rest, or never.
    try:
        host.wait_until(f"{SETTLED} && {ANSWERS if fault.runs else 'true'}", SETTLE_S if fault.settles else 0)
        settled = True
    except AssertionError:
        settled = host.holds(SETTLED)
    return Outcome(
        record=record,
        output=output,
        before=before,
        after=picture(fault, host),
        ran=ran,
        runs=host.read(RUNS),
        enabled_before=enabled,
        enabled_after=host.read(AT_BOOT),
        settled=settled,
        answers=host.holds(ANSWERS),
        new_runs=host.holds(NEW_RUNS),
        left_behind=host.read(LEFT_BEHIND),
        then=host.holds(fault.then),
        restore_s=host.restore_took(),
        proven=host.holds("grep -q '\"proof\"' /var/lib/gpu-memory/pointers.json"),
    )
