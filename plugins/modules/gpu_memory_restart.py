#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restart Ollama and its backend in order."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_restart
short_description: Restart Ollama and its backend in order, each once
version_added: "1.0.0"
description:
  - Stops the backend, restarts Ollama, waits until its API answers, starts the backend, and waits until it is healthy.
  - Only what is in O(restart) is touched. systemd reads its units again, once, if what it has in memory of Ollama's is
    not what the files say. If our drop-in is not in force even then, nothing restarts, and the error names what wins.
  - Other units that ran, and that systemd stops or restarts along with these (C(PartOf=), C(Requires=) and the like in
    their files), run again at the end, or it fails and names the one.
  - This is one module and not a list of tasks because under the C(linear) strategy a list would keep every backend of a
    wave stopped until the slowest host is done.
  - A failure names the service, what was awaited and the unit's state. Of Ollama's journal the lines with errors are
    shown; of a backend's journal nothing is, as it may hold anything.
options:
  run_id:
    description:
      - The run that holds the host by M(selo.gpu_memory.gpu_memory_generation). Its lease is renewed while this waits.
      - Fails if the run does not hold the host any more.
    type: str
extends_documentation_fragment:
  - selo.gpu_memory.services
  - selo.gpu_memory.secrets
attributes:
  check_mode:
    description: Restarts nothing, and is changed if O(restart) names a service that there is.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
  idempotent:
    description: Restarts whenever it is called.
    support: none
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Restart Ollama and the backend that uses it
  selo.gpu_memory.gpu_memory_restart:
    backend:
      kind: unit
      unit: selo-backend.service
      health:
        url: http://127.0.0.1:8000/health
    restart: [ollama, backend]
  become: true

- name: Restart a backend that is a command
  selo.gpu_memory.gpu_memory_restart:
    backend:
      kind: command
      directory: /srv/chat/backend
      command: python3 main.py
      process_match: python.*main\.py
      health:
        url: http://127.0.0.1:8000/health
    restart: [backend]
  become: true
"""

RETURN = r"""
services:
  description:
    - What was restarted, with the process before and after and the time in Unix seconds.
    - C(state) is V(restarted), or V(failed). Of a restore it is also V(stopped), V(starting) or V(unhealthy), where the
      unit was found like that.
  returned: always, empty in check mode
  type: dict
  sample:
    ollama:
      unit: ollama.service
      state: restarted
      pid_before: 312
      pid_after: 911
      stopped_at: 1795492512.204
      ready_at: 1795492514.011
      active_enter_timestamp: Tue 2026-11-24 03:55:12 UTC
downtime_s:
  description: Seconds from stopping the first service until the last one answered.
  returned: always
  type: float
  sample: 5.4
starts:
  description:
    - What the units were started with, as a digest by path for each of their files and the env files, and for each unit
      in systemd's memory. M(selo.gpu_memory.gpu_memory_info) tells it later, for a comparison.
  returned: when anything was restarted
  type: dict
  sample: {/etc/systemd/system/ollama.service: 2c26b46b68ffc68f}
"""

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
