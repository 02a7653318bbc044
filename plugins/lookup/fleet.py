# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of a play, in their order, for its keyword `hosts`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The hosts that a play is for, which must not be none
version_added: "1.0.0"
description:
  - Ansible skips a play that matches no host, and calls that a success. This fails instead, C(--limit) included.
  - With O(canary=per_hardware) the first host of each kind of hardware comes first.
options:
  _terms:
    description: A pattern of hosts.
    required: true
  canary:
    description:
      - Which hosts come first. V(first) leaves the order of the inventory.
      - V(per_hardware) needs the result of M(selo.gpu_memory.gpu_memory_info) of each host in C(gpu_memory_seen).
    type: str
    default: first
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: A play for all hosts, of which there must be some
  hosts: "{{ query('selo.gpu_memory.fleet', 'all') }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: The pattern, or with another order the names of the hosts.
  type: list
  elements: str
"""

from typing import Any  # noqa: E402

from ansible.errors import AnsibleError  # noqa: E402
from ansible.plugins.lookup import LookupBase  # noqa: E402
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import wave_plan  # noqa: E402
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import fleet_hosts  # noqa: E402


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, object] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            hosts = fleet_hosts.matching(terms[0], variables or {}, self._loader)
            if wave_plan.check_canary(self.get_option("canary")) == "first" or not hosts:
                return [terms[0]]  # Ansible finds the same hosts again, and faster than by their names
            return wave_plan.in_order(hosts, fleet_hosts.kinds(hosts, variables or {}))
        except ValueError as problem:
            raise AnsibleError(str(problem)) from None
