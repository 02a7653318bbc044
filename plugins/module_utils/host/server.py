# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers at Ollama's address, and which other Ollamas run here. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils import _host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import servers

CONNECT_S = 5
MOST_FILES = 65536  # of one process that are looked at
MOST_BYTES = 16 * 1024 * 1024  # of /proc/net/tcp


def read(unit: Mapping[str, Any], url: str, answers: bool) -> dict[str, Any]:
    """`server`: who answers at `url`, as `servers.mismatch` takes it; None where nothing does.

    `listens`: where the unit's own server listens instead, as addresses; `family`: the pids of that server and of its
    runners.
    """
    main = unit.get("main_pid")
    family = _host_read.with_descendants([main]) if main else []
    unit_pids = [main] if main else []
    with contextlib.suppress(OSError):
        unit_pids = _host_read.unit_pids(dict(unit)) if unit.get("active_state") == "active" else []
    table = _listeners()
    inodes = _sockets_of(url, table) if answers else set()
    server = None
    if answers:
        holders = _holders(inodes, unit_pids) or _holders(inodes, _host_read.all_pids())
        holders = [pid for pid in holders if pid != 1] or holders  # systemd holds the socket that it activated
        described = [{**describe(pid), "ours": False} for pid in holders]
        for one in described:
            one["ours"] = one["pid"] in unit_pids and one["kind"] != "container"
        nobody = {"pid": None, "command": "", "kind": "process", "name": None, "ours": False}
        server = next((one for one in described if one["ours"]), next(iter(described), nobody))
    # A runner listens too, at a port of its own.
    own = [pid for pid in unit_pids if _program(pid) not in servers.RUNNERS]
    held = set() if answers else _sockets(own)  # asked for only where the unit is silent
    listens = sorted({servers.url_of(address, at) for address, at, inode in table if inode in held})
    return {"server": server, "listens": listens, "family": family}


def others(family: Collection[int], processes: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ollama's processes among those with GPU memory (`processes`, as NVML has them) that are not of this server.

    Each is {pid, command, kind, name, user, alone}; `alone`: a runner whose server is gone.
    """
    found = {}
    for process in processes:
        pid = process["pid"]
        if pid in family or pid in found or not _is_ollama(pid):
            continue
        found[pid] = {**describe(pid), "alone": _is_alone(pid)}
    return list(found.values())


def _sockets_of(url: str, table: list[tuple[str, int, str]]) -> set[str]:
    """The sockets of this host that take a connection to `url`; none where it is another machine's."""
    place = servers.place_of(url)
    with contextlib.suppress(OSError, ValueError):
        if place:
            with socket.create_connection(place, CONNECT_S) as connection:
                peer, source = connection.getpeername()[0], connection.getsockname()[0]
            if servers.stays_here(source, peer):
                return servers.listening_at(table, peer, place[1])
    return set()


def _is_alone(pid: int) -> bool:
    """Whether it is an Ollama's runner whose server is gone: systemd has taken it over."""
    parent = _host_read.parent(pid)
    orphan = parent == 1 or parent is not None and _program(parent) == "systemd"
    return orphan and servers.is_ollamas_runner(_host_read.command_line(pid))


def _is_ollama(pid: int) -> bool:
    command = _host_read.command_line(pid)
    return servers.is_server(command) or servers.is_runner(command)


def describe(pid: int) -> dict[str, Any]:
    """{pid, command, user, serves (whether it is `ollama serve`), kind, name} of a process."""
    user = None
    with contextlib.suppress(OSError, KeyError):
        user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    paths = servers.paths_here(_host_read.groups_of(pid), _host_read.groups_of(1))
    serves = servers.is_server(_host_read.command_line(pid))
    return {
        "pid": pid,
        "command": _program(pid),
        "user": user,
        "serves": serves,
        **servers.owner(paths),
    }


def _program(pid: int) -> str:
    return os.path.basename(next(iter(_host_read.command_line(pid)), "")) or "no command line"


def _listeners() -> list[tuple[str, int, str]]:
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as file:
            found += servers.listeners(file.read(MOST_BYTES))
    return found


def _holders(inodes: set[str], pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if inodes and not inodes.isdisjoint(_sockets([pid]))]


def _sockets(pids: Iterable[int]) -> set[str]:
    """The inodes of the sockets that processes have open."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd")[:MOST_FILES]:
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{number}")
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found
