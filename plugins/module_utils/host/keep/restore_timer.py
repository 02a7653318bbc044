# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore timer: unit files, so that they outlive a reboot, there only while an apply runs.

It comes and goes without a daemon-reload, since one can take the GPU away from a host's containers. A unit that
systemd does not know yet is read when it is started, and forgotten once it has stopped and nothing refers to it.
`timers.target` would refer to it as soon as anybody reloads systemd: so the link that pulls it in at the next boot is
masked, in /run, until then. A soft reboot leaves /run as it is: so the mask goes as soon as the timer is stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    remove_file,
    sync_directory,
    write_file,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.stored_generations import TIMER, timer_state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.unit_runtime import UnitRuntime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host

SERVICE, UNMASK = "gpu-memory-restore.service", "gpu-memory-restore-unmask.service"
EVERY_S = 10
PULLED_IN_BY = "timers.target.wants"
FORGOTTEN_S, LOOK_S = 2, 0.1
# `systemctl isolate` stops neither: the way back from rescue.target would not start the timer again. No limit of how
# often a unit may start, such as DefaultStartLimitIntervalSec= of a host, ends the looking.
TIMER_TEXT = """\
[Unit]
Description=Look whether an apply of GPU memory settings has ended without a verdict
IgnoreOnIsolate=yes
StartLimitIntervalSec=0
OnSuccess={unmask}

[Timer]
OnActiveSec={every}s
OnUnitInactiveSec={every}s
AccuracySec=1s

[Install]
WantedBy=timers.target
"""
# Started as the system stops, which what has the default dependencies is not.
UNMASK_TEXT = """\
[Unit]
Description=Have the next start look whether an apply of GPU memory settings has ended without a verdict
DefaultDependencies=no
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=+/bin/rm -f {mask}
"""
# The tool as a zip file and nothing else: Python by name, as its file system may forbid to execute; and what is left of
# one that is damaged could pass for an empty script, which ends well.
RUN_TOOL = (
    "import sys, zipimport; sys.path.insert(0, sys.argv.pop(1)); "
    "exec(zipimport.zipimporter(sys.path[0]).get_code(__name__))"
)
# The second tool is for when the first is lost; if that one has failed otherwise, nothing is due for the second. A
# restore that is cut off at its limit is started again by its timer, and goes on where it was. No drop-in for all
# services (`service.d/`) protects from it (`+`) what it puts back.
SERVICE_TEXT = """\
[Unit]
Description=Put back the settings of GPU memory that an apply has left without a verdict
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=+/bin/sh -c "{first} || {{ [ -e {second_tool} ] && exec {second}; }}"
TimeoutStartSec={limit_s}s
TimeoutStopSec=10s
"""
STOPPED_S = 30  # a restore that is stopped


def python() -> str:
    """An interpreter that will still be there later: not a virtual environment's, and a name that survives upgrades."""
    real = os.path.realpath(sys.executable)
    system = "/usr/bin/python3"
    return system if os.path.realpath(system) == real else real


def arm(paths: Paths, host: Host, limit_s: float) -> None:
    """Have the host look again and again, also after a reboot, whether its lease has expired.

    `limit_s`: how long a restore may take.
    """
    tools = paths.tool, paths.again(paths.tool)
    first, second = (f"{python()} -I -S -c '{RUN_TOOL}' {tool} restore --if-expired" for tool in tools)
    service = SERVICE_TEXT.format(first=first, second=second, second_tool=tools[1], limit_s=round(limit_s))
    mask, link = _links(paths)
    texts = {
        SERVICE: service,
        UNMASK: UNMASK_TEXT.format(mask=mask),
        TIMER: TIMER_TEXT.format(every=EVERY_S, unmask=UNMASK),
    }
    for unit, text in texts.items():
        write_file(os.path.join(paths.units, unit), text.encode(), 0o644)
    for path, target in ((mask, os.devnull), (link, os.path.join(paths.units, TIMER))):
        _put_link(path, target)
    try:
        _timer(host).start()
        problem = "" if timer_state(host) == "armed" else "systemd does not say why"
    except ServiceError as told:
        problem = str(told)
    if problem:
        disarm(paths, host)
        raise StateError(f"the restore timer did not start, so nothing was changed: {problem}")


def disarm(paths: Paths, host: Host) -> None:
    """Take the timer away; nothing is left of it. A restore that it has started runs to its end."""
    there = [path for path in files(paths) if os.path.lexists(path)]
    with contextlib.suppress(ServiceError):
        _timer(host).stop()
    host.systemctl("reset-failed", SERVICE)  # or systemd would remember it
    for path in there:
        remove_file(path)
    mask = os.path.dirname(_links(paths)[0])
    for directory in (mask, os.path.dirname(mask)):
        with contextlib.suppress(OSError):  # not empty, or never there
            os.rmdir(directory)
    if there and not _forgotten(host):  # as after a reboot in the middle of an apply
        host.systemctl("daemon-reload")


def files(paths: Paths) -> list[str]:
    """All that the timer has on a host, in the order in which it is taken away."""
    mask, link = _links(paths)
    return [link, *(os.path.join(paths.units, unit) for unit in (TIMER, SERVICE, UNMASK)), mask]


def stop(host: Host) -> None:
    """End what it does just now; that it is armed stays."""
    host.systemctl("stop", SERVICE, timeout_s=STOPPED_S)


def _timer(host: Host) -> UnitRuntime:
    """What counts is what has become of it, and not whether systemctl has lost its connection to systemd."""
    return UnitRuntime(host, TIMER, journal_is_private=True)


def _links(paths: Paths) -> tuple[str, str]:
    """What has the timer started at the next boot, and what hides that from systemd until then: (mask, link)."""
    return (
        os.path.join(paths.run, "systemd", "system.control", PULLED_IN_BY, TIMER),
        os.path.join(paths.units, PULLED_IN_BY, TIMER),
    )


def _put_link(path: str, target: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, path)
        sync_directory(os.path.dirname(path))
    except OSError as problem:
        raise StateError(f"{path} cannot be made: {problem.strerror}; the restore timer needs it") from None


def _forgotten(host: Host) -> bool:
    deadline = host.monotonic() + FORGOTTEN_S
    while host.show(TIMER).get("LoadState") != "not-found":
        if host.monotonic() >= deadline:
            return False
        host.sleep(LOOK_S)
    return True
