# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After any fault a host is on the new profile and proven, or exactly where it was and running; the reason is told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from tests.integration.faults.outcome import Outcome
from tests.integration.faults.table import NEW, SAME, Fault


def test_fault(
    fault: Fault, attempts: dict[str, Future[Outcome]], record_property: Callable[[str, object], None]
) -> None:
    outcome = attempts[fault.name].result()
    record_property("restore_s", outcome.restore_s)
    print(outcome.output)
    record = outcome.record
    print(f"{record.get('verdict')}: {record.get('reason')}")
    assert record.get("verdict") in fault.verdict.split("|")
    for words in fault.says:
        assert words.lower() in record["reason"].lower()
    assert outcome.settled == fault.settles, "a lease, a restore or a timer is left"
    if "lost the connection" not in (
        record["reason"] or ""
    ):  # or nobody is there who could tidy up after the load test
        assert outcome.left_behind == ""
    assert (outcome.after != outcome.before) == (fault.ends != SAME), difference(outcome)
    assert outcome.new_runs == (fault.ends != SAME or fault.is_second)
    assert outcome.proven == (fault.ends == NEW and fault.settles or fault.is_second)
    assert outcome.then
    assert outcome.enabled_after == outcome.enabled_before
    if fault.runs:
        assert outcome.answers
    elif fault.verdict != "fail":
        assert outcome.runs == outcome.ran


def difference(outcome: Outcome) -> str:
    before, after = set(outcome.before.splitlines()), set(outcome.after.splitlines())
    return "\n".join([*(f"- {line}" for line in before - after), *(f"+ {line}" for line in after - before)])
