"""How often Ansible sends a module, counted on the host: each one starts the interpreter that Ansible was told of."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
LAB = "executions-test"
LOG = "/run/python-was-started"
TOOL = "/var/lib/gpu-memory/bin/gpu-memory"
SERVICES = ("ollama.service", "selo-backend.service")
COUNTING_PYTHON = "/usr/local/bin/counting-python"
# A module comes over standard input (pipelining) or as a file; both start the interpreter once, with `$1` for a file.
INSTALL = f"""
printf '#!/bin/sh\\necho "${{1##*/}}" >> {LOG}\\nexec /usr/bin/python3 "$@"\\n' > {COUNTING_PYTHON}
chmod 755 {COUNTING_PYTHON}
touch {LOG}
chmod 666 {LOG}
"""


class Applied(NamedTuple):
    started: list[str]  # on the host meanwhile, in order
    changed: int


Apply = Callable[..., Applied]


def lab(*words: str) -> str:
    environment = {**os.environ, "LAB_NAME": LAB}
    done = subprocess.run(
        [ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def apply(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apply]:
    """Runs the user's command."""
    reports = tmp_path_factory.mktemp("reports")

    def run(*arguments: str) -> Applied:
        lab("exec", "gpu01", "truncate", "--size=0", LOG)
        command = [
            "ansible-playbook",
            f"--inventory=.lab/{LAB}/inventory",
            f"--extra-vars=ansible_python_interpreter={COUNTING_PYTHON}",
            f"--extra-vars=gpu_memory_report_dir={reports}",
            "apply-stable.yml",
            *arguments,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout
        changed = re.search(r"^gpu01 +:.* changed=(\d+)", done.stdout, re.M)
        assert changed, done.stdout
        return Applied(lab("exec", "gpu01", "cat", LOG).split("\n")[:-1], int(changed[1]))

    lab("up", "1")
    try:
        lab("reset", "gpu01")
        lab("exec", "gpu01", "bash", "-c", INSTALL)
        yield run
    finally:
        lab("down")


def test_few_modules_are_sent(apply: Apply) -> None:
    first = apply().started
    load = next(place for place, name in enumerate(first) if name == "async_wrapper.py")
    assert load <= 14, first
    again = apply().started
    assert 1 <= len(again) <= 3, again


def test_the_tool_of_another_release_is_renewed_once_and_nothing_restarts(apply: Apply) -> None:
    def started() -> str:
        return lab("exec", "gpu01", "systemctl", "show", "--value", "--property=InvocationID", *SERVICES)

    as_it_is, before = apply(), started()
    assert as_it_is.changed == 0
    lab("exec", "gpu01", "bash", "-c", f"echo 'exit 1' > {TOOL}")
    assert apply("--check").changed == 1 and lab("exec", "gpu01", "cat", TOOL) == "exit 1\n"
    assert apply().changed == 1
    assert "proven" in lab("exec", "gpu01", "gpu-memory", "list")
    assert apply() == as_it_is and started() == before
