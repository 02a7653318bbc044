"""One fault on one host whose controller is killed at the worst moment: what the host makes of it, alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.faults.fault_lab import (
    ANSWERS,
    BACKEND,
    ENGINE,
    KEPT,
    LEFT_BEHIND,
    MOMENTS,
    NEW_RUNS,
    SETTLED,
    STRUCK,
    Host,
    playbook,
)
from tests.integration.faults.outcome import AT_BOOT, RUN_S, RUNS, picture, prepare
from tests.integration.faults.table import NEW, SAME, Fault

WITHIN_S = 300
KEYS = f"sed -n 's/^\\([A-Z_]*\\)=.*/\\1/p' {BACKEND}/.env | sort -u"
PROVEN = f"grep -q '\"proof\"' {KEPT}/pointers.json"
# Of a job that was killed together with its controller, in the home of whom Ansible has logged in as.
ANSIBLES = re.compile(r"/home/operator/\.ansible/tmp/ansible-tmp-[\d.-]+$")
# What waits for somebody says so.
SAYS_SO = "gpu-memory status 2>&1 | grep -qE '^going back|expired|is damaged|is immutable'"
# All is written, or on its way back, and nothing serves.
WRITTEN = f"{{ {MOMENTS['restarting']}; }} || test -e {KEPT}/restoring.json"


@dataclass(frozen=True)
class Alone:
    """`at`: what was true when the controller was killed; None where the run had ended before anything was kept.

    `after_s`: how long after that the host was `ended`: `back`, `proven`, or waiting for somebody.
    """

    at: str | None = None
    after_s: float = 0.0
    ended: str = "never touched"
    problems: Sequence[str] = ()


def is_refused(fault: Fault) -> bool:
    """A host on which nothing is written: there is no way back that a controller could be lacking for."""
    return fault.verdict == "refused" and not fault.rival


def worst_moments(fault: Fault) -> list[str]:
    """From when on the host has all of the way back before it, with its fault; and another, if that never comes."""
    strikes = fault.moment != "before" and not fault.reboots and not fault.rival
    return [f"test -e {STRUCK}" if strikes else WRITTEN, MOMENTS["kept"]]


def left_alone(fault: Fault, host: Host, directory: Path) -> Alone:
    for moment in worst_moments(fault):
        host.reset()
        alone = killed_at(moment, fault, host, directory)
        if alone.at:
            return alone
    return alone


def killed_at(moment: str, fault: Fault, host: Host, directory: Path) -> Alone:
    prepare(fault, host, directory)
    before, ran, at_boot, keys = picture(fault, host), host.read(RUNS), host.read(AT_BOOT), _keys(host)
    if not _run_until(moment, fault, host, directory):
        return Alone(problems=[] if picture(fault, host) == before else ["the host is not as it was"])
    died = time.monotonic()
    if fault.reboots:
        host.reboot()
    problems = []
    try:
        host.wait_until(_at_rest(fault), WITHIN_S)
        if fault.ends == SAME or fault.settles:
            _await_old_settings(fault, host, before, died + WITHIN_S)
    except AssertionError as never:
        problems.append(str(never))
    after_s = time.monotonic() - died
    after, is_new = picture(fault, host), host.holds(NEW_RUNS)
    if after == before and not is_new:
        ended = "back"
    elif is_new and host.holds(PROVEN):
        ended = "proven"
    else:
        ended = "on the new settings, and says so"
        if fault.settles or fault.ends != NEW:
            problems.append(f"neither back nor proven: {set(before.splitlines()) ^ set(after.splitlines())}")
    if keys - _keys(host):
        problems.append(f"keys lost: {keys - _keys(host)}")
    if host.read(AT_BOOT) != at_boot:
        problems.append("what starts at boot is not what did")
    if fault.settles and not fault.runs and fault.verdict != "fail" and host.read(RUNS) != ran:
        problems.append(f"what runs is not what ran: {ran} {host.read(RUNS)}")
    if fault.ends == SAME and not host.holds(fault.then):
        problems.append(f"not true in the end: {fault.then}")
    left_behind = [path for path in host.read(LEFT_BEHIND).splitlines() if not ANSIBLES.search(path)]
    if left_behind:
        problems.append(f"left behind: {left_behind}")
    return Alone(moment, after_s, ended, problems)


def _at_rest(fault: Fault) -> str:
    """What must be true of a host within the time; one that cannot settle alone says what it waits for."""
    answers = ANSWERS if fault.runs else "true"
    return f"{SETTLED if fault.settles else SAYS_SO} && {{ {answers}; }}"


def _await_old_settings(fault: Fault, host: Host, before: str, deadline: float) -> None:
    while (picture(fault, host) != before or host.holds(NEW_RUNS)) and not host.holds(PROVEN):
        assert time.monotonic() < deadline, "the files, or what runs, are not back"
        time.sleep(1)


def _keys(host: Host) -> set[str]:
    return set(host.read(f"[ ! -f {BACKEND}/.env ] || {KEYS}").splitlines())


def _run_until(moment: str, fault: Fault, host: Host, directory: Path) -> bool:
    """Whether the moment came: then every controller was killed there."""
    runs = [playbook(host, directory / "rival")] if fault.rival else []
    if fault.rival:
        host.wait_until(MOMENTS[fault.moment], RUN_S)
    elif fault.moment != "before" and not fault.reboots:
        host.strike_at(fault.moment, fault.script)
    runs.insert(0, playbook(host, directory, **fault.variables))
    listeners = [threading.Thread(target=run.communicate, daemon=True) for run in runs]
    for listener in listeners:
        listener.start()
    if fault.reboots:
        moment = MOMENTS[fault.moment]
    looking = subprocess.Popen(
        [ENGINE, "exec", "--privileged", host.container, "timeout", str(RUN_S), "bash", "-c"]
        + [f"until {{ {moment}; }} >/dev/null 2>&1; do sleep 0.05; done"]
    )
    try:
        while looking.poll() is None and any(run.poll() is None for run in runs):
            time.sleep(0.02)
        came = looking.poll() == 0 and any(run.poll() is None for run in runs)
    finally:
        looking.kill()
        looking.wait()
        for run in runs:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    for listener in listeners:
        listener.join()
    return came
