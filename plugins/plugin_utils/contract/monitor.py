# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the monitor reads of a GPU in a period."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuId

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class NamedHolder(TypedDict):
    """A process with GPU memory by its name, in MiB."""

    name: str | None
    used_mib: int | None


class Reading(GpuId):
    """A GPU in a period, in bytes; without samples there is nothing but the error."""

    samples: int
    error: str | None
    total: NotRequired[int]
    used: NotRequired[int]
    reserved: NotRequired[int | None]
    peak: NotRequired[int]
    max_gap_s: NotRequired[float]
    processes: NotRequired[list[NamedHolder]]
