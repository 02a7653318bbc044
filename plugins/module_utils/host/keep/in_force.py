# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of this collection is in force though the files of its generations do not say so: in a process, in systemd's
memory, in another file of the unit. Changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_environment, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import what_is_ours
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import KeysOfFile, Manifest
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan

Values = dict[str, set[str]]  # by the name of a variable
Copies = tuple["Manifest", Mapping[str, bytes]]  # a generation's manifest, and its contents by SHA-256


def values_of(copies: Iterable[Copies], plan: ServicePlan, ours: Mapping[str, KeysOfFile]) -> dict[str, Values]:
    """By service of a plan, what generations have of our variables; `ours` as from `what_is_ours.keys_of`."""
    ollama = plan.get("ollama")
    found: dict[str, Values] = {"ollama": {}, "backend": {}}
    for manifest, contents in copies:
        for state in manifest["files"]:
            path, content = state["path"], contents.get(state.get("sha256", ""))
            if content is None:
                continue
            if path in ours and not what_is_ours.is_drop_in(path):
                for readers in (ours[path]["readers"], ["systemd"]):  # which takes a comment for part of the value
                    _collect(found["backend"], dotenv.get_keys(content, ours[path]["keys"], readers))
            elif ollama and what_is_ours.is_drop_in_of(path, ollama["unit"]):
                text, section = content.decode(errors="replace"), unit_text.section_of(path)
                sets = {} if unit_text.writer_of(text) else unit_text.parse_environment_directives(text, section)
                _collect(found["ollama"], sets)
    return found


def _collect(into: Values, environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is not None:
            into.setdefault(name, set()).add(value)


def stale(plan: ServicePlan, values: Mapping[str, Values], host: Host) -> list[str]:
    """The services whose process has one of our `values` that no file of its unit gives it any more."""
    found = []
    for name, unit in _units(plan).items():
        facts = host.unit_environment(unit, values[name])
        for variable, value in host.process_environment(unit, values[name]).items():
            said = (unit_environment.last_word(variable, facts["sources"]) or (None, None))[1]
            if value in values[name].get(variable, ()) and value != said and "%" not in (said or ""):
                found.append(name)
                break
    return found


def is_unread(plan: ServicePlan, values: Mapping[str, Values], host: Host) -> bool:
    """Whether systemd has our drop-in of Ollama's unit, or one of its values, in memory and not in a file any more."""
    if not plan.get("ollama"):
        return False
    unit = host.unit_environment(plan["ollama"]["unit"])
    of_ours = (
        name
        for name in unit_environment.differing(unit)
        if unit["environment"].get(name) in values["ollama"].get(name, ())
    )
    return any(os.path.basename(path) == unit_text.DROP_IN for path in unit["gone"]) or any(of_ours)


def _units(plan: ServicePlan) -> dict[str, str]:
    ollama, backend = plan.get("ollama"), plan.get("backend")
    units = {"ollama": ollama["unit"]} if ollama else {}
    if backend and backend["kind"] == "unit":
        units["backend"] = backend["unit"]
    return {name: unit for name, unit in units.items() if unit}


def elsewhere(plan: ServicePlan, values: Mapping[str, Values], host: Host) -> list[str]:
    """Which files of the backend's unit have our values, where its env file is not at its place."""
    unit = _units(plan).get("backend")
    problems = []
    for source in host.unit_environment(unit, values["backend"])["sources"] if unit else ():
        names = sorted(
            name for name, value in source["environment"].items() if value in values["backend"].get(name, ())
        )
        if names:
            problems.append(
                f"{source['path']} gives {unit} this collection's {', '.join(names)}; set them to what they were, or "
                "take the lines out, and restart it"
            )
    return problems
