# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What starts a server besides its unit, and what that has made of the environment that the unit gives it."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Changes, StartScript, Unit


def by(unit: Unit) -> str | None:
    """What a unit starts the server by, besides Ollama itself: it may change what the server gets; None without any."""
    init_script = unit.get("source_path")
    others = [path for path in unit.get("programs") or [] if not servers.is_program(path) or path == init_script]
    return " or ".join(others) or None


def notes(wanted: Mapping[str, str], unit: Unit, given: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """What the server runs with though its unit does not give it (`given`), where a program may be why.

    And what a script may set: of what a program does, no text may tell; `problems` has what one tells.
    """
    program = by(unit)
    found = [
        f"the server runs with {name}={running[name]}, which {unit['name']} does not give it: see whether {program}, "
        f"by which its ExecStart starts it, sets that; it would win over this collection's {name}={value}, and the "
        "apply would be rolled back"
        for name, value in wanted.items()
        if program and running.get(name) not in (None, value, given.get(name))
    ]
    for script in unit.get("start_scripts") or []:
        computes, perhaps = script.get("computes") or [], script.get("perhaps") or {}
        names = [name for name, value in wanted.items() if running.get(name) != value and (computes or name in perhaps)]
        if names:
            reads = f"reads {', '.join(computes)} and " if computes else ""
            found.append(
                f"{_who(unit, script)} {reads}may set {', '.join(names)}; if the run is rolled back, look there"
            )
    return found


def problems(wanted: Mapping[str, str], unit: Unit, given: Mapping[str, str], running: Mapping[str, str]) -> list[str]:
    """What starts the server with something else than `wanted`, or without it.

    What a script does in a branch counts where the server has it (`running`), and not from its unit (`given`).
    """
    found = [
        f"ExecStart of {unit['name']} sets {name}={value} and wins over this collection's {name}={wanted[name]}; "
        "take it out there"
        for name, value in (unit.get("exec_environment") or {}).items()
        if name in wanted and value != wanted[name] and running.get(name, value) == value
    ]
    for script in unit.get("start_scripts") or []:
        values = {name: [value] for name, value in script["environment"].items()}
        for name, may_be in (script.get("perhaps") or {}).items():
            values[name] = [value for value in may_be if given.get(name) != value]
        found += [
            f"{_who(unit, script)} sets {name}={running[name]} and wins over this collection's {name}={wanted[name]}; "
            "take the line out there"
            for name, may_be in values.items()
            if name in wanted and running.get(name) != wanted[name] and running.get(name) in may_be
        ]
        found += _taken_away(wanted, _who(unit, script), script, given, running)
    by_itself = unit.get("exec")
    return found + (_taken_away(wanted, f"ExecStart of {unit['name']}", by_itself, given, running) if by_itself else [])


def _taken_away(
    wanted: Mapping[str, str],
    who: str,
    one: Changes | StartScript,
    given: Mapping[str, str],
    running: Mapping[str, str],
) -> list[str]:
    """What a script, or ExecStart itself, takes away of the environment that the unit gives."""
    lost = [name for name, value in wanted.items() if running.get(name) != value]
    found = [f"{who} takes {name} away; take that out there" for name in one.get("unsets") or [] if name in lost]
    kept = set(one.get("keeps") or [])
    lost = [name for name in lost if name not in kept]
    passes = any(running.get(name) == value for name, value in given.items() if name not in kept)
    by_program = one.get("strips")
    if by_program and lost and not passes:
        program = by_program.split(maxsplit=1)[0]
        cure = f"take {by_program} out"
        if program in ("sudo", "doas", "su", "runuser"):
            cure = f"set User= in the unit instead of {by_program}"
        if program == "sudo":
            cure += f", or add --preserve-env={','.join(sorted(wanted))}"
        found.append(
            f"{who} starts the server by {by_program}, which takes the unit's environment away, and "
            f"with it {', '.join(lost)}; {cure}"
        )
    return found


def _who(unit: Unit, script: StartScript) -> str:
    path = script["path"]
    if path == unit.get("source_path"):
        return f"{path}, the init script of which systemd makes {unit['name']},"
    return f"{path}, by which ExecStart of {unit['name']} starts the server,"
