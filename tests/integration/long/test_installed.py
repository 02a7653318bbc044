# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built artifact, installed beside nothing but what README.md asks for, does the demo's road by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration import records
from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, DROP_IN, KEPT, PICTURE, ROOT, Host

LAB = "installed-test"
# What README.md tells such a user to install, as it is pinned for this Python.
PACKAGES = ("ansible-core", "nvidia-ml-py")
# What a run on a lab host leaves there beside the picture: nothing of ours.
NOTHING_LEFT = f"! test -e {KEPT} && ! test -e {DROP_IN} && ! ls /usr/local/sbin/gpu-memory 2>/dev/null"


class User:
    """Someone with a home, an environment of Python and a directory to stand in, all of them new."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / "work"
        self.directory.mkdir()
        self.python = home / "venv" / "bin" / "python"
        self.environment = {
            "HOME": str(home),
            "PATH": f"{home}/venv/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            # Where packages come from here, and where a stage looks for deprecations.
            **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "ANSIBLE_LOG_"))},
        }

    def run(self, *command: str | Path, returns: int = 0) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        assert done.returncode == returns, f"{' '.join(map(str, command))}\n{done.stdout[-6000:]}"
        return done.stdout

    def playbook(self, name: str, *options: str, returns: int = 0) -> str:
        return self.run(
            "ansible-playbook", "-i", self.home / "hosts.yml", f"selo.gpu_memory.{name}", *options, returns=returns
        )

    def record(self) -> dict[str, Any]:
        return records.read(self.directory / "gpu-memory-report" / "gpu01.json")


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> User:
    user = User(tmp_path_factory.mktemp("user"))
    subprocess.run([sys.executable, "-m", "venv", user.python.parents[1]], check=True)
    shown = subprocess.run([sys.executable, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", shown, re.MULTILINE))
    user.run(user.python, "-m", "pip", "install", "--quiet", *(f"{name}=={pinned[name]}" for name in PACKAGES))
    artifact = user.home / "artifact"
    build = [sys.executable, "-m", "ansible", "galaxy", "collection", "build", "--output-path", str(artifact)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    user.run("ansible-galaxy", "collection", "install", "--offline", next(artifact.iterdir()))
    return user


@pytest.fixture(scope="module")
def host(user: User) -> Iterator[Host]:
    """A lab host, and the inventory that someone would write who has only its address and a key."""
    name = os.environ.get("LAB_NAME", LAB)
    fault_lab.lab("up", "1", name=name, LAB_EDITED="1")
    host = Host("gpu01", name)
    host.wait_until(ANSWERS, 60)
    state = ROOT / ".lab" / name
    known = yaml.safe_load((state / "inventory" / "hosts.yml").read_text())["all"]["hosts"]["gpu01"]
    reached = {
        **known,
        "ansible_user": "operator",
        "ansible_ssh_private_key_file": str(state / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={state / 'known_hosts'} -o IdentitiesOnly=yes",
    }
    (user.home / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"gpu01": reached}}}))
    yield host
    fault_lab.lab("down", name=name)


def test_every_playbook_passes_a_syntax_check_by_name_without_an_inventory(user: User) -> None:
    (installed,) = user.home.glob(".ansible/collections/ansible_collections/selo/gpu_memory/playbooks")
    names = sorted(path.stem for path in installed.glob("*.yml"))
    assert {"apply_stable", "verify", "status", "rollback", "remove"} <= set(names)
    user.run("ansible-playbook", "--syntax-check", *(f"selo.gpu_memory.{name}" for name in names))


def test_the_demo_s_road_by_name(user: User, host: Host) -> None:
    found = host.read(PICTURE)
    user.playbook("verify", "-e", "gpu_memory_profile=baseline", returns=2)
    assert any("out of memory" in each["line"] for each in user.record()["journal"]["failures"])

    user.playbook("apply_stable")
    applied = user.record()
    assert (applied["verdict"], applied["acted"], applied["profile"]) == ("pass", True, "stable")
    assert applied["peak_used_mib"] <= applied["max_used_mib"]
    user.playbook("apply_stable")
    assert (user.record()["verdict"], user.record()["acted"]) == ("pass", False)
    user.playbook("verify")
    assert user.record()["verdict"] == "pass"
    assert "gpu01" in user.playbook("status")

    user.playbook("rollback")
    assert not host.holds(f"test -e {DROP_IN}")
    host.wait_until(ANSWERS, 60)
    user.playbook("apply_stable")
    assert user.record()["verdict"] == "pass"
    user.playbook("remove")
    assert host.holds(NOTHING_LEFT)
    assert host.read(PICTURE) == found
    assert [path.name for path in user.directory.iterdir()] == ["gpu-memory-report"]
    print(f"figure: apply_stable by name from the artifact: {applied['verdict']}, peak {applied['peak_used_mib']} MiB")
