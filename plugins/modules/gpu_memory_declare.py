#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the action plugin `gpu_memory_declare`, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_declare
short_description: Check what an operator declared
version_added: "1.0.0"
description:
  - Resolves the variables of the role P(selo.gpu_memory.gpu_memory#role) into one canonical value.
  - Collects every problem instead of stopping at the first, so that they can be shown together with those of the host.
  - This is an action plugin; it runs on the controller.
options:
  variables:
    description: >-
      The variables of the role by their names, with the built-in profiles and presets. In a role those that are not
      given have its defaults.
    type: dict
    required: true
  fixed_profile:
    description: The profile that the playbook stands for; giving another with C(-e) is then a problem.
    type: str
  reports:
    description: Whether reports are to be written into C(gpu_memory_report_dir), and it is a problem if they cannot.
    type: bool
    default: true
  unresolved:
    description: What Ansible said of a variable that it could not resolve. It is then the first problem.
    type: str
extends_documentation_fragment:
  - selo.gpu_memory.on_controller
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Check what was declared
  selo.gpu_memory.gpu_memory_declare:
    variables: "{{ my_variables }}"
  register: declared
"""

RETURN = r"""
problems:
  description: What is wrong, each with the variable, its value and what is allowed.
  returned: success
  type: list
  sample: []
profile:
  description: The profile with C(name), C(label), C(env), C(intent) and C(max_used_mib), or null.
  returned: success
  type: dict
  sample: {name: stable, label: stable}
check_mode:
  description: Whether this task, and with it the role that it is in, only says what would be done.
  returned: success
  type: bool
  sample: false
"""
