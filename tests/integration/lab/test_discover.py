# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""discover.yml, whatever the inventory is: it writes what nobody declares, where Ansible reads it, and says where."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ROOT, Host

LAB = "discover-test"
HOST = "gpu01"
RUN_S = 200
CALLERS = {
    "with-base-url": "OLLAMA_BASE_URL=http://127.0.0.1:11434",
    "with-host": "OLLAMA_HOST=127.0.0.1",
    "with-api-base": "OLLAMA_API_BASE=http://127.0.0.1:11434",
}


@dataclass(frozen=True)
class Place:
    """A directory with an inventory of one lab host."""

    directory: Path
    connection: dict[str, str]

    def inventory(self, name: str = "hosts.yml", host: str = HOST, **variables: Any) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"all": {"hosts": {host: {**self.connection, **variables}}}}))
        return str(path)

    def written(self, host: str = HOST, below: str = "host_vars") -> Path:
        return self.directory / below / host / "gpu_memory.yml"


def ansible(program: str, *arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PWD": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment, timeout=RUN_S)
    print(done.stdout + done.stderr)
    return done


def discover(*arguments: str, directory: Path = ROOT) -> str:
    done = ansible("ansible-playbook", *arguments, str(ROOT / "playbooks" / "discover.yml"), directory=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def effective(inventory: str, name: str) -> Any:
    """A variable of the host as Ansible has it from that inventory."""
    done = ansible("ansible-inventory", "-i", inventory, "--host", HOST)
    return json.loads(done.stdout).get(name)


@pytest.fixture(scope="module")
def connection() -> Iterator[dict[str, str]]:
    fault_lab.lab("up", "1", name=LAB, LAB_SPEEDUP="10")
    host = Host(HOST, LAB)
    for name, variable in CALLERS.items():
        host.read(f"systemd-run --quiet --unit={name} --setenv={variable} sleep infinity")
    listed = ansible("ansible-inventory", "-i", str(host.inventory), "--host", HOST)
    variables = json.loads(listed.stdout)
    here = {name: value for name, value in variables.items() if name.startswith("ansible_")}
    state = str(host.inventory)
    yield {name: str(value).replace("{{ inventory_dir }}", state) for name, value in here.items()}
    fault_lab.lab("down", name=LAB)


@pytest.fixture
def place(connection: dict[str, str], tmp_path: Path) -> Place:
    return Place(tmp_path, connection)


def test_what_nobody_declares_is_written_beside_the_inventory_and_read_from_there(place: Place) -> None:
    inventory = place.inventory()
    said = discover("-i", inventory)
    assert f"written_to: {place.written()}" in said
    assert effective(inventory, "gpu_memory_backend")["unit"] == "selo-backend.service"
    for name, variable in CALLERS.items():
        assert re.search(rf"{name}\.service seems to call Ollama, with {variable.partition('=')[0]} in", said)
    assert "written_to: nothing, all is declared" in discover("-i", inventory)
    # One that lacks something is not written over, and nobody says that it was.
    place.written().write_text("gpu_memory_models: []\n")
    assert f"nothing: {place.written()} is there, and never overwritten" in discover("-i", inventory)
    assert place.written().read_text() == "gpu_memory_models: []\n"


def test_what_the_inventory_declares_inline_stays(place: Place) -> None:
    inventory = place.inventory(gpu_memory_backend="none")
    discover("-i", inventory)
    assert "gpu_memory_backend" not in place.written().read_text()
    assert effective(inventory, "gpu_memory_backend") == "none"


def test_a_host_on_the_command_line_has_no_inventory_directory(place: Place) -> None:
    address = place.connection["ansible_host"]
    by_hand = (
        *("-i", f"{address},", "-u", "operator", "--private-key", place.connection["ansible_ssh_private_key_file"]),
        f"--ssh-common-args={place.connection['ansible_ssh_common_args']}",
    )
    said = discover(*by_hand, directory=place.directory)
    assert "written_to: 'nothing: there is no inventory directory" in said
    assert not list(place.directory.rglob("gpu_memory.yml"))
    into = ("-e", "gpu_memory_discover_write=found")  # relative to where the user stands
    said = discover(*by_hand, *into, directory=place.directory)
    assert place.written(address, "found").exists() and str(place.written(address, "found")) in said


def test_of_several_inventories_each_host_has_its_own_place(place: Place) -> None:
    discover("-i", place.inventory("a/hosts.yml"), "-i", place.inventory("b/hosts.yml", "gpu02"))
    assert place.written(HOST, "a/host_vars").exists() and place.written("gpu02", "b/host_vars").exists()


@pytest.mark.parametrize("kind", ["directory", "script", "plugin"])
def test_an_inventory_of_any_kind(place: Place, kind: str) -> None:
    hosts = place.inventory("dynamic/hosts.yml")
    inventory = place.directory / "dynamic"
    if kind == "script":
        os.unlink(hosts)
        inventory /= "hosts.py"
        listed = {"all": {"hosts": [HOST]}, "_meta": {"hostvars": {HOST: place.connection}}}
        inventory.write_text(f"#!/bin/sh\necho {shlex.quote(json.dumps(listed))}\n")
        inventory.chmod(0o755)
    elif kind == "plugin":
        constructed = inventory / "zz.constructed.yml"
        constructed.write_text(json.dumps({"plugin": "ansible.builtin.constructed", "groups": {"gpu": True}}))
    discover("-i", str(inventory))
    assert place.written(HOST, "dynamic/host_vars").exists()
    assert effective(str(inventory), "gpu_memory_backend")["unit"] == "selo-backend.service"


def test_where_it_cannot_be_written_the_findings_and_the_way_out_are_told(place: Place) -> None:
    inventory = place.inventory()
    (place.directory / "host_vars").write_text("")  # as on a file system that is read-only, for a root who may all
    done = ansible("ansible-playbook", "-i", inventory, "playbooks/discover.yml")
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "selo-backend.service" in said
    assert "could not be written" in said and "gpu_memory_discover_write=DIR" in said
    assert "written_to: 'nothing: there is no inventory directory" in discover(
        "-i", inventory, "-e", "gpu_memory_discover_write=none"
    )


def test_check_mode_writes_nothing(place: Place) -> None:
    discover("-i", place.inventory(), "--check")
    assert not place.written().exists()
