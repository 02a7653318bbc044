# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tuning a host that is going back: it is left alone until that is over."""

from __future__ import annotations

from pathlib import Path

from tests.integration.faults.fault_lab import ANSWERS, KEPT, PICTURE, SETTLED, Host, playbook
from tests.integration.faults.outcome import RUN_S, attempt
from tests.integration.faults.table import FAULTS


def test_a_host_that_is_going_back_is_not_tuned(host: Host, tmp_path: Path) -> None:
    never_starts = next(fault for fault in FAULTS if fault.name == "backend_never_starts_after_the_restore")
    attempt(never_starts, host, tmp_path)
    before = host.read(PICTURE)
    host.read(f"test -e {KEPT}/restoring.json && ! {{ {ANSWERS}; }}")
    run = playbook(host, tmp_path / "tune", "playbooks/tune.yml", gpu_memory_tune_max_probes=1)
    output, _ = run.communicate(timeout=RUN_S)
    print(output)
    assert run.returncode != 0 and "is going back" in " ".join(output.split())
    assert host.read(PICTURE) == before
    host.read(f"test -e {KEPT}/restoring.json")
    host.read("rm /opt/fault/armed; gpu-memory restore")
    host.wait_until(f"{SETTLED} && {ANSWERS}", 120)
