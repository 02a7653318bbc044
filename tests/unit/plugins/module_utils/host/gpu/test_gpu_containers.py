# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that use the GPU, on a /proc of our own."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import gpu_containers

HOSTS = "/machine.slice/libpod-" + "a" * 64 + ".scope"  # the host is itself a container


def process(proc: Path, pid: int, cgroup: str, *files: str) -> None:
    fds = proc / str(pid) / "fd"
    fds.mkdir(parents=True)
    # Of an old hierarchy, a host that is a container has its processes at its own root.
    (proc / str(pid) / "cgroup").write_text(f"8:pids:{HOSTS}\n0::{HOSTS}{cgroup}\n")
    for number, file in enumerate(files):
        (fds / str(number)).symlink_to(file)


def test_by_memory_or_by_an_open_device(tmp_path: Path) -> None:
    process(tmp_path, 1, "/init.scope")
    process(tmp_path, 10, "/system.slice/ollama.service", "/dev/nvidia0")
    for pid, digit, files in ((20, "b", ()), (30, "c", ("/dev/null", "/dev/nvidia-uvm")), (40, "d", ("/dev/null",))):
        process(tmp_path, pid, f"/docker/{digit * 64}", *files)
    (tmp_path / "50").mkdir()  # it ended while we looked
    found = ["docker " + digit * 12 for digit in "bc"]
    assert gpu_containers.read({10, 20}, proc=str(tmp_path)) == found
    assert gpu_containers.read({10, 20}, ours={20}, proc=str(tmp_path)) == found[1:]
