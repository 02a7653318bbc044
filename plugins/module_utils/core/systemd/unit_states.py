# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd's word for a unit's state means to whoever changes the unit and puts it back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Unit, UnitEnvironment


STOPPED = ("inactive", "failed")
STARTING = "activating"  # also what systemd tries again and again: `activating (auto-restart)`
# What has come of a command whose client has failed.
DONE, FAILED, NOTHING = "done", "failed", "nothing"
JOB_TIMEOUTS = ("JobTimeoutUSec", "JobRunningTimeoutUSec")
# What a unit's file names and this host does not have, by directive; and what else is in the way of its start.
CONDITION, NOT_EXECUTABLE, INTERPRETER = "condition", "not executable", "interpreter"
IN_THE_WAY = {
    CONDITION: "has {value}, which does not hold now",
    NOT_EXECUTABLE: "starts {value}, which nobody may execute",
    INTERPRETER: "starts {value}, whose interpreter (its first line) is not there",
}
NAMED = "names {name}={value}, which is not there"
CURES = {
    CONDITION: "make it hold, or take it out",
    NOT_EXECUTABLE: "chmod a+x {value}, and see that its file system is not mounted noexec",
    INTERPRETER: "install it, or make the program again (a virtual environment is lost with the Python that it is of)",
    "StandardOutput": "create it, or name where it is now",
    "StandardError": "create it, or name where it is now",
    "EnvironmentFile": "create it, or write EnvironmentFile=-{value}",
    "--env-file": "create it, or take the EnvironmentFile= out of its .container file",
    "WorkingDirectory": "put it back, or name where it is now",
    "ExecStartPre": "install it, or name where it is now",
    "ExecStart": "install it, or name where it is now",
    "User": "create it (useradd --system {value}), or name the one that it is to run as",
    "Group": "create it (groupadd --system {value}), or name the one that it is to run as",
    "SupplementaryGroups": "create it (groupadd --system {value}), or take it out",
}


def is_stopped(state: str | None) -> bool:
    """Whether a unit is stopped, and stays so until somebody starts it."""
    return state in STOPPED


def is_in_trouble(state: str | None) -> bool:
    """Whether a unit does not run, though nobody has stopped it: it has failed, or systemd tries it again."""
    return state in ("failed", STARTING)


def is_settled(facts: Mapping[str, str]) -> bool:
    """Whether systemd answers, and has no job of the unit and no stop of it under way."""
    return bool(facts.get("LoadState")) and not facts.get("Job") and facts.get("ActiveState") != "deactivating"


def came_of(verb: str, before: str, facts: Mapping[str, str]) -> str:
    """What has come of a start, restart or stop of a unit, by what systemd says of it now; `before`: its InvocationID.

    A start is done once the unit is on its way for the first time: whether it gets ready is another question.
    """
    state = facts.get("ActiveState")
    if not is_settled(facts):
        return NOTHING
    if verb == "stop":
        return DONE if is_stopped(state) else NOTHING
    if (
        state == "failed"
        or state == STARTING
        and (facts.get("SubState", "").startswith("auto-restart") or facts.get("NRestarts", "0") != "0")
    ):
        return FAILED
    if facts.get("InvocationID", "") == before:
        return NOTHING
    return FAILED if is_stopped(state) else DONE


def job_timeout(facts: Mapping[str, str]) -> str:
    """Which limit of the unit ends its jobs, in words, to follow what failed; nothing where it has none."""
    limits = {name: facts.get(name, "") for name in JOB_TIMEOUTS}
    set_here = [
        f"{name.replace('USec', 'Sec')}={value}" for name, value in limits.items() if value not in ("", "infinity")
    ]
    if not set_here:
        return ""
    return (
        f"; it has {' and '.join(set_here)}, which ends a start or stop that is not through by then: give it more, or "
        "leave the limit to TimeoutStartSec= and TimeoutStopSec="
    )


def masked(unit: Unit | UnitEnvironment) -> str | None:
    """Why a masked unit is not stopped; None of one that is not masked."""
    if unit.get("load_state") != "masked":
        return None
    name = unit["name"]
    return f"the unit {name} is masked on this host, so that it would not start again; run: systemctl unmask {name}"


def would_not_come_back(unit: Unit | UnitEnvironment) -> list[str]:
    """Why a unit that runs now would not start again after a stop, though systemd has it loaded.

    `unit`: {name, load_state, missing (values by directive or by what else is in the way), transient}.
    """
    problems = [
        f"{unit['name']} {IN_THE_WAY.get(name, NAMED).format(name=name, value=value)}, so that it would not start "
        f"again; {CURES[name].format(value=value)}"
        for name, values in (unit.get("missing") or {}).items()
        for value in values
    ]
    if unit.get("transient"):
        problems.append(
            f"{unit['name']} is a transient unit, as systemd-run makes one, and gone with the next stop or boot; give "
            "it a unit file in /etc/systemd/system"
        )
    return problems


def start_problems(unit: Unit | UnitEnvironment) -> list[str]:
    """Why systemd would not start a unit; `unit` as `would_not_come_back` takes it."""
    name, state = unit["name"], unit.get("load_state")
    if state == "loaded":
        return would_not_come_back(unit)
    cure = f"see: systemctl status {name}; bring its unit file back, or give it its old name again"
    return [masked(unit) or f"the unit {name} is {state} on this host, so that it would not start again; {cure}"]
