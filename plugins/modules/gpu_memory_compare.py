#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_compare`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_compare
short_description: Plan all profiles of a host side by side
version_added: "1.0.0"
description:
  - Predicts the GPU memory of the host's models under every profile, the built-in and the operator's own.
  - Writes the plan as JSON and as a picture on the controller, unless in check mode.
  - This is an action plugin; it runs on the controller.
options:
  declared:
    description: The result of M(selo.gpu_memory.gpu_memory_declare).
    type: dict
    required: true
  read:
    description: The result of M(selo.gpu_memory.gpu_memory_info), also where it failed.
    type: dict
    required: true
  gpu_gb_per_s:
    description: The bandwidth of the GPU's memory in GB/s; V(0) for what a card of its name has.
    type: float
    default: 0
  host_gb_per_s:
    description: The bandwidth of the host's memory in GB/s; V(0) for 60.
    type: float
    default: 0
  report_dir:
    description: Where the files go, relative to where the user stands.
    type: str
    required: true
attributes:
  check_mode:
    description: Can run in check mode and return the same, but writes no files.
    support: full
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Plan
  selo.gpu_memory.gpu_memory_compare:
    declared: "{{ declared }}"
    read: "{{ read }}"
    report_dir: gpu-memory-report
"""

RETURN = r"""
problems:
  description: What stands in the way of a plan, as text with its cure.
  returned: success
  type: list
  elements: str
  sample: []
profiles:
  description: Each profile with its budget, layers, largest settings and warnings.
  returned: success
  type: list
  elements: dict
  sample: [{name: stable, sum_mib: 9854, limit_mib: 12288, headroom_mib: 2434, fits: true}]
files:
  description: The files that were written on the controller.
  returned: when not in check mode
  type: list
  elements: str
  sample: [/home/operator/gpu-memory-report/gpu01.plan.json, /home/operator/gpu-memory-report/gpu01.plan.svg]
"""
