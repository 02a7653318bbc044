# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often systemd reads its units again, counted on the host: it may take the GPU from the host's containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, DROP_INS, NEW_RUNS, SETTLED, Host, daemon_reloads, playbook


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "reloads-test")
    host = Host("gpu01", lab)
    host.fresh()
    yield host
    fault_lab.lab("down", name=lab)


def reloads_of(host: Host, directory: Path, name: str, **variables: object) -> int:
    before = daemon_reloads(host)
    run = playbook(host, directory, name, **variables)
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    host.read(SETTLED)
    return daemon_reloads(host) - before


def test_one_on_a_first_apply_and_none_where_nothing_changes(host: Host, tmp_path: Path) -> None:
    host.wait_until(f"! test -e {DROP_INS} && {ANSWERS}", 60)
    assert reloads_of(host, tmp_path, "apply-stable.yml") == 1
    host.read(NEW_RUNS)
    assert reloads_of(host, tmp_path, "apply-stable.yml") == 0
    # A load without a change holds the host and arms the restore timer, too.
    assert reloads_of(host, tmp_path, "apply-stable.yml", gpu_memory_verify="always") == 0
    assert reloads_of(host, tmp_path, "apply-conservative.yml") == 1
    assert reloads_of(host, tmp_path, "playbooks/remove.yml") == 1
    assert not host.holds(f"test -e {DROP_INS} || systemctl list-units --all | grep gpu-memory")
