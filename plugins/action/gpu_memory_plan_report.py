# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the plans of all hosts of a run. Contacts no host; runs once."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, once
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import compare_text, side_by_side


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        if not once.is_first(self._task, variables):
            return {**result, "changed": False, "shown": 0}
        hosts = variables.get("ansible_play_hosts_all") or []
        planned = controller.registered("gpu_memory_planned", hosts, variables)
        lost = side_by_side.unread("no result: the host was lost during the run")
        plans = [plan or {"host": host, **lost} for host, plan in planned.items()]
        for plan, text in zip(plans, compare_text.summary(plans)):
            Display().display(text, color="red" if plan["problems"] else None)
        return {**result, "changed": False, "shown": len(plans)}
