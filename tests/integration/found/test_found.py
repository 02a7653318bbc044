# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that nobody prepared for this collection: proven, or refused untouched with the cause and the cure."""

from __future__ import annotations

import json
from concurrent.futures import Future

from tests.integration.found.condition import Found
from tests.integration.found.found_host import Outcome

UNTOUCHED = ("refused", "untouched")


def test_found(found: Found, attempts: dict[str, Future[Outcome]]) -> None:
    outcome = attempts[found.name].result()
    print(outcome.output)
    record = outcome.record
    verdict, reason = record.get("verdict"), record.get("reason") or ""
    print(f"{verdict}: {reason}")
    if found.verdict:
        assert verdict in found.verdict.split("|")
    place = reason if found.verdict and verdict != "pass" else f"{outcome.output}\n{json.dumps(record.get('notes'))}"
    for words in found.says:
        assert words.lower() in place.lower()
    for words in found.hidden:
        assert words not in outcome.written
    assert "Traceback" not in outcome.output
    assert outcome.settled, "a lease, a restore or a timer is left"
    assert outcome.left_behind == ""
    assert outcome.enabled_after == outcome.enabled_before
    if verdict != "fail":
        stopped = set(outcome.running_before.split()) - set(outcome.running_after.split())
        assert not stopped
    if verdict in UNTOUCHED:
        assert outcome.after == outcome.before, difference(outcome)


def difference(outcome: Outcome) -> str:
    before, after = set(outcome.before.splitlines()), set(outcome.after.splitlines())
    return "\n".join([*(f"- {line}" for line in before - after), *(f"+ {line}" for line in after - before)])
