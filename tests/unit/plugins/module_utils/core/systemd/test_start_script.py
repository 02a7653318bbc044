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
        ('export "A=1"', {"A": "1"}),
        ("A=4; echo $A", {"A": "4"}),
        ('echo "A=1"; printf %s A=1', {}),
        ("B=4; A=$B", {"A": "4", "B": "4"}),
        ("if true; then A=1; else A=2; fi", {}),
        ("case $1 in start) A=1 ;; esac", {}),
        ("f() { A=1; }; f", {}),
        ("nice -n 5 env A=1 ollama serve", {"A": "1"}),
        ("bash -lc 'A=1 exec ollama serve'", {"A": "1"}),
        ("exec sudo -u ollama A=1 ollama serve", {"A": "1"}),
        ("export \\\n  A=1", {"A": "1"}),
    ],
)
def test_a_script_sets_what_it_gives_a_fixed_value_whatever_happens(text: str, found: dict[str, str]) -> None:
    assert start_script.says(text).sets == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("if true; then A=1; else A=2; fi", {"A": ["1", "2"]}),
        ("A=1; test $1 = big && A=2", {"A": ["1", "2"]}),
        ("case $1 in start) export A=1 ;; esac", {"A": ["1"]}),
        ("A=$(nproc)", {"A": []}),
        ("test -f /x && unset A", {"A": []}),
        ('OPTS="A=1 B_C=2"', {"A": ["1"], "B_C": ["2"]}),
        ('test -n "$A" || export A=1', {}),
        ('A="${A:-1}"', {}),
        ("A=$(nproc); A=4", {}),
    ],
)
def test_a_script_may_set_what_it_computes_or_gives_in_a_branch(text: str, found: dict[str, list[str]]) -> None:
    assert start_script.says(text).perhaps == found


@pytest.mark.parametrize(
    ("text", "reads", "computes"),
    [
        ("set -a; . /etc/a\n source '/etc/b'\n# . /etc/c\ncat ./d . /e", ["/etc/a", "/etc/b"], []),
        ("if [ -f /etc/a ]; then . /etc/a; fi", ["/etc/a"], []),
        ("[ -f /etc/a ] && . /etc/a", ["/etc/a"], []),
        ('DIR=/opt/x; . "$DIR/a"; . ${DIR}/b', ["/opt/x/a", "/opt/x/b"], []),
        ('. "$(dirname "$0")/a"; . "${0%/*}/b"', ["/opt/a", "/opt/b"], []),
        ("export $(grep -v '^#' /etc/a | xargs)", ["/etc/a"], []),
        ("export `cat /etc/a`", ["/etc/a"], []),
        ("exec env $(cat /etc/a | xargs) ollama serve", ["/etc/a"], []),
        ('while read -r line; do export "$line"; done < /etc/a', ["/etc/a"], ['"$line"']),
        (". $SOMEWHERE/a", [], ["$SOMEWHERE/a"]),
    ],
)
def test_the_files_that_a_script_reads(text: str, reads: list[str], computes: list[str]) -> None:
    found = start_script.says(text, "/opt/start.sh")
    assert (found.reads, found.computes) == (reads, computes)


@pytest.mark.parametrize(
    ("argv", "strips", "sets", "unsets"),
    [
        ("/usr/bin/env A=1 B=2 /usr/local/bin/ollama serve", None, {"A": "1", "B": "2"}, []),
        ("/usr/bin/env -i A=1 ollama serve", "env -i", {"A": "1"}, []),
        ("/usr/bin/env -u A ollama serve", None, {}, ["A"]),
        ("/usr/bin/nice -n 5 /usr/bin/taskset -c 0-3 env A=1 ollama serve", None, {"A": "1"}, []),
        ("/usr/bin/sudo -u ollama A=1 ollama serve", "sudo", {"A": "1"}, []),
        ("/usr/bin/sudo -E -u ollama ollama serve", None, {}, []),
        ("/bin/su - ollama -c A=1 ollama serve", "su -", {"A": "1"}, []),
        ("/bin/su ollama -c ollama serve", None, {}, []),
        ("/usr/sbin/runuser -l ollama -c ollama serve", "runuser -l", {}, []),
        ("/usr/sbin/runuser -u ollama -- ollama serve", None, {}, []),
        ("/bin/bash -lc A=1 exec ollama serve", None, {"A": "1"}, []),
        ("/bin/sh -c cd /opt; A=1 exec ollama serve", None, {"A": "1"}, []),
        ("/bin/sh -c test -d /x && export A=1; exec ollama serve", None, {}, []),
        ("/bin/sh -c exec env -i A=1 ollama serve", "env -i", {"A": "1"}, []),
        ("/usr/local/bin/ollama serve", None, {}, []),
    ],
)
def test_what_a_command_line_does_to_the_environment(
    argv: str, strips: str | None, sets: dict[str, str], unsets: list[str]
) -> None:
    exec_start = f"{{ path={argv.split()[0]} ; argv[]={argv} ; ignore_errors=no ; start_time=[n/a] }}"
    found = start_script.of_exec_start(exec_start)
    assert (found.strips, found.sets, found.unsets) == (strips, sets, unsets)


def test_the_files_of_a_start() -> None:
    exec_start = "{ path=/bin/sh ; argv[]=/bin/sh /opt/start.sh -v ; ignore_errors=no ; start_time=[n/a] }"
    assert start_script.programs(exec_start) == ["/bin/sh", "/opt/start.sh"]
    assert start_script.of_exec_start("") == start_script.Says()


def test_what_two_scripts_set_is_not_sure_of_either() -> None:
    first, second = start_script.together({"/a": "A=1; B=2; C=3", "/b": "A=2; test $1 && B=4; C=3"})
    assert (first["environment"], first["perhaps"]) == ({"C": "3"}, {"A": ["1"], "B": ["2"]})
    assert (second["environment"], second["perhaps"]) == ({"C": "3"}, {"B": ["4"], "A": ["2"]})


@pytest.mark.parametrize(
    ("wanted", "running", "refused"),
    [("2", "1", True), ("1", "1", False), ("2", "2", False), ("2", "", False)],
)
def test_what_the_running_server_has_from_a_script_is_refused_where_another_is_wanted(
    wanted: str, running: str, refused: bool
) -> None:
    found = start_script.problems({"A": wanted}, UNIT, {}, {"A": running} if running else {})
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
    found = start_script.problems({"A": "1"}, unit, given, running)
    assert bool(found) is refused
    assert all(
        "/etc/init.d/ollama, the init script of which systemd makes ollama.service, sets A=4" in it for it in found
    )
    noted = start_script.notes({"A": "1"}, unit, given, running)
    assert "may set A; if the run is rolled back, look there" in str(noted)
    assert start_script.notes({"A": "1"}, unit, given, {"A": "1"}) == []


def test_a_script_whose_text_decides_nothing_is_noted() -> None:
    script = {"path": "/opt/start.sh", "environment": {}, "computes": ["$X/env"]}
    unit = {"name": "ollama.service", "start_scripts": [script]}
    (note,) = start_script.notes({"A": "1"}, unit, {}, {})
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
    found = start_script.problems({"A": "1"}, unit, given, running)
    assert len(found) == bool(cure)
    assert all("takes the unit's environment away" in text and text.endswith(str(cure)) for text in found)


def test_a_variable_that_is_taken_away_is_refused() -> None:
    unit = {"name": "ollama.service", "exec": {"strips": None, "keeps": [], "unsets": ["A", "B"]}}
    assert start_script.problems({"A": "1"}, unit, {}, {}) == [
        "ExecStart of ollama.service takes A away; take that out there"
    ]
    assert start_script.problems({"A": "1"}, unit, {}, {"A": "1"}) == []


def test_a_fixed_value_in_execstart_itself_is_refused_like_one_of_a_script() -> None:
    unit = {"name": "ollama.service", "exec_environment": {"A": "1"}}
    (found,) = start_script.problems({"A": "2"}, unit, {}, {"A": "1"})
    assert found.startswith("ExecStart of ollama.service sets A=1 and wins over this collection's A=2")
    assert start_script.problems({"A": "2"}, unit, {}, {}) == [found]  # of a stopped server
    assert start_script.problems({"A": "2"}, unit, {}, {"A": "2"}) == []  # a part of a text that a shell reads
    assert start_script.problems({"A": "1"}, unit, {}, {"A": "1"}) == []


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
