# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts come first, and how many make a wave. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Nvml

CANARIES = ("first", "per_hardware")
PERCENTAGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*\Z")


def hardware(nvml: Nvml | None) -> str | None:
    """What kind of host this is by its GPUs, as NVML names and sizes them; None where they were not read.

    `nvml`: that part of gpu_memory_info.
    """
    gpus = [gpu for gpu in (nvml["gpus"] if nvml else []) if not gpu.get("error")]
    return ", ".join(sorted(f"{gpu['name']} with {gpu['total_mib']} MiB" for gpu in gpus)) or None


def canaries(hosts: Sequence[str], kinds: Mapping[str, str | None]) -> list[str]:
    """The first host of each kind of hardware. One whose hardware is not known stands for none."""
    first: dict[str, str] = {}
    for host in hosts:
        kind = kinds.get(host)
        if kind is not None:
            first.setdefault(kind, host)
    return list(first.values())


def in_order(hosts: Sequence[str], kinds: Mapping[str, str | None]) -> list[str]:
    """All hosts, the canaries first, else as they stand in the inventory."""
    return list(dict.fromkeys([*canaries(hosts, kinds), *hosts]))


def sizes(batches: object, least_first: int, of: int) -> list[int | str]:
    """The waves as a play's `serial` takes them: numbers and percentages, the last one for all that is left.

    `least_first`: how many canaries there are, which the first wave holds at least; `of`: how many hosts there are.
    Raises ValueError where `batches` is neither a size nor a list of them.
    """
    given = batches if isinstance(batches, (list, tuple)) else [batches]
    waves = [_size(size) for size in given]
    if not waves:
        raise ValueError(f"gpu_memory_batches = {batches!r} names no wave")
    return [max(_hosts_in(waves[0], of), least_first), *waves[1:]] if least_first > 1 else list(waves)


def check_canary(canary: object) -> str:
    if canary not in CANARIES:
        raise ValueError(f"gpu_memory_canary = {canary!r} is not allowed; allowed: {', '.join(CANARIES)}")
    return str(canary)


def _size(size: object) -> int | str:
    text = str(size).strip()
    match = PERCENTAGE.match(text)
    if match and 0 < float(match.group(1)) <= 100:
        # Ansible itself takes whole ones only; less than one host is one.
        return f"{max(1, int(float(match.group(1))))}%"
    if not isinstance(size, bool) and text.isdecimal() and len(text) < 8 and int(text) > 0:
        return int(text)
    raise ValueError(f"gpu_memory_batches: {size!r} must be a number of hosts or a percentage, as 5 or 25%")


def _hosts_in(size: int | str, of: int) -> int:
    return size if isinstance(size, int) else max(1, of * int(size[:-1]) // 100)
