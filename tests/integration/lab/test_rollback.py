# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollback by hand and `remove` on hosts that their owners have changed since: real systemd, real files.

Each test begins with a host that runs on our settings and that nobody holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, BACKEND, DROP_IN, DROP_INS, KEPT, NEW_RUNS, PID, Host, playbook

ENV = f"{BACKEND}/.env"
# `systemctl mask` takes only units whose files are a package's.
PACKAGED = """
cd /etc/systemd/system
if test -f ollama.service; then mv ollama.service selo-backend.service /usr/lib/systemd/system/; fi
systemctl daemon-reload
"""
# What an apply of the profile stable does, in short.
CHANGE = f"""
sed -i 's/^CHAT_NUM_CTX=8192/CHAT_NUM_CTX=4096/' {ENV} && chown selo:selo {ENV}
mkdir -p {DROP_INS}
printf '%s\\n' '# Managed by the Ansible collection selo.gpu_memory: changes are overwritten.' '[Service]' \\
  'Environment="OLLAMA_CONTEXT_LENGTH=4096"' > {DROP_IN}
systemctl daemon-reload
systemctl stop selo-backend && systemctl restart ollama && systemctl start selo-backend
"""
PIDS = "systemctl show ollama selo-backend --property MainPID,ActiveState"


def module(host: Host, **arguments: Any) -> None:
    words = ["-m", "selo.gpu_memory.gpu_memory_generation", "-a", json.dumps(arguments)]
    command = [str(Path(sys.executable).with_name("ansible")), "-i", str(host.inventory), host.name, "--become", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=fault_lab.ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def lab_host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "rollback-test")
    fault_lab.lab("up", "1", name=lab)
    yield Host("gpu01", lab)
    fault_lab.lab("down", name=lab)


@pytest.fixture
def host(lab_host: Host) -> Host:
    lab_host.wait_until(ANSWERS, 60)
    lab_host.read(f"{PACKAGED}\ncp --archive {ENV} /root/env")
    module(
        lab_host,
        action="keep",
        run_id="test",
        holder="the test",
        restore_after_s=3600,
        files=[
            {
                "path": ENV,
                "sha256": lab_host.read(f"sha256sum {ENV}").split()[0],
                "env": {
                    "keys": ["CHAT_NUM_CTX"],
                    "values": {"CHAT_NUM_CTX": ["4096"]},
                    "readers": ["python-dotenv", "systemd"],
                },
            },
            {"path": DROP_IN, "sha256": None},
        ],
        services={
            "backend": {
                "kind": "unit",
                "unit": "selo-backend.service",
                "health": {"url": "http://127.0.0.1:8000/health"},
            },
            "restart": ["ollama", "backend"],
        },
    )
    lab_host.read(CHANGE)
    module(lab_host, action="prove", run_id="test")
    lab_host.wait_until(f"{ANSWERS} && {NEW_RUNS}", 60)
    return lab_host


def refused(host: Host, verb: str) -> str:
    """What the tool says where it goes back on nothing, after which the host is as before."""
    before = host.read(f"{PIDS}; {fault_lab.PICTURE}")
    done = host.run(f"gpu-memory {verb}")
    assert done.returncode == 1, done.stdout
    assert host.read(f"{PIDS}; {fault_lab.PICTURE}") == before
    return done.stderr


def removed(host: Host) -> None:
    """The host as it was before the fixture."""
    host.read("gpu-memory remove")
    assert not host.holds(f"test -e {KEPT} || test -e {DROP_INS}")


def test_what_would_not_start_again_is_refused_before_it_is_stopped(host: Host, tmp_path: Path) -> None:
    host.read("systemctl mask ollama selo-backend")
    for verb in ("rollback", "remove"):
        said = refused(host, verb)
        assert "systemctl unmask ollama.service" in said and "systemctl unmask selo-backend.service" in said
    started = playbook(host, tmp_path, "playbooks/rollback.yml")
    output, _ = started.communicate(timeout=120)
    assert started.returncode != 0 and "systemctl unmask ollama.service" in output
    host.read("systemctl unmask ollama selo-backend && gpu-memory rollback")
    host.wait_until(ANSWERS, 10)
    assert not host.holds(NEW_RUNS)
    removed(host)


def test_a_directory_that_was_moved_is_named_and_never_made_again(host: Host) -> None:
    host.read("mv /mnt/local/Projects/SELODSP/selo-ai /srv/")
    host.read("sed -i 's,=/mnt/local/Projects/SELODSP/,=/srv/,' /usr/lib/systemd/system/selo-backend.service")
    host.read("systemctl daemon-reload && systemctl restart selo-backend")
    host.wait_until(ANSWERS, 60)
    assert f"the directory {BACKEND} is missing" in refused(host, "rollback")
    done = host.run("gpu-memory remove")
    assert done.returncode == 1 and f"the directory {BACKEND} is missing" in done.stderr
    assert not host.holds(f"test -e {BACKEND} || test -e {DROP_IN} || {NEW_RUNS}")
    host.read("ln -s /srv/selo-ai /mnt/local/Projects/SELODSP/selo-ai")
    removed(host)
    assert host.read("stat --format '%U %a' /srv/selo-ai/backend/.env") == "selo 640\n"
    host.read("cmp /srv/selo-ai/backend/.env /root/env")
    host.read("rm /mnt/local/Projects/SELODSP/selo-ai && mv /srv/selo-ai /mnt/local/Projects/SELODSP/")
    host.read("sed -i 's,=/srv/,=/mnt/local/Projects/SELODSP/,' /usr/lib/systemd/system/selo-backend.service")
    host.read("systemctl daemon-reload && systemctl restart selo-backend")


def test_an_env_file_that_is_a_link_now_keeps_what_was_written_since(host: Host, tmp_path: Path) -> None:
    host.read(f"mkdir -p /etc/selo && cp {ENV} /etc/selo/backend.env && rm {ENV} && ln -s /etc/selo/backend.env {ENV}")
    host.read(f"chown root:selo /etc/selo/backend.env; chmod 640 /etc/selo/backend.env; printf LAST=no >> {ENV}")
    started = playbook(host, tmp_path, "playbooks/rollback.yml")
    output, _ = started.communicate(timeout=120)
    assert started.returncode == 0, output
    assert host.read(f"readlink {ENV}; stat --format '%U:%G %a' /etc/selo/backend.env") == (
        "/etc/selo/backend.env\nroot:selo 640\n"
    )
    assert host.read("cat /etc/selo/backend.env") == host.read("cat /root/env") + "LAST=no"
    host.read(ANSWERS)
    removed(host)
    host.read(f"rm {ENV} && cp --archive /root/env {ENV}")


def test_what_the_owner_wrote_below_a_quote_that_is_not_closed_stays(host: Host) -> None:
    host.read(f"sed -i '1i MSG=\"hello' {ENV} && printf 'B=\"3\"\\n' >> {ENV}")
    host.read("gpu-memory rollback")
    expected = f'MSG="hello\n{host.read("cat /root/env")}B="3"\n'
    assert host.read(f"cat {ENV}") == expected
    host.read(ANSWERS)
    assert "nothing was restarted" in host.read("gpu-memory rollback")
    host.read(f"sed -i 's/^CHAT_NUM_CTX=.*/CHAT_NUM_CTX=1/' {ENV} && printf 'C=\"' >> {ENV}")
    host.read("gpu-memory rollback")
    assert host.read(f"cat {ENV}") == f'{expected}C="'
    host.read(f"cp --archive /root/env {ENV}")
    removed(host)


def test_what_the_owner_wrote_into_our_drop_in_is_not_written_over_and_stays(host: Host, tmp_path: Path) -> None:
    host.read(f"echo Environment=OLLAMA_KEEP_ALIVE=24h >> {DROP_IN}")
    before = host.read(f"{PIDS}; {fault_lab.PICTURE}")
    for arguments in (("--check", "--diff"), ()):
        started = playbook(host, tmp_path, "apply-conservative.yml", *arguments)
        output, _ = started.communicate(timeout=120)
        assert started.returncode != 0, output
        assert f"OLLAMA_KEEP_ALIVE in {DROP_IN}" in output and "move it to a drop-in of another name" in output
    assert host.read(f"{PIDS}; {fault_lab.PICTURE}") == before
    started = playbook(host, tmp_path, "playbooks/rollback.yml")
    output, _ = started.communicate(timeout=120)
    assert started.returncode == 0, output
    assert f"what somebody else has written into {DROP_IN} stays" in " ".join(output.split())
    assert host.read(f"cat {DROP_IN}") == "[Service]\nEnvironment=OLLAMA_KEEP_ALIVE=24h\n"
    host.read(ANSWERS)
    assert "OLLAMA_KEEP_ALIVE=24h" in host.read("systemctl show ollama --property Environment")
    assert not host.holds(NEW_RUNS)
    assert f"{DROP_IN}: what somebody else has written into it stays" in host.read("gpu-memory remove")
    host.read(f"rm -r {DROP_INS}; systemctl daemon-reload; systemctl restart ollama")


def test_what_runs_with_our_values_restarts_though_the_files_are_back(host: Host) -> None:
    host.read(f"rm -r {DROP_INS}; cp --archive /root/env {ENV}")
    memory = "systemctl show ollama --property DropInPaths,Environment"
    assert host.holds(NEW_RUNS) and DROP_IN in host.read(memory)
    backend = host.read("systemctl show selo-backend --property MainPID")
    assert "ollama.service: restarted" in host.read("gpu-memory rollback")
    assert not host.holds(NEW_RUNS) and "OLLAMA_CONTEXT_LENGTH" not in host.read(memory)
    assert DROP_IN not in host.read(memory) and host.read("systemctl show selo-backend --property MainPID") == backend
    assert "nothing was restarted" in host.read("gpu-memory rollback")
    removed(host)


def test_our_drop_in_is_named_where_what_was_kept_is_gone(host: Host, tmp_path: Path) -> None:
    tool = host.read(f"cp {KEPT}/bin/gpu-memory /root/tool; mv {KEPT} /root/kept; echo /root/tool").strip()
    for verb in ("rollback", "remove"):
        done = host.run(f"{tool} {verb}")
        assert done.returncode == 1 and f"{DROP_IN} is this collection's" in done.stderr, done.stdout + done.stderr
    started = playbook(host, tmp_path, "playbooks/remove.yml")
    output, _ = started.communicate(timeout=120)
    assert started.returncode != 0 and "systemctl restart ollama.service" in output
    assert host.holds(NEW_RUNS) and host.read(f"cat /proc/{PID}/environ")
    host.read(f"mv /root/kept {KEPT}; ln -sf {KEPT}/bin/gpu-memory /usr/local/sbin/gpu-memory")
    removed(host)
