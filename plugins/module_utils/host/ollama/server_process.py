# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers at Ollama's address, and which other Ollamas run here. Changes nothing."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, quadlets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import docker, service_properties

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        Described,
        GpuProcess,
        OtherOllama,
        Owner,
        Server,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Unit

CONNECT_S = 5
MOST_FILES = 65536  # of one process that are looked at
MOST_BYTES = 16 * 1024 * 1024  # of /proc/net/tcp
MOST_PARENTS = 64
DOCKER = "docker "  # before the id, in what a container is called


class Found(TypedDict):
    """Who answers at an address, where the unit itself listens, whether apart, and the pids of its own."""

    server: Server | None
    listens: list[str]
    apart: bool
    family: list[int]


def read(unit: Unit, url: str, answers: bool) -> Found:
    """`server`: who answers at `url`, as `servers.mismatch` takes it; None where nothing does.

    `listens`: where the unit's own server listens instead, as addresses; `apart`: whether that is in a network
    namespace of its own; `family`: the pids of that server and of its runners.
    """
    main = unit.get("main_pid")
    family = host_read.with_descendants([main]) if main else []
    pids = _pids(unit)
    serving = server_of(unit)
    network = _apart(serving, "net") if serving else None
    server = _who_answers(unit, url, pids, network) if answers else None
    listens: list[str] = []
    if server is None or not server["ours"]:  # a runner listens too, at a port of its own
        held = _sockets(pid for pid in pids if not servers.is_runner(host_read.command_line(pid)))
        table = _listeners(serving if network else None)
        listens = sorted({servers.url_of(address, at) for address, at, inode in table if inode in held})
    return {"server": server, "listens": listens, "apart": network is not None, "family": family}


def mismatch(unit: Unit, url: str) -> str | None:
    """Why what answers at `url` is not the unit, in words; None where it is."""
    found = read(unit, url, answers=True)
    return servers.mismatch(unit["name"], url, found["server"], [] if found["apart"] else found["listens"])


def listening(pids: Iterable[int]) -> list[int]:
    """Those of some processes that take connections over TCP, each in its own network."""
    return [pid for pid in pids if not _sockets([pid]).isdisjoint(inode for _at, _port, inode in _listeners(pid))]


def server_of(unit: Unit) -> int | None:
    """The process of an active unit that serves: its main one may be a shell, or a program, that started it."""
    pids, otherwise = _pids(unit), unit.get("main_pid") or None
    if unit.get("quadlet"):  # the main one is the container's monitor
        pids = [pid for pid in pids if pid != otherwise]
        otherwise = next(iter(pids), None)
    return next((pid for pid in pids if servers.is_server(host_read.command_line(pid))), otherwise)


def published_at(pid: int) -> str | None:
    """Where the container that a server runs in has published it on this host, by who holds the port there."""
    conmon = _conmon_of(pid)
    holders = [conmon] if conmon else [one for one in host_read.all_pids() if _behind(one) == pid]
    held = _sockets(holders) if _apart(pid, "net") else set()
    return next((servers.url_of(address, port) for address, port, inode in _listeners() if inode in held), None)


def _pids(unit: Unit) -> list[int]:
    if not unit.get("main_pid") and unit.get("active_state") != "active":
        return []
    with contextlib.suppress(OSError):
        return host_read.unit_pids(unit)
    return [unit["main_pid"]]


def _who_answers(unit: Unit, url: str, unit_pids: Collection[int], network: str | None) -> Server:
    """`network`: the unit's own network namespace, if it has one. What listens for it from in there is the unit's, and
    so is what holds the port that a container of Compose has published.
    """
    inodes = _sockets_of(url, unit_pids)
    holders = _holders(inodes, unit_pids) or _holders(inodes, host_read.all_pids())
    holders = [pid for pid in holders if pid != 1] or holders  # systemd holds the socket that it activated
    found: list[Server] = []
    for pid in holders:
        one = describe(pid)
        passes_on = network is not None and not one["serves"] and _apart(pid, "net") == network
        is_known = pid in unit_pids or passes_on or compose.is_one(unit.get("name")) and one["name"] == unit["name"]
        found.append({**one, "ours": one["kind"] != "container" and is_known})
    nobody: Server = {"pid": None, "command": "", "kind": "process", "name": None, "serves": False, "ours": False}
    return next((one for one in found if one["ours"]), next(iter(found), nobody))


def others(family: Collection[int], processes: Iterable[GpuProcess]) -> list[OtherOllama]:
    """Ollama's processes among those with GPU memory (`processes`, as NVML has them) that are not of this server.

    Each is {pid, command, kind, name, user, alone}; `alone`: a runner whose server is gone.
    """
    found: dict[int, OtherOllama] = {}
    for process in processes:
        pid = process["pid"]
        if pid in family or pid in found or not _is_ollama(pid):
            continue
        found[pid] = {**describe(pid), "pid": pid, "alone": _is_alone(pid)}
    return list(found.values())


def _sockets_of(url: str, unit_pids: Collection[int]) -> set[str]:
    """The sockets of this machine that take a connection to `url`: of this host, or of another network on it."""
    place = servers.place_of(url)
    found: set[str] = set()
    with contextlib.suppress(OSError, ValueError):
        if place:
            with socket.create_connection(place, CONNECT_S) as connection:
                peer, source = connection.getpeername()[0], connection.getsockname()[0]
            if servers.stays_here(source, peer):
                return servers.listening_at(_listeners(), peer, place[1])
            for pid in _other_networks(unit_pids):
                if servers.is_of_network(peer, _net(pid, "fib_trie"), _net(pid, "if_inet6")):
                    found |= servers.listening_at(_listeners(pid), peer, place[1])
    return found


def _other_networks(unit_pids: Collection[int]) -> list[int]:
    """One process of each network namespace, other than this one, in which the unit or an Ollama runs."""
    those = [pid for pid in host_read.all_pids() if pid in unit_pids or _is_ollama(pid)]
    found = {_apart(pid, "net"): pid for pid in those}
    return [pid for network, pid in found.items() if network]


def _apart(pid: int | None, kind: str) -> str | None:
    """The namespace (`net`, `pid`) of a process, where it is another than that of this host."""
    with contextlib.suppress(OSError):
        its, ours = (os.readlink(f"/proc/{one}/ns/{kind}") for one in (pid, "self"))
        return its if its != ours else None
    return None


def _is_alone(pid: int) -> bool:
    """Whether it is an Ollama's runner whose server is gone: systemd has taken it over."""
    parent = host_read.parent(pid)
    orphan = parent == 1 or parent is not None and _program(parent) == "systemd"
    return orphan and servers.is_ollamas_runner(host_read.command_line(pid))


def _is_ollama(pid: int) -> bool:
    command = host_read.command_line(pid)
    return servers.is_server(command) or servers.is_runner(command)


def describe(pid: int) -> Described:
    """{pid, command, user, serves (whether it is `ollama serve`)} of a process, and `whose` it is."""
    user = None
    with contextlib.suppress(OSError, KeyError):
        user = pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    serves = servers.is_server(host_read.command_line(pid))
    return {"pid": pid, "command": _program(pid), "user": user, "serves": serves, **whose(pid)}


def whose(pid: int) -> Owner:
    """{kind, name} of a process, by its control groups (`servers.owner`), and two kinds more.

    `namespace`: in a container that no control group tells. `started`: an Ollama that a unit started which is there for
    something else. A unit that is there for Ollama may have a PID namespace (PrivatePIDs=). What Podman's monitor of a
    container has started is a container, whatever its group, and so is the monitor; of a Quadlet both are its unit's.
    What Compose has made is a unit by the name that it has here, and so is what holds its port.
    """
    pid = _behind(pid) or pid
    found = servers.owner(servers.paths_here(host_read.groups_of(pid), host_read.groups_of(1)))
    conmon = _conmon_of(pid)
    if conmon:
        unit = quadlets.unit_of(conmon)
        in_group = found["name"] if found["kind"] == "container" else "podman"
        return {"kind": "unit", "name": unit} if unit else {"kind": "container", "name": in_group}
    service = docker.service_of(str(found["name"])[len(DOCKER) :]) if _is_dockers(found) else None
    if service:
        return {"kind": "unit", "name": service}
    serves = servers.is_server(host_read.command_line(pid))
    if found["kind"] == "container" or found["kind"] == "unit" and serves and _is_for_ollama(str(found["name"]), pid):
        return {**found}
    if _apart(pid, "pid"):
        return {**found, "kind": "namespace"}
    return {**found, "kind": "started" if found["kind"] == "unit" and serves else found["kind"]}


def _is_dockers(found: Owner) -> bool:
    """Whether a process is of a container of the system's Docker; a rootless one's name ends with its user."""
    name = str(found["name"])
    return found["kind"] == "container" and name.startswith(DOCKER) and " " not in name[len(DOCKER) :]


def _behind(pid: int) -> int | None:
    """The Ollama whose published port a process of Docker holds; None of every other process."""
    command = host_read.command_line(pid)
    if not command or os.path.basename(command[0]) != compose.PORT_HOLDER:
        return None
    address = next((value for word, value in zip(command, command[1:]) if word == "-container-ip"), "")
    apart = (one for one in host_read.all_pids() if servers.is_server(host_read.command_line(one)))
    with contextlib.suppress(ValueError):
        for one in apart:
            if _apart(one, "net") and servers.is_of_network(address, _net(one, "fib_trie"), _net(one, "if_inet6")):
                return one
    return None


def _conmon_of(pid: int) -> int | None:
    """Podman's monitor of the container that a process is of, or is the monitor of."""
    at: int | None = pid
    for _step in range(MOST_PARENTS):
        if not at or at == 1 or _program(at) == quadlet.CONMON:
            break
        at = host_read.parent(at)
    return at if at and _program(at) == quadlet.CONMON else None


def _is_for_ollama(unit: str, pid: int) -> bool:
    properties = service_properties.of(unit, "MainPID,ExecStart")
    main = properties.get("MainPID", "")
    return servers.is_for_ollama(unit, int(main) if main.isdigit() else 0, properties.get("ExecStart", ""), pid)


def _program(pid: int) -> str:
    return os.path.basename(next(iter(host_read.command_line(pid)), "")) or "no command line"


def _listeners(pid: int | None = None) -> list[tuple[str, int, str]]:
    """What listens in the network of a process, or in this one."""
    return [one for name in ("tcp", "tcp6") for one in servers.listeners(_net(pid, name))]


def _net(pid: int | None, name: str) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid or 'self'}/net/{name}", encoding="ascii") as file:
        return file.read(MOST_BYTES)
    return ""


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
