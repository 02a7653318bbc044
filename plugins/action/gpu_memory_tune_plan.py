# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's tuning run is told, which host is tuned for whom, and what came of it. Contacts no host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import Tuned
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, record_files
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import tune_declare, tune_svg, tune_text


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        base = {**super().run(tmp, task_vars), "changed": False}
        given, variables = self._task.args, task_vars or {}
        host = variables["inventory_hostname"]
        if given["at"] == "host":
            return {**base, **tune_declare.tuning_of(given["declared"], given["read"], given["tune"])}
        if given["at"] == "result":
            return {**base, **self._concluded(host, given)}
        keys = {
            name: (variables["hostvars"][name].get("__gpu_memory_tune") or {}).get("key")
            for name in variables["ansible_play_hosts_all"]
        }
        hosts = tune_declare.group_of(host, keys)
        return {**base, "hosts": hosts, "tunes": hosts[:1] == [host]}

    def _concluded(self, host: str, given: Mapping[str, Any]) -> dict[str, object]:
        """The result as a profile, and its files; without one, why."""
        planned, group, tuned = given["planned"], given["group"], given.get("tuned") or {}
        result: dict[str, Any] = {"host": host, "hosts": group["hosts"], "problems": list(planned["problems"])}
        if given.get("failure"):
            result["problems"].append(given["failure"])
        if result["problems"]:
            return result
        if not group["tunes"]:
            return {**result, "because": f"{group['hosts'][0]} is tuned for it"}
        if "proposed" in tuned:
            first = tuned["proposed"]["first"]
            text = f"check mode; first would be {tune_text.setting_text(first)}: " if first else "check mode; "
            return {**result, "because": text + tuned["proposed"]["why"]}
        result.update({name: value for name, value in tuned.items() if name not in ("changed", "failed", "invocation")})
        result["note"] = planned["note"]
        if result["best"]:
            setting = tune_search.Setting(**result["best"])
            result["profile"] = tune_search.profile(
                setting,
                planned["threshold_mib"],
                result["model"],
                planned["base_profile"],
                result["deployed_cache_type"],
            )
            result["profiles"] = {**(given.get("profiles") or {}), tune_text.PROFILE: result["profile"]}
        return {**result, "files": self._write(host, cast(Tuned, result))}

    def _write(self, host: str, result: Tuned) -> list[str]:
        directory = controller.report_directory(self._task.args["report_dir"])
        controller.write_json(directory / record_files.file_name(host, ".tune.json"), result)
        controller.write_text(directory / record_files.file_name(host, ".tune.svg"), tune_svg.svg(result))
        kinds = ["json", "svg"]
        if result["best"]:
            controller.write_text(directory / record_files.file_name(host, ".tune.yml"), tune_text.profile_yaml(result))
            kinds.append("yml")
        return [str(directory / record_files.file_name(host, f".tune.{kind}")) for kind in kinds]
