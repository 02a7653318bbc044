# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate between waves. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Gate
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import lasting, verdicts

FIRST_NAMED = 5
BETWEEN_STEPS_S = 20  # what the controller itself takes from a step of a wave to the next
WEEK = 7 * 24 * 60  # in minutes


def judge(finished: Mapping[str, Record | None], max_fail_percentage: object) -> Gate:
    """Whether the next wave may start: `open`, the `wave` about to start (from 1), and the `reason` if it may not.

    `finished`: the record of every host of earlier waves (verdict, ok, wave), or None for a host that was lost without
    one. More than `max_fail_percentage` percent of a wave's hosts not ok closes the gate for all that follow. Raises
    ValueError where that is no percentage.
    """
    allowed = _percentage(max_fail_percentage)
    waves: dict[int, dict[str, str | None]] = {}  # what is wrong by host
    wave = 1
    for host, record in finished.items():
        wave = int(record["wave"] or wave) if record else wave
        verdict = record["verdict"] if record else "lost"
        waves.setdefault(wave, {})[host] = None if record and record["ok"] else verdict
    for number, verdicts_of_wave in sorted(waves.items()):
        bad = [f"{host} {verdict}" for host, verdict in verdicts_of_wave.items() if verdict]
        if bad and 100 * len(bad) / len(verdicts_of_wave) > allowed:
            more = f" and {len(bad) - FIRST_NAMED} more" if len(bad) > FIRST_NAMED else ""
            reason = f"wave {number} closed the gate: {', '.join(bad[:FIRST_NAMED])}{more}"
            return {"open": False, "wave": max(waves) + 1, "reason": reason}
    return {"open": True, "wave": max(waves, default=0) + 1, "reason": None}


def restore_after_s(declared: Sequence[Declared], is_alone: bool) -> float:
    """For how long a host of a wave may go without word from the controller. `is_alone`: in its whole play.

    Ansible goes from step to step with the whole wave, and the lease is renewed between two steps. So a good host waits
    at most for the longest step of any, such as a restart or a restore that takes all its time.
    """
    if is_alone:
        return declared[0]["restore_after_alone"]
    return max(one["restore_after"] for one in declared) + (BETWEEN_STEPS_S if len(declared) > 1 else 0)


def changed_last(finished: Mapping[str, Record | None]) -> bool:
    """Whether the wave before this one changed any host: where all were proven already there is nothing to bake."""
    last = max((record["wave"] or 0 for record in finished.values() if record), default=0)
    return any(record["acted"] for record in finished.values() if record and record["wave"] == last)


def watchers(wave: Sequence[str], finished: Mapping[str, Record | None]) -> dict[str, list[str]]:
    """Which host of the next wave looks after which of the good ones, spread evenly, as {host: [watched]}."""
    shares: dict[str, list[str]] = {}
    for number, host in enumerate(host for host, record in finished.items() if record and record["ok"]):
        shares.setdefault(wave[number % len(wave)], []).append(host)
    return shares


def corrected(record: Record | None, read: HostFacts) -> Record | None:
    """The record of a host that had ended well and did not last; None where nothing speaks against it."""
    reasons = [f"it passed, but did not last: {reason}" for reason in did_not_last(read)]
    if not record or not reasons:
        return None
    return {**record, "verdict": "fail", "ok": False, "reasons": reasons, "reason": "; ".join(reasons)}


def did_not_last(read: HostFacts) -> list[str]:
    """Why a host that had ended well may not stand any more. `read`: gpu_memory_info with its journal since then."""
    if "ollama" not in read:
        return [f"it cannot be read again: {read.get('msg') or 'no message'}"]
    reasons = []
    journal = read["ollama"]["journal"]
    failures = [failure for failure in journal["failures"] if failure["severity"] == "fatal"]
    if failures:
        reasons.append(f"Ollama's journal: {verdicts.plainest_failure(failures)}")
    reasons += lasting.down(read)
    return reasons


def minutes(value: object) -> float:
    """Raises ValueError where `value` is no number of minutes, up to a week."""
    return _number("gpu_memory_bake_minutes", value, WEEK, "minutes")


def _percentage(value: object) -> float:
    return _number("gpu_memory_max_fail_percentage", value, 100, "a percentage")


def _number(name: str, value: object, most: float, kind: str) -> float:
    """None is 0. ValueError where `value` is no number from 0 to `most`."""
    try:
        number = float(str(0 if value is None else value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ValueError(f"{name} = {value!r} must be {kind}, from 0 to {most}")
    return number
