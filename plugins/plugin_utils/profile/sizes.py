# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles on GPUs of another size than the one that their threshold is meant for. Pure."""

from __future__ import annotations

from typing import cast

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import (
    Declared,
    Intent,
    Profile,
    Sized,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuSize
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import wanted_settings

OTHER_SIZES = ("refuse", "scale")
BUILT_IN_FOR_MIB = 16384  # the guide's thresholds are those of 16 GB
# Cards sold as 16 GB show 15109 (T4 with ECC) to 16384 MiB; the next sizes are 12 and 20 GB.
TOLERANCE = 0.1


def is_other(profile: Profile | None, gpu: GpuSize) -> bool:
    """Whether a GPU is of another size than the profile's threshold is meant for; an operator's own fits any."""
    meant = profile["meant_for_mib"] if profile else None
    return meant is not None and abs(gpu["total_mib"] / meant - 1) > TOLERANCE


def scaled_mib(profile: Profile, gpu: GpuSize) -> int:
    """The threshold in proportion to a GPU that is of another size."""
    return (profile["max_used_mib"] or 0) * gpu["total_mib"] // (profile["meant_for_mib"] or BUILT_IN_FOR_MIB)


def sized(declared: Declared, read: HostFacts | None) -> Sized:
    """What was declared, with its threshold in proportion to the smallest GPU of the host where that was asked for.

    `read`: gpu_memory_info, or None where there is none. Sizing again changes nothing. What was declared without a
    profile stays without one; `problems` then say why, and nothing is asked of it that needs one.
    """
    profile = declared["profile"]
    gpus = wanted_settings.usable_gpus(read["nvml"]) if read and read.get("nvml") else []
    if not profile or declared["other_sizes"] != "scale" or not any(is_other(profile, gpu) for gpu in gpus):
        return cast(Sized, declared)
    threshold = min(scaled_mib(profile, gpu) for gpu in gpus)
    intent: Intent = {**profile["intent"], "max_used_mib": threshold}
    return {**declared, "profile": {**profile, "intent": intent, "max_used_mib": threshold, "meant_for_mib": None}}


def problem(profile: Profile, gpu: GpuSize, name: str) -> str:
    return (
        f"{name} has {gpu['total_mib']} MiB, and the threshold of the profile {profile['name']} is meant for 16 GB; "
        "give this host a profile with a max_used_mib of its own, or set gpu_memory_other_sizes: scale for "
        f"{scaled_mib(profile, gpu)} MiB"
    )


def note(before: Declared, after: Sized) -> list[str]:
    """What became of the threshold, if anything did."""
    if before is after or before["profile"] is None:
        return []
    was, now = before["profile"]["max_used_mib"], after["profile"]["max_used_mib"]
    return [f"max_used_mib is {now} here, in proportion to this size of GPU; the profile says {was} for 16 GB"]
