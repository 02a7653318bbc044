#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart Ollama and its backend in order."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets, what_starts
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, service_control
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import LinuxHost

SHOW_SECRETS = {"show_secrets": {"type": "bool", "default": False, "no_log": False}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**service_control.ARGUMENTS, **SHOW_SECRETS, "run_id": {"type": "str"}}, supports_check_mode=True
    )
    root.required(module)
    plan = module.params
    changed = any(name in plan["restart"] for name in service_control.names(plan))
    try:
        service_control.check(plan)
    except ServiceError as problem:
        module.fail_json(msg=str(problem))
    if module.check_mode or not changed:
        module.exit_json(changed=changed, services={}, downtime_s=0.0)
    host = LinuxHost(secrets.Masking(shows_secrets=plan["show_secrets"]))
    units = what_starts.units_of(plan["ollama"], plan["backend"], plan["restart"])
    by_command = what_starts.commands_of(plan["backend"], plan["restart"])
    before = what_starts.files(units, plan["private_files"], by_command)
    most_s = max(lease_holding.ALONE_S, service_control.start_s(plan))
    renewal = lease_holding.Renewal(plan["run_id"], clock=host, most_s=most_s)
    try:
        with renewal.in_background():
            result = service_control.restart(plan, host, alive=renewal)
    except StateError as problem:
        module.fail_json(msg=str(problem), changed=True)
    error = result.pop("error")
    if error:
        module.fail_json(msg=error, changed=True, **result)
    starts = what_starts.as_started(before, what_starts.read(units, plan["private_files"], by_command))
    module.exit_json(changed=True, starts=starts, **result)


if __name__ == "__main__":
    main()
