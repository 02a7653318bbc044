# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show what a run has found of its hosts, and write the page of all. Contacts no host; the first to ask shows all."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import HostPlan
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import Tuned
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import (
    controller,
    once,
    record_files,
    report_page,
    suggested_commands,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import compare_text, side_by_side, tune_text
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import fleet_report, host_record

COLORS = {"pass": "green", "fell_back": "yellow", "untouched": "cyan", "inconclusive": "yellow"}
LOST = "no result: the host was lost during the run"
LOST_TUNING = f"{LOST}; what it had loaded for a probe, it unloads by itself"
Texts = Iterator[tuple[str, str | None]]  # each with its color


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        given, variables = self._task.args, task_vars or {}
        if not once.is_first(self._task, variables):
            return {**result, "changed": False, "shown": 0, "files": []}
        hosts, of = variables.get("ansible_play_hosts_all") or [], given.get("of")
        if of in ("plan", "tune"):
            found = controller.registered(
                "gpu_memory_planned" if of == "plan" else "gpu_memory_tuned", hosts, variables
            )
            for text, color in _plans(found) if of == "plan" else _tunings(found, variables["hostvars"]):
                Display().display(text, color=color)
            return {**result, "changed": False, "shown": len(found), "files": []}
        directory = controller.report_directory(given["report_dir"])
        if of == "recorded":
            records = _recorded(directory, hosts)
            fleet = hosts
        else:
            failed_before = controller.failed_before(hosts, variables)
            others = [host for host in hosts if host not in failed_before]
            results: dict[str, Record | None] = controller.registered("gpu_memory_result", others, variables)
            records = [self._of_this_run(directory, host, result) for host, result in results.items()]
            hosts = [*results, *failed_before]
            fleet = (variables.get("groups") or {}).get("all") or hosts  # a run with --limit is of a part of the fleet
        undo = suggested_commands.of_this_run(given["undo"]) if given.get("undo") else None
        display = Display()
        for record, text in host_record.summary(records, undo):
            display.display(text, color=_color(record) if record else None)
        files = [] if self._task.check_mode else _write(directory, fleet, undo)
        for path in files:
            display.display(f"written    {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        without = sorted(set(hosts) - {record["host"] for record in records})
        if without:
            display.display(f"no record    {', '.join(without)}", color="yellow")
        return {**result, "changed": False, "shown": len(records), "files": [str(path) for path in files]}

    def _of_this_run(self, directory: Path, host: str, result: Record | None) -> Record:
        """What the run says of a host; of a host that was lost without a word it says so, and records it."""
        if result and not host_record.is_lost(result):
            return result
        record = record_files.dated(directory, host_record.lost(host), time.time())
        return record if self._task.check_mode else record_files.written(directory, record)[0]


def _color(record: Record) -> str:
    """Green is only what runs as it was proven."""
    color = COLORS.get(record["verdict"], "red")
    return "yellow" if color == "green" and host_record.is_overridden(record) else color


def _plans(found: Mapping[str, HostPlan | None]) -> Texts:
    """`found`: what each host has registered."""
    lost = side_by_side.unread(LOST)
    plans: list[HostPlan] = [plan or {"host": host, **lost} for host, plan in found.items()]
    for plan, text in zip(plans, compare_text.summary(plans)):
        yield text, "red" if plan["problems"] else None


def _tunings(found: Mapping[str, Tuned | None], hostvars: Mapping[str, Any]) -> Texts:
    """`found`: what each host has registered; an adopted result has its record in `hostvars`."""
    for host, tuned in found.items():
        tuned = tuned or {"host": host, "problems": [LOST_TUNING]}
        yield tune_text.block(tuned), "red" if tuned["problems"] else None
        if hostvars[host].get("gpu_memory_result"):
            yield host_record.block(hostvars[host]["gpu_memory_result"]), None


def _recorded(directory: Path, hosts: Sequence[str]) -> list[Record]:
    """The records of those hosts that have one; of one that cannot be read that it cannot."""
    records = []
    for host in hosts:
        try:
            record = record_files.read(directory, host)
        except record_files.Unreadable as problem:
            record = host_record.unreadable(host, str(problem))
        if record:
            records.append(record)
    return records


def _write(directory: Path, hosts: Sequence[str], undo: str | None) -> list[Path]:
    """The fleet as JSON and as a page, from the records of those hosts that have one."""
    fleet = fleet_report.fleet(_recorded(directory, hosts), time.time())
    # No host can be named `all`, so that no record is ever lost to it.
    paths = [directory / "all.json", directory / "report.html"]
    controller.write_json(paths[0], fleet)
    controller.write_text(paths[1], report_page.page(fleet, undo))
    return paths
