# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd's word for a unit's state means to whoever changes the unit and puts it back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Unit, UnitEnvironment


STOPPED = ("inactive", "failed")
STARTING = "activating"  # also what systemd tries again and again: `activating (auto-restart)`
RETRIED = ("auto-restart", "auto-restart-queued")
STOPPING = "deactivating"
# Of what a unit's file names and this host does not have.
CURES = {
    "EnvironmentFile": "create it, or write EnvironmentFile=-{value}",
    "WorkingDirectory": "put it back, or name where it is now",
    "ExecStartPre": "install it, or name where it is now",
    "ExecStart": "install it, or name where it is now",
    "User": "create it (useradd --system {value}), or name the one that it is to run as",
    "Group": "create it (groupadd --system {value}), or name the one that it is to run as",
    "SupplementaryGroups": "create it (groupadd --system {value}), or take it out",
}
STARTS = "an apply starts it, and stops it again if that does not hold"


def is_stopped(state: str | None) -> bool:
    """Whether a unit is stopped, and stays so until somebody starts it."""
    return state in STOPPED


def is_in_trouble(state: str | None) -> bool:
    """Whether a unit does not run, though nobody has stopped it: it has failed, or systemd tries it again."""
    return state in ("failed", STARTING)


def does_not_come_up(unit: Unit, start_s: float) -> bool:
    """Whether a unit whose server is silent has failed, or is started by systemd again and again.

    Between two of its crashes it is active for a moment. What has been so for longer than it may take to start
    (`start_s`) has come up, however often it had crashed before.
    """
    if unit.get("active_state") == "failed" or unit.get("sub_state") in RETRIED:
        return True
    return bool(unit.get("restarts")) and (unit.get("active_s") or 0) <= start_s


def start_note(unit: Unit) -> str | None:
    """What becomes of a stopped unit that an apply needs; None where the unit is not stopped."""
    state = unit.get("active_state")
    if unit.get("load_state") != "loaded" or not is_stopped(state):
        return None
    return f"{unit['name']} is {state}: {STARTS}"


def masked(unit: Unit | UnitEnvironment) -> str | None:
    """Why a masked unit is not stopped; None of one that is not masked."""
    if unit.get("load_state") != "masked":
        return None
    name = unit["name"]
    return f"the unit {name} is masked on this host, so that it would not start again; run: systemctl unmask {name}"


def would_not_come_back(unit: Unit | UnitEnvironment) -> list[str]:
    """Why a unit that runs now would not start again after a stop, though systemd has it loaded.

    `unit`: {name, load_state, missing (values by directive), transient}.
    """
    problems = [
        f"{unit['name']} names {directive}={value}, which is not there, so that it would not start again; "
        + CURES[directive].format(value=value)
        for directive, values in (unit.get("missing") or {}).items()
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


def stopping_problem(unit: Unit) -> str | None:
    """Why a unit cannot be changed just now: nobody can tell whether it will run or not; None where one can."""
    if unit.get("active_state") != STOPPING:
        return None
    return f"{unit['name']} is stopping just now ({unit.get('sub_state')}); run again when it has stopped"
