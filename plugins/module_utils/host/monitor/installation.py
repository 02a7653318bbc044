# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor on a host: its files, its units and their sandbox, put there and taken away as a whole."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import json
import os
import py_compile
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.restore_timer import python
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state_files import (
    make_directory,
    remove_file,
    write_file,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.watch import METRICS_FILE, RESTORE_REQUEST
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.watch_rules import ACTIONS, Config
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host

SERVICE = "gpu-memory-monitor.service"
RESTORE_PATH = "gpu-memory-monitor-restore.path"
RESTORE_SERVICE = "gpu-memory-monitor-restore.service"
START_S = 90
GROUPS = ("systemd-journal", "video", "render")  # who may read the journal, and where it is limited so, the GPU
LEAST_PERIOD_S, MOST_PERIOD_S = 5, 300

SERVICE_TEXT = """\
[Unit]
Description=Watch GPU memory, drift and failures of Ollama
Documentation=https://github.com/selo-ai/selo.gpu_memory/blob/main/docs/monitor.md
After=systemd-journald.service nvidia-persistenced.service
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -I -S {directory}/gpu-memory monitor {directory}/config.json
Restart=always
RestartSec=30s
TimeoutStartSec=80s
WatchdogSec={watchdog_s}s
RuntimeDirectory=gpu-memory-monitor
RuntimeDirectoryMode=0755

# A user of its own without any capability, that sees of what is kept on this host only its own program and settings.
DynamicUser=yes
SupplementaryGroups={groups}
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
TemporaryFileSystem={root}:ro
BindReadOnlyPaths={directory}
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
UMask=0077
# The nodes of NVIDIA's driver, by the names that /proc/devices has for them.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
MemoryMax=64M
TasksMax=16
{network}
[Install]
WantedBy=multi-user.target
"""
NO_NETWORK = """\
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
"""
OLLAMA_ONLY = """\
# To have Ollama unload its models.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
IPAddressDeny=any
IPAddressAllow={address}
"""
STATE = """\
# When it acted last.
StateDirectory=gpu-memory-monitor
"""
# The monitor may not put anything back. It asks for it, by a file that this waits for.
RESTORE_PATH_TEXT = """\
[Unit]
Description=Wait for the monitor of GPU memory to ask for the last proven settings

[Path]
PathChanged=/run/gpu-memory-monitor/{request}

[Install]
WantedBy=multi-user.target
"""
RESTORE_SERVICE_TEXT = """\
[Unit]
Description=Put the last proven settings of GPU memory back, as the monitor has asked

[Service]
Type=oneshot
ExecStart={python} {directory}/gpu-memory rollback proven --reason "the monitor saw a breach"
"""


@dataclass(frozen=True)
class Places:
    """Every place that the monitor has on a host. Tests give their own roots."""

    paths: Paths = Paths()
    runtime: str = "/run/gpu-memory-monitor"
    states: tuple[str, ...] = ("/var/lib/private/gpu-memory-monitor", "/var/lib/gpu-memory-monitor")

    @property
    def directory(self) -> str:
        return os.path.join(self.paths.root, "monitor")

    @property
    def config(self) -> str:
        return os.path.join(self.directory, "config.json")

    @property
    def bindings(self) -> str:
        return os.path.join(self.directory, "pynvml.py")

    @property
    def metrics(self) -> str:
        return os.path.join(self.runtime, METRICS_FILE)

    def unit(self, name: str) -> str:
        return os.path.join(self.paths.units, name)


def problems_of(config: Config) -> list[str]:
    """What is wrong with a configuration, each with what is allowed."""
    problems = []
    if not LEAST_PERIOD_S <= config["period_s"] <= MOST_PERIOD_S:
        problems.append(f"period_s = {config['period_s']} must be from {LEAST_PERIOD_S} to {MOST_PERIOD_S}")
    if config["max_used_mib"] is not None and config["max_used_mib"] < 1:
        problems.append(f"max_used_mib = {config['max_used_mib']} must be at least 1")
    if config["action"] not in ACTIONS:
        problems.append(f"action = {config['action']!r} is not allowed; allowed: {', '.join(ACTIONS)}")
    elif config["action"] != "none" and config["max_used_mib"] is None:
        problems.append(f"action = {config['action']!r} needs max_used_mib, or there is no breach to act on")
    if config["action_interval_s"] < 60:
        problems.append(f"action_interval_s = {config['action_interval_s']} must be at least 60")
    if config["action"] == "unload" and _address(config["ollama"]["url"]) is None:
        problems.append(
            f"ollama.url = {config['ollama']['url']!r} must have its host as localhost or in numbers, "
            "since the monitor may speak to no other address"
        )
    return problems


def service_text(config: Config, places: Places) -> str:
    """The unit of the monitor, with no more rights than its configuration needs."""
    network = NO_NETWORK
    if config["action"] == "unload":
        network = OLLAMA_ONLY.format(address=_address(config["ollama"]["url"]))
    return SERVICE_TEXT.format(
        python=python(),
        root=places.paths.root,
        directory=places.directory,
        watchdog_s=max(120, 4 * config["period_s"]),
        groups=" ".join(name for name in GROUPS if _is_group(name)),
        network=network + (STATE if config["action"] != "none" else ""),
    )


def _address(url: str) -> str | None:
    """The host of a URL as IPAddressAllow= takes it; None for a name."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return host
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    return "localhost" if found.is_loopback else str(found)


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def wanted_files(config: Config, places: Places, tool: bytes, bindings: bytes | None) -> dict[str, tuple[bytes, int]]:
    """Every file of the monitor by its path, as (content, mode). Only root may enter the directory above them."""
    text = json.dumps(config, indent=1, sort_keys=True) + "\n"
    files = {
        os.path.join(places.directory, "gpu-memory"): (tool, 0o644),
        places.config: (text.encode(), 0o644),
        places.unit(SERVICE): (service_text(config, places).encode(), 0o644),
    }
    if bindings is not None:
        files[places.bindings] = (bindings, 0o644)
    if config["action"] == "restore":
        restore = RESTORE_SERVICE_TEXT.format(python=python(), directory=places.directory)
        files[places.unit(RESTORE_PATH)] = (RESTORE_PATH_TEXT.format(request=RESTORE_REQUEST).encode(), 0o644)
        files[places.unit(RESTORE_SERVICE)] = (restore.encode(), 0o644)
    return files


def install(config: Config, places: Places, host: Host, files: Mapping[str, tuple[bytes, int]], check: bool) -> bool:
    """Bring the monitor to `files`, running and started at boot; whether anything changed. StateError if it fails."""
    stale = [path for path in _present(places) if path not in files and path != places.bindings]
    differ = [path for path, (content, _unused) in files.items() if _content(path) != content]
    known = [path for path in differ if os.path.lexists(path)]  # what is new, systemd reads when it starts it
    old_link, link = _recorded_link(places), _link(config["textfile_dir"])
    link_differs = link is not None and not _links_to(link, places.metrics)
    units = [SERVICE] + ([RESTORE_PATH] if config["action"] == "restore" else [])
    idle = [unit for unit in units if not _starts_at_boot(unit, places) or _state(host, unit) != "active"]
    changed = bool(stale or differ or link_differs or idle or (old_link not in (None, link)))
    if check or not changed:
        return changed
    make_directory(places.paths.root)
    os.makedirs(places.directory, mode=0o755, exist_ok=True)
    os.chmod(places.directory, 0o755)
    if places.unit(RESTORE_PATH) in stale:
        host.systemctl("disable", "--no-reload", "--now", RESTORE_PATH)
    for path in stale:
        remove_file(path)
    for path in differ:
        content, mode = files[path]
        write_file(path, content, mode)
        if path == places.bindings:  # to compile them takes 15 MiB, which the monitor would keep
            py_compile.compile(path, doraise=True)
    if old_link not in (None, link):
        _unlink(old_link, places)
    if link is not None and link_differs:
        _put_link(link, places)
    _must(host.systemctl("enable", "--no-reload", *units))
    if any(path.startswith(places.paths.units) for path in [*stale, *known]):
        _must(host.systemctl("daemon-reload"))
    for unit in units:
        if differ or unit in idle:
            _must(host.systemctl("restart", unit, timeout_s=START_S), unit)
    return True


def remove(places: Places, host: Host, check: bool) -> bool:
    """Take the monitor away without a trace; whether there was anything."""
    link = _recorded_link(places)
    there = [path for path in everything(places) if os.path.lexists(path)]
    if check or not (there or link):
        return bool(there or link)
    for unit in (RESTORE_PATH, SERVICE):
        host.systemctl("disable", "--no-reload", "--now", unit)
    if link:
        _unlink(link, places)
    for path in everything(places):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            remove_file(path)
    with contextlib.suppress(OSError):  # where there are generations, it stays
        os.rmdir(places.paths.root)
    _must(host.systemctl("daemon-reload"))
    host.systemctl("reset-failed", SERVICE)
    return True


def everything(places: Places) -> list[str]:
    """All that the monitor has on a host, but for the link in `textfile_dir`."""
    at_boot = (os.path.join("multi-user.target.wants", unit) for unit in (SERVICE, RESTORE_PATH))
    units = (places.unit(name) for name in (*at_boot, SERVICE, RESTORE_PATH, RESTORE_SERVICE))
    return [*units, *places.states, places.runtime, places.directory]


def _present(places: Places) -> list[str]:
    names = (places.unit(name) for name in (SERVICE, RESTORE_PATH, RESTORE_SERVICE))
    own = (os.path.join(places.directory, name) for name in ("gpu-memory", "config.json", "pynvml.py"))
    return [path for path in (*names, *own) if os.path.lexists(path)]


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def difference(path: str, content: bytes) -> dict[str, str]:
    """One of the monitor's files as it is and as it will be, as Ansible shows it."""
    before = (_content(path) or b"").decode(errors="replace")
    return {"before_header": path, "after_header": path, "before": before, "after": content.decode()}


def is_exported(config: Config) -> bool:
    """Whether there is a directory in which node_exporter would look."""
    return _link(config["textfile_dir"]) is not None


def _link(textfile_dir: str) -> str | None:
    """Where node_exporter would find the metrics; None without a directory of its."""
    return os.path.join(textfile_dir, METRICS_FILE) if textfile_dir and os.path.isdir(textfile_dir) else None


def _recorded_link(places: Places) -> str | None:
    """The link that the present configuration speaks of, if it is ours."""
    try:
        link = os.path.join(json.loads(_content(places.config) or b"{}")["textfile_dir"], METRICS_FILE)
    except (ValueError, KeyError, TypeError):
        return None
    return link if _links_to(link, places.metrics) else None


def _links_to(link: str, target: str) -> bool:
    return os.path.islink(link) and os.readlink(link) == target


def _put_link(link: str, places: Places) -> None:
    if os.path.lexists(link):
        raise StateError(f"{link} is there already and is not ours; move it away, or set another textfile_dir")
    os.symlink(places.metrics, link)


def _unlink(link: str | None, places: Places) -> None:
    if link and _links_to(link, places.metrics):
        os.unlink(link)


def _starts_at_boot(unit: str, places: Places) -> bool:
    return os.path.lexists(os.path.join(places.paths.units, "multi-user.target.wants", unit))


def _state(host: Host, unit: str) -> str:
    return host.show(unit).get("ActiveState") or "unknown"


def _must(problem: str, unit: str = "") -> None:
    if problem:
        raise StateError(f"{problem}; see on the host: journalctl -u {unit}" if unit else problem)


def nvml_answers(places: Places) -> bool | None:
    """Whether the monitor that runs reads NVML, by its metrics; None if it has written none."""
    text = (_content(places.metrics) or b"").decode(errors="replace")
    rows: dict[str, Any] = dict(line.partition(" ")[::2] for line in text.splitlines() if not line.startswith("#"))
    value = rows.get("gpu_memory_nvml_up")
    return None if value is None else value == "1"
