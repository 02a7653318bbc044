# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore timer: unit files, so that they outlive a reboot, there only while an apply runs."""

from __future__ import annotations

import os
import sys

from ansible_collections.selo.gpu_memory.plugins.module_utils._host import Host
from ansible_collections.selo.gpu_memory.plugins.module_utils._state import Paths, StateError, remove_file, write_file

TIMER = "gpu-memory-restore.timer"
SERVICE = "gpu-memory-restore.service"
MOST_OFTEN_S = 10
TIMER_TEXT = """\
[Unit]
Description=Look whether an apply of GPU memory settings has ended without a verdict

[Timer]
OnActiveSec={every}s
OnUnitInactiveSec={every}s
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
# Python by name: the file system of the tool may forbid to execute.
SERVICE_TEXT = """\
[Unit]
Description=Put back the settings of GPU memory that an apply has left without a verdict

[Service]
Type=oneshot
ExecStart={python} -I -S {tool} restore --if-expired
"""


def python() -> str:
    """An interpreter that will still be there later: not a virtual environment's, and a name that survives upgrades."""
    real = os.path.realpath(sys.executable)
    system = "/usr/bin/python3"
    return system if os.path.realpath(system) == real else real


def period_s(restore_after_s: float) -> int:
    """How often to look for a lease of this length: a look takes processor time from what is being proven."""
    return int(min(max(MOST_OFTEN_S, restore_after_s / 8), 3 * MOST_OFTEN_S))


def arm(paths: Paths, host: Host, every_s: int = MOST_OFTEN_S) -> None:
    """Have the host look every so many seconds, also after a reboot, whether its lease has expired."""
    service = SERVICE_TEXT.format(python=python(), tool=paths.tool)
    for unit, text in ((SERVICE, service), (TIMER, TIMER_TEXT.format(every=every_s))):
        write_file(os.path.join(paths.units, unit), text.encode(), 0o644)
    problem = host.systemctl("enable", "--now", TIMER)
    if problem or state(host) != "armed":
        disarm(paths, host)
        raise StateError(
            f"the restore timer did not start, so nothing was changed: {problem or 'systemd does not say why'}"
        )


def disarm(paths: Paths, host: Host) -> None:
    """Take the timer away; nothing is left of it. A restore that it has started runs to its end."""
    host.systemctl("disable", "--now", TIMER)
    for unit in (TIMER, SERVICE):
        remove_file(os.path.join(paths.units, unit))
    host.systemctl("daemon-reload")


def state(host: Host) -> str:
    """`armed` while it looks, else what systemd says."""
    active = host.show(TIMER).get("ActiveState") or "unknown"
    return "armed" if active == "active" else active
