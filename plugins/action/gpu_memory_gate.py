# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask the gate whether the next wave may start. Contacts no host; runs once a wave."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import takewhile
from typing import Any, cast

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller, record_files
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import wave_gate
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record

HEEDS_NO_RUN_ONCE = ("free", "host_pinned")


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given, variables = self._task.args, task_vars or {}
        batch = list(variables.get("ansible_play_batch") or [])
        wave = self._wave(batch, variables)
        declared = [variables["hostvars"][host].get("__gpu_memory_declared") or {} for host in wave]
        left_out = controller.begun_in_the_middle(any(declared))
        if left_out:
            raise AnsibleActionFail(left_out)
        hosts = variables.get("ansible_play_hosts_all") or []
        failed_before = controller.failed_before(hosts, variables)
        earlier = [host for host in takewhile(lambda host: host not in batch, hosts) if host not in failed_before]
        results: dict[str, Record | None] = controller.registered("gpu_memory_result", earlier, variables)
        finished = {host: None if host_record.is_lost(record) else record for host, record in results.items()}
        did_not_last = []
        if given.get("watched"):
            did_not_last = self._did_not_last(finished, wave, variables)
            finished.update({record["host"]: record for record in did_not_last})
        try:
            gate = wave_gate.judge(finished, given.get("max_fail_percentage"))
            bake_s = 60 * wave_gate.minutes(given.get("bake_minutes"))
        except ValueError as problem:
            raise AnsibleActionFail(str(problem)) from problem
        watchers: dict[str, list[str]] = {}
        if bake_s and gate["open"] and not self._task.check_mode and wave_gate.changed_last(finished):
            watchers = wave_gate.watchers(wave, finished)
            _bake(gate["wave"], bake_s)
        return {
            **result,
            "changed": False,
            **gate,
            "restore_after": wave_gate.restore_after_s(
                [cast(Declared, one) for one in declared if one], is_alone=len(batch) == 1
            ),
            "watchers": watchers,
            "did_not_last": did_not_last,
            "failed_before": failed_before,
        }

    def _wave(self, batch: list[str], variables: Mapping[str, Any]) -> list[str]:
        """The hosts of the batch that have begun and not ended; `when` may leave out others.

        Where each host asks for itself, it is a wave of one: it cannot know who else will ask.
        """
        if self._task.get_play().strategy.rpartition(".")[2] in HEEDS_NO_RUN_ONCE:
            return [variables["inventory_hostname"]]
        return [host for host in batch if host_record.is_lost(variables["hostvars"][host].get("gpu_memory_result"))]

    def _did_not_last(
        self, finished: Mapping[str, Record | None], wave: list[str], variables: Mapping[str, Any]
    ) -> list[Record]:
        """The records of hosts that had ended well and did not last, as the hosts of this wave have read them again."""
        found = []
        for watcher in wave:
            watched = variables["hostvars"][watcher].get("__gpu_memory_watched") or {}
            for read in watched.get("results") or []:
                record = wave_gate.corrected(finished[read["gpu_memory_watched_host"]], read)
                if record:
                    directory = controller.report_directory(self._task.args["report_dir"])
                    found.append(record_files.written(directory, record)[0])
        return found


def _bake(wave: int, seconds: float) -> None:
    until = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    Display().display(
        f"the gate is open; wave {wave} starts at {until}, if the journals of the earlier waves are good then"
    )
    time.sleep(seconds)
