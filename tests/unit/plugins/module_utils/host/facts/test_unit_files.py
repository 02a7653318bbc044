# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit read from systemd's answer and from real files."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    unit_environment,
    unit_states,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files, commands


def test_all_environment_files_are_read_in_order_with_patterns_resolved(tmp_path: Path) -> None:
    for name in ("b.env", "a.env", "last"):
        (tmp_path / name).write_text(f"FROM={name}\n")
    shown = unit_text.parse_show(
        f"EnvironmentFiles={tmp_path}/*.env (ignore_errors=no)\n"
        f"EnvironmentFiles={tmp_path}/not there (ignore_errors=yes)\n"
        f"EnvironmentFiles={tmp_path}/last (ignore_errors=no)\n"
    )
    names = ["a.env", "b.env", "not there", "last"]
    assert unit_files.environment_files(shown) == [str(tmp_path / name) for name in names]
    assert unit_files.values_in(str(tmp_path / "last"), ["FROM"]) == {"FROM": "last"}
    assert unit_files.values_in(str(tmp_path / "not there"), ["FROM"]) == {}


@pytest.mark.parametrize("listed", [True, False])
def test_a_drop_in_of_ours_is_known_by_its_first_line(
    listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "ollama.service.d"
    directory.mkdir()
    ours, others, gone = directory / "zz-gpu-memory.conf", directory / "override.conf", directory / "gone.conf"
    ours.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}))
    others.write_text("[Service]\nEnvironment=OLLAMA_DEBUG=1\n")
    loaded = f"{others} {ours}" if listed else f"{others} {gone}"
    text = f"LoadState=loaded\nNeedDaemonReload=no\nDropInPaths={loaded}\nEnvironment=OLLAMA_DEBUG=1" + (
        " OLLAMA_NUM_PARALLEL=2\n" if listed else "\n"
    )
    monkeypatch.setattr(commands, "run", lambda *_rest: commands.Done(0, text.encode(), b""))
    unit = unit_files.read("ollama.service", str(tmp_path))
    assert unit["own"] == [str(ours)] and unit["gone"] == ([] if listed else [str(gone)])
    assert [source["path"] for source in unit["sources"] if source["environment"]] == [str(others), str(ours)]
    assert unit_environment.must_be_read_again(unit) is not listed
    assert bool(unit_environment.not_in_memory(unit)) is not listed


@pytest.mark.parametrize("linked", ["ollama.service.d", "."])
def test_drop_ins_that_systemd_names_by_the_directory_a_link_leads_to(
    linked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, units = tmp_path / "real", tmp_path / "units"
    real.mkdir()
    if linked == ".":
        units.symlink_to(real)
        (real / "ollama.service.d").mkdir()
        leads_to = real / "ollama.service.d"
    else:
        units.mkdir()
        (units / linked).symlink_to(real)
        leads_to = real
    ours = units / "ollama.service.d" / "zz-gpu-memory.conf"
    ours.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}))
    text = f"LoadState=loaded\nDropInPaths={leads_to}/zz-gpu-memory.conf\nEnvironment=OLLAMA_NUM_PARALLEL=2\n"
    monkeypatch.setattr(commands, "run", lambda *_rest: commands.Done(0, text.encode(), b""))
    unit = unit_files.read("ollama.service", str(units))
    assert unit["drop_in_paths"] == unit["own"] == [str(ours)]
    assert not unit_environment.must_be_read_again(unit)
    assert unit_environment.not_in_memory(unit) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("", ""),
        ("absent", "not there"),
        ("chmod", "others than its owner may write"),
        ("chown", "belongs to uid 1234"),
        ("lchown", "belongs to uid 1234"),
        ("via", "belongs to uid 1234"),
    ],
)
def test_root_follows_a_link_to_a_directory_only_where_nobody_else_can_move_it(
    change: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, via, link = tmp_path / "site" / "ollama.service.d", tmp_path / "via", tmp_path / "ollama.service.d"
    place.mkdir(parents=True)
    via.symlink_to("site")
    link.symlink_to("via/ollama.service.d")
    if change == "absent":
        place.rmdir()
    if change == "chmod":
        place.parent.chmod(0o775)
    owned = {"chown": place.parent, "lchown": link, "via": via}.get(change)
    lstat = os.lstat

    def owned_by_a_user(path: str) -> os.stat_result:
        status = lstat(path)
        return os.stat_result((*status[:4], 1234, *status[5:10])) if str(path) == str(owned) else status

    monkeypatch.setattr(unit_files.os, "lstat", owned_by_a_user)
    refusals = unit_files.refusals(str(link / "zz-gpu-memory.conf"))
    assert [says in text for text in refusals] == ([True] if says else [])
    with pytest.raises(atomic_files.CannotWrite, match=says) if says else contextlib.nullcontext():
        unit_files.check_links(str(link))


def test_a_drop_in_directory_that_is_yet_to_be_created_below_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "units").symlink_to("real")
    unit_files.check_links(str(tmp_path / "units" / "ollama.service.d"))


def test_a_drop_in_is_told_with_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "zz-gpu-memory.conf"
    text = unit_text.render_dropin({"A": "1", "B": "secret"}, "the role ollama")
    path.write_text(text)
    assert unit_files.written(str(path)) == ("the role ollama", text)
    assert unit_files.written(str(tmp_path / "gone")) == (None, "")


def test_scripts_are_read_with_what_they_read_and_programs_are_not(tmp_path: Path) -> None:
    script, part, program = tmp_path / "start.sh", tmp_path / "part", tmp_path / "ollama"
    script.write_text(f". {part}\nexport A=1\necho $C\n")
    part.write_text("B=2\nC=3\n")
    program.write_bytes(b"\0\nD=4\n")
    exec_start = f"{{ path={script} ; argv[]={script} {program} {tmp_path}/absent {tmp_path} ; ignore_errors=no }}"
    found = unit_files.start_scripts(exec_start)
    assert [(one["path"], one["environment"]) for one in found] == [
        (str(script), {"A": "1"}),
        (str(part), {"B": "2", "C": "3"}),
    ]


def test_a_place_for_what_is_kept_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    drop_in = str(tmp_path / "ollama.service.d" / "zz-gpu-memory.conf")
    assert unit_files.refusals(drop_in, str(tmp_path / "gpu-memory")) == []
    found = unit_files.refusals(drop_in, str(tmp_path / "var" / "gpu-memory"))
    assert len(found) == 1 and f"the directory {tmp_path / 'var'} is missing" in found[0]


def test_what_a_unit_needs_to_start_and_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(*lines: str) -> dict[str, list[str]]:
        text = "\n".join(lines)
        monkeypatch.setattr(commands, "run", lambda *_rest: commands.Done(0, text.encode(), b""))
        return unit_files.read("backend.service", str(tmp_path))["missing"]

    def runs(path: object, ignored: str = "no") -> str:
        return f"ExecStart={{ path={path} ; argv[]={path} serve ; ignore_errors={ignored} ; start_time=[n/a] ; pid=0 }}"

    gone, program = f"{tmp_path}/gone", tmp_path / "a program"
    program.touch(0o755)
    assert lacks(f"WorkingDirectory={tmp_path}", runs(program), "User=root", "Group=0", "SupplementaryGroups=") == {}
    assert lacks(f"WorkingDirectory={gone}", "RootDirectory=") == {"WorkingDirectory": [gone]}
    assert lacks(f"WorkingDirectory=!{gone}") == lacks("WorkingDirectory=~") == {}
    assert lacks(f"EnvironmentFiles={gone} (ignore_errors=no)") == {"EnvironmentFile": [gone]}
    assert lacks(runs(gone)) == {"ExecStart": [gone]}
    assert lacks(runs(gone).replace("ExecStart", "ExecStartPre")) == {"ExecStartPre": [gone]}
    assert lacks(runs(gone, "yes")) == {}
    named = ("User=no-such-user", "Group=no-such-group", "SupplementaryGroups=root no-such-group")
    assert lacks(*named) == {
        "User": ["no-such-user"],
        "Group": ["no-such-group"],
        "SupplementaryGroups": ["no-such-group"],
    }
    assert lacks(*named[:2], "DynamicUser=yes") == {}
    for own_tree in ("RootDirectory=/srv/root", "BindPaths=/data:/srv:rbind"):
        assert lacks(f"WorkingDirectory={gone}", runs(gone), *named, own_tree) == {}


@pytest.mark.parametrize(
    ("content", "mode", "in_the_way"),
    [
        (b"\x7fELF", 0o700, []),
        (b"\x7fELF", 0o644, [unit_states.NOT_EXECUTABLE]),
        (b"#! /bin/sh -e\n", 0o755, []),
        (b"#!/usr/bin/env python4\n", 0o755, []),
        (b"#!/srv/venv/bin/python\n", 0o755, [unit_states.INTERPRETER]),
        (b"#!", 0o755, []),
    ],
)
def test_a_program_that_systemd_could_not_execute(
    tmp_path: Path, content: bytes, mode: int, in_the_way: list[str]
) -> None:
    program = tmp_path / "serve"
    program.write_bytes(content)
    program.chmod(mode)
    exec_start = f"{{ path={program} ; argv[]={program} serve ; ignore_errors=no ; start_time=[n/a] ; pid=0 }}"
    assert unit_files.missing({"ExecStart": exec_start}) == {name: [str(program)] for name in in_the_way}


def test_a_directory_of_a_log_that_is_gone(tmp_path: Path) -> None:
    unit = tmp_path / "x.service"

    def lacks(*lines: str) -> dict[str, list[str]]:
        unit.write_text("\n".join(["[Service]", *lines]))
        return unit_files.missing({"FragmentPath": str(unit)})

    assert lacks(f"StandardOutput=append:{tmp_path}/log", "StandardError=inherit") == {}
    assert lacks("StandardOutput=append:/no/such/log") == {"StandardOutput": ["/no/such"]}
    assert lacks("StandardOutput=file:/no/such/log", "StandardOutput=journal") == {}
    assert lacks("StandardError=truncate:/no/such/log") == {"StandardError": ["/no/such"]}
    assert lacks("StandardError=append:/no/%i/log") == lacks("LogsDirectory=x", "StandardError=append:/no/log") == {}


CONDITIONS = b"""\
x.service: ConditionPathExists=|/a failed.
x.service: ConditionPathExists=!/run/own.lock failed.
x.service: AssertPathExists=/etc succeeded.
Asserts succeeded.
x.service: ConditionFileNotEmpty=/b c failed.
Conditions failed.
"""


def test_conditions_that_do_not_hold_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(command: list[str]) -> commands.Done:
        asked.append(command)
        return commands.Done(status, b"", CONDITIONS)

    monkeypatch.setattr(commands, "run", run)
    unit, drop_in, status = tmp_path / "x.service", tmp_path / "c.conf", 1
    unit.write_text("[Unit]\n# ConditionPathExists=/a\nConditionPathExists=\n")
    properties = {"Id": "x.service", "FragmentPath": str(unit), "DropInPaths": str(drop_in)}
    assert (unit_files.missing(properties), asked) == ({}, [])
    drop_in.write_text("[Unit]\nConditionPathExists=|/a\n")
    failed = ["ConditionPathExists=|/a", "ConditionFileNotEmpty=/b c"]
    assert unit_files.missing(properties) == {unit_states.CONDITION: failed}
    assert asked == [["systemd-analyze", "condition", "--unit=x.service"]]
    status = 0
    assert unit_files.missing(properties) == {}


def test_a_transient_unit_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for transient in ("yes", "no"):
        done = commands.Done(0, f"Transient={transient}\n".encode(), b"")
        monkeypatch.setattr(commands, "run", lambda *_rest, done=done: done)
        assert unit_files.read("backend.service", str(tmp_path))["transient"] is (transient == "yes")


def test_a_known_drop_in_is_no_stray_by_whatever_name(tmp_path: Path) -> None:
    path = tmp_path / "units" / "ollama.service.d" / unit_text.DROP_IN
    path.parent.mkdir(parents=True)
    path.write_text(unit_text.render_dropin({}))
    (tmp_path / "link").symlink_to("units")
    assert unit_files.strays(str(tmp_path / "units"), [str(tmp_path / "link" / "ollama.service.d" / path.name)]) == []
    (said,) = unit_files.strays(str(tmp_path / "units"))
    assert "what was before it is not kept on this host; it sets nothing. Delete it" in said
    path.write_text("[Service]\nEnvironment=THEIRS=1\n")
    assert unit_files.strays(str(tmp_path / "units")) == []


def test_where_a_quadlets_drop_in_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units, kept = tmp_path / "units", str(tmp_path / "gpu-memory")
    units.mkdir()
    monkeypatch.setattr(unit_files, "UNITS", str(units))
    drop_in = str(tmp_path / "containers" / "ollama.container.d" / "zz-gpu-memory.conf")
    (problem,) = unit_files.refusals(drop_in, kept)
    assert f"the directory {tmp_path / 'containers'} is missing" in problem
    (tmp_path / "containers").mkdir()
    assert unit_files.refusals(drop_in, kept) == []


def test_a_stray_drop_in_of_a_quadlet_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_files.quadlet, "DIRECTORY", str(tmp_path))
    drop_in = tmp_path / "llm.container.d" / "zz-gpu-memory.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}, section="Container"))
    (problem,) = unit_files.strays(str(tmp_path / "units"))
    assert f"{drop_in} is this collection's" in problem and "systemctl restart llm.service" in problem
    assert "it sets OLLAMA_NUM_PARALLEL." in problem
    assert unit_files.strays(str(tmp_path / "units"), [str(drop_in)]) == []
