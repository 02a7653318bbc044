# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the records of hosts, and write the page of all of them. Contacts no host; the first host to ask shows all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import (
    controller,
    once,
    record_files,
    report_page,
    suggested_commands,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report, host_record

COLORS = {"pass": "green", "fell_back": "yellow", "untouched": "cyan", "inconclusive": "yellow"}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given, variables = self._task.args, task_vars or {}
        if not once.is_first(self._task, variables):
            return {**result, "changed": False, "shown": 0, "files": []}
        directory = controller.report_directory(given["report_dir"])
        hosts = variables.get("ansible_play_hosts_all") or []
        if given.get("of") == "recorded":
            records = [record for record in (record_files.read(directory, host) for host in hosts) if record]
            fleet = hosts
        else:
            results = controller.registered("gpu_memory_result", hosts, variables)
            records = [self._of_this_run(directory, host, result) for host, result in results.items()]
            hosts = list(results)
            fleet = (variables.get("groups") or {}).get("all") or hosts  # a run with --limit is of a part of the fleet
        undo = suggested_commands.of_this_run(given["undo"]) if given.get("undo") else None
        display = Display()
        for record, text in host_record.summary(records, undo):
            display.display(text, color=COLORS.get(record["verdict"], "red") if record else None)
        files = [] if self._task.check_mode else _write(directory, fleet, undo)
        for path in files:
            display.display(f"written    {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        without = sorted(set(hosts) - {record["host"] for record in records})
        if without:
            display.display(f"no record    {', '.join(without)}", color="yellow")
        return {**result, "changed": False, "shown": len(records), "files": [str(path) for path in files]}

    def _of_this_run(self, directory: Path, host: str, result: dict[str, Any] | None) -> dict[str, Any]:
        """What the run says of a host; of a host that was lost without a word it says so, and records it."""
        if result and not host_record.is_lost(result):
            return result
        record = record_files.dated(directory, host_record.lost(host), time.time())
        if not self._task.check_mode:
            record_files.write(directory, record)
        return record


def _write(directory: Path, hosts: Sequence[str], undo: str | None) -> list[Path]:
    """The fleet as JSON and as a page, from the records of those hosts that have one."""
    records = (record_files.read(directory, host) for host in hosts)
    fleet = fleet_report.fleet([record for record in records if record], time.time())
    # No host can be named `all`, so that no record is ever lost to it.
    paths = [directory / "all.json", directory / "report.html"]
    controller.write_json(paths[0], fleet)
    controller.write_text(paths[1], report_page.page(fleet, undo))
    return paths
