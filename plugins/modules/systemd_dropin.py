#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set the environment of a systemd service in a drop-in of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import (
    compose_files,
    quadlets,
    secrets,
    unit_files,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, commands, root

UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*\.conf")
VERIFY_TIMEOUT_S = 60


class Refused(Exception):
    """What the user asked for cannot be done; the text says why and what to do."""


def wanted_text(params: dict[str, Any], section: str = "Service") -> str:
    """The drop-in as the options want it; Refused with all that is wrong with them."""
    problems = []
    values = {}
    if not UNIT.fullmatch(params["unit"]) and not compose.is_one(params["unit"]):
        problems.append(f"unit: {params['unit']!r} is no name of a service; allowed: such as ollama.service")
    if not NAME.fullmatch(params["name"]):
        problems.append(f"name: {params['name']!r} is no name of a drop-in; allowed: such as {unit_text.DROP_IN}")
    for key, value in params["environment"].items():
        try:
            values[str(key)] = dotenv.canonical(value)
        except ValueError as problem:
            problems.append(f"environment.{key}: {problem}")
    writer = params["written_by"]
    if writer and not unit_text.WRITER.fullmatch(writer):
        problems.append(f"written_by: {writer!r}: allowed: words of letters, digits, _, . and -")
    try:
        text = unit_text.render_dropin(values, writer, section)
    except unit_text.InvalidEnvironment as problem:
        problems.append(f"environment: {problem}")
    if problems:
        raise Refused("; ".join(problems))
    return text


def verify(unit: str, name: str, text: str, directory: str) -> tuple[bool, list[str]]:
    """Whether systemd accepts the unit with this drop-in, and what it says about it; Refused if it does not.

    Most of what `systemd-analyze verify` prints is about the unit or the host as they are, and differs from one run to
    the next, as where an ordering cycle is broken. What a drop-in is to blame for, systemd says with its path.
    """
    run = state.Paths().run
    with tempfile.TemporaryDirectory(
        prefix="gpu-memory-verify.", dir=run if os.access(run, os.W_OK) else None
    ) as place:
        os.mkdir(os.path.join(place, f"{unit}.d"))
        own = os.path.join(place, f"{unit}.d", name)
        with open(own, "w", encoding="utf-8") as file:
            file.write(text)
        output = _analyze(unit, place, directory)
    if output is None:
        return False, ["systemd-analyze is missing or does not answer, so the drop-in is not verified"]
    added = [line.replace(f"{place}/", f"{directory}/") for line in output if own in line]
    if added:
        raise Refused(f"systemd rejects the drop-in, and it is not put in place: {_shown(unit, '; '.join(added))}")
    if f"Unit {unit} not found." in output:
        return False, [f"{unit} is not there, so the drop-in is not verified"]
    return True, [_shown(unit, line) for line in output]


def _shown(unit: str, line: str) -> str:
    """systemd quotes what it does not understand, and that may be anything."""
    mask = secrets.Masking([unit])
    return mask(re.sub(r"(?<!Unknown key )'[^']*'", f"'{masking.MASK}'", line))


def _analyze(unit: str, first: str, directory: str) -> list[str] | None:
    """What `systemd-analyze verify` prints, with unit files looked for in `first` before all others."""
    command = shutil.which("systemd-analyze")
    if command is None:
        return None
    # The empty last entry stands for systemd's own search path.
    places = {"SYSTEMD_UNIT_PATH": f"{first}:{directory}:", "SYSTEMD_COLORS": "0"}
    done = commands.run([command, "verify", "--man=no", unit], VERIFY_TIMEOUT_S, environment=places)
    if done.status in (commands.NO_SUCH_COMMAND, commands.TIMED_OUT):
        return None
    return [line for line in (done.stdout + done.stderr).decode(errors="replace").splitlines() if line.strip()]


def apply(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Do what the options say, or in check mode predict it; the result without Ansible's own keys."""
    text = wanted_text(params)
    path, owner = _place(params["unit"], params["name"], params["directory"])
    directory = os.path.dirname(path)
    if owner:
        text = wanted_text(params, unit_text.section_of(path))
    present = params["state"] == "present"
    before = atomic_files.read(path)
    after = text.encode() if present else None
    changed = before != after
    verified = False
    output: list[str] = []
    if changed and present and owner:
        output = [f"{owner}, and systemd-analyze does not read it, so the drop-in is not verified"]
    elif changed and present:
        verified, output = verify(params["unit"], params["name"], text, params["directory"])
    if changed:
        unit_files.check_links(directory)
        atomic_files.check(path if os.path.isdir(directory) else directory)
        if not check_mode:
            with lease_holding.held(params["run_id"]):
                _put(path, after)
    own = {*map(str, params["environment"]), *settings.SHOWN}
    return {
        "changed": changed,
        "path": path,
        "sha256": None if after is None else hashlib.sha256(after).hexdigest(),
        "verified": verified,
        "verify_output": output,
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": unit_text.masked((before or b"").decode(errors="replace"), own),
            "after": unit_text.masked((after or b"").decode(), own),
        },
    }


def _place(unit: str, name: str, directory: str) -> tuple[str, str | None]:
    """Where the drop-in is and, of a container, whose it is."""
    if compose.is_one(unit):
        env_file = compose_files.own_env_file(unit)
        if env_file is None:
            raise Refused(
                f"unit: {unit} has no container on this host, or Docker does not answer; make it where its Compose "
                "file is: docker compose up -d"
            )
        return env_file, f"{env_file} is Docker Compose's"
    made_of = quadlets.read(unit)
    if made_of:
        return quadlet.drop_in(made_of.file, name), f"{made_of.file} is Podman's"
    return os.path.join(directory, f"{unit}.d", name), None


def _put(path: str, content: bytes | None) -> None:
    directory = os.path.dirname(path)
    if content is None:
        atomic_files.remove(path)
        # Only where nobody else has something in it; an env file stands in a directory of its owner's.
        if unit_text.section_of(path) != unit_text.NO_SECTION:
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        return
    if not os.path.isdir(directory):
        os.mkdir(directory)
        os.chmod(directory, 0o755)
    atomic_files.write(path, content, atomic_files.Ownership(0o644, os.geteuid(), os.getegid()))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "name": {"type": "str", "default": unit_text.DROP_IN},
            "environment": {"type": "dict", "default": {}},
            "written_by": {"type": "str", "default": "a task"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "default": "/etc/systemd/system"},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    root.required(module)
    try:
        result = apply(module.params, module.check_mode)
    except (Refused, StateError, atomic_files.CannotWrite) as problem:
        module.fail_json(msg=str(problem))
    except OSError as problem:
        module.fail_json(msg=f"{problem}; nothing was put in place")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
