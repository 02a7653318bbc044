#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a host's state before a change, and go back to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool, own_files, service_control
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
            tool=host_tool.compiled_archive(own_files.tool(store.paths)),
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
        return store.renew_tool(host_tool.compiled_archive(own_files.tool(store.paths)), check)
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
