# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the unit that systemd has in memory holds what its files say, and which of them has the last word. Pure.

`NeedDaemonReload` does not tell: up to systemd 252 at least, it stays `no` when the directory of a unit's drop-ins is
new, and so it does for a file that was put back with its old date.

A source is a file of a unit in the order in which they apply: {kind: unit, drop-in or EnvironmentFile, path,
environment, resets, unsets}, as `_systemd.parse_service` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Source, UnitEnvironment


def last_word(name: str, sources: Sequence[Source]) -> tuple[Source, str | None, str] | None:
    """Which file of a unit decides a variable, by systemd's rules: (source, value or None, what it does).

    None where no file says anything of it.
    """
    last: tuple[Source, str | None, str] | None = None
    for source in sources:
        if source["resets"] and last and last[0]["kind"] != "EnvironmentFile":
            last = (source, None, f"takes {name} back (an empty Environment=)")
        if name in source["environment"]:
            last = (source, source["environment"][name], f"sets {name}={source['environment'][name]}")
    for source in sources:
        for word in source["unsets"]:
            unset, equals, value = word.partition("=")
            if unset == name and (not equals or (last and last[1] == value)):
                last = (source, None, f"unsets {name}")
    return last


def must_be_read_again(unit: UnitEnvironment) -> bool:
    """Whether systemd has to read a unit again for its memory to hold what the unit's files say.

    `unit`: {name, load_state, need_daemon_reload, fragment_path, drop_in_paths and environment as systemd has them in
    memory, own (paths of this collection's drop-ins on the disk), gone (drop-ins that systemd has in memory and are
    not on the disk any more), sources (as they are on the disk)}.
    """
    new = set(unit["own"]) - set(unit["drop_in_paths"])
    return bool(unit["need_daemon_reload"] or new or unit["gone"] or differing(unit))


def not_in_memory(unit: UnitEnvironment) -> list[str]:
    """What of this collection's drop-ins systemd does not have in memory, or will not give the process, and why."""
    problems = [
        f"systemd does not list {path} among the drop-ins of {unit['name']}: {_why_not_listed(unit)}"
        for path in unit["own"]
        if path not in unit["drop_in_paths"]
    ]
    if problems:
        return problems
    for name, value in _own_environment(unit).items():
        word = last_word(name, unit["sources"])
        if word and word[1] != value:
            does = word[2] if name in settings.SHOWN else "sets it otherwise"
            problems.append(
                f"{name} is not in force: the {word[0]['kind']} {word[0]['path']} {does} and has the last word; take "
                "the line out"
            )
    otherwise = [name for name in differing(unit) if name in _own_environment(unit)]
    if otherwise and not problems:
        problems.append(
            f"systemd has {', '.join(otherwise)} of {unit['name']} otherwise in memory than "
            f"{' and '.join(unit['own'])} says, also after a daemon-reload; see: systemctl cat {unit['name']}"
        )
    return problems


def _why_not_listed(unit: UnitEnvironment) -> str:
    if unit["load_state"] == "masked":
        return f"the unit is masked; systemctl unmask {unit['name']}"
    if unit["load_state"] != "loaded":
        return f"the unit is {unit['load_state']}; name the unit that runs Ollama in gpu_memory_ollama.unit"
    return f"a file of that name is in a place that goes before, or masks it; see: systemctl cat {unit['name']}"


def _own_environment(unit: UnitEnvironment) -> dict[str, str]:
    merged: dict[str, str] = {}
    for source in unit["sources"]:
        if source["path"] in unit["own"]:
            merged.update(source["environment"])
    return merged


def differing(unit: UnitEnvironment) -> list[str]:
    """The variables that systemd has otherwise in memory than the unit's files say.

    What has a specifier (`%h`) in a file stands resolved in memory, and is not compared.
    """
    of_unit = (source for source in unit["sources"] if source["kind"] != "EnvironmentFile")
    sources: list[Source] = [{**source, "unsets": []} for source in of_unit]
    differing = []
    for name in sorted({*unit["environment"], *(name for source in sources for name in source["environment"])}):
        word = last_word(name, sources)
        wanted = word[1] if word else None
        if wanted != unit["environment"].get(name) and "%" not in (wanted or ""):
            differing.append(name)
    return differing
