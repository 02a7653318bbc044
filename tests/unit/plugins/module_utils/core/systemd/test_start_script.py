# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a script's text says for sure, and what it does not."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script

UNIT = {"name": "ollama.service", "start_scripts": [{"path": "/opt/start.sh", "environment": {"A": "1"}}]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("#!/bin/sh\nexport A=1\nexec ollama serve", {"A": "1"}),
        ("export A='1' B=\"2\"; C=3 ollama serve", {"A": "1", "B": "2", "C": "3"}),
        ("A=1\nA=2 # as before\n", {"A": "2"}),
        ("# A=1\n\t# A=1\ntrue # A=1", {}),
        ("A=$B", {}),
        ('A="${A:-1}"', {}),
        (': "${A:=1}"', {}),
        ('test -n "$A" || export A=1', {}),
        ("[[ -v A ]] || export A=1", {}),
        ("A=$(nproc)", {}),
        ("ollama --A=1 /A=1", {}),
    ],
)
def test_a_script_sets_what_it_gives_a_fixed_value_and_does_not_look_at(text: str, found: dict[str, str]) -> None:
    assert start_script.sets(text) == found


def test_the_files_of_a_start() -> None:
    exec_start = "{ path=/bin/sh ; argv[]=/bin/sh /opt/start.sh -v ; ignore_errors=no ; start_time=[n/a] }"
    assert start_script.programs(exec_start) == ["/bin/sh", "/opt/start.sh"]
    assert start_script.sourced("set -a; . /etc/a\n source '/etc/b'\n# . /etc/c\ncat ./d . /e") == ["/etc/a", "/etc/b"]


@pytest.mark.parametrize(
    ("wanted", "running", "refused"),
    [("2", "1", True), ("1", "1", False), ("2", "2", False), ("2", "", False)],
)
def test_what_the_running_server_has_from_a_script_is_refused_where_another_is_wanted(
    wanted: str, running: str, refused: bool
) -> None:
    found = start_script.problems({"A": wanted}, UNIT, {"A": running} if running else {})
    assert bool(found) is refused
    assert all("/opt/start.sh" in text and "A=1" in text and "take the line out" in text for text in found)
