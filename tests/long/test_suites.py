# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main road on the oldest and on the newest Debian that is supported: systemd 247 to 257, Python 3.9 to 3.13."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import fault_lab
from tests.faults.fault_lab import ANSWERS, Host, playbook


@pytest.mark.parametrize("suite", ["bullseye", "trixie"])
def test_a_host_is_proven_and_a_second_run_changes_nothing(
    suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_SUITE", suite)
    lab = f"suite-{suite}"
    fault_lab.lab("up", "1", name=lab)
    try:
        host = Host("gpu01", lab)
        host.wait_until(ANSWERS, 60)
        print(f"figure: {suite}:", *host.read("systemctl --version | head -1; python3 -V").split("\n"))
        for acted in (True, False):
            run = playbook(host, tmp_path)
            output, _nothing = run.communicate(timeout=300)
            assert run.returncode == 0, output
            record = json.loads((tmp_path / "gpu01.json").read_text())
            assert (record["verdict"], record["acted"]) == ("pass", acted)
        run = playbook(host, tmp_path, "playbooks/remove.yml")
        output, _nothing = run.communicate(timeout=300)
        assert run.returncode == 0, output
    finally:
        fault_lab.lab("down", name=lab)
