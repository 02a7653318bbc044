# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host without a controller comes back by itself: real systemd, real time, a run that ends without a word.

Nothing here calls the collection on the host after `keep`: what brings it back is only what `keep` has left there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text

ROOT = Path(__file__).parents[3]
LAB = "restore-test"
CONTAINERS = os.environ.get("LAB_PREFIX", "") + LAB + "-"
ENGINE = os.environ.get("LAB_ENGINE") or ("podman" if shutil.which("podman") else "docker")
ENV = "/mnt/local/Projects/SELODSP/selo-ai/backend/.env"
DROP_IN = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
PICTURE = f"""
stat --format '%n %a %U:%G %y' {ENV} {DROP_IN} 2>/dev/null
sha256sum {ENV} {DROP_IN} 2>/dev/null
ls /etc/systemd/system /etc/systemd/system/ollama.service.d /etc/systemd/system/timers.target.wants 2>/dev/null || true
"""
# What an apply does: new content, owner and mode, a drop-in, and a restart in order.
CHANGE = f"""
set -e
sed 's/^CHAT_NUM_CTX=.*/CHAT_NUM_CTX=4096/' {ENV} > {ENV}.new && mv {ENV}.new {ENV} && chmod 0644 {ENV}
mkdir -p /etc/systemd/system/ollama.service.d
printf '{unit_text.HEADER}\\n[Service]\\nEnvironment="OLLAMA_CONTEXT_LENGTH=4096"\\n' > {DROP_IN}
systemctl daemon-reload
systemctl stop selo-backend
systemctl restart ollama
systemctl start selo-backend
"""
OTHER_SERVER = """
systemctl stop ollama
systemctl is-active other-ollama || systemd-run --quiet --unit=other-ollama /usr/local/bin/ollama serve
"""
HEALTHY = "curl -fs http://127.0.0.1:11434/api/version && curl -fs http://127.0.0.1:8000/health"
# Of both services, whether they run and whether they start at boot.
STATES = "systemctl show ollama selo-backend --property Id,ActiveState,SubState,UnitFileState,Job"
RESTARTS = "systemctl show ollama --property NRestarts --value"
# The process, not `systemctl show`: a unit that was read again says nothing of what runs.
NEW_IN_FORCE = "grep -qz OLLAMA_CONTEXT_LENGTH /proc/$(systemctl show ollama --property MainPID --value)/environ"


class Host:
    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        command = [ENGINE, "exec", "--interactive", CONTAINERS + self.name, "bash"]
        return subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)

    def read(self, script: str) -> str:
        done = self.run(script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wait_until(self, script: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.run(script).returncode != 0:
            assert time.monotonic() < deadline, f"{script}\n{self.run('journalctl -n 60 --no-pager').stdout}"
            time.sleep(0.5)

    def keep(self, restore_after_s: int) -> None:
        digests = self.read(f"sha256sum {ENV} {DROP_IN} 2>/dev/null || true").split()[::2]
        arguments = {
            "action": "keep",
            "run_id": "test",
            "holder": "the test",
            "restore_after_s": restore_after_s,
            "files": [{"path": ENV, "sha256": digests[0]}, {"path": DROP_IN, "sha256": (digests[1:] or [None])[0]}],
            "services": {
                "backend": {
                    "kind": "unit",
                    "unit": "selo-backend.service",
                    "health": {"url": "http://127.0.0.1:8000/health"},
                },
                "restart": ["ollama", "backend"],
            },
        }
        self.module(**arguments)

    def module(self, **arguments: Any) -> None:
        done = self.ansible("gpu_memory_generation", **arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def ansible(self, module: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
        inventory = ROOT / ".lab" / LAB / "inventory" / "hosts.yml"
        words = ["-m", f"selo.gpu_memory.{module}", "-a", json.dumps(arguments)]
        command = [str(Path(sys.executable).with_name("ansible")), "-i", str(inventory), self.name, "--become", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)

    def came_back(self, picture: str, timeout_s: float, reason: str) -> dict[str, Any]:
        """Wait for the restore, assert that it is complete, and return its record."""
        self.wait_until(
            "test -e /var/lib/gpu-memory/restored.json && ! test -e /var/lib/gpu-memory/lease.json", timeout_s
        )
        self.wait_until("! systemctl is-active gpu-memory-restore.service", 10)
        assert self.read(PICTURE) == picture
        assert self.run(NEW_IN_FORCE).returncode != 0
        record: dict[str, Any] = json.loads(self.read("cat /var/lib/gpu-memory/restored.json"))
        assert record["error"] is None
        assert record["reason"] == reason
        return record


@pytest.fixture(scope="module")
def lab() -> Iterator[Callable[..., None]]:
    def lab(*words: str) -> None:
        environment = {**os.environ, "LAB_NAME": LAB}
        done = subprocess.run([ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    lab("up", "3")
    yield lab
    lab("down")


@pytest.fixture
def host(lab: Callable[..., None], request: pytest.FixtureRequest) -> Host:
    host = Host(request.param)
    host.wait_until(HEALTHY, 60)
    return host


@pytest.mark.parametrize("host", ["gpu01"], indirect=True)
def test_a_run_that_falls_silent_after_its_restart(host: Host) -> None:
    # With its old date back, a drop-in looks to systemd as if it had not changed.
    host.read(f"mkdir -p {os.path.dirname(DROP_IN)}")
    host.read(f"printf '[Service]\\nEnvironment=OLDER=1\\n' > {DROP_IN} && touch -d 2020-01-01 {DROP_IN}")
    host.read("systemctl daemon-reload")
    picture = host.read(PICTURE)
    host.keep(restore_after_s=15)
    host.read(CHANGE)
    host.read(NEW_IN_FORCE)
    record = host.came_back(picture, 60, "nothing was heard of the apply for 15 s")
    host.read(HEALTHY)
    assert {service["unit"] for service in record["services"].values()} == {"ollama.service", "selo-backend.service"}


@pytest.mark.parametrize("host", ["gpu02"], indirect=True)
def test_a_host_that_is_restarted_during_a_run(host: Host) -> None:
    picture = host.read(PICTURE)
    host.keep(restore_after_s=3600)
    host.read(CHANGE)
    subprocess.run([ENGINE, "restart", CONTAINERS + host.name], check=True, capture_output=True, timeout=60)
    host.came_back(picture, 60, "the host was restarted during the apply")
    host.read(HEALTHY)


@pytest.mark.parametrize("host", ["gpu03"], indirect=True)
def test_a_restore_that_is_killed_between_the_files_and_the_services(host: Host) -> None:
    picture = host.read(PICTURE)
    host.keep(restore_after_s=5)
    host.read(CHANGE)
    marker = "/var/lib/gpu-memory/restoring.json"
    host.wait_until(f"test -e {marker} && ! test -e {DROP_IN} && ! systemctl is-active selo-backend", 60)
    host.read("kill -KILL $(systemctl show --property MainPID --value gpu-memory-restore.service)")
    assert host.run(f"test -e {marker}").returncode == 0
    host.came_back(picture, 60, "nothing was heard of the apply for 5 s")
    host.read(HEALTHY)


@pytest.mark.parametrize("host", ["gpu03"], indirect=True)
def test_units_that_were_stopped_are_put_back_as_stopped(host: Host) -> None:
    # Another server has the port, so that systemd starts Ollama's unit again and again once somebody has started it.
    host.read("systemctl stop selo-backend; systemctl disable --quiet --now ollama")
    host.read("systemd-run --quiet --unit=other-ollama /usr/local/bin/ollama serve")
    host.wait_until("curl -fs http://127.0.0.1:11434/api/version", 30)
    picture, states = host.read(PICTURE), host.read(STATES)
    assert states.count("ActiveState=inactive") == 2 and "UnitFileState=disabled" in states
    host.keep(restore_after_s=15)
    host.read(CHANGE)
    host.wait_until(f"test $({RESTARTS}) -gt 0", 30)
    record = host.came_back(picture, 60, "nothing was heard of the apply for 15 s")
    assert {service["state"] for service in record["services"].values()} == {"stopped"}
    assert host.read(STATES) == states
    assert host.run("systemctl is-failed ollama selo-backend").returncode != 0
    host.read("systemctl is-active other-ollama")


@pytest.mark.parametrize("host", ["gpu01"], indirect=True)
def test_a_rollback_by_hand_leaves_a_stopped_unit_stopped(host: Host) -> None:
    host.read("systemctl disable --quiet ollama; systemctl start selo-backend")
    picture = host.read(PICTURE)
    host.keep(restore_after_s=3600)
    host.read(CHANGE)
    host.module(action="release", run_id="test")
    # Since then somebody runs another server in its place.
    host.read(OTHER_SERVER)
    host.wait_until("curl -fs http://127.0.0.1:11434/api/version", 30)
    states = host.read(STATES)
    assert states.count("ActiveState=inactive") == 1
    assert "ollama.service: stopped, and stays so" in host.read("gpu-memory rollback")
    assert host.read(PICTURE) == picture and host.read(STATES) == states
    host.read("systemctl is-active other-ollama")


@pytest.mark.parametrize("host", ["gpu01"], indirect=True)
def test_a_unit_is_not_ready_because_another_server_answers(host: Host) -> None:
    host.read(OTHER_SERVER)
    host.wait_until("curl -fs http://127.0.0.1:11434/api/version", 30)
    silent = "[Service]\\nExecStart=\\nExecStart=/bin/sleep infinity\\n"  # it runs, and does not listen yet
    host.read(f"mkdir -p {os.path.dirname(DROP_IN)} && printf '{silent}' > {os.path.dirname(DROP_IN)}/zzz-silent.conf")
    done = host.ansible("gpu_memory_restart", restart=["ollama"], ollama={"timeout_s": 5})
    assert done.returncode != 0 and "the unit other-ollama.service" in done.stdout
    assert host.read("systemctl show ollama --property ActiveState") == "ActiveState=inactive\n"
