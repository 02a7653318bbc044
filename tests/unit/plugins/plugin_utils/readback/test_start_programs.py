# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program or a script that starts the server makes of the settings."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import start_programs

UNIT = {"name": "ollama.service", "start_scripts": [{"path": "/opt/start.sh", "environment": {"A": "1"}}]}


@pytest.mark.parametrize(
    ("wanted", "running", "refused"),
    [("2", "1", True), ("1", "1", False), ("2", "2", False), ("2", "", False)],
)
def test_what_the_running_server_has_from_a_script_is_refused_where_another_is_wanted(
    wanted: str, running: str, refused: bool
) -> None:
    found = start_programs.problems({"A": wanted}, UNIT, {}, {"A": running} if running else {})
    assert bool(found) is refused
    assert all("/opt/start.sh" in text and "A=1" in text and "take the line out" in text for text in found)


@pytest.mark.parametrize(
    ("given", "running", "refused"),
    [({}, {"A": "4"}, True), ({}, {"A": "3"}, False), ({}, {}, False), ({"A": "4"}, {"A": "4"}, False)],
)
def test_what_a_branch_sets_is_refused_where_the_server_has_it_from_nowhere_else(
    given: dict[str, str], running: dict[str, str], refused: bool
) -> None:
    script = {"path": "/etc/init.d/ollama", "environment": {}, "perhaps": {"A": ["2", "4"]}}
    unit = {"name": "ollama.service", "start_scripts": [script], "source_path": "/etc/init.d/ollama"}
    found = start_programs.problems({"A": "1"}, unit, given, running)
    assert bool(found) is refused
    assert all(
        "/etc/init.d/ollama, the init script of which systemd makes ollama.service, sets A=4" in it for it in found
    )
    noted = start_programs.notes({"A": "1"}, unit, given, running)
    assert "may set A; if the run is rolled back, look there" in str(noted)
    assert start_programs.notes({"A": "1"}, unit, given, {"A": "1"}) == []


def test_a_script_whose_text_decides_nothing_is_noted() -> None:
    script = {"path": "/opt/start.sh", "environment": {}, "computes": ["$X/env"]}
    unit = {"name": "ollama.service", "start_scripts": [script]}
    (note,) = start_programs.notes({"A": "1"}, unit, {}, {})
    assert "/opt/start.sh" in note and "reads $X/env and may set A; if the run is rolled back, look there" in note


@pytest.mark.parametrize(
    ("strips", "keeps", "given", "running", "cure"),
    [
        ("sudo", [], {}, {}, "set User= in the unit instead of sudo, or add --preserve-env=A"),
        ("su -", [], {"B": "1"}, {}, "set User= in the unit instead of su -"),
        ("env -i", [], {}, {"A": "2"}, "take env -i out"),
        ("sudo", ["A"], {}, {}, None),
        ("sudo", [], {"B": "1"}, {"B": "1"}, None),  # sudoers has env_keep
        ("sudo", [], {}, {"A": "1"}, None),
        (None, [], {}, {}, None),
    ],
)
def test_a_wrapper_that_takes_the_environment_away_is_refused(
    strips: str | None, keeps: list[str], given: dict[str, str], running: dict[str, str], cure: str | None
) -> None:
    unit = {"name": "ollama.service", "exec": {"strips": strips, "keeps": keeps, "unsets": []}}
    found = start_programs.problems({"A": "1"}, unit, given, running)
    assert len(found) == bool(cure)
    assert all("takes the unit's environment away" in text and text.endswith(str(cure)) for text in found)


def test_a_variable_that_is_taken_away_is_refused() -> None:
    unit = {"name": "ollama.service", "exec": {"strips": None, "keeps": [], "unsets": ["A", "B"]}}
    assert start_programs.problems({"A": "1"}, unit, {}, {}) == [
        "ExecStart of ollama.service takes A away; take that out there"
    ]
    assert start_programs.problems({"A": "1"}, unit, {}, {"A": "1"}) == []


def test_a_fixed_value_in_execstart_itself_is_refused_like_one_of_a_script() -> None:
    unit = {"name": "ollama.service", "exec_environment": {"A": "1"}}
    (found,) = start_programs.problems({"A": "2"}, unit, {}, {"A": "1"})
    assert found.startswith("ExecStart of ollama.service sets A=1 and wins over this collection's A=2")
    assert start_programs.problems({"A": "2"}, unit, {}, {}) == [found]  # of a stopped server
    assert start_programs.problems({"A": "2"}, unit, {}, {"A": "2"}) == []  # a part of a text that a shell reads
    assert start_programs.problems({"A": "1"}, unit, {}, {"A": "1"}) == []


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
    found = start_programs.notes({"A": "2"}, unit, given, running)
    assert bool(found) is noted
    assert all("runs with A=8" in text and "/opt/start.py" in text and "A=2" in text for text in found)
