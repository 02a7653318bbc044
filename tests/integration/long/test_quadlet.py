# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every verb on a host whose Ollama is a container that systemd runs by a Quadlet, and what is no such container."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, BACKEND, KEPT, MOMENTS, PICTURE, SETTLED, Host, playbook
from tests.integration.long import container_host
from tests.integration.long.container_host import OLLAMA_ANSWERS, record

QUADLET = "/etc/containers/systemd/ollama.container"
DROP_IN = f"{QUADLET}.d/zz-gpu-memory.conf"
RESTARTED = "systemctl daemon-reload && systemctl restart ollama"
IMAGE = "localhost/ollama:lab"
WITHIN_S = 300
run = functools.partial(container_host.run, timeout_s=300)
server = functools.partial(container_host.server, engine="podman")
OF_ONE_START = ("HOSTNAME=",)  # a container's id


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "quadlet-test")
    made = Host("gpu01", lab, LAB_OLLAMA="quadlet")
    made.fresh()
    made.wait_until(ANSWERS, 60)
    yield made
    fault_lab.lab("down", name=lab)


def container(host: Host) -> dict[str, Any]:
    """What Podman says of the container that must be as before, whichever start it is."""
    (shown,) = json.loads(host.read("podman inspect ollama 2>/dev/null"))
    environment = sorted(item for item in shown["Config"]["Env"] if not item.startswith(OF_ONE_START))
    return {"Env": environment, "Mounts": shown["Mounts"], "Image": shown["Image"]}


def found(host: Host) -> tuple[str, dict[str, Any]]:
    return host.read(PICTURE), container(host)


def test_every_verb(host: Host, tmp_path: Path) -> None:
    before = found(host)
    discovered = run(host, tmp_path, "playbooks/discover.yml", "--check", "--diff")
    assert "unit: ollama.service" in discovered and "url: http://127.0.0.1:11434" in discovered
    assert "baseline stable conservative" in run(host, tmp_path, "playbooks/plan.yml")
    assert found(host) == before, "nothing was written yet"

    run(host, tmp_path, "apply-stable.yml")
    assert record(tmp_path)["verdict"] == "pass"
    pid, environment = server(host)
    assert environment["OLLAMA_NUM_PARALLEL"] == "2" and environment["OLLAMA_CONTEXT_LENGTH"] == "4096"
    assert not host.holds("test -e /etc/systemd/system/ollama.service.d"), "the unit's environment is Podman's own"
    again = run(host, tmp_path, "apply-stable.yml")
    assert "changed=0" in again and "holds, so nothing was loaded" in again
    assert server(host)[0] == pid
    assert "1 host: 1 ok" in run(host, tmp_path, "playbooks/status.yml")
    run(host, tmp_path, "playbooks/verify.yml")
    assert record(tmp_path)["verdict"] == "pass"
    assert server(host)[0] == pid

    run(host, tmp_path, "apply-conservative.yml")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "1"
    run(host, tmp_path, "playbooks/rollback.yml")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"
    run(host, tmp_path, "playbooks/remove.yml")
    assert found(host) == before
    host.read(ANSWERS)


def test_what_the_owner_changes_is_told_by_what_the_server_has(host: Host, tmp_path: Path) -> None:
    host.read(f"cp -a {QUADLET} /root/found.container")
    before = found(host)
    run(host, tmp_path, "apply-stable.yml")

    # Ours has the last word over the file itself, and the server says so; but what was proven starts from another one.
    host.read(f"sed -i '/^ContainerName/a Environment=OLLAMA_NUM_PARALLEL=3' {QUADLET}; {RESTARTED}; {OLLAMA_ANSWERS}")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"
    assert "holds, so nothing was loaded" not in run(host, tmp_path, "apply-stable.yml")
    assert record(tmp_path)["verdict"] == "pass"

    # Not where it is gone: then the server has the owner's.
    host.read(f"cp -a {DROP_IN} /root/ours.conf; rm {DROP_IN}; {RESTARTED}; {OLLAMA_ANSWERS}")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "3"
    assert "1 host: 1 drift" in run(host, tmp_path, "playbooks/status.yml", status=2)
    anew = run(host, tmp_path, "apply-stable.yml")
    assert "holds, so nothing was loaded" not in anew
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"

    # Nor where the owner has written behind it.
    later = f"{QUADLET}.d/zzz.conf"
    host.read(f"printf '[Container]\\nEnvironment=OLLAMA_NUM_PARALLEL=4\\n' > {later}; {RESTARTED}; {OLLAMA_ANSWERS}")
    assert "1 host: 1 drift" in run(host, tmp_path, "playbooks/status.yml", status=2)
    refused = run(host, tmp_path, "apply-stable.yml", status=2)
    assert f"the drop-in {later} sets OLLAMA_NUM_PARALLEL=4 and wins" in refused and "proof of" not in refused
    args = (
        f"rm {later}; sed -i 's/^PodmanArgs=/&--env OLLAMA_NUM_PARALLEL=5 /' {QUADLET}; {RESTARTED}; {OLLAMA_ANSWERS}"
    )
    host.read(args)
    assert "sets OLLAMA_NUM_PARALLEL=5 and wins" in run(host, tmp_path, "apply-stable.yml", status=2)

    # What [Service] sets is Podman's.
    directory = "/etc/systemd/system/ollama.service.d"
    in_service = f"mkdir {directory}; printf '[Service]\\nEnvironment=OLLAMA_NUM_PARALLEL=6\\n' > {directory}/a.conf"
    host.read(f"cp -a /root/found.container {QUADLET}; {in_service}; {RESTARTED}; {OLLAMA_ANSWERS}")
    told = run(host, tmp_path, "apply-stable.yml")
    assert "OLLAMA_NUM_PARALLEL is set here for Podman, and does not reach the container" in told
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"

    host.read(f"rm -r {directory}")
    run(host, tmp_path, "playbooks/remove.yml")
    assert found(host) == before


@pytest.mark.parametrize("moment", ["written", "loading"])
def test_a_host_goes_back_alone(host: Host, tmp_path: Path, moment: str) -> None:
    host.wait_until(ANSWERS, 60)
    before = found(host)
    started = playbook(host, tmp_path)
    host.wait_until({**MOMENTS, "written": f"test -e {DROP_IN}"}[moment], WITHIN_S)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    host.wait_until(f"! test -e {DROP_IN} && {SETTLED} && {{ {ANSWERS}; }}", WITHIN_S)
    assert found(host) == before
    run(host, tmp_path, "playbooks/remove.yml")


# A mount of the container engine that nothing would mount again, as /etc/fstab does on a machine.
STAYS_MOUNTED = """
mkdir -p /run/systemd/system/var-lib-containers.mount.d
printf '[Unit]\\nDefaultDependencies=no\\n' > /run/systemd/system/var-lib-containers.mount.d/lab.conf
systemctl daemon-reload
"""


def test_a_host_goes_back_after_a_soft_reboot(host: Host, tmp_path: Path) -> None:
    """It leaves /run as it is, where the timer's link is masked; only Debian 13 has it, and so these hosts."""
    host.wait_until(ANSWERS, 60)
    host.read(STAYS_MOUNTED)
    before = ours(host), container(host)
    started = playbook(host, tmp_path)
    host.wait_until(f"test -e {DROP_IN}", WITHIN_S)
    host.run("systemctl soft-reboot")
    started.communicate()
    host.wait_until("test $(systemctl show --property=SoftRebootsCount --value) = 1", WITHIN_S)
    host.wait_until(f"! test -e {DROP_IN} && {SETTLED} && {{ {ANSWERS}; }}", WITHIN_S)
    assert (ours(host), container(host)) == before
    run(host, tmp_path, "playbooks/remove.yml")


def ours(host: Host) -> list[str]:
    """Of the picture what an apply writes: a start of the system itself writes to /etc."""
    return [line for line in host.read(PICTURE).splitlines() if "etc/containers/" in line or BACKEND[1:] in line]


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (f"podman run --detach --name other --publish 11434:11434 {IMAGE}", "a container is not served yet"),
        (
            f"systemd-run --quiet --unit=by-hand podman run --rm --name other --publish 11434:11434 {IMAGE}",
            "a container is not served yet",
        ),
        (
            f"mv {QUADLET} /etc/containers/systemd/llm.container; systemctl daemon-reload; systemctl start llm",
            "set gpu_memory_ollama.unit=llm.service",
        ),
    ],
    ids=["podman run", "podman run of a unit", "a Quadlet of another name"],
)
def test_another_container_is_refused_by_name(host: Host, tmp_path: Path, start: str, says: str) -> None:
    host.read(f"systemctl stop ollama; {start} >/dev/null 2>&1; {OLLAMA_ANSWERS}")
    try:
        refused = run(host, tmp_path, "apply-stable.yml", status=2)
        assert says in refused and "REFUSED" in refused
        assert not host.holds(f"test -e {DROP_IN} || test -e {KEPT}/lease.json || grep -q 16gb {BACKEND}/.env")
    finally:
        host.read(
            "podman rm --force other >/dev/null 2>&1 || true; systemctl stop by-hand llm 2>/dev/null || true\n"
            f"test -e {QUADLET} || mv /etc/containers/systemd/llm.container {QUADLET}\n"
            f"systemctl daemon-reload; systemctl restart ollama; {OLLAMA_ANSWERS}"
        )
