#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_status`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_status
short_description: Show how all hosts of a run are, and what to do next
version_added: "1.0.0"
description:
  - Prints a line for each host, then for each that is not well what is wrong, who holds its GPU, and what to do next.
  - Uses what was declared and read of each host before, see the role P(selo.gpu_memory.gpu_memory#role).
  - Writes C(status.json) with all of it.
  - This is an action plugin; it runs on the controller.
options:
  of:
    description:
      - V(run) prints all hosts of the play and writes C(status.json).
      - V(host) prints and writes nothing, and returns how this host is.
    type: str
    choices: [run, host]
    default: run
  report_dir:
    description: Where C(status.json) goes, on the controller, relative to where the user stands. V(run) needs it.
    type: path
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Show
  selo.gpu_memory.gpu_memory_status:
    report_dir: gpu-memory-report
  run_once: true
"""

RETURN = r"""
state:
  description: How the host is, from C(not readable) to C(ok).
  returned: with O(of=host)
  type: str
  sample: drift
wrong:
  description: Why, in sentences.
  returned: with O(of=host)
  type: list
  elements: str
  sample: ["OLLAMA_NUM_PARALLEL=2 is wanted, but the server lacks it"]
next:
  description: What to do next.
  returned: with O(of=host)
  type: str
  sample: ansible-playbook -i hosts.yml --ask-become-pass selo.gpu_memory.apply --limit gpu01
alarm:
  description: Whether someone is needed now.
  returned: with O(of=host)
  type: bool
  sample: true
shown:
  description: How many hosts were shown.
  returned: with O(of=run)
  type: int
  sample: 16
alarmed:
  description: The hosts that need someone now, which is all but V(ok), V(not proven) and V(in a run).
  returned: with O(of=run)
  type: list
  elements: str
  sample: [gpu03]
"""
