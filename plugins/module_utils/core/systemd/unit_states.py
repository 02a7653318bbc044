# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd's word for a unit's state means to whoever changes the unit and puts it back. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.facts import Unit


STOPPED = ("inactive", "failed")
STARTING = "activating"  # also what systemd tries again and again: `activating (auto-restart)`
RETRIED = ("auto-restart", "auto-restart-queued")
STOPPING = "deactivating"
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


def stopping_problem(unit: Unit) -> str | None:
    """Why a unit cannot be changed just now: nobody can tell whether it will run or not; None where one can."""
    if unit.get("active_state") != STOPPING:
        return None
    return f"{unit['name']} is stopping just now ({unit.get('sub_state')}); run again when it has stopped"
