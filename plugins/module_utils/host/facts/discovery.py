# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding Ollama and its backend on a host: units, processes, env files, models. Changes nothing.

A backend is known by what it does: its working directory holds a `.env` with settings of Ollama in it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import host_address, model_use, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers as _servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Api

# By which a program is told where Ollama is, in its environment.
CALLERS_NAMED = 10
CALLER_KEYS = ("OLLAMA_API_BASE", "OLLAMA_BASE_URL", "OLLAMA_HOST")
# Keys by which an env file shows that its owner talks to Ollama.
BACKEND_KEYS = sorted({*settings.SHOWN, "CHAT_NUM_CTX", *CALLER_KEYS})


class FoundServer(NamedTuple):
    """One Ollama server: its unit, its address as seen from this host, and who it is in words."""

    unit: str | None
    url: str
    told: str


def discover() -> dict[str, object]:
    """What runs here: `ollama` (unit, url), `models`, `backends` and `notes` on what needs a human."""
    notes: list[str] = []
    servers = [_server(pid) for pid in host_read.all_pids() if _servers.is_server(host_read.command_line(pid))]
    ollama = next((server for server in servers if server.unit), None)
    if ollama is None:
        notes += [
            f"Ollama runs here as {one.told}, and only a unit of the system that is there for it can be managed"
            for one in servers
        ] or ["no Ollama server runs here"]
    elif len(servers) > 1:
        named = ", ".join(one.told for one in servers)
        notes.append(f"{len(servers)} Ollama servers run here ({named}); the first that is a unit was taken")
    nothing: Api = {"error": None, "version": None, "models": [], "loaded": [], "show": {}}
    api = host_read.read_ollama_api(ollama.url, [], secrets.Masking(filter(None, [ollama.unit]))) if ollama else nothing
    if api["error"]:
        notes.append(f"Ollama does not answer at {ollama.url if ollama else '?'}: {api['error']}")
    backends = _backends({server.unit for server in servers})
    if len(backends) > 1:
        notes.append("more than one backend was found; keep the one that calls Ollama in gpu_memory_backend")
    told = {*(server.unit for server in servers), *(str(one["unit"]) for one in backends if "unit" in one)}
    pids = host_read.all_pids()
    calling = [(pid, keys) for pid, keys in ((pid, _caller_keys(pid)) for pid in pids) if keys]
    notes += callers([(pid, _unit_of_process(pid), host_read.command_line(pid), keys) for pid, keys in calling], told)
    names, version = [str(model["name"]) for model in api["models"]], settings.parse_version(api.get("version"))
    return {
        "ollama": ollama and {"unit": ollama.unit, "url": ollama.url},
        "models": [name for name in names if not model_use.is_elsewhere(name, api["models"], version)],
        "backends": backends,
        "notes": notes,
    }


def callers(
    processes: Iterable[tuple[int, str | None, list[str], list[str]]], told: Collection[str | None]
) -> list[str]:
    """A note on each service or program that its environment shows to call Ollama, by the names of variables alone.

    `processes`: pid, unit, command line and the names found. `told`: the units that are known already.
    """
    notes: dict[str, str] = {}
    for pid, unit, command, keys in processes:
        if not keys or not command or _servers.is_program(command[0]) or unit is not None and unit in told:
            continue
        who = unit or f"{os.path.basename(command[0])} (process {pid})"
        notes.setdefault(
            unit or str(pid),
            f"{who} seems to call Ollama, with {', '.join(keys)} in its environment and no .env that could be managed; "
            "see gpu_memory_backend",
        )
    return list(notes.values())[:CALLERS_NAMED]


def _caller_keys(pid: int) -> list[str]:
    try:
        return sorted(host_read.process_environment(pid).keys() & CALLER_KEYS)
    except OSError:
        return []


def _unit_of_process(pid: int) -> str | None:
    """The service unit of this host that a process belongs to; None for sessions and for what a container holds."""
    found = server_process.whose(pid)
    return found["name"] if found["kind"] == "unit" else None


def _server(pid: int) -> FoundServer:
    try:
        host = host_read.process_environment(pid).get("OLLAMA_HOST", "")
    except OSError:
        host = ""
    return FoundServer(
        unit=_unit_of_process(pid),
        url=server_process.published_at(pid) or host_address.url_of_server(host),
        told=_servers.told(server_process.describe(pid)),
    )


def _backends(ollama_units: set[str | None]) -> list[dict[str, object]]:
    found: dict[tuple[str | None, str], dict[str, object]] = {}
    for pid in host_read.all_pids():
        try:
            directory = os.readlink(f"/proc/{pid}/cwd")
        except OSError:
            continue
        path = os.path.join(directory, ".env")
        if directory == "/" or not os.path.isfile(path):
            continue
        unit = _unit_of_process(pid)
        if unit in ollama_units and unit is not None:
            continue
        keys = _keys(path)
        if not keys or (unit, directory) in found:
            continue
        kind = {"kind": "unit", "unit": unit} if unit else _command(host_read.command_line(pid))
        found[unit, directory] = {**kind, "directory": directory, "env_files": [{"path": ".env"}], "keys_found": keys}
    return list(found.values())


def _command(words: list[str]) -> dict[str, str]:
    """How a backend without a unit is started and found again; only its first words, since others may be secrets."""
    first = words[:2] if os.path.basename(words[0]).startswith("python") else words[:1]
    return {"kind": "command", "command": shlex.join(first), "process_match": re.escape(first[-1]) + "( |$)"}


def _keys(path: str) -> list[str]:
    try:
        values = dotenv.get_keys(held_path.beginning(path, dotenv.MOST_BYTES), BACKEND_KEYS)
    except ValueError:
        return []
    return sorted(name for name, value in values.items() if value is not None)
