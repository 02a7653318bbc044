# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be known of a host's services before an apply changes one: what it starts, restarts or waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_states

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent, Unit


RETRIED = ("auto-restart", "auto-restart-queued")
STOPPING = "deactivating"
STARTS = "an apply starts it, and stops it again if that does not hold"


def does_not_come_up(unit: Unit, start_s: float) -> bool:
    """Whether a unit whose server is silent has failed, or is started by systemd again and again.

    Between two of its crashes it is active for a moment. What has been so for longer than it may take to start
    (`start_s`) has come up, however often it had crashed before.
    """
    if unit.get("active_state") == "failed" or unit.get("sub_state") in RETRIED:
        return True
    return bool(unit.get("restarts")) and (unit.get("active_s") or 0) <= start_s


def restart_command(unit: str) -> str:
    """By what somebody restarts a service by hand."""
    service = compose.parse(unit)
    return f"docker compose restart {service.service}" if service else f"systemctl restart {unit}"


def start_note(unit: Unit) -> str | None:
    """What becomes of a stopped unit that an apply needs; None where the unit is not stopped."""
    state = unit.get("active_state")
    if unit.get("load_state") != "loaded" or not unit_states.is_stopped(state):
        return None
    return f"{unit['name']} is {state}: {STARTS}"


def stopping_problem(unit: Unit) -> str | None:
    """Why a unit cannot be changed just now: nobody can tell whether it will run or not; None where one can."""
    if unit.get("active_state") != STOPPING:
        return None
    return f"{unit['name']} is stopping just now ({unit.get('sub_state')}); run again when it has stopped"


def dependents_note(unit: str, dependents: Sequence[Dependent]) -> str | None:
    """What else a restart of a unit touches; None where that is nothing."""
    if not dependents:
        return None
    shown = ", ".join(f"{one['unit']} ({one['why']})" for one in dependents)
    return f"restarting {unit} also restarts {shown}; an apply waits until that runs again"


def reload_note(containers: Sequence[str]) -> str:
    """What to know before systemd is reloaded on a host whose containers use the GPU."""
    return (
        f"{', '.join(containers[:3])}{' and more' * (len(containers) > 3)} uses the GPU here, and this apply reloads "
        "systemd once, which can take the GPU from a container (NVML then says Unknown Error in it; "
        "NVIDIA/nvidia-container-toolkit issues 48, 251, 1227) until it is started again; prevented by CDI, by "
        "Docker's native.cgroupdriver=cgroupfs, or by a udev rule that links NVIDIA's devices in /dev/char"
    )
