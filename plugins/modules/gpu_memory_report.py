#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_report`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_report
short_description: Show the results of hosts, and write a page of all of them
version_added: "1.0.0"
description:
  - Prints a block for each host of the play, or one line for each where there are more than four.
  - Of a run and of records it writes C(all.json), the records of the whole inventory as one, and C(report.html), one
    page that needs nothing else.
  - The page has curves where the controller has the Python package pygal; without it, their figures.
  - This is an action plugin; it runs on the controller.
options:
  report_dir:
    description:
      - Where the records are and the page goes, relative to where the user stands.
      - O(of=run) and O(of=recorded) need it.
    type: path
  of:
    description:
      - V(run) is what this run says of its hosts, while the page has the last record of every host of the inventory.
      - V(recorded) is the last record of the hosts of the play, in text and page.
      - V(plan) is the plan of each host, without a page.
      - V(tune) is each host's tuning result, its probes and why each was made, and what became of a result that was
        adopted, without a page.
    type: str
    choices: [run, recorded, plan, tune]
    default: run
  undo:
    description:
      - The playbook that undoes what the run did. It is shown as a command with the connection options of this run.
      - Of C(-e) only files are carried, since values may be secret.
    type: str
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Show
  selo.gpu_memory.gpu_memory_report:
    report_dir: gpu-memory-report
  run_once: true
"""

RETURN = r"""
files:
  description: The files written, none in check mode and of plans and tuning.
  returned: success
  type: list
  elements: str
  sample: [/home/me/gpu-memory-report/all.json, /home/me/gpu-memory-report/report.html]
shown:
  description: How many hosts were shown.
  returned: success
  type: int
  sample: 1
"""
