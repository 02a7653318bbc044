#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_tune_report`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_tune_report
short_description: Show what tuning found on all hosts of a run
version_added: "1.0.0"
description:
  - Prints each host's result, its probes, and why each was made; and what became of a result that was adopted.
  - This is an action plugin; it runs on the controller.
options: {}
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Show
  selo.gpu_memory.gpu_memory_tune_report:
  run_once: true
"""

RETURN = r"""
shown:
  description: How many hosts were shown.
  returned: success
  type: int
  sample: 1
"""
