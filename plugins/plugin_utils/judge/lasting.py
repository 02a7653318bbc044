# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what was proven is what starts next time: what somebody has changed while it was. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_states, unit_text
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Decision
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import BackendFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import Restarted
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import EnvFile


class Changed(NamedTuple):
    """What was changed meanwhile, in words.

    `ours`: what this collection has written, started, or found as it should be. `units`: what else the services start
    with. `lines`: by path, what else is in the backend's env files. These are their owner's: nothing goes back for it.
    """

    ours: list[str]
    units: list[str]
    lines: dict[str, str]


NOTHING = Changed([], [], {})


def changed(
    declared: Sized, decision: Decision, before: HostFacts, restarted: Restarted | None, after: HostFacts
) -> Changed:
    """What is not any more as what runs was started with.

    `before`: what was read when it was decided what to do; `restarted`: the result of gpu_memory_restart, if any.
    """
    ours = [*_started_anew(before, restarted, after), *_drop_in(decision, before, after)]
    lines = {}
    began, now = _began(declared, decision, before, restarted), after.get("starts") or {}
    names = {name for name in {*began, *now} if began.get(name) != now.get(name)} if began and now else set()
    names -= {name for told in (began, now) for name in names if told.get(name) == start_script.WRITTEN}
    names -= {after["ollama"]["drop_ins"]["own"]["path"]}
    if decision.get("acts") and not restarted:
        names -= {file["path"] for file in decision["files"]}
    files = _env_files(after["backend"])
    for path, file in files.items():
        keys = _keys(path, file, decision, before)
        ours += keys
        if path in names and not keys:
            lines[path] = (
                f"somebody has changed other lines of {path} meanwhile: what runs is proven, but has not read them; "
                "they stay, and so does the profile; run this again"
            )
    others = [*sorted(names - set(files)), *_models(declared, before, after)]
    units = [
        f"{name} was changed meanwhile, so what starts next time is not what was proven; see who did it, and run this "
        "again"
        for name in others
    ]
    units += [problem for problem in _start_problems(after) if problem not in _start_problems(before)]
    return Changed(ours, units, lines)


def _start_problems(read: HostFacts) -> list[str]:
    """Why a service would not start again after a stop."""
    services = [read["ollama"]["unit"], read["backend"].get("unit")]
    return [problem for unit in services if unit for problem in unit_states.would_not_come_back(unit)]


def down(read: HostFacts) -> list[str]:
    """What does not run, or not well, of what a host serves with."""
    return [*ollama_down(read), *backend_unwell(read)]


def ollama_down(read: HostFacts) -> list[str]:
    unit = read["ollama"]["unit"]
    if not unit.get("error") and unit["active_state"] == "active":
        return []
    return [f"{unit['name']} is {unit.get('active_state') or unit.get('error')}"]


def backend_unwell(read: HostFacts) -> list[str]:
    health = read["backend"]["health"]
    if health is None or health["ok"]:
        return []
    return [f"the backend is not healthy: {health['error'] or health['status']}"]


def as_started(
    decision: Decision, before: HostFacts, restarted: Restarted | None, after: HostFacts, meanwhile: Changed
) -> HostFacts:
    """What was read, with the times of env files from before: what is in them, or their owner's lines, is told by that.

    None where the backend was restarted since: with what was in them then.
    """
    started = ((restarted or {}).get("starts") or {}) if "backend" in decision["restart"] else {}
    now, found = after.get("starts") or {}, _env_files(before["backend"])

    def as_read(file: EnvFile) -> EnvFile:
        path = file["path"]
        if path in meanwhile.lines or path in started and started[path] == now.get(path):
            return {**file, "modified_s": None}
        if file["sha256"] and path in found and found[path]["sha256"] == file["sha256"]:
            return {**file, "modified_s": found[path].get("modified_s")}
        return file

    files = [as_read(file) for file in after["backend"]["env_files"]]
    return {**after, "backend": {**after["backend"], "env_files": files}}


def _began(declared: Sized, decision: Decision, before: HostFacts, restarted: Restarted | None) -> Mapping[str, str]:
    """What the services were started with, as far as this run has seen it."""
    services = {"ollama", "backend"} if declared["backend"]["kind"] != "none" else {"ollama"}
    started = (restarted or {}).get("starts") or {}
    return started if started and services <= set(decision["restart"]) else {**(before.get("starts") or {}), **started}


def _started_anew(before: HostFacts, restarted: Restarted | None, after: HostFacts) -> list[str]:
    """Whether what was loaded is not what runs now: by process, since a clock may be set meanwhile."""
    unit, backend = after["ollama"]["unit"], after["backend"]
    pids = _pids("ollama", {before["ollama"]["unit"].get("main_pid") or 0}, restarted)
    reasons = []
    main_pid = unit.get("main_pid")  # of a unit that systemd does not show it is not known
    if pids and main_pid and main_pid not in pids:
        crashed = bool(unit.get("restarts"))
        who = "systemd did it, since it had crashed" if crashed else "somebody did it; apply again without that"
        reasons.append(f"{unit['name']} was started anew meanwhile, as process {main_pid}: {who}")
    pids = _pids("backend", set(before["backend"]["pids"]), restarted)
    if pids and not pids & set(backend["pids"]):
        became = "was started anew" if backend["pids"] else "has ended"
        reasons.append(f"the backend {became} meanwhile: it crashed, or somebody did it; see its log")
    return reasons


def _pids(service: str, found: set[int], restarted: Restarted | None) -> set[int]:
    """The processes of a service before its load: of one that this run has restarted the one that came up."""
    by_us = ((restarted or {}).get("services") or {}).get(service) or {}
    pid = by_us.get("pid_after")
    return {pid} if pid else found - {0}


def _drop_in(decision: Decision, before: HostFacts, after: HostFacts) -> list[str]:
    own, sha256 = after["ollama"]["drop_ins"]["own"], before["ollama"]["drop_ins"]["own"]["sha256"]
    if decision.get("acts") and decision["drop_in_changed"]:
        section = unit_text.section_of(own["path"])
        text = unit_text.render_dropin(decision["ollama_environment"], section=section)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
    if own["sha256"] == sha256:
        return []
    return [f"{own['path']} is not any more what was proven: somebody has changed it meanwhile"]


def _env_files(backend: BackendFacts) -> dict[str, EnvFile]:
    files = [*backend["env_files"], *([backend["profile_file"]] if backend["profile_file"] else [])]
    return {file["path"]: file for file in files}


def _keys(path: str, file: EnvFile, decision: Decision, before: HostFacts) -> list[str]:
    """The profile's keys that a file does not say any more."""
    found = _env_files(before["backend"]).get(path)
    proven = dict(found.get("values") or {}) if found else {}
    if decision.get("acts"):
        proven.update(next((env["env"] for env in decision["env_changed"] if env["path"] == path), {}))
    now = file.get("values") or {}
    return [
        f"{path}: {name} was {_said(value)} when this was proven, and is {_said(now.get(name))} now: somebody has "
        "changed it meanwhile"
        for name, value in proven.items()
        if now.get(name) != value
    ]


def _said(value: str | None) -> str:
    return "not set" if value is None else value


def _models(declared: Sized, before: HostFacts, after: HostFacts) -> list[str]:
    """The declared models that are others than before; an Ollama that is down tells of none."""
    if after["ollama"]["api"]["error"]:
        return []
    was, is_now = (
        {model_name.full(str(model["name"])).lower(): model["digest"] for model in read["ollama"]["api"]["models"]}
        for read in (before, after)
    )
    names = [(model, model_name.full(model).lower()) for model in declared["models"]]
    return [f"the model {model}" for model, full in names if full in was and was[full] != is_now.get(full)]
