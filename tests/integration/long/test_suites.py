# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as Ollama's install script leaves them, on every supported Debian (systemd 247 to 257, Python 3.9 to 3.13):
proven, unchanged by a second run, and after remove.yml as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration import records
from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import DROP_INS, PICTURE, Host, daemon_reloads, playbook

LEFT = "systemctl list-units --all --plain --no-legend | grep gpu-memory; ls -d /run/gpu-memory* /var/lib/gpu-memory*"


@pytest.mark.parametrize("backend", ["guide", "none"])
@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie"])
def test_a_stock_host_is_proven_then_unchanged_and_nothing_is_left_of_it(
    suite: str, backend: str, tmp_path: Path
) -> None:
    host = Host("gpu01", f"stock-{suite}-{backend}", LAB_SUITE=suite, LAB_BACKEND=backend)

    def run(name: str) -> tuple[str, int]:
        before = daemon_reloads(host)
        started = playbook(host, tmp_path, name)
        output, _nothing = started.communicate(timeout=300)
        assert started.returncode == 0, output
        return output, daemon_reloads(host) - before

    host.fresh()
    try:
        host.read(f"! test -e {DROP_INS}")
        run("playbooks/remove.yml")  # what a first login leaves is not this collection's
        before = host.read(PICTURE)
        reloads = []
        for acted in (True, False):
            output, reloaded = run("apply-stable.yml")
            record = records.read(tmp_path / "gpu01.json")
            assert (record["verdict"], record["acted"]) == ("pass", acted)
            reloads.append(reloaded)
        assert "changed=0" in output.rpartition("PLAY RECAP")[2].partition("gpu01")[2].splitlines()[0]
        reloads.append(run("playbooks/remove.yml")[1])
        assert host.read(PICTURE) == before and not host.holds(LEFT)
        assert reloads == [1, 0, 1]
        system = host.read("systemctl --version | head -1; python3 -V").split("\n")
        print(f"figure: {suite}, {backend}: pass, changed=0, nothing left; daemon-reloads {reloads};", *system)
    finally:
        fault_lab.lab("down", name=host.lab)
