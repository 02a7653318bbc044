# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that reaches nothing, and that nothing but SSH reaches, is taken from the crash to a proven profile."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import records
from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, ENGINE, Host, playbook

# In comes SSH, out goes what answers it; by the kernel's own filter, in the host's network.
CUT = """
table inet cut {
  chain in { type filter hook input priority 0; policy drop; iif lo accept; tcp dport 22 accept; }
  chain out { type filter hook output priority 0; policy drop; oif lo accept; tcp sport 22 accept; }
}
"""


@pytest.fixture
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "offline-test")
    fault_lab.lab("up", "1", name=lab)
    yield Host("gpu01", lab)
    fault_lab.lab("down", name=lab)


def cut_off(host: Host) -> None:
    show = [ENGINE, "inspect", "--format", "{{.State.Pid}}", host.container]
    pid = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "nft", "-f", "-"], input=CUT, check=True, text=True)


def test_a_host_without_a_network(host: Host, tmp_path: Path) -> None:
    host.wait_until(ANSWERS, 60)
    controller = host.read("ip -4 route show default").split()[2]
    with socket.create_server((controller, 0)) as server:
        reach = f"timeout 5 bash -c 'exec 3<>/dev/tcp/{controller}/{server.getsockname()[1]}'"
        assert host.holds(reach)
        cut_off(host)
        assert not host.holds(reach)
        run = playbook(host, tmp_path)
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
        assert not host.holds(reach)
    assert records.read(tmp_path / f"{host.name}.json")["verdict"] == "pass"
