# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Healthy hosts, applied to and verified over and over: the verdict is always the same."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import records
from tests.integration.faults.conftest import AT_ONCE
from tests.integration.faults.fault_lab import ANSWERS, LAB, Host, lab, playbook

TIMES = int(os.environ.get("HEALTHY_TIMES", "300"))  # verdicts, over all hosts
RUNS = (
    ("apply-stable.yml", {"gpu_memory_verify": "always"}),
    ("playbooks/verify.yml", {"gpu_memory_verify": "always"}),
)


@pytest.fixture
def healthy() -> Iterator[list[Host]]:
    name = f"{LAB}-healthy"
    lab("up", str(AT_ONCE), name=name)
    yield [Host(f"gpu{number:02d}", name) for number in range(1, AT_ONCE + 1)]
    lab("down", name=name)


@pytest.mark.repeated
def test_no_verdict_flips(healthy: list[Host], tmp_path: Path) -> None:
    """A first apply writes and proves; every later apply loads without a change, every verify loads without a lease."""
    for host in healthy:
        host.wait_until(ANSWERS, 120)
    verdicts: Counter[str] = Counter()
    peaks: Counter[int] = Counter()
    others = []
    for number in range(-(-TIMES // AT_ONCE)):
        name, variables = RUNS[number % len(RUNS)]
        batches = {"gpu_memory_batches": ["100%"]}
        run = playbook(
            healthy[0], tmp_path, name, "--limit", ",".join(host.name for host in healthy), **variables, **batches
        )
        output, _ = run.communicate(timeout=900)
        for host in healthy:
            record = records.read(tmp_path / f"{host.name}.json")
            verdicts[record["verdict"]] += 1
            peaks[record["peak_used_mib"]] += 1
            if record["verdict"] != "pass":
                others.append(f"{name} {host.name}: {record['verdict']}: {record['reason']}")
            (tmp_path / f"{host.name}.json").unlink()
    print(
        f"\nfigure: {sum(verdicts.values())} verdicts on {AT_ONCE} hosts: {dict(verdicts)}; peaks in MiB: {dict(peaks)}"
    )
    assert not others, "\n".join(others)
