#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_tune_plan`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_tune_plan
short_description: Decide what a host's tuning run is told, and which host is tuned for whom
version_added: "1.0.0"
description:
  - Checks the operator's C(gpu_memory_tune_*) against what was declared and read, all problems at once.
  - Of hosts with the same GPU, Ollama and model the first of the play is tuned, for all of them.
  - This is an action plugin; it runs on the controller.
options:
  at:
    description: V(host) for what one host is told, V(group) for who is tuned for whom, once every host has been told.
    type: str
    required: true
    choices: [host, group]
  declared:
    description: The result of M(selo.gpu_memory.gpu_memory_declare).
    type: dict
  read:
    description: The result of M(selo.gpu_memory.gpu_memory_info).
    type: dict
  tune:
    description: The variables C(gpu_memory_tune_*) without that beginning, and the two bandwidths.
    type: dict
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
"""

RETURN = r"""
problems:
  description: What keeps the host from being tuned.
  returned: at host
  type: list
  elements: str
run:
  description: The arguments of M(selo.gpu_memory.gpu_memory_tune).
  returned: at host, without problems
  type: dict
key:
  description: The same for hosts of the same GPU, Ollama and model.
  returned: at host, without problems
  type: str
hosts:
  description: The hosts of this host's group.
  returned: at group
  type: list
  elements: str
tunes:
  description: Whether this host is the one that is tuned.
  returned: at group
  type: bool
"""
