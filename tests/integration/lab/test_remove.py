# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After remove.yml a host's whole file system is as it was before the first apply."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, BACKEND, NEW_RUNS, Host, playbook

# All but what a running system writes by itself (its journal, sockets, what programs compile for themselves), and the
# directories that Ansible makes for any task.
EVERYTHING = f"""
cd / && left_out='proc|sys|dev|tmp|run|var/log|var/tmp'
find . -xdev -regextype posix-extended \\( -regex "\\./($left_out)" -o -name __pycache__ -o -name .ansible \\) -prune \\
  -o -type d -printf '%p %y %m %U:%G\\n' -o -printf '%p %y %m %U:%G %s %T@ %l\\n' | sort
find run -xdev -path '*gpu-memory*' | sort
find etc usr/local home root var/lib {BACKEND[1:]} -xdev \\( -name __pycache__ -o -name .ansible \\) -prune \\
  -o -type f -exec sha256sum {{}} + | sort -k 2
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "remove-test")
    fault_lab.lab("up", "1", name=lab)
    yield Host("gpu01", lab)
    fault_lab.lab("down", name=lab)


def run(host: Host, directory: Path, name: str, *arguments: str, **variables: object) -> str:
    started = playbook(host, directory, name, *arguments, **variables)
    output, _ = started.communicate(timeout=300)
    assert started.returncode == 0, output
    return output


def test_nothing_is_left(host: Host, tmp_path: Path) -> None:
    host.wait_until(ANSWERS, 60)
    # Whatever the first login of a user and Ansible itself leave is not this collection's.
    run(host, tmp_path, "playbooks/remove.yml")
    before = host.read(EVERYTHING)
    run(host, tmp_path, "apply-stable.yml")
    run(host, tmp_path, "apply-conservative.yml")
    changed = host.read(EVERYTHING)
    assert changed != before

    would = run(host, tmp_path, "playbooks/remove.yml", "--check", "--diff")
    assert host.read(EVERYTHING) == changed
    for path in (f"{BACKEND}/.env", f"{BACKEND}/.env.stable-16gb", fault_lab.DROP_IN, "/var/lib/gpu-memory"):
        assert f"-{path}: " in would

    done = run(host, tmp_path, "playbooks/remove.yml")
    assert "back to before the first apply" in done
    assert "keep what they said" in " ".join(done.split())  # folded
    after = host.read(EVERYTHING)
    assert after == before, "\n".join(sorted(set(before.splitlines()) ^ set(after.splitlines())))
    host.read(ANSWERS)
    assert not host.holds(NEW_RUNS)
    assert "had nothing on this host" in run(host, tmp_path, "playbooks/remove.yml")
