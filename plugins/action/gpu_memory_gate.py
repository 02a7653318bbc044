# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gate whether the next wave may start. Contacts no host; runs once a wave."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.module_utils import _gate


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        batch = set(variables.get("ansible_play_batch") or [])
        earlier = takewhile(lambda host: host not in batch, variables.get("ansible_play_hosts_all") or [])
        finished = {host: variables["hostvars"][host].get("gpu_memory_result") for host in earlier}
        try:
            gate = _gate.judge(finished, self._task.args.get("max_fail_percentage"))
        except (TypeError, ValueError) as problem:
            raise AnsibleActionFail(f"gpu_memory_max_fail_percentage: {problem}") from problem
        return {**result, "changed": False, **gate}
