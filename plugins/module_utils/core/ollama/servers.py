# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which service a process belongs to, who listens where, and what is wrong if that is not the unit declared. Pure."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.containers import container_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd.quadlet import CONMON

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        Described,
        Owner,
        Server,
    )

ANY = ("0.0.0.0", "::")
BLOB = "/blobs/sha256-"
LISTENS = "0A"  # st in /proc/net/tcp, TCP_LISTEN
OLLAMA = "ollama"  # the program, which serves (`serve`), and up to 0.29 holds models too (`runner`)
RUNNERS = ("llama-server", "ollama_llama_server", "ollama-runner")
# What holds the published port of a container on the host.
PORT_OF_A_CONTAINER = (
    "docker-proxy", "rootlesskit", "rootlesskit-docker-proxy", "rootlessport", "pasta", "pasta.avx2", "slirp4netns",
    CONMON, "incusd", "lxd",
)  # fmt: skip
_UNIT = re.compile(r"/([^/]+\.service)(?=/|$)")
_USER = re.compile(r"/user@(\d+)\.service/")
_SESSION = re.compile(r"/session-[^/]+\.scope(?=/|$)")


def is_runner(command: Sequence[str]) -> bool:
    """Whether a command line is that of a process that holds a model for Ollama."""
    program = _without_interpreter(command)
    return posixpath.basename(program[0]) in RUNNERS or _is(program, "runner") if program else False


def is_ollamas_runner(command: Sequence[str]) -> bool:
    """Whether a runner was started by an Ollama, whose models are blobs, or by somebody who runs llama.cpp."""
    return is_runner(command) and (
        any(BLOB in word for word in command) or _is(_without_interpreter(command), "runner")
    )


def is_program(path: str) -> bool:
    return posixpath.basename(path) == OLLAMA


def is_server(command: Sequence[str]) -> bool:
    return _is(_without_interpreter(command), "serve", "start")


def _is(program: Sequence[str], *verbs: str) -> bool:
    return len(program) > 1 and is_program(program[0]) and program[1] in verbs


def _without_interpreter(command: Sequence[str]) -> Sequence[str]:
    return command[1:] if command and posixpath.basename(command[0]).startswith("python") else command


def stays_here(source: str, peer: str) -> bool:
    """Whether a connection from `source` to `peer` stays on this host."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    return address.is_loopback or source == peer


def listening_at(table: Sequence[tuple[str, int, str]], peer: str, port: int) -> set[str]:
    """The sockets that take a connection to an address of this host: the most specific ones, as the kernel chooses."""
    here = [(address.removeprefix("::ffff:"), inode) for address, at, inode in table if at == port]
    exact = {inode for address, inode in here if address == peer.removeprefix("::ffff:")}
    return exact or {inode for address, inode in here if address in ANY}


def is_of_network(peer: str, trie: str, if_inet6: str) -> bool:
    """Whether an address belongs to a network namespace, by the texts of its /proc/net/fib_trie and if_inet6."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if address.version == 6:
        return any(line.startswith(address.exploded.replace(":", "")) for line in if_inet6.splitlines())
    last = ""
    for line in trie.splitlines():
        word = line.split()
        if word[:1] in (["|--"], ["+--"]):
            last = word[1]
        elif line.endswith("host LOCAL") and last == str(address):
            return True
    return False


def place_of(url: str) -> tuple[str, int] | None:
    """Host and port of an address; None where it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return (parts.hostname, port) if parts.hostname and port else None
    except ValueError:
        return None


def listeners(table: str) -> list[tuple[str, int, str]]:
    """(address, port, inode of the socket) of all that listens, from the text of /proc/net/tcp or tcp6."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTENS:
            address, _unused, port = fields[1].partition(":")
            found.append((_address(address), int(port, 16), fields[9]))
    return found


def _address(text: str) -> str:
    """An address of /proc/net/tcp: words of four bytes in the order of this machine."""
    words = [int(text[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)  # which releases of Python write differently
    return f"::ffff:{mapped}" if mapped else str(address)


def paths_here(groups: Mapping[str, str], of_init: Mapping[str, str]) -> list[str]:
    """The control groups of a process as this host sees them, which may itself be a container.

    `groups`, `of_init`: {controllers: path} of the process and of PID 1.
    """
    paths = []
    for controllers, path in groups.items():
        start = of_init.get(controllers, "").removesuffix("/init.scope").rstrip("/")
        paths.append(path[len(start) :] if path.startswith(start) else path)
    return paths


def owner(paths: Sequence[str]) -> Owner:
    """Whose a process is by its control groups (`paths_here`): {kind, name}.

    `kind` is unit, user unit, container, session or process.
    """
    for path in paths:
        container, user = container_of(path), _USER.search(path)
        if container:
            return {"kind": "container", "name": f"{container} of uid {user[1]}" if user else container}
    for path in paths:
        unit = _UNIT.search(path)
        user = _USER.search(path)
        if user:
            of_user = _UNIT.search(path, user.end() - 1)
            return {"kind": "user unit" if of_user else "session", "name": of_user and f"{of_user[1]} of uid {user[1]}"}
        if unit:
            return {"kind": "unit", "name": unit[1]}
        if _SESSION.search(path):
            return {"kind": "session", "name": None}
    return {"kind": "process", "name": None}


def is_for_ollama(unit: str, main_pid: int, exec_start: str, pid: int) -> bool:
    """Whether a unit is there to run the server `pid`, unlike cron, a supervisor or sshd, which started one of many."""
    return main_pid == pid or "ollama" in f"{unit} {exec_start}".lower()


def told(server: Described) -> str:
    """Who a process is, in words."""
    process = f"process {server['pid']} ({server['command']}"
    process += f", user {server['user']})" if server.get("user") else ")"
    if server["command"] in PORT_OF_A_CONTAINER and not _is_served(server):
        return f"a container whose port {process} publishes"
    if server["pid"] == 1:
        return "a socket that systemd holds for another unit (systemctl list-sockets)"
    if compose.is_one(server["name"]):
        return f"the service {server['name']} of Docker Compose"
    return {
        "unit": f"the unit {server['name']}",
        "user unit": f"the user unit {server['name']}",
        "container": f"the container {server['name']}",
        "namespace": f"{process} in a PID namespace of its own, as a container has one",
        "started": f"{process}, which {server['name']} started",
        "session": f"{process}, started by hand",
    }.get(server["kind"], f"{process}, which is of no unit")


def _is_served(server: Described) -> bool:
    """Whether a process is of a container that can be served: of Compose, or Podman's monitor of one that a unit runs.

    Of one by hand it is no unit's.
    """
    return server["kind"] == "unit" and (server["command"] == CONMON or compose.is_one(server["name"]))


def mismatch(
    unit: str, url: str, server: Server | None, addresses: Sequence[str] = (), runs: bool = True, exists: bool = True
) -> str | None:
    """Why what answers at `url` is not the unit declared, and the cure; None where it is.

    `server`: what answers there, with `ours` (whether it is a process of the unit); `pid` None where nothing that this
    host can see listens at the port; None where that was not looked for. `addresses`: where the unit itself listens, if
    it `runs`; `exists`: whether this host has it at all.
    """
    if server is None or server["ours"]:
        return None
    instead = f"stop it and start {unit}" if exists else "stop it and give Ollama a unit, as its install script does"
    to_the_unit = _to_the_unit(unit, addresses, runs, exists)
    if server["pid"] is None:
        there = f"Give {unit} that address, or {to_the_unit}" if exists else f"So {to_the_unit}"
        return (
            f"an Ollama answers at {url}, but no process of this host listens there: a container whose port is "
            f"forwarded, or another machine. {there}"
        )
    is_served = _is_served(server)
    contained = server["kind"] in ("container", "namespace") or server["command"] in PORT_OF_A_CONTAINER
    if contained and not is_served:
        cure = (
            "a container is not served yet, unless a Quadlet of the system or the system's Docker Compose runs it (one "
            "of a user, rootless ones and `docker run` do not count; docs/containers.md says how to move one to "
            f"Compose): move it there, or {instead}"
        )
    elif not server["serves"] and not is_served:
        cure = f"it is no Ollama but may pass requests on to one; {to_the_unit}"
    else:
        its_own = f"set gpu_memory_ollama.unit={server['name']}"
        cure = {
            "unit": f"{its_own}, or {to_the_unit}" if exists else its_own,
            "user unit": f"only units of the system are served: move it there, or {instead}",
            "started": (
                f"have {unit if exists else 'a unit of its own'} run it instead, or, if {server['name']} is there for "
                f"Ollama alone, {its_own}"
            ),
        }.get(server["kind"], instead)
    if not exists:
        return f"at {url} {told(server)} answers: {cure}"
    return f"at {url} it is not {unit} that answers, but {told(server)}: {cure}"


def _to_the_unit(unit: str, addresses: Sequence[str], runs: bool, exists: bool) -> str:
    """What to do for the unit to be the one that is asked."""
    if not exists:
        return "set gpu_memory_ollama.unit to the unit that runs Ollama on this host, and gpu_memory_ollama.url with it"
    if not runs:
        return f"stop it and start {unit}"
    return (
        f"set gpu_memory_ollama.url{f'={addresses[0]}, where {unit} listens' if addresses else ' to where it listens'}"
    )


def url_of(address: str, port: int) -> str:
    """A listening address as seen from the host itself."""
    address = address.removeprefix("::ffff:")
    if address in ANY:
        address = "127.0.0.1"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
