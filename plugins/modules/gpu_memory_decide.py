#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_decide`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_decide
short_description: Decide what to do on a host
version_added: "1.0.0"
description:
  - Compares what was declared with what M(selo.gpu_memory.gpu_memory_info) read.
  - Says what is to be written and what is to be restarted.
  - Does not fail where the host must not be touched, but names every reason in C(problems) and decides on nothing else.
  - This is an action plugin; it runs on the controller.
options:
  declared:
    description: The result of M(selo.gpu_memory.gpu_memory_declare).
    type: dict
    required: true
  read:
    description: The result of M(selo.gpu_memory.gpu_memory_info).
    type: dict
    required: true
  deploys:
    description: Whether anything will be written; V(false) asks only for what hinders a proof.
    type: bool
    required: true
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Decide what to do
  selo.gpu_memory.gpu_memory_decide:
    declared: "{{ declared }}"
    read: "{{ read }}"
    deploys: true
  register: decision
"""

RETURN = r"""
problems:
  description: Why the host must not be touched.
  returned: success
  type: list
  sample: []
acts:
  description: Whether anything is to be written or restarted.
  returned: success
  type: bool
  sample: true
files:
  description: The files that change, with their present SHA-256.
  returned: success
  type: list
  sample: [{path: /etc/systemd/system/ollama.service.d/zz-gpu-memory.conf, sha256: null}]
restart:
  description: What is to be restarted.
  returned: success
  type: list
  sample: [ollama, backend]
proof:
  description: The proof that still holds, or null.
  returned: success
  type: dict
  sample: null
"""
