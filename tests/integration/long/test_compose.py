# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every verb on a host whose Ollama is a service of Docker Compose, what is refused there, and `docker run`."""

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
from tests.integration.faults.fault_lab import BACKEND, KEPT, MOMENTS, PICTURE, SETTLED, Host, playbook
from tests.integration.long import container_host
from tests.integration.long.container_host import OLLAMA_ANSWERS, record

PROJECT = "/srv/ollama"
FILE = f"{PROJECT}/compose.yaml"
ENV_FILE = f"{PROJECT}/gpu-memory.env"
AS_FOUND = "/root/found.yaml"
UP = f"cd {PROJECT}; docker compose up -d 2>/dev/null"
SERVES = "curl -fsm 5 http://127.0.0.1:11434/api/version && curl -fsm 5 http://127.0.0.1:8000/health"
WITHIN_S = 300
run = functools.partial(container_host.run, timeout_s=600)
server = functools.partial(container_host.server, engine="docker")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "compose-test")
    made = Host("gpu01", lab, LAB_OLLAMA="compose")
    made.fresh()
    made.wait_until(SERVES, 60)
    made.read(f"cp -a {FILE} {AS_FOUND}")
    yield made
    fault_lab.lab("down", name=lab)


def container(host: Host) -> dict[str, Any]:
    """What Docker says of the container that must be as before, whichever start it is."""
    (shown,) = json.loads(host.read("docker inspect ollama"))
    mounts = sorted(shown["Mounts"], key=lambda mount: str(mount["Destination"]))  # which Docker shows in any order
    return {"Env": sorted(shown["Config"]["Env"]), "Mounts": mounts, "Image": shown["Image"]}


def found(host: Host) -> tuple[str, str, dict[str, Any]]:
    of_project = (
        f"cd {PROJECT}; find . -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec sha256sum {{}} + | sort"
    )
    return host.read(PICTURE), host.read(of_project), container(host)


def test_every_verb(host: Host, tmp_path: Path) -> None:
    before = found(host)
    discovered = run(host, tmp_path, "playbooks/discover.yml", "--check", "--diff")
    assert "unit: compose:ollama/ollama" in discovered and "url: http://127.0.0.1:11434" in discovered
    assert "baseline stable conservative" in run(host, tmp_path, "playbooks/plan.yml")
    assert found(host) == before, "nothing was written yet"

    run(host, tmp_path, "apply-stable.yml")
    assert record(tmp_path)["verdict"] == "pass"
    pid, environment = server(host)
    assert environment["OLLAMA_NUM_PARALLEL"] == "2" and environment["OLLAMA_CONTEXT_LENGTH"] == "4096"
    again = run(host, tmp_path, "apply-stable.yml")
    assert "changed=0" in again and "holds, so nothing was loaded" in again
    assert "1 host: 1 ok" in run(host, tmp_path, "playbooks/status.yml")
    run(host, tmp_path, "playbooks/verify.yml")
    assert record(tmp_path)["verdict"] == "pass"
    host.read(UP)  # the owner's own next one
    assert server(host)[0] == pid, "nothing of all that has restarted it"

    run(host, tmp_path, "apply-conservative.yml")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "1"
    run(host, tmp_path, "playbooks/rollback.yml")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"
    run(host, tmp_path, "playbooks/remove.yml")
    assert found(host) == before
    host.read(f"{OLLAMA_ANSWERS}; {SERVES}")


def test_what_the_owner_changes_is_told_by_what_the_server_has(host: Host, tmp_path: Path) -> None:
    before = found(host)
    run(host, tmp_path, "apply-stable.yml")
    pid = server(host)[0]

    # A pinned variable wins over every env file.
    pin = f"sed -i 's/^      - OLLAMA_KEEP_ALIVE.*/&\\n      - OLLAMA_NUM_PARALLEL=3/' {FILE}"
    host.read(f"{pin}; {UP}; {OLLAMA_ANSWERS}")
    pinned, environment = server(host)
    line = host.read(f"grep -n OLLAMA_NUM_PARALLEL {FILE}").partition(":")[0]
    assert pinned != pid and environment["OLLAMA_NUM_PARALLEL"] == "3"
    assert "1 host: 1 drift" in run(host, tmp_path, "playbooks/status.yml", status=2)
    refused = run(host, tmp_path, "apply-stable.yml", status=2)
    assert f"{FILE}, line {line}, sets OLLAMA_NUM_PARALLEL=3 and wins" in refused and "proof of" not in refused
    assert server(host)[0] == pinned

    # What was taken away is brought back, whether the container has it still or not.
    host.read(f"cp -a {AS_FOUND} {FILE}; rm {ENV_FILE}; {UP}; {OLLAMA_ANSWERS}")
    assert "OLLAMA_NUM_PARALLEL" not in server(host)[1]
    assert "1 host: 1 drift" in run(host, tmp_path, "playbooks/status.yml", status=2)
    assert "holds, so nothing was loaded" not in run(host, tmp_path, "apply-stable.yml")
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"
    host.read(f"rm {ENV_FILE}")
    assert "1 host: 1 drift" in run(host, tmp_path, "playbooks/status.yml", status=2)
    run(host, tmp_path, "apply-stable.yml")
    host.read(UP)
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"

    run(host, tmp_path, "playbooks/remove.yml")
    assert found(host)[1:] == before[1:]


@pytest.mark.parametrize("moment", ["written", "loading"])
def test_a_host_goes_back_alone(host: Host, tmp_path: Path, moment: str) -> None:
    host.wait_until(SERVES, 60)
    before = found(host)
    started = playbook(host, tmp_path)
    host.wait_until({**MOMENTS, "written": f"test -e {ENV_FILE}"}[moment], WITHIN_S)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()
    host.wait_until(f"! test -e {ENV_FILE} && {SETTLED} && {{ {SERVES}; }}", WITHIN_S)
    assert found(host) == before
    run(host, tmp_path, "playbooks/remove.yml")


WITHOUT_OURS = f"sed -i '/env_file/,/required/d' {FILE}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            f"{WITHOUT_OURS}; {UP}",
            "no env file of compose:ollama/ollama is this collection's: add to the service ollama",
        ),
        (f"sed -i s/24h/12h/ {FILE}", "(OLLAMA_KEEP_ALIVE of its environment, at least)"),
        (
            f"cd {PROJECT}; mv compose.yaml mine.yaml; docker compose -f mine.yaml up -d --force-recreate 2>/dev/null",
            "a plain `docker compose up -d` in /srv/ollama would make another one",
        ),
        (f"sed -i '/ollama:.root/d' {FILE}; {UP}", "are in the container itself (/root/.ollama/models)"),
        (
            "docker run --detach --name beside --network container:ollama --entrypoint /usr/bin/python3 "
            "ollama/ollama:lab -c 'import time; time.sleep(600)' >/dev/null",
            "beside lives in the network",
        ),
        (
            "docker tag ollama/ollama:lab kept:lab; docker import --change 'ENTRYPOINT [\"/usr/bin/ollama\"]' "
            "/opt/gpu-memory-lab/ollama-image.tar ollama/ollama:lab >/dev/null",
            "does not run as its files or its image say now",
        ),
    ],
    ids=["env file not named", "edited since", "other files", "models in it", "shared network", "another image"],
)
def test_what_would_not_last_is_refused(host: Host, tmp_path: Path, change: str, says: str) -> None:
    host.read(f"{change}; {OLLAMA_ANSWERS}")
    as_it_was = server(host)
    try:
        refused = run(host, tmp_path, "apply-stable.yml", status=2)
        assert says in refused and "REFUSED" in refused
        assert server(host) == as_it_was
        assert not host.holds(f"test -e {ENV_FILE} || test -e {KEPT}/lease.json || grep -q 16gb {BACKEND}/.env")
    finally:
        host.read(
            "docker rm --force beside >/dev/null 2>&1 || true\n"
            "docker tag kept:lab ollama/ollama:lab 2>/dev/null || true\n"
            f"rm -f {PROJECT}/mine.yaml; cp -a {AS_FOUND} {FILE}; {UP}; {OLLAMA_ANSWERS}"
        )


def test_docker_run_is_refused_with_a_way_to_compose(host: Host, tmp_path: Path) -> None:
    host.read(
        f"cd {PROJECT}; docker compose stop 2>/dev/null; docker run --detach --name other --pid host --publish "
        f"11434:11434 --volume /run/simulated-gpu:/run/simulated-gpu --volume /etc/lab:/etc/lab:ro ollama/ollama:lab "
        f">/dev/null; {OLLAMA_ANSWERS}"
    )
    try:
        refused = run(host, tmp_path, "apply-stable.yml", status=2)
        assert "a container is not served yet" in refused and "docs/containers.md says how" in refused
        assert not host.holds(f"test -e {ENV_FILE} || test -e {KEPT}/lease.json || grep -q 16gb {BACKEND}/.env")
    finally:
        host.read(f"docker rm --force other >/dev/null; {UP}; {OLLAMA_ANSWERS}")


def test_what_was_applied_outlives_a_reboot_and_the_host_takes_it_back_by_itself(host: Host, tmp_path: Path) -> None:
    """The last one: a lab host that was started anew may have another address."""
    before = found(host)
    run(host, tmp_path, "apply-stable.yml")
    host.reboot()
    host.wait_until(SERVES, WITHIN_S)
    assert server(host)[1]["OLLAMA_NUM_PARALLEL"] == "2"
    assert "proven" in host.read("gpu-memory status")
    host.read("gpu-memory remove")
    assert found(host)[1:] == before[1:]
    host.read(f"{OLLAMA_ANSWERS}; {SERVES}")
