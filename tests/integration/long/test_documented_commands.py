# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook and every command of the host's own tool that the pages show works as it stands there.

A page is read from its top on a fresh lab host. What the reader has to put in is put in: the inventory, the name of a
host, sudo's password. Scripts are run by the stages of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import ANSWERS, ROOT, Host
from tests.repository.documented import Command, commands

# Exit statuses other than 0 that the page itself foretells, by the words of the command.
SPEAKS_UP = {
    # It is told that someone is needed: nothing has been proven yet, or a proof was just undone.
    "playbooks/status.yml": (0, 2),
}
# On a host that no apply holds these have nothing to do, and say so.
NOTHING_TO_DO = ("gpu-memory restore", "gpu-memory release")
BY_PAGE: dict[str, list[Command]] = {}
for each in commands():
    if each.words[0] == "ansible-playbook" or "gpu-memory" in each.words[:2]:
        BY_PAGE.setdefault(each.page, []).append(each)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    lab = os.environ.get("LAB_NAME", "documented-test")
    fault_lab.lab("up", "1", name=lab)
    yield Host("gpu01", lab)
    fault_lab.lab("down", name=lab)


def as_the_reader_would(words: list[str], host: Host, reports: Path) -> list[str]:
    """The command for the lab host."""
    typed = [str(Path(sys.executable).with_name(words[0]))]
    given = iter(words[1:])
    for word in given:
        if word in ("-i", "--inventory"):
            next(given)
        elif word == "--limit":
            next(given)
            typed += ["--limit", host.name]
        elif word != "-K":
            # Hours between two waves are not what is tried here, and nothing is to be left in the clone.
            name, equals, _value = word.partition("=")
            instead = {"gpu_memory_bake_minutes": "0.01", "monitor_export_dir": str(reports / "monitoring")}.get(name)
            typed.append(name + equals + instead if instead else word)
    return [*typed, "-i", str(host.inventory), "-e", f"gpu_memory_report_dir={reports}"]


@pytest.mark.parametrize("page", BY_PAGE)
def test_a_page_from_its_top(page: str, host: Host, tmp_path: Path) -> None:
    host.reset()
    host.wait_until(ANSWERS, 60)
    # What a page before had found on its host.
    shutil.rmtree(host.inventory / "host_vars", ignore_errors=True)
    if "apply-stable.yml" not in " ".join(map(str, BY_PAGE[page])):
        run(host, tmp_path, ["ansible-playbook", "apply-stable.yml"])
    for command in BY_PAGE[page]:
        print(command, flush=True)
        if command.words[0] == "ansible-playbook":
            run(host, tmp_path, command.words)
        else:
            line = command.line.removeprefix("sudo ")
            done = host.run(line)
            assert done.returncode == 0 or line in NOTHING_TO_DO, f"{command}\n{done.stdout}{done.stderr}"
            if line == "gpu-memory remove":  # the next command has something to do again
                run(host, tmp_path, ["ansible-playbook", "apply-stable.yml"])


def run(host: Host, directory: Path, words: list[str]) -> None:
    done = subprocess.run(
        as_the_reader_would(words, host, directory),
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    expected = next((statuses for name, statuses in SPEAKS_UP.items() if name in words), (0,))
    assert done.returncode in expected, f"{' '.join(words)}\n{done.stdout[-6000:]}{done.stderr[-2000:]}"
