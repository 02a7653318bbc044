"""A lab host and the playbooks on it, as a user runs them. Shares no code with the collection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.integration.records import read

ROOT = Path(__file__).parents[3]
LAB = "inputs-test"
STATE = ROOT / ".lab" / LAB
INVENTORY = STATE / "inventory" / "hosts.yml"
ENGINE = os.environ.get("LAB_ENGINE") or ("podman" if shutil.which("podman") else "docker")
BACKEND = "/mnt/local/Projects/SELODSP/selo-ai/backend"
ENV = f"{BACKEND}/.env"
OLLAMA_D = "/etc/systemd/system/ollama.service.d"


def lab(*words: str) -> None:
    environment = {**os.environ, "LAB_NAME": LAB}
    done = subprocess.run([ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Host:
    """A lab host, reached by the container engine, so that looking at it leaves no trace on it."""

    name = "gpu01"

    @property
    def command(self) -> list[str]:
        container = f"{os.environ.get('LAB_PREFIX', '')}{LAB}-{self.name}"
        return [ENGINE, "exec", "--privileged", "--interactive", container, "bash"]

    def run(self, script: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a script as root with all capabilities."""
        return subprocess.run(
            self.command, input=script, capture_output=True, text=True, errors="surrogateescape", timeout=timeout_s
        )

    def read(self, script: str) -> str:
        done = self.run(f"set -e\n{script}")
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a script; it ends when its standard input is closed, if it reads from it."""
        return subprocess.Popen([*self.command, "-c", script], stdin=subprocess.PIPE, text=True)


def playbook(
    name: str, *options: str, report: Path, inventory: Path = INVENTORY, **variables: Any
) -> subprocess.CompletedProcess[str]:
    """Run a playbook of this collection to its end."""
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    given = report.parent / f"{report.name}-variables.json"
    given.write_text(json.dumps({"gpu_memory_report_dir": str(report), **variables}))
    command = [program, "-i", str(inventory), name, *options, "-e", f"@{given}"]
    environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_LOCAL_TEMP": str(report.parent / "local")}
    environment |= {"ANSIBLE_FORKS": "4", "ANSIBLE_TIMEOUT": "60"}  # many names of one host
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )


def aliases(directory: Path, variables: Mapping[str, Mapping[str, Any]]) -> Path:
    """An inventory in which the one lab host goes by many names, each with variables of its own."""
    text = INVENTORY.read_text()
    inventory = json.loads(text[text.index("{") :])
    (reach,) = inventory["all"]["hosts"].values()
    shared = {
        name: value.replace("{{ inventory_dir }}", str(INVENTORY.parent)) if isinstance(value, str) else value
        for name, value in inventory["all"]["vars"].items()
    }
    hosts = {name: {**reach, **own} for name, own in variables.items()}
    path = directory / "inventory" / "aliases.yml"
    path.parent.mkdir()
    (path.parent / "group_vars").symlink_to(ROOT / "inventories" / "lab" / "group_vars")
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
    return path


def records(report: Path) -> dict[str, dict[str, Any]]:
    """What was recorded of each host; `all.json` is the same once more."""
    return {path.stem: read(path) for path in report.glob("*.json") if path.name != "all.json"}


def record(report: Path) -> dict[str, Any]:
    return records(report)["gpu01"]
