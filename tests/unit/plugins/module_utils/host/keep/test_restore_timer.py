# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the restore timer's service runs, whatever has become of the tool."""

from __future__ import annotations

import re
import shlex
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import restore_timer
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import (
    SERVICE,
    TIMER,
    UNMASK,
    Managed,
)

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "none": lambda whole: whole,
    "gone": lambda whole: None,
    "empty": lambda whole: b"",
    "its first line": lambda whole: whole[: whole.index(b"\n") + 1],
    "its half": lambda whole: whole[: len(whole) // 2],
    "not its end": lambda whole: whole[:-30],
    "another byte": lambda whole: whole.replace(b"argv", b"argw"),
}
MAIN = "import sys; words = ' '.join(sys.argv[1:]); open(sys.path[0] + '.ran', 'w').write(words)"


def tool(path: Path, damage: str) -> None:
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("__main__.py", MAIN)
    content = DAMAGES[damage](b"#!/usr/bin/python3\n" + path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_tool_that_is_whole_runs_once(tmp_path: Path, damage: str) -> None:
    managed = Managed(tmp_path)
    paths = [Path(managed.paths.tool), Path(managed.paths.again(managed.paths.tool))]
    for path, what in zip(paths, (damage, "none")):
        tool(path, what)
    restore_timer.arm(managed.paths, managed.host, 500)
    text = (Path(managed.paths.units) / SERVICE).read_text()
    assert "\nTimeoutStartSec=500s\n" in text
    found = re.search(r"^ExecStart=\+(.*)$", text, re.MULTILINE)
    assert found
    subprocess.run(shlex.split(found[1]), check=True)
    ran = [path.with_name(f"{path.name}.ran") for path in paths]
    assert [path.exists() for path in ran] == [damage == "none", damage != "none"]
    assert (ran[0] if damage == "none" else ran[1]).read_text() == "restore --if-expired"


def test_whoever_loses_the_connection_to_systemd_sees_what_has_come_of_it(tmp_path: Path) -> None:
    managed = Managed(tmp_path)
    managed.host.loses = {f"start {TIMER}", f"stop {TIMER}"}
    restore_timer.arm(managed.paths, managed.host, 500)
    assert managed.armed()
    managed.host.load_states[TIMER] = "loaded"
    restore_timer.disarm(managed.paths, managed.host)
    assert not managed.armed() and TIMER not in managed.host.active


def test_as_the_system_stops_what_hides_the_timer_from_the_next_start_goes(tmp_path: Path) -> None:
    managed = Managed(tmp_path)
    restore_timer.arm(managed.paths, managed.host, 500)
    units = Path(managed.paths.units)
    mask = Path(managed.paths.run, "systemd/system.control/timers.target.wants", TIMER)
    assert f"\nOnSuccess={UNMASK}\n" in (units / TIMER).read_text()
    # The others are stopped, and not started, as it stops.
    text = (units / UNMASK).read_text()
    assert "\nDefaultDependencies=no\n" in text and "DefaultDependencies" not in (units / SERVICE).read_text()
    assert mask.is_symlink()
    found = re.search(r"^ExecStart=\+(.*)$", text, re.MULTILINE)
    assert found
    subprocess.run(shlex.split(found[1]), check=True)
    assert not mask.is_symlink() and (units / "timers.target.wants" / TIMER).is_symlink()


def test_a_failure_without_a_second_tool_is_one(tmp_path: Path) -> None:
    managed = Managed(tmp_path)
    restore_timer.arm(managed.paths, managed.host, 500)
    found = re.search(r"^ExecStart=\+(.*)$", (Path(managed.paths.units) / SERVICE).read_text(), re.MULTILINE)
    assert found and subprocess.run(shlex.split(found[1]), capture_output=True, check=False).returncode != 0
