# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Quadlet read from systemd's answer and from real files, by all who read a unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    quadlet,
    unit_environment,
    unit_states,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import (
    host_read,
    quadlets,
    unit_files,
    what_starts,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands

UNIT = "ollama.service"


class Container:
    """A `.container` file below `root`, and the unit that Podman has made of it, as systemd has it in memory."""

    def __init__(self, root: Path) -> None:
        self.root, self.fragment = root, root / "generator" / UNIT
        self.file, self.own = root / "etc" / "ollama.container", root / "etc/ollama.container.d/zz-gpu-memory.conf"
        self.env_file, self.podman, self.cidfile = root / "etc" / "llm.env", root / "podman", root / "ollama.cid"
        self.podman.write_bytes(b"\x7fELF")
        self.podman.chmod(0o755)
        self.cidfile.write_text("1")
        for directory in (self.own.parent, self.fragment.parent):
            directory.mkdir(parents=True)
        self.file.write_text("[Container]\nEnvironment=OLLAMA_NUM_PARALLEL=3\n")
        self.started_with("OLLAMA_NUM_PARALLEL=3")
        self.main_pid = "0"

    def started_with(self, *environment: str) -> None:
        words = " ".join(f"--env {item}" for item in environment)
        self.command = (
            f"{self.podman} run --cidfile={self.cidfile} --name ollama {words} --env-file {self.env_file} image"
        )
        self.fragment.write_text(f"[Service]\nExecStart={self.command}\n")

    def written(self, **environment: str) -> None:
        self.own.write_text(unit_text.render_dropin(environment, section="Container"))

    def run(self, arguments: list[str], *_rest: object) -> commands.Done:
        text = (
            f"Id={UNIT}\nNames={UNIT}\nLoadState=loaded\nActiveState=active\nMainPID={self.main_pid}\n"
            f"FragmentPath={self.fragment}\nSourcePath={self.file}\nDropInPaths=\n"
            f"Environment=PODMAN_SYSTEMD_UNIT={UNIT}\nNeedDaemonReload=no\n"
            f"ExecStart={{ path={self.podman} ; argv[]={self.command} ; ignore_errors=no ; start_time=[n/a] }}\n"
        )
        if "*.service" in arguments:
            text = f"Id=a.service\nMainPID=7\nFragmentPath=/a\nSourcePath={self.file}\n\n{text}"
        return commands.Done(0, text.encode(), b"")


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    made = Container(tmp_path)
    monkeypatch.setattr(commands, "run", made.run)
    monkeypatch.setattr(quadlet, "GENERATED", str(made.fragment.parent))
    monkeypatch.setattr(quadlet, "PLACES", (str(tmp_path / "run"), str(tmp_path / "etc"), str(tmp_path / "share")))
    monkeypatch.setattr(quadlet, "DIRECTORY", str(tmp_path / "etc"))
    made.env_file.write_text('OLLAMA_NUM_PARALLEL=9\nOLLAMA_KV_CACHE_TYPE="q8_0"\n')
    return made


def test_of_two_drop_ins_with_a_name_the_first_place_counts(container: Container) -> None:
    for name in (
        "etc/container.d/z.conf",
        "share/sub/ollama.container.d/b.conf",
        "etc/ollama.container.d/z.conf",
        "etc/users/ollama.container.d/a.conf",
    ):
        path = container.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (container.root / "etc/ollama.container.d/no").write_text("")
    found = [str(Path(path).relative_to(container.root)) for path in quadlets.drop_ins(str(container.file))]
    assert found == ["share/sub/ollama.container.d/b.conf", "etc/ollama.container.d/z.conf"]


def test_the_unit_of_a_containers_monitor(container: Container) -> None:
    container.main_pid = "77"
    assert quadlets.unit_of(77) == UNIT
    assert quadlets.unit_of(7) is None  # a unit that only says so
    assert quadlets.unit_of(0) is None


def test_a_unit_as_the_server_gets_it(container: Container) -> None:
    container.written(OLLAMA_CONTEXT_LENGTH="4096")
    unit = host_read.read_unit(UNIT)
    assert unit["quadlet"] == str(container.file) and unit["environment_files"] == []
    # Podman reads an env file without quotes, and before all else.
    assert unit["environment"] == {"OLLAMA_NUM_PARALLEL": "3", "OLLAMA_KV_CACHE_TYPE": '"q8_0"'}
    kinds = [source["kind"] for source in unit["sources"]]
    assert kinds == ["EnvironmentFile", "Quadlet", "drop-in"]
    assert unit_environment.last_word("OLLAMA_NUM_PARALLEL", unit["sources"])[1] == "3"
    assert unit_files.own_drop_in(unit) == str(container.own)
    drop_ins = host_read.read_drop_ins(unit, unit_text.DROP_IN, [])
    assert drop_ins["own"]["environment"] == {"OLLAMA_CONTEXT_LENGTH": "4096"}
    assert (drop_ins["own"]["writer"], drop_ins["own"]["alone"], drop_ins["others"]) == (None, [], [])


def test_what_its_arguments_set_is_told_as_of_the_command(container: Container) -> None:
    container.file.write_text("[Container]\nPodmanArgs=--env OLLAMA_NUM_PARALLEL=5 --env TOKEN=x\n")
    assert host_read.read_unit(UNIT)["exec_environment"] == {"OLLAMA_NUM_PARALLEL": "5"}


def test_it_is_read_again_until_podmans_command_says_what_the_files_say(container: Container) -> None:
    assert not unit_environment.must_be_read_again(unit_files.read(UNIT))
    container.written(OLLAMA_NUM_PARALLEL="2")
    unit = unit_files.read(UNIT)
    assert unit["own"] == [str(container.own)]
    assert unit_environment.must_be_read_again(unit) and unit_environment.not_in_memory(unit)
    container.started_with("OLLAMA_NUM_PARALLEL=2")
    unit = unit_files.read(UNIT)
    assert not unit_environment.must_be_read_again(unit) and not unit_environment.not_in_memory(unit)
    container.own.unlink()
    assert unit_environment.must_be_read_again(unit_files.read(UNIT))


def test_an_env_file_that_is_gone_keeps_it_from_starting(container: Container) -> None:
    assert unit_states.start_problems(unit_files.read(UNIT)) == []
    container.env_file.unlink()
    (problem,) = unit_states.start_problems(unit_files.read(UNIT))
    assert f"--env-file={container.env_file}" in problem and "out of its .container file" in problem


def test_what_would_start_is_its_files_and_not_what_is_made_of_them(container: Container) -> None:
    before = what_starts.files([UNIT], [])
    assert not {str(container.fragment), str(container.cidfile)} & set(before)
    assert {str(container.file), str(container.env_file), str(container.podman)} <= set(before)
    container.started_with("A=1")
    assert what_starts.files([UNIT], []) == before
    container.written(A="1")
    assert set(what_starts.files([UNIT], [])) - set(before) == {str(container.own)}
    container.file.write_text("[Container]\nImage=other\n")
    assert what_starts.files([UNIT], [])[str(container.file)] != before[str(container.file)]
