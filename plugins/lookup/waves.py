# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sizes of a play's waves, for its keyword `serial`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: waves
short_description: How many hosts each wave has
version_added: "1.0.0"
description:
  - The waves as they were asked for, checked. With O(canary=per_hardware) the first one is large enough to hold a host
    of each kind of hardware, which P(selo.gpu_memory.fleet#lookup) puts first.
options:
  _terms:
    description: A pattern of hosts.
    required: true
  batches:
    description: A size or a list of sizes, each a number of hosts or a percentage, the last one for all that follow.
    type: raw
    required: true
  canary:
    description: As of P(selo.gpu_memory.fleet#lookup).
    type: str
    default: first
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: A play in waves
  hosts: "{{ query('selo.gpu_memory.fleet', 'all') }}"
  serial: "{{ query('selo.gpu_memory.waves', 'all', batches=[1, '25%', '100%']) }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: The sizes.
  type: list
  elements: raw
"""

from typing import Any  # noqa: E402

from ansible.errors import AnsibleError  # noqa: E402
from ansible.plugins.lookup import LookupBase  # noqa: E402
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import wave_plan  # noqa: E402
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import fleet_hosts  # noqa: E402


class LookupModule(LookupBase):
    def run(self, terms: list[str], variables: dict[str, object] | None = None, **kwargs: Any) -> list[int | str]:
        self.set_options(var_options=variables, direct=kwargs)
        try:
            hosts = fleet_hosts.matching(terms[0], variables or {}, self._loader)
            per_hardware = wave_plan.check_canary(self.get_option("canary")) == "per_hardware"
            first = len(wave_plan.canaries(hosts, fleet_hosts.kinds(hosts, variables or {}))) if per_hardware else 1
            return wave_plan.sizes(self.get_option("batches"), first, len(hosts))
        except ValueError as problem:
            raise AnsibleError(str(problem)) from None
