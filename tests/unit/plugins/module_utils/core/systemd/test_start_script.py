# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a script's text says for sure, and what it does not."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script


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


def test_what_a_name_is_that_a_program_writes() -> None:
    for name in (
        "a.log",
        "access_log",
        "out",
        "a.out",
        "chat.db",
        "chat.db-journal",
        "A.SQLITE3",
        "state.json",
        "log.7",
    ):
        assert start_script.is_written(f"/srv/{name}")
    for name in ("run", "settings.json", "catalog", "login", "db.json.example", "log-config.json", "a.pid/settings"):
        assert not start_script.is_written(f"/srv/{name}")


def test_what_runners_read_unasked() -> None:
    assert start_script.read_unasked("/usr/bin/env npm start") == ["package.json"]
    assert start_script.read_unasked('sh -c "make run"') == ["Makefile", "makefile", "GNUmakefile"]
    assert start_script.read_unasked("python makefile.py") == []


def test_the_words_that_may_name_a_file() -> None:
    names = start_script.names_of_files("-cconf.py --set=a=b,c @args $HOME ~/x /abs 'pkg.sub:app'")
    assert {"conf.py", "a", "b", "c", "args", "pkg/sub.py", "pkg/sub/__main__.py"} <= {*names}
    assert not {name for name in names if name[0] in "$~"}
    assert "/etc/a.json" in start_script.names_of_files("-c/etc/a.json")
    assert len(start_script.names_of_files("=a" * 100_000)) < 10
    assert len(start_script.names_of_files("=".join(map(str, range(50_000))))) <= 2 * start_script.MOST_WORDS


def test_what_two_scripts_set_is_not_sure_of_either() -> None:
    first, second = start_script.together({"/a": "A=1; B=2; C=3", "/b": "A=2; test $1 && B=4; C=3"})
    assert (first["environment"], first["perhaps"]) == ({"C": "3"}, {"A": ["1"], "B": ["2"]})
    assert (second["environment"], second["perhaps"]) == ({"C": "3"}, {"B": ["4"], "A": ["2"]})
