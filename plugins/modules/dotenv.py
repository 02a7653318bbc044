#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Set keys in a .env file and leave all else in it as it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: dotenv
short_description: Set keys in a .env file and leave everything else as it is
version_added: "1.0.0"
description:
  - Sets and removes keys in a C(.env) file. Every other byte stays, whatever it is. Of a line that is changed,
    C(export), spacing, a comment and, if they can carry the value, the quotes stay.
  - There is no standard for such files, so every value is written in a way, and in a place, that means exactly the same
    to all O(readers). This is proven for the whole file before it is written. Where there is no such way, the key is
    refused with the reason, and the file stays as it was.
  - Of a key that is there several times, the last line is changed, because it wins in every reader; RV(notes) names the
    others. A key whose line one of the readers does not understand (systemd and C(export), for example) is set once
    more at the end of the file.
  - The file is replaced atomically and keeps its owner, mode, ACL, SELinux label and extended attributes. A symbolic
    link is followed to its target, unless it belongs to somebody who does not own the target. A file with several hard
    links, or one that is a mount point, is overwritten in place with its space reserved beforehand.
attributes:
  check_mode:
    description: Predicts what it would do, with the same result as the real run, and changes nothing.
    support: full
  diff_mode:
    description:
      - Shows the lines of the file with the values of O(env) and O(remove) only. All other values and all comments are
        masked.
    support: full
  idempotent:
    description: A second run with the same options changes nothing, to the byte.
    support: full
options:
  path:
    description: The file. Its directory must exist.
    type: path
    required: true
  env:
    description:
      - The keys to set with their values, in the order in which new ones are appended.
      - A value is text or a number. A boolean is refused, since programs disagree about how it is written; quote it.
      - These values are shown in the result and in the diff. They are settings, not secrets.
    type: dict
    default: {}
  remove:
    description: The keys to take out, with their whole lines.
    type: list
    elements: str
    default: []
  readers:
    description:
      - The programs that read the file. C(python-dotenv) is C(load_dotenv()), C(bash) is C(source), C(systemd) is
        C(EnvironmentFile=), and C(docker) is C(docker run --env-file), which knows no quotes.
      - An empty list stands for the default.
    type: list
    elements: str
    choices: [python-dotenv, bash, systemd, docker]
    default: [python-dotenv, bash, systemd]
  initial:
    description:
      - What a file that is created starts from, such as a rendered template. The keys are set in it as in one that was
        there.
    type: str
    default: ""
  create:
    description:
      - Whether a missing file is created. If not, it is an error, unless O(env) is empty and there is nothing to do.
    type: bool
    default: true
  mode:
    description: The mode of a file that is created. A file that exists keeps its own.
    type: raw
    default: "0600"
  owner:
    description: The owner of a file that is created, by name or number; by default, the owner of its directory.
    type: str
  group:
    description: The group of a file that is created, by name or number; by default, the group of its directory.
    type: str
  run_id:
    description:
      - The run of M(selo.gpu_memory.gpu_memory_generation) that must hold the host. Where it does not any more,
        as after C(gpu-memory release), nothing is written.
    type: str
author: "selo.gpu_memory authors (@selo-ai)"
"""

EXAMPLES = r"""
- name: Give the backend the settings of the profile
  selo.gpu_memory.dotenv:
    path: /srv/selo-ai/backend/.env
    env:
      OLLAMA_GPU_LAYERS: 40
      CHAT_NUM_CTX: 4096
      TORCH_CUDA_MEMORY_FRACTION: "0.70"
    readers: [python-dotenv]

- name: Take a key out
  selo.gpu_memory.dotenv:
    path: /srv/selo-ai/backend/.env
    remove: [OLLAMA_MAX_VRAM]
"""

RETURN = r"""
path:
  description: The file that was written, with symbolic links followed.
  returned: success
  type: str
  sample: /srv/selo-ai/backend/.env
changed_keys:
  description: The keys that were set or removed.
  returned: success
  type: list
  elements: str
  sample: [CHAT_NUM_CTX]
before:
  description:
    - The values of the keys of O(env) and O(remove) as the readers saw them; V(null) where a key was not set, or where
      they did not agree.
  returned: success
  type: dict
  sample: {CHAT_NUM_CTX: "8192"}
after:
  description: The values of the same keys as the readers see them now.
  returned: success
  type: dict
  sample: {CHAT_NUM_CTX: "4096"}
sha256:
  description: The SHA-256 of the file's content now, or, in check mode, as it would be; V(null) where there is no file.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
notes:
  description: Lines of the file that set a key of O(env) and do not count.
  returned: success
  type: list
  elements: str
  sample: ["CHAT_NUM_CTX: line 12 wins over line 3"]
"""

import grp
import hashlib
import pwd
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
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
                "choices": ["python-dotenv", "bash", "systemd", "docker"],
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
