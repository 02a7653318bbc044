# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins of this collection share on the controller."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.vars import load_extra_vars

ROOM = 2**20  # bytes that the reports of a run may take at least


def set_in_inventory(names: tuple[str, ...], beside_the_play: Collection[str], loader: Any) -> list[str]:
    """Those of the names that some variable file sets. Play keywords cannot see them there; `-e` reaches both.

    `beside_the_play`: the names of a task's variables without those of its play (`vars` of an import_playbook).
    """
    extra = load_extra_vars(loader)
    return [name for name in names if name in beside_the_play and name not in extra]


def given_on_the_command_line(name: str, loader: Any) -> bool:
    return name in load_extra_vars(loader)


def with_origin(problem: str, variables: Mapping[str, object]) -> str:
    """A problem with where its variable was said, as `group_vars/all.yml:12`, where ansible-core knows it."""
    named = re.match(r"gpu_memory_\w+", problem)
    origin, value = None, variables.get(named[0]) if named else None
    rest = problem[named.end() :] if named else ""
    while value is not None:
        origin = _origin(value) or origin
        if not isinstance(value, Mapping):
            break
        # Keys may hold dots, so the longest that fits is the one that was meant.
        fitting = [key for key in value if re.match(rf"\.{re.escape(str(key))}(?!\w)", rest)]
        key = max(fitting, key=lambda key: len(str(key)), default=None)
        rest = rest[len(str(key)) + 1 :]
        value = None if key is None else value[key]
    return f"{problem} ({origin})" if origin else problem


def _origin(value: object) -> str | None:
    """The file and line that a variable came from; None where ansible-core, to whom this is private, does not tell."""
    try:
        from ansible._internal._datatag._tags import Origin
    except ImportError:
        return None
    tag = Origin.get_tag(value)
    if tag is None or not tag.path:
        return tag.description if tag else None
    path = Path(tag.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{tag.line_num}" if tag.line_num else str(path)


def begun_in_the_middle(*registered: Any) -> str | None:
    """What to tell whoever left out the first tasks of the role, which have registered these; None where nobody has."""
    if all(registered):
        return None
    return "the role was begun in the middle (--start-at-task, --step), and nothing was changed; run it as a whole"


def registered(name: str, hosts: Iterable[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """What each host has registered as `name`; None for one that was lost before it did.

    A host that has nothing and is still in the play is one that `when` leaves out, and is not among them.
    """
    in_play = set(variables.get("ansible_play_hosts") or [])
    found = {host: variables["hostvars"][host].get(name) or None for host in hosts}
    return {host: value for host, value in found.items() if value or host not in in_play}


def failed_before(hosts: Iterable[str], variables: Mapping[str, Any]) -> list[str]:
    """Those of the hosts that some task has failed before they came to the role: a matter of that task's play.

    One that cannot be reached is not among them. Ansible tells the two apart within a batch alone, so that the gate of
    each wave remembers it.
    """
    known = {host: variables["hostvars"][host] for host in hosts}
    reached = {*(variables.get("ansible_current_hosts") or []), *(variables.get("ansible_failed_hosts") or [])}
    failed = reached - set(variables.get("ansible_play_hosts") or [])
    for gate in filter(None, (one.get("__gpu_memory_gate") for one in known.values())):
        failed.update(gate.get("failed_before") or [])
    # A host that came to the role has registered this, be it that its first task has failed.
    return [host for host, one in known.items() if host in failed and not one.get("__gpu_memory_declared")]


def absolute(declared: str) -> Path:
    """Relative to where the user stands."""
    return Path(os.path.expanduser(declared)).absolute()


def report_directory(declared: str) -> Path:
    if not declared.strip():
        raise AnsibleActionFail(
            "gpu_memory_report_dir is empty: name the directory on the controller where the records go; . is where you "
            "stand"
        )
    return absolute(declared)


def no_reports(directory: Path) -> str | None:
    """Why no report can be written into a directory, which need not be there yet; None where one can.

    It is tried, and nothing is left of that.
    """
    there = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        return _not_written(directory, f"{there} is no directory")
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(ROOM))
    except OSError as problem:
        return _not_written(directory, f"{there}: {problem.strerror}")
    return None


def _not_written(what: Path, why: str) -> str:
    return (
        f"gpu_memory_report_dir: on the controller {what} cannot be written: {why}; mend that, or set it to a "
        f"directory with room that {getpass.getuser()} may write to"
    )


def write_json(path: Path, content: Mapping[str, object]) -> None:
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_text(path: Path, content: str) -> None:
    """Replace a report as a whole, so that nobody reads half of one. Readable by its owner alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as problem:
        raise AnsibleActionFail(_not_written(path, str(problem.strerror))) from None  # it would be said twice


def read_json(path: Path) -> object:
    """OSError or ValueError where it cannot be read."""
    with path.open(encoding="utf-8") as file:
        return json.load(file)
