# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what tuning found on all hosts of a run. Contacts no host; runs once."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, once
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import tune_text
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        if not once.is_first(self._task, variables):
            return {**result, "changed": False, "shown": 0}
        hosts = variables.get("ansible_play_hosts_all") or []
        lost = ["no result: the host was lost during the run; what it had loaded for a probe, it unloads by itself"]
        tuned = controller.registered("gpu_memory_tuned", hosts, variables)
        for host, result_of in tuned.items():
            found = result_of or {"host": host, "problems": lost}
            Display().display(tune_text.block(found), color="red" if found["problems"] else None)
            adopted = variables["hostvars"][host].get("gpu_memory_result")
            if adopted:
                Display().display(host_record.block(adopted))
        return {**result, "changed": False, "shown": len(tuned)}
