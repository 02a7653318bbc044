# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resolve and check what the operator declared. Contacts no host."""

from __future__ import annotations

import getpass
import socket
import uuid
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Hook
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration

IN_VARIABLES = "Error while resolving value for 'variables': "  # as Ansible begins to say what is wrong


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        play_vars = self._task.get_play().vars
        misplaced = controller.set_in_inventory(declaration.RUN_LEVEL, {*task_vars} - {*play_vars}, self._loader)
        variables = {**self._defaults(), **self._task.args["variables"]}
        declared = declaration.declared_of(variables, misplaced)
        unresolved = self._task.args.get("unresolved")
        if unresolved:
            said = masking.without_secrets(unresolved.rpartition(IN_VARIABLES)[2])
            declared["problems"].insert(
                0, f"a variable of this host cannot be resolved: {said}; Ansible shows above where"
            )
        declared["problems"] += declaration.misspelt(task_vars, self._known())
        fixed = self._task.args.get("fixed_profile")
        if fixed and controller.given_on_the_command_line("gpu_memory_profile", self._loader):
            declared["problems"].insert(
                0,
                f"this playbook applies the profile {fixed}; for another one use selo.gpu_memory.apply "
                "with -e gpu_memory_profile=NAME",
            )
        before_restart, after_proof = declared["before_restart"], declared["after_proof"]
        if self._task.args.get("reports", True):
            declared["problems"] += _no_reports(variables["gpu_memory_report_dir"])
        declared["problems"] += _make_absolute("before_restart", before_restart)
        declared["problems"] += _make_absolute("after_proof", after_proof)
        declared["problems"] = [controller.with_origin(text, task_vars) for text in declared["problems"]]
        for attempt in filter(None, [declared, declared["fallback"]]):
            # Headers may be secret, and a task's result is shown at -v: load_models.yml takes them from the variable.
            attempt["backend"]["load"].pop("headers", None)
            attempt["before_restart"], attempt["after_proof"] = before_restart, after_proof
            attempt["run_id"], attempt["holder"] = uuid.uuid4().hex[:12], _holder()
            # Not `ansible_check_mode`, which is that of the command line alone, whatever the play or the task says.
            attempt["check_mode"] = self._task.check_mode
        return {**result, "changed": False, **declared}

    def _known(self) -> set[str]:
        """The variables of the role that this task is in, by its defaults; outside of a role those it was given."""
        return {*self._task.args["variables"], *self._defaults()}

    def _defaults(self) -> Mapping[str, object]:
        role = self._task._role
        return role.get_default_vars() if role else {}


def _no_reports(report_dir: object) -> list[str]:
    """What is wrong with the directory of the reports; what is no path is a problem already."""
    if not isinstance(report_dir, str) or not report_dir.strip():
        return []
    problem = controller.no_reports(controller.report_directory(report_dir))
    return [problem] if problem else []


def _make_absolute(name: str, hook: Hook) -> list[str]:
    """A tasks file relative to where the user stands; what is wrong if it is not there."""
    if not hook["tasks"]:
        return []
    path = controller.absolute(hook["tasks"])
    hook["tasks"] = str(path)
    return [] if path.is_file() else [f"gpu_memory_{name}.tasks: there is no file {path} on the controller"]


def _holder() -> str:
    """Who runs this, for whoever finds the host held."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
