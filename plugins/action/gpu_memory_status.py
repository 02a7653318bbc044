# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how one host is, or show how all hosts of a run are. Contacts no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import Status
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, once, suggested_commands
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_status

COLORS = {**dict.fromkeys(host_status.NEEDS_SOMEONE, "red"), host_status.WELL: "green"}
LOST = cast(HostFacts, {"msg": "no answer in this run"})


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self._task.args.get("of") == "host":
            own = _of(variables["inventory_hostname"], variables["hostvars"])
            return {**result, "changed": False, **own, "alarm": own["state"] in host_status.NEEDS_SOMEONE}
        hosts = variables.get("ansible_play_hosts_all") or []
        declared = controller.registered("__gpu_memory_declared", hosts, variables)
        statuses = [_of(host, variables["hostvars"]) for host in declared]
        first = once.is_first(self._task, variables)
        for status, text in host_status.table(statuses) if first else []:
            Display().display(text, color=COLORS.get(status["state"], "yellow") if status else None)
        if first and not self._task.check_mode:
            directory = controller.report_directory(self._task.args["report_dir"])
            controller.write_json(directory / "status.json", {"hosts": statuses})
        alarmed = [one["host"] for one in statuses if one["state"] in host_status.NEEDS_SOMEONE]
        return {**result, "changed": False, "shown": len(statuses), "alarmed": alarmed}


def _of(host: str, hostvars: Mapping[str, Any]) -> Status:
    known = hostvars[host]
    declared: Declared | None = known.get("__gpu_memory_declared")
    read: HostFacts = known.get("__gpu_memory_read") if declared else LOST
    return host_status.status(host, declared, read or {}, suggested_commands.of_this_run)
