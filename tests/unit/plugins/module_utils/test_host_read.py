"""Which processes are the backend's: those of its unit's control group, or a command's with what it has started."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _host_read

HOST = "0::/init.scope\n"
CONTAINER = "9:name=systemd:/machine.slice/libpod-1/init.scope\n0::/init.scope\n"
UNIT = "/system.slice/selo-ai.service"


@pytest.mark.parametrize(
    ("cgroup", "of_init", "belongs"),
    [
        (f"0::{UNIT}\n", HOST, True),
        (f"0::{UNIT}/workers\n", HOST, True),
        (f"0::{UNIT[:-8]}-two.service\n", HOST, False),
        (f"0::{UNIT}2\n", HOST, False),
        ("0::/system.slice/ollama.service\n", HOST, False),
        ("0::/\n", HOST, False),
        ("", HOST, False),
        (f"9:name=systemd:/machine.slice/libpod-1{UNIT}\n0::/\n", CONTAINER, True),
        # a unit of the same name inside a container that runs on this host
        (f"0::/machine.slice/libpod-1{UNIT}\n", HOST, False),
        (f"9:name=systemd:/machine.slice/libpod-2{UNIT}\n", CONTAINER, False),
    ],
)
def test_the_processes_of_a_control_group(cgroup: str, of_init: str, belongs: bool) -> None:
    assert _host_read.in_control_group(cgroup, of_init, UNIT) is belongs


def test_a_command_s_children_are_its_own() -> None:
    shell = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", shell], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout and parent.stdout.readline() == b"1\n"
        family = _host_read.with_descendants([parent.pid])
        assert len(family) == 2
        assert parent.pid in family
        assert os.getpid() not in family
        assert _host_read.process_start_s(parent.pid) <= _host_read.process_start_s((set(family) - {parent.pid}).pop())
        parent.communicate(b"\n")
