#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set keys in a .env file and leave all else in it as it is."""

from __future__ import annotations

import grp
import hashlib
import pwd
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import READERS
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files


class Refused(Exception):
    """What the user asked for cannot be done; the text says why and what to do."""


def wanted_values(env: Mapping[object, object]) -> dict[str, str]:
    """`env` with its values as text; Refused with all that cannot be text."""
    values = {}
    problems = []
    for key, value in env.items():
        try:
            values[str(key)] = dotenv.canonical(value)
        except ValueError as problem:
            problems.append(f"env.{key}: {problem}")
    if problems:
        raise Refused("; ".join(problems))
    return values


def ownership(mode: object, owner: str | None, group: str | None) -> atomic_files.Ownership:
    """Mode and owner of a new file; who is not root cannot give a file away."""
    try:
        bits = mode if isinstance(mode, int) else int(str(mode), 8)
    except ValueError:
        bits = -1
    if not 0 <= bits <= 0o777:
        raise Refused(f'mode: {mode!r} is no mode of a file; allowed: octal digits in quotes, such as "0600"')
    return atomic_files.Ownership(
        bits,
        _number("owner", owner, lambda name: pwd.getpwnam(name).pw_uid),
        _number("group", group, lambda name: grp.getgrnam(name).gr_gid),
    )


def _number(option: str, name: str | None, look_up: Any) -> int | None:
    if name is None:
        return None
    try:
        return int(name) if name.isdigit() else look_up(name)
    except KeyError:
        raise Refused(f"{option}: there is no {name} on this host; create it, or give a number") from None


def edit(params: dict[str, Any], check_mode: bool) -> dict[str, object]:
    """Do what the options say, or in check mode predict it; the result without Ansible's own keys."""
    values = wanted_values(params["env"])
    keys = [*values, *params["remove"]]
    path = atomic_files.target_of(params["path"])
    content = atomic_files.read(path)
    if content is None and values and not params["create"]:
        raise Refused(f"{path} is missing; create it, or allow create=true")
    if len(content or b"") > dotenv.MOST_BYTES:
        raise Refused(f"{path}: {dotenv.TOO_LARGE}")
    before = dotenv.decode(content or b"")
    start = params["initial"] if content is None else before
    result = dotenv.set_keys(start, values, params["remove"], params["readers"])
    if result.problems:
        raise Refused(f"{path}: {'; '.join(result.problems)}")
    changed = result.text != before
    if changed:
        atomic_files.check(path)
        new = ownership(params["mode"], params["owner"], params["group"])
        if not check_mode:
            with lease_holding.held(params["run_id"]):
                atomic_files.write(path, dotenv.content_of(result.text), new)
    exists = changed or content is not None
    return {
        "changed": changed,
        "path": path,
        "changed_keys": result.changed_keys,
        "before": _shown(dotenv.get_keys(before, keys, params["readers"])),
        "after": _shown(dotenv.get_keys(result.text, keys, params["readers"])),
        "sha256": hashlib.sha256(dotenv.content_of(result.text)).hexdigest() if exists else None,
        "notes": result.notes,
        "diff": {
            "before_header": path,
            "after_header": path,
            "before": _printable(dotenv.masked(before, keys)),
            # Nothing of a new file is anybody's secret.
            "after": _printable(result.text if content is None else dotenv.masked(result.text, keys)),
        },
    }


def _printable(text: str) -> str:
    """Bytes that are not UTF-8 as question marks: the result is JSON."""
    return text.encode("utf-8", "replace").decode()


def _shown(values: dict[str, str | None]) -> dict[str, str | None]:
    return {key: None if value is None else _printable(value) for key, value in values.items()}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "env": {"type": "dict", "default": {}},
            "remove": {"type": "list", "elements": "str", "default": []},
            "readers": {
                "type": "list",
                "elements": "str",
                "choices": list(READERS),
                "default": ["python-dotenv", "bash", "systemd"],
            },
            "initial": {"type": "str", "default": ""},
            "create": {"type": "bool", "default": True},
            "mode": {"type": "raw", "default": "0600"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        result = edit(module.params, module.check_mode)
    except (Refused, StateError, atomic_files.CannotWrite) as problem:
        module.fail_json(msg=str(problem))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
