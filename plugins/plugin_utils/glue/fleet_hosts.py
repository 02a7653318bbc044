# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts a play is for, as far as that is known before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import wave_plan

NO_HOSTS = "the inventory has no hosts: start the lab with ./script/lab up, or name yours with -i"


def matching(pattern: str, variables: Mapping[str, Any], loader: Any) -> list[str]:
    """The hosts that a pattern and `--limit` leave, in the order of the inventory. None at all is a ValueError.

    But for a syntax check of playbooks without an inventory, as linters make it: there it is an empty list.
    """
    groups = variables["groups"]
    if not groups["all"]:
        if context.CLIARGS.get("syntax"):
            return []
        raise ValueError(NO_HOSTS)
    inventory = InventoryManager(loader, parse=False)
    for group, hosts in groups.items():
        inventory.add_group(group)
        for host in hosts:
            inventory.add_host(host, group=group)
    limit = variables.get("ansible_limit")
    try:
        inventory.subset(limit)
        hosts = [host.name for host in inventory.get_hosts(pattern)]
    except AnsibleError as problem:  # a bad pattern, or one without a match where Ansible is told to make that an error
        raise ValueError(f"{problem}; it has {', '.join(sorted(groups))}") from None
    if not hosts:
        within = f" within --limit {limit}" if limit else ""
        raise ValueError(f"no host of the inventory matches {pattern!r}{within}; it has {', '.join(sorted(groups))}")
    return hosts


def kinds(hosts: Sequence[str], variables: Mapping[str, Any]) -> dict[str, str | None]:
    """The hardware of each host, as an earlier play of this run has read it."""
    seen = {host: (variables["hostvars"][host].get("gpu_memory_seen") or {}).get("nvml") for host in hosts}
    return {host: wave_plan.hardware(nvml) for host, nvml in seen.items()}
