# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is of all hosts is shown once, also where Ansible does not heed `run_once`: `strategy: free`, `host_pinned`."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants


def is_first(task: Any, variables: Mapping[str, Any]) -> bool:
    """Whether no host of this one's batch has asked before at this place of this play.

    The workers of a run are processes, so that they tell each other in a file; it is gone with the run.
    """
    place = f"{task.get_play()._uuid} {task.get_path()} {sorted(task.args.items())}"
    name = f"gpu-memory-{hashlib.sha256(place.encode()).hexdigest()}"
    host = variables["inventory_hostname"]
    with (Path(constants.DEFAULT_LOCAL_TMP) / name).open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if host in file.read().splitlines():
            return False
        batch = variables.get("ansible_play_batch") or []
        file.write("".join(f"{one}\n" for one in {*batch, host}))
    return True
