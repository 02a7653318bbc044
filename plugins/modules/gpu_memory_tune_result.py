#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_tune_result`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_tune_result
short_description: Conclude a host's tuning run and write its files
version_added: "1.0.0"
description:
  - Writes C(HOST.tune.json), C(HOST.tune.svg) and, with a result, C(HOST.tune.yml) with the profile for group_vars.
  - This is an action plugin; it runs on the controller.
options:
  planned:
    description: The result of M(selo.gpu_memory.gpu_memory_tune_plan) for the host.
    type: dict
    required: true
  group:
    description: The result of M(selo.gpu_memory.gpu_memory_tune_plan) for its group.
    type: dict
    required: true
  tuned:
    description: The result of M(selo.gpu_memory.gpu_memory_tune), if it ran.
    type: dict
  profiles:
    description: The operator's own profiles, to which the result is added as V(tuned).
    type: dict
  failure:
    description: What failed, if something did.
    type: str
  report_dir:
    description: Where the files go, relative to where the user stands.
    type: str
    required: true
attributes:
  check_mode:
    description: In check mode nothing was probed, so nothing is written.
    support: full
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Conclude
  selo.gpu_memory.gpu_memory_tune_result:
    planned: "{{ planned }}"
    group: "{{ group }}"
    tuned: "{{ tuned }}"
    report_dir: gpu-memory-report
"""

RETURN = r"""
profile:
  description: The profile for C(gpu_memory_profiles).
  returned: with a result
  type: dict
profiles:
  description: O(profiles) with the result.
  returned: with a result
  type: dict
files:
  description: What was written.
  returned: after a run
  type: list
  elements: str
problems:
  description: What kept the host from being tuned.
  returned: always
  type: list
  elements: str
"""
