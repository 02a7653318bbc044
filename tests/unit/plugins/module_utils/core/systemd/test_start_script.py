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


def test_a_fixed_value_in_execstart_itself_is_refused_like_one_of_a_script() -> None:
    unit = {"name": "ollama.service", "exec_environment": {"A": "1"}}
    (found,) = start_script.problems({"A": "2"}, unit, {"A": "1"})
    assert found.startswith("ExecStart of ollama.service sets A=1 and wins over this collection's A=2")
    assert start_script.problems({"A": "2"}, unit, {"A": "2"}) == []  # a part of a text that a shell reads
    assert start_script.problems({"A": "1"}, unit, {"A": "1"}) == []


@pytest.mark.parametrize(
    ("programs", "given", "running", "noted"),
    [
        (["/opt/start.py"], {}, {"A": "8"}, True),
        (["/opt/start.py"], {"A": "8"}, {"A": "8"}, False),  # the unit's own
        (["/opt/start.py"], {}, {"A": "2"}, False),
        (["/opt/start.py"], {}, {}, False),
        (["/usr/local/bin/ollama"], {}, {"A": "8"}, False),
    ],
)
def test_what_no_file_of_the_unit_gives_may_be_of_the_program_that_starts_the_server(
    programs: list[str], given: dict[str, str], running: dict[str, str], noted: bool
) -> None:
    unit = {"name": "ollama.service", "programs": programs}
    found = start_script.notes({"A": "2"}, unit, given, running)
    assert bool(found) is noted
    assert all("runs with A=8" in text and "/opt/start.py" in text and "A=2" in text for text in found)
