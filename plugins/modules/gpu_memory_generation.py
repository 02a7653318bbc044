#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a host's state before a change, and go back to it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_generation
short_description: Keep a host's settings of GPU memory, prove them, or go back to them
version_added: "1.0.0"
description:
  - A generation is a kept state of files, with content, mode, owner, times and extended attributes, or their absence,
    together with how the services that read them are restarted, and whether they ran. A service that was stopped is
    stopped again when the files go back. Whether a unit starts at boot is never changed.
  - V(keep) also takes the host's lease, one run at a time, and arms a systemd timer on the host. Unless the run renews
    the lease, proves the new state or restores the old one, the timer puts the kept files back and restarts the
    services, without the controller, without a network, and also after a reboot.
  - Generations are in C(/var/lib/gpu-memory), which only root may enter. The tool C(gpu-memory) beside them does the
    same by hand.
options:
  action:
    description:
      - V(keep) keeps O(files) as they are, takes the lease and arms the restore timer.
      - V(renew) puts the restore off by the time that the lease was taken for.
      - V(prove) keeps the present state of all kept files as proven, with O(proof), and ends the run.
      - V(release) ends the run without a proof.
      - V(restore) puts files back, restarts services, or stops those that were found stopped, and ends the run. Nothing
        restarts if nothing differs and nothing runs with settings that no file gives it any more. Without O(run_id) it
        fails before it touches anything where a unit would not start again, or a file has no place to go back to.
      - V(remove) puts every file back to before the first V(keep), of an env file only the keys that were set since;
        restarts what that concerns, unless it is stopped, and takes away all generations, the tool, and all else of
        this collection. What another than the role C(gpu_memory) has written into its drop-in since stays. It fails
        where something of this collection is left, and names it.
      - V(renew_tool) puts the tool C(gpu-memory) of this collection in the place of another one's, of an older release.
      - V(list) only reads.
    type: str
    required: true
    choices: [keep, renew, prove, restore, release, remove, renew_tool, list]
  run_id:
    description:
      - Who acts, a name of your choice that no other run has. V(keep), V(renew), V(prove) and V(release) need it.
      - V(restore) with it puts back what this run has kept, or says what the restore timer did before.
    type: str
  holder:
    description: Who holds the lease, for people, such as the operator's name and what is being applied.
    type: str
    default: an unnamed run
  files:
    description:
      - The files that are about to change, for V(keep). Links to them are kept too.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      sha256:
        description:
          - The SHA-256 of the content that the change was planned on, none for a file that is absent.
          - If the file is another one by now, nothing is kept.
        type: str
      env:
        description:
          - For an env file, which C(keys) in it are about to be set and which C(readers) it has, as in
            M(selo.gpu_memory.dotenv). V(remove) then takes back these keys and leaves what others have written.
        type: dict
        suboptions:
          keys:
            description: Names of variables.
            type: list
            elements: str
            required: true
          readers:
            description: Who reads the file.
            type: list
            elements: str
            default: [python-dotenv, bash, systemd]
          values:
            description:
              - The values that each key is about to be set to, as lists. By these its line is known where the file is
                no longer understood, as below a quote that is not closed.
            type: dict
            default: {}
          profile:
            description: The profile whose own file it is, which nobody reads, so that nothing restarts for it.
            type: str
  services:
    description:
      - How the services that read O(files) restart, and which of them, as the arguments of
        M(selo.gpu_memory.gpu_memory_restart). It is what a restore restarts.
    type: dict
    default: {}
  restore_after_s:
    description: The restore timer acts when the run was not heard of for so many seconds.
    type: int
    default: 240
  proof:
    description: What V(prove) stores; C(at) and C(generation) are added.
    type: dict
    default: {}
  generation:
    description:
      - What V(restore) puts back without O(run_id), that is V(previous), the state before the last run that ended with
        a change, V(proven), the state that was proven last, or the number of a generation.
    type: str
    default: previous
  reason:
    description: Why V(restore) puts files back, for people; C(gpu-memory status) on the host says it.
    type: str
    default: asked for by the controller
attributes:
  check_mode:
    description: Answers as the real run would and writes nothing.
    support: full
  diff_mode:
    description: For V(restore) and V(remove), which files change and what of them; never their content.
    support: partial
  idempotent:
    description: V(restore), V(remove) and V(list) are; the other actions are steps of a run.
    support: partial
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Keep the backend's settings before they change
  selo.gpu_memory.gpu_memory_generation:
    action: keep
    run_id: change 4711
    holder: alice@control applies stable
    files:
      - path: /srv/chat/backend/.env
        sha256: "{{ env_file.stat.checksum }}"
    services:
      backend:
        kind: unit
        unit: selo-backend.service
      restart: [backend]
  become: true

- name: End the run with a proof
  selo.gpu_memory.gpu_memory_generation:
    action: prove
    run_id: change 4711
    proof:
      verdict: pass
  become: true

- name: Go back to the state before the last run
  selo.gpu_memory.gpu_memory_generation:
    action: restore
    generation: previous
  become: true
"""

RETURN = r"""
run_id:
  description: Who holds the host.
  returned: for V(keep) and V(restore)
  type: str
  sample: 5f0c7a1e9b3d
generation:
  description: The generation that was kept, proven or put back.
  returned: for every action but V(list), unless check mode has kept nothing
  type: str
  sample: "0003"
until:
  description: When the restore timer acts unless the lease is renewed.
  returned: for V(keep) and V(renew)
  type: str
  sample: 2026-11-24 03:59:12 UTC
files:
  description: The files that were put back or removed, and what of them differed.
  returned: for V(restore) and V(remove)
  type: list
  elements: dict
  sample: [{path: /srv/chat/backend/.env, what: [content, time], removed: false}]
started:
  description: Which services were found stopped by V(keep) and ran all the same, so that they were stopped.
  returned: for V(restore) and V(remove)
  type: list
  elements: str
  sample: [backend]
stale:
  description: Which services ran with settings that no file gave them any more, so that they were restarted.
  returned: for V(restore) and V(remove)
  type: list
  elements: str
  sample: [ollama]
missing:
  description: Env files that somebody has deleted since. They are not made again.
  returned: for V(restore) and V(remove)
  type: list
  elements: str
  sample: []
removed:
  description: What was on the host beside those files and is gone.
  returned: for V(remove)
  type: list
  elements: str
  sample: [/usr/local/sbin/gpu-memory, /var/lib/gpu-memory]
left:
  description: Drop-ins of ours into which somebody else has written since. That stays, and the rest goes back.
  returned: for V(restore) and V(remove)
  type: list
  elements: str
  sample: []
check_mode:
  description: Whether this is what would be done, and nothing was.
  returned: for V(restore) and V(remove)
  type: bool
  sample: false
services:
  description: What was restarted, as from M(selo.gpu_memory.gpu_memory_restart).
  returned: for V(restore) and V(remove)
  type: dict
  sample: {}
downtime_s:
  description: Seconds from stopping the first service until the last one answered.
  returned: for V(restore)
  type: float
  sample: 5.4
reason:
  description: Why the files were put back.
  returned: for V(restore)
  type: str
  sample: asked for by the controller
at:
  description: When that was, in Unix seconds.
  returned: for V(restore)
  type: float
  sample: 1795492512.2
state:
  description:
    - The generations without their content, which of them are V(previous) and V(proven), the lease, the proof, the
      state of the restore timer and the last restore.
  returned: for V(list)
  type: dict
  sample:
    generations: [{id: "0001", at: 1795492412.2, kind: kept, holder: alice applies stable, run_id: 5f0c, paths: []}]
    previous: "0001"
    proven: "0002"
    proof: {verdict: pass, at: 1795492512.2, generation: "0002"}
    lease: null
    restoring: null
    last_restore: null
    timer: inactive
    error: null
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool, service_control
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generations import Generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError, explained
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Removed
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan

RESTORE_S = 180

ARGUMENTS: dict[str, Any] = {
    "action": {
        "type": "str",
        "required": True,
        "choices": ["keep", "renew", "prove", "restore", "release", "remove", "renew_tool", "list"],
    },
    "run_id": {"type": "str"},
    "holder": {"type": "str", "default": "an unnamed run"},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "sha256": {"type": "str"},
            "env": {
                "type": "dict",
                "options": {
                    "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
                    "readers": {"type": "list", "elements": "str", "default": ["python-dotenv", "bash", "systemd"]},
                    "values": {"type": "dict", "default": {}},
                    "profile": {"type": "str"},
                },
            },
        },
    },
    "services": {"type": "dict", "default": {}},
    "restore_after_s": {"type": "int", "default": 240},
    "proof": {"type": "dict", "default": {}},
    "generation": {"type": "str", "default": "previous"},
    "reason": {"type": "str", "default": "asked for by the controller"},
}


def service_plan(services: dict[str, Any]) -> ServicePlan:
    """The arguments of gpu_memory_restart, checked as that module checks them."""
    checked = ArgumentSpecValidator(service_control.ARGUMENTS).validate(services)
    if checked.error_messages:
        raise StateError(f"services: {'; '.join(checked.error_messages)}")
    return cast("ServicePlan", dict(checked.validated_parameters))


def act(wanted: dict[str, Any], store: Generations, check: bool) -> Mapping[str, object]:
    action, run_id = wanted["action"], wanted["run_id"]
    if action == "keep":
        return store.keep(
            run_id=run_id,
            holder=wanted["holder"],
            files=wanted["files"],
            services=service_plan(wanted["services"]),
            restore_after_s=wanted["restore_after_s"],
            tool=host_tool.archive(),
            check=check,
        )
    if action == "renew":
        return {"changed": False} if check else store.renew(run_id)
    if action == "prove":
        return store.prove(run_id, wanted["proof"], check)
    if action == "release":
        return store.release(run_id, check)
    if action == "restore":
        return store.restore(run_id=run_id, generation=wanted["generation"], reason=wanted["reason"], check=check)
    if action == "remove":
        return store.remove(check)
    if action == "renew_tool":
        return store.renew_tool(host_tool.archive(), check)
    return {"changed": False, "state": store.stored.summary()}


def diff_of(result: Removed) -> dict[str, str]:
    """Which files go back, and what of them; contents may be secret."""
    files = result.get("files", [])
    return {
        "before_header": "now, with what is not as kept",
        "after_header": f"generation {result['generation']}",
        "before": "".join(
            [f"{file['path']}: {', '.join(file['what'])}\n" for file in files]
            + [f"the service {name}: running\n" for name in result.get("started", [])]
            + [f"the service {name}: with settings of before\n" for name in result.get("stale", [])]
            + [f"{path}: there\n" for path in result.get("removed", [])]
        ),
        "after": "".join(
            [f"{file['path']}: as kept\n" for file in files]
            + [f"the service {name}: stopped\n" for name in result.get("started", [])]
            + [f"the service {name}: with those of its files\n" for name in result.get("stale", [])]
        ),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("action", action, ["run_id"]) for action in ("keep", "renew", "prove", "release")],
        supports_check_mode=True,
    )
    root.required(module)
    try:
        # A restore that the host has begun by itself is worth waiting for.
        store = Generations(wait_s=RESTORE_S) if module.params["action"] == "restore" else Generations()
        result = dict(act(module.params, store, module.check_mode))
    except (StateError, ServiceError) as problem:
        module.fail_json(msg=str(problem))
    except OSError as problem:
        module.fail_json(msg=explained(problem))
    if module.params["action"] in ("restore", "remove"):
        result["diff"] = diff_of(cast("Removed", result))
        result["check_mode"] = module.check_mode
    if module.params["action"] == "renew_tool" and result["changed"]:
        result["diff"] = {"before": "the tool gpu-memory of another release\n", "after": "that of this one\n"}
    error = result.pop("error", None)
    if error:
        module.fail_json(msg=error, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
