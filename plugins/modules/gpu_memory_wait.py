#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_wait`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_wait
short_description: Wait for a load test and show memory meanwhile
version_added: "1.0.0"
description:
  - Follows a M(selo.gpu_memory.gpu_memory_assert) that was started with C(async) and C(poll=0).
  - Shows a line every two seconds, in waves of more than eight hosts less often.
  - Each look touches the file C(.waited) beside O(progress_path), which a load test may go by.
  - A connection lost for less than 30 seconds is not a failure.
  - This is an action plugin; it runs on the controller.
options:
  results_file:
    description: The C(results_file) of the started task.
    type: str
    required: true
  progress_path:
    description: The O(selo.gpu_memory.gpu_memory_assert#module:progress_path) of the load test.
    type: str
    required: true
  timeout_s:
    description: How long to wait at most, in seconds.
    type: float
    required: true
  headers_path:
    description: That of the started task, if any. It is removed with the job's directory where the job came to no end.
    type: str
  tmpdir:
    description: That of the started task, which a job removes at its end.
    type: str
  wave:
    description: The wave to show.
    type: int
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Wait for the load test
  selo.gpu_memory.gpu_memory_wait:
    results_file: "{{ job.results_file }}"
    progress_path: /run/gpu-memory/progress.json
    timeout_s: 600
"""

RETURN = r"""
breached:
  description: Whether the load test found a breach; its whole result is returned beside it.
  returned: success
  type: bool
  sample: false
"""
