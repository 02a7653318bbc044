# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's tuning run is told, and which host is tuned for whom. Contacts no host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import tune_declare


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables, given = task_vars or {}, self._task.args
        if given["at"] == "host":
            return {
                **result,
                "changed": False,
                **tune_declare.resolve(given["declared"], given["read"], given["tune"]),
            }
        host = variables["inventory_hostname"]
        keys = {
            name: (variables["hostvars"][name].get("__gpu_memory_tune") or {}).get("key")
            for name in variables["ansible_play_hosts_all"]
        }
        hosts = tune_declare.group_of(host, keys)
        return {**result, "changed": False, "hosts": hosts, "tunes": hosts[:1] == [host]}
