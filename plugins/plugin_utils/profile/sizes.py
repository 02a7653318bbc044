# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles on GPUs of another size than the one that their threshold is meant for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import wanted_settings

OTHER_SIZES = ("refuse", "scale")
BUILT_IN_FOR_MIB = 16384  # the guide's thresholds are those of 16 GB
# Cards sold as 16 GB show 15109 (T4 with ECC) to 16384 MiB; the next sizes are 12 and 20 GB.
TOLERANCE = 0.1


def is_other(profile: Mapping[str, Any] | None, gpu: Mapping[str, Any]) -> bool:
    """Whether a GPU is of another size than the profile's threshold is meant for; an operator's own fits any."""
    meant = profile and profile["meant_for_mib"]
    return bool(meant) and abs(gpu["total_mib"] / meant - 1) > TOLERANCE


def scaled_mib(profile: Mapping[str, Any], gpu: Mapping[str, Any]) -> int:
    """The threshold in proportion to a GPU."""
    return int(profile["max_used_mib"] * gpu["total_mib"] // profile["meant_for_mib"])


def sized(declared: Mapping[str, Any], read: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What was declared, with its threshold in proportion to the smallest GPU of the host where that was asked for.

    `read`: gpu_memory_info, or None where there is none. Sizing again changes nothing.
    """
    profile = declared["profile"]
    gpus = [gpu for gpu in wanted_settings.usable_gpus((read or {}).get("nvml") or {}) if is_other(profile, gpu)]
    if declared["other_sizes"] != "scale" or not gpus:
        return declared
    threshold = min(scaled_mib(profile, gpu) for gpu in wanted_settings.usable_gpus((read or {})["nvml"]))
    intent = {**profile["intent"], "max_used_mib": threshold}
    return {**declared, "profile": {**profile, "intent": intent, "max_used_mib": threshold, "meant_for_mib": None}}


def problem(profile: Mapping[str, Any], gpu: Mapping[str, Any], name: str) -> str:
    return (
        f"{name} has {gpu['total_mib']} MiB, and the threshold of the profile {profile['name']} is meant for 16 GB; "
        "give this host a profile with a max_used_mib of its own, or set gpu_memory_other_sizes: scale for "
        f"{scaled_mib(profile, gpu)} MiB"
    )


def note(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What became of the threshold, if anything did. Both as `declared`."""
    if before is after:
        return []
    was, now = before["profile"]["max_used_mib"], after["profile"]["max_used_mib"]
    return [f"max_used_mib is {now} here, in proportion to this size of GPU; the profile says {was} for 16 GB"]
