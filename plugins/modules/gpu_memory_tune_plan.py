#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_tune_plan`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_tune_plan
short_description: Decide what a tuning run is told and who is tuned for whom, and conclude it
version_added: "1.0.0"
description:
  - Checks the operator's C(gpu_memory_tune_*) against what was declared and read, all problems at once.
  - Of hosts with the same GPU, Ollama and model the first of the play is tuned, for all of them.
  - At the end writes C(HOST.tune.json), C(HOST.tune.svg) and, with a result, C(HOST.tune.yml) with the profile for
    group_vars. In check mode nothing was probed, so nothing is written.
  - This is an action plugin; it runs on the controller.
options:
  at:
    description:
      - V(host) for what one host is told, V(group) for who is tuned for whom, once every host has been told.
      - V(result) for what came of it.
    type: str
    required: true
    choices: [host, group, result]
  declared:
    description: The result of M(selo.gpu_memory.gpu_memory_declare).
    type: dict
  read:
    description: The result of M(selo.gpu_memory.gpu_memory_info).
    type: dict
  tune:
    description: The variables C(gpu_memory_tune_*) without that beginning, and the two bandwidths.
    type: dict
  planned:
    description: The result of O(at=host).
    type: dict
  group:
    description: The result of O(at=group).
    type: dict
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
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Decide what to tune
  selo.gpu_memory.gpu_memory_tune_plan:
    at: host
    declared: "{{ declared }}"
    read: "{{ read }}"
    tune: "{{ tune }}"
  register: planned

- name: Conclude
  selo.gpu_memory.gpu_memory_tune_plan:
    at: result
    planned: "{{ planned }}"
    group: "{{ group }}"
    tuned: "{{ tuned }}"
    report_dir: gpu-memory-report
"""

RETURN = r"""
problems:
  description: What keeps the host from being tuned.
  returned: with O(at=host) and O(at=result)
  type: list
  elements: str
run:
  description: The arguments of M(selo.gpu_memory.gpu_memory_tune).
  returned: with O(at=host), without problems
  type: dict
key:
  description: The same for hosts of the same GPU, Ollama and model.
  returned: with O(at=host), without problems
  type: str
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
hosts:
  description: The hosts of this host's group.
  returned: with O(at=group)
  type: list
  elements: str
tunes:
  description: Whether this host is the one that is tuned.
  returned: with O(at=group)
  type: bool
"""
