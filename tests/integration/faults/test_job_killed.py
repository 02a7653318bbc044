# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load test's job that is killed, or cut off by a reboot: the host is back, and no header of it is anywhere."""

from __future__ import annotations

import os
import queue
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration import records
from tests.integration.faults.conftest import AT_ONCE
from tests.integration.faults.fault_lab import ANSWERS, LEFT_BEHIND, PICTURE, SETTLED, Host, playbook

TIMES = int(os.environ.get("JOB_KILLED_TIMES", "20"))
SEED = 20261130
LONGEST_S = 8  # a load test takes some seconds more than its job's start
RUN_S = 600
SECRET = "plant13-header-Xq7"
WITH_HEADER = {
    "gpu_memory_backend": {
        "extends": "guide",
        "load": {
            "url": "http://127.0.0.1:8000/api/chat",
            "bodies": [{"message": "Tell me a story", "conversation_id": "gpu-memory-test1"}],
            "headers": {"X-Key": SECRET},
        },
    }
}
JOB = "[a]sync_wrapper|[A]nsiballZ_gpu_memory_assert"
# Everything that outlives a process, and what the processes themselves show.
FOUND = f"""
set +e
grep -rlsF {SECRET} /dev/shm /etc /home /mnt /opt /root /run /srv /tmp /usr/local /var --exclude-dir=journal
journalctl --no-pager --all -o json | grep -oF {SECRET} | head -1
for process in /proc/[0-9]*; do tr '\\0' ' ' < $process/cmdline | grep -F {SECRET}; done
true
"""


def killed_after(seconds: float, host: Host, directory: Path) -> tuple[str, str]:
    """What a job that is killed so long after its start has left, and the verdict of the run."""
    host.wait_until(ANSWERS, 120)
    before = host.read(PICTURE)
    run = playbook(host, directory, **WITH_HEADER)
    while run.poll() is None and not host.holds(f"pgrep -f '{JOB}'"):  # on a slow machine a run may end before it
        time.sleep(0.1)
    host.read(f"sleep {seconds:.2f}; kill -9 $(pgrep -f '{JOB}') || true")
    output, _ = run.communicate(timeout=RUN_S)
    host.wait_until(f"{SETTLED} && {{ {ANSWERS}; }}", 120)
    record = records.read(directory / f"{host.name}.json")
    verdict = record["verdict"]
    found = [host.read(FOUND), SECRET if SECRET in output else ""]
    # Of a job whose very start was killed Ansible tells nothing, not even its name; and where it has passed, the kill
    # came when Ansible had the result and was about to remove its directory: what these have left has no secret.
    is_told = verdict != "pass" and "lost the connection" not in (record["reason"] or "")
    found += [host.read(LEFT_BEHIND)] if is_told else []
    found += [str(path) for path in directory.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    if verdict != "pass" and host.read(PICTURE) != before:
        found.append("the host is not as it was")
    return "\n".join(filter(None, found)), verdict


@pytest.mark.repeated
def test_a_job_that_is_killed_leaves_no_secret(hosts: queue.Queue[Host], tmp_path: Path) -> None:
    chance = random.Random(SEED)
    moments = [0.0, *(chance.uniform(0, LONGEST_S) for _ in range(TIMES - 1))]

    def fresh(number: int) -> tuple[str, str]:
        host = hosts.get()
        try:
            host.reset()
            place = tmp_path / str(number)
            place.mkdir()
            found, verdict = killed_after(moments[number], host, place)
            print(f"killed after {moments[number]:4.1f} s: {verdict:12} {found or 'nothing left'}", flush=True)
            return found, verdict
        finally:
            hosts.put(host)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = list(pool.map(fresh, range(TIMES)))
    print(f"figure: {TIMES} jobs killed, secrets left by {sum(bool(found) for found, _unused in ends)}")
    assert [found for found, _unused in ends if found] == []
    assert {verdict for _unused, verdict in ends} <= {"rolled_back", "pass"}
    assert "rolled_back" in {verdict for _unused, verdict in ends}


def test_a_reboot_under_load_leaves_no_secret(host: Host, tmp_path: Path) -> None:
    run = playbook(host, tmp_path, **WITH_HEADER)
    host.restart_at("loading")
    output, _ = run.communicate(timeout=RUN_S)
    host.wait_until(f"{SETTLED} && {{ {ANSWERS}; }}", 240)
    print(host.read("ls -R /root/.ansible/tmp /home/operator/.ansible/tmp 2>/dev/null || true"))
    assert host.read(FOUND) == "" and SECRET not in output
