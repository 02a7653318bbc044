# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For the scenarios' tests: write down which tasks of a run changed something, and their diffs."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: aggregate
short_description: Write down what each run changed
description:
  - Writes one JSON file a run into the directory that E(RECORDER_DIRECTORY) names, numbered in the order of the runs.
requirements:
  - Named in the setting callbacks_enabled.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.playbook = ""
        self.check = False
        self.changes: list[dict[str, Any]] = []

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.playbook = os.path.basename(playbook._file_name)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self.check = bool(play.check_mode)

    def v2_runner_on_ok(self, result: Any) -> None:
        outcome = result._result
        for item in outcome.get("results") or [outcome]:
            if item.get("changed"):
                change = {"host": result._host.get_name(), "task": result.task_name, "diff": item.get("diff")}
                self.changes.append(change)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        directory = pathlib.Path(os.environ["RECORDER_DIRECTORY"])
        directory.mkdir(parents=True, exist_ok=True)
        number = len(list(directory.iterdir())) + 1
        record = {"playbook": self.playbook, "check": self.check, "changes": self.changes}
        (directory / f"{number:02d}.json").write_text(json.dumps(record, indent=1, default=str))
