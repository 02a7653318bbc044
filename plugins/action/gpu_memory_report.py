# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the records of all hosts of a run. Contacts no host; runs once."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.module_utils import _report

COLORS = {"pass": "green", "fell_back": "yellow", "untouched": "cyan", "inconclusive": "yellow"}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = variables.get("ansible_play_hosts_all") or []
        records = [variables["hostvars"][host].get("gpu_memory_result") or _report.lost(host) for host in hosts]
        display = Display()
        for record, text in _report.summary(records, self._task.args.get("undo")):
            display.display(text, color=COLORS.get(record["verdict"], "red") if record else None)
        return {**result, "changed": False, "shown": len(records)}
