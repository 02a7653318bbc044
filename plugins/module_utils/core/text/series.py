# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures over time, as fewer points that show the same. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def timeline(times: Sequence[float], used: Sequence[float], points: int) -> list[tuple[float, float]]:
    """At most `points` pairs (time, used): the highest of each run of samples, so no peak is lost."""
    run = math.ceil(len(times) / points)
    return [
        max(zip(times[first : first + run], used[first : first + run]), key=lambda pair: pair[1])
        for first in range(0, len(times), max(1, run))
    ]


def without_levels(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """A timeline without the points that a level line goes straight through: most of them, and nothing is lost."""
    return [
        list(point)
        for index, point in enumerate(points)
        if not (0 < index < len(points) - 1 and points[index - 1][1] == point[1] == points[index + 1][1])
    ]
