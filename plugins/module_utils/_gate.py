# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate between waves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FIRST_NAMED = 5


def judge(finished: Mapping[str, Mapping[str, Any] | None], max_fail_percentage: Any) -> dict[str, Any]:
    """Whether the next wave may start: `open`, the `wave` about to start (from 1), and the `reason` if it may not.

    `finished`: the record of every host of earlier waves (verdict, ok, wave), or None for a host that was lost without
    one. More than `max_fail_percentage` percent of a wave's hosts not ok closes the gate for all that follow. Raises
    ValueError where that is no percentage.
    """
    allowed = _percentage(max_fail_percentage)
    waves: dict[int, dict[str, Mapping[str, Any]]] = {}
    wave = 1
    for host, record in finished.items():
        record = record or {"verdict": "lost", "ok": False, "wave": wave}
        wave = int(record["wave"])
        waves.setdefault(wave, {})[host] = record
    for number, records in sorted(waves.items()):
        bad = [f"{host} {record['verdict']}" for host, record in records.items() if not record["ok"]]
        if bad and 100 * len(bad) / len(records) > allowed:
            more = f" and {len(bad) - FIRST_NAMED} more" if len(bad) > FIRST_NAMED else ""
            reason = f"wave {number} closed the gate: {', '.join(bad[:FIRST_NAMED])}{more}"
            return {"open": False, "wave": max(waves) + 1, "reason": reason}
    return {"open": True, "wave": max(waves, default=0) + 1, "reason": None}


def _percentage(value: Any) -> float:
    try:
        number = float(0 if value is None else value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= 100:
        raise ValueError(f"gpu_memory_max_fail_percentage = {value!r} must be a percentage, from 0 to 100")
    return number
