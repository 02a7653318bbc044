"""How often Ansible sends a module, counted on the host: each one starts the interpreter that Ansible was told of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LAB = "executions-test"
LOG = "/run/python-was-started"
COUNTING_PYTHON = "/usr/local/bin/counting-python"
# A module comes over standard input (pipelining) or as a file; both start the interpreter once, with `$1` for a file.
INSTALL = f"""
printf '#!/bin/sh\\necho "${{1##*/}}" >> {LOG}\\nexec /usr/bin/python3 "$@"\\n' > {COUNTING_PYTHON}
chmod 755 {COUNTING_PYTHON}
touch {LOG}
chmod 666 {LOG}
"""
Apply = Callable[[], list[str]]


def lab(*words: str) -> str:
    environment = {**os.environ, "LAB_NAME": LAB}
    done = subprocess.run(
        [ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def apply(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apply]:
    """Runs the user's command and returns what was started on the host meanwhile, in order."""
    reports = tmp_path_factory.mktemp("reports")

    def run() -> list[str]:
        lab("exec", "gpu01", "truncate", "--size=0", LOG)
        command = [
            "ansible-playbook",
            f"--inventory=.lab/{LAB}/inventory",
            f"--extra-vars=ansible_python_interpreter={COUNTING_PYTHON}",
            f"--extra-vars=gpu_memory_report_dir={reports}",
            "apply-stable.yml",
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout
        return lab("exec", "gpu01", "cat", LOG).split("\n")[:-1]

    lab("up", "1")
    try:
        lab("reset", "gpu01")
        lab("exec", "gpu01", "bash", "-c", INSTALL)
        yield run
    finally:
        lab("down")


def test_few_modules_are_sent(apply: Apply) -> None:
    first = apply()
    load = next(place for place, name in enumerate(first) if name == "async_wrapper.py")
    assert load <= 14, first
    again = apply()
    assert 1 <= len(again) <= 3, again
