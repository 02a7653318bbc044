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


def is_stopped(state: str | None) -> bool:
    """Whether a unit is stopped, and stays so until somebody starts it."""
    return state in STOPPED


def is_in_trouble(state: str | None) -> bool:
    """Whether a unit does not run, though nobody has stopped it: it has failed, or systemd tries it again."""
    return state in ("failed", STARTING)


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
