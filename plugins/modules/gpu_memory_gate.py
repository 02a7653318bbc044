#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_gate`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_gate
short_description: Ask whether the next wave may start
version_added: "1.0.0"
description:
  - Looks at the results of the earlier waves of this play, and closes when too many of a wave's hosts did not end well.
  - This is an action plugin; it runs on the controller.
options:
  max_fail_percentage:
    description: How many percent of a wave may fail before the gate closes; 0 by default.
    type: float
  bake_minutes:
    description:
      - How long to wait before this wave starts, 0 by default. What the earlier waves read in that time is for
        O(watched) to judge.
      - Without any change in the wave before, nothing is waited for.
    type: float
  watched:
    description: Whether this wave has read the hosts of the earlier ones again, into C(__gpu_memory_watched).
    type: bool
    default: false
  report_dir:
    description: Where the records are, of which those of hosts that did not last are corrected; needed with O(watched).
    type: path
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Ask the gate whether this wave may start
  selo.gpu_memory.gpu_memory_gate:
    max_fail_percentage: 10
  run_once: true
  register: gate
"""

RETURN = r"""
open:
  description: Whether the wave may start.
  returned: success
  type: bool
  sample: true
wave:
  description: The number of the wave about to start, from 1.
  returned: success
  type: int
  sample: 2
reason:
  description: Why the gate is closed.
  returned: success
  type: str
  sample: null
restore_after:
  description: After how many seconds without word from the controller a host of this wave restores itself.
  returned: success
  type: float
  sample: 480
watchers:
  description: Which host of this wave is to read which of the earlier ones again; empty where nothing was waited for.
  returned: success
  type: dict
  sample: {gpu02: [gpu01]}
did_not_last:
  description: The corrected records of hosts of earlier waves that did not last.
  returned: success
  type: list
  elements: dict
  sample: []
failed_before:
  description: The hosts of this play that a task before the role has failed; they count for no wave.
  returned: success
  type: list
  elements: str
  sample: []
"""
