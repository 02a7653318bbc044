# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan all profiles of a host side by side, and write the plan. Contacts no host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, record_files
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import side_by_side
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import budget_svg


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given, host = self._task.args, (task_vars or {})["inventory_hostname"]
        read = given["read"]
        if "nvml" in read:
            bandwidths = [float(given.get(name) or 0) for name in ("gpu_gb_per_s", "host_gb_per_s")]
            plan = side_by_side.compare(given["declared"], read, *bandwidths)
        else:
            plan = side_by_side.unread(str(read.get("msg") or "the host could not be read"))
        plan = {"host": host, **plan}
        if not self._task.check_mode:
            directory = controller.report_directory(given["report_dir"])
            controller.write_json(directory / record_files.file_name(host, ".plan.json"), plan)
            controller.write_text(directory / record_files.file_name(host, ".plan.svg"), budget_svg.budget_svg(plan))
            plan["files"] = [str(directory / record_files.file_name(host, f".plan.{kind}")) for kind in ("json", "svg")]
        return {**result, "changed": False, **plan}
