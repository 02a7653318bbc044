"""The fat read: whole on a healthy host, whole where nothing is to be had, and without anybody's secrets.

Files, the backend's answer and Ollama's API are real; systemctl, journalctl and NVML are fakes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import stored_generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_info
from ansible_collections.selo.gpu_memory.tests.unit.plugins.fake_ollama import FakeOllama, Model
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_container import ContainerHost
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_gpus import (
    RecordedGpu,
    RecordedLibrary,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run, snapshot

SECRET = "correct-horse-battery"
NVML = {"status": "ok", "message": "NVML answers", "driver_version": "550.163.01", "gpus": []}
Module = Callable[..., dict[str, Any]]


class FakeSystem:
    """What systemctl shows of each unit, and what the journal holds. `asked`: every command."""

    def __init__(self) -> None:
        self.units: dict[str, dict[str, str]] = {}
        self.journal: list[str] = []
        self.asked: list[list[str]] = []

    def run(self, arguments: Sequence[str], *_unused: Any, **_unused_too: Any) -> commands.Done:
        self.asked.append(list(arguments))
        if not self.units:
            return commands.Done(commands.NO_SUCH_COMMAND, b"", b"")
        said = ""
        if list(arguments[:2]) == ["systemctl", "--version"]:
            said = "systemd 252 (252.38)\n"
        elif list(arguments[:2]) == ["systemctl", "show"]:
            said = "".join(f"{key}={value}\n" for key, value in self.units.get(arguments[2], {}).items())
        elif arguments[0] == "journalctl" and "--dmesg" not in arguments:
            own = {"_SYSTEMD_UNIT": "ollama.service", "_TRANSPORT": "stdout"}
            rows = (
                {"__REALTIME_TIMESTAMP": str(10**15 + at), "MESSAGE": line, **own}
                for at, line in enumerate(self.journal)
            )
            said = "".join(json.dumps(row) + "\n" for row in rows)
        return commands.Done(0, said.encode(), b"")


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    fake = FakeSystem()
    monkeypatch.setattr(commands, "run", fake.run)
    monkeypatch.setattr(nvml_library, "snapshot", lambda path: {**NVML, "asked_for": path})
    monkeypatch.setattr(stored_generations, "summary", lambda: {"generations": [], "lease": None})
    return fake


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Module:
    run = Run(capsys)
    return lambda **options: run(gpu_memory_info, **options)


@pytest.fixture
def guest(system: FakeSystem, serve: Any, tmp_path: Path) -> dict[str, Any]:
    """The options for a host with Ollama and a backend that both run, and whose files hold a secret."""
    unit, drop_in, env = tmp_path / "ollama.service", tmp_path / "override.conf", tmp_path / ".env"
    unit.write_text("[Service]\nExecStart=/usr/bin/ollama serve\n")
    drop_in.write_text(f'[Service]\nEnvironment="OLLAMA_NUM_PARALLEL=4" "HF_TOKEN={SECRET}"\n')
    env.write_text(f"CHAT_NUM_CTX=8192\nDATABASE_PASSWORD={SECRET}\n")
    system.units = {
        "ollama.service": {
            "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MainPID": "0",
            "FragmentPath": str(unit), "DropInPaths": str(drop_in), "NeedDaemonReload": "no",
            "Environment": f"OLLAMA_NUM_PARALLEL=4 HF_TOKEN={SECRET}",
        },
        "chat.service": {"LoadState": "loaded", "ActiveState": "inactive", "MainPID": "0"},
    }  # fmt: skip
    system.journal = [f"cudaMalloc failed: out of memory, said {SECRET}"]
    server = FakeOllama()
    server.models = {"llama3.1:8b": Model("weights")}
    server.wrong = {"/api/ps": (200, b'{"models": []}')}
    return {
        "ollama": {"unit": "ollama.service", "url": serve(server) + "/"},
        "models": ["llama3.1:8b", "not-there"],
        "backend": {
            "kind": "unit",
            "unit": "chat.service",
            "directory": str(tmp_path),
            "env_files": [{"path": str(env), "read_by": ["python-dotenv"]}],
            "health": {"url": serve(lambda _handler, _body: (503, b"busy"))},
        },
        "env_keys": ["CHAT_NUM_CTX"],
        "env": {"CHAT_NUM_CTX": "4096"},
        "bindings_path": "/run/gpu-memory/lib/x",
    }


@pytest.mark.parametrize("declared", [["python-dotenv"], None], ids=str)
def test_systemd_reads_an_env_file_that_the_unit_names(
    guest: dict[str, Any], module: Module, system: FakeSystem, tmp_path: Path, declared: list[str] | None
) -> None:
    (file,) = guest["backend"]["env_files"]
    Path(file["path"]).write_text("CHAT_NUM_CTX=8192 # ours\n")
    file["read_by"] = declared
    (before,) = module(**guest)["backend"]["env_files"]
    (tmp_path / "link").symlink_to(file["path"])
    system.units["chat.service"]["EnvironmentFiles"] = f"{tmp_path}/link (ignore_errors=no)"
    (found,) = module(**guest)["backend"]["env_files"]
    assert before["read_by"] == declared
    assert found["read_by"] == list(dict.fromkeys([*(declared or dotenv.DEFAULT_READERS), "systemd"]))
    assert found["values"]["CHAT_NUM_CTX"] is None and found["refusals"] == []


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_a_host_is_read_as_a_whole_and_left_as_it_is(
    guest: dict[str, Any], module: Module, tmp_path: Path, check_mode: bool
) -> None:
    untouched = snapshot(tmp_path)
    answer = module(check_mode=check_mode, **guest)
    assert not answer["changed"] and snapshot(tmp_path) == untouched
    documented = yaml.safe_load(Path(gpu_memory_info.__file__).with_suffix(".yml").read_text())
    assert set(documented["RETURN"]) <= set(answer)
    assert answer["host"]["systemd"] == 252
    assert answer["nvml"]["asked_for"] == "/run/gpu-memory/lib/x"
    ollama = answer["ollama"]
    assert (ollama["unit"]["active_state"], ollama["unit"]["error"]) == ("active", None)
    assert ollama["unit"]["environment"] == {"OLLAMA_NUM_PARALLEL": "4"}
    assert ollama["drop_ins"]["others"][0]["environment"] == {"OLLAMA_NUM_PARALLEL": "4"}
    assert (ollama["api"]["error"], ollama["api"]["version"]) == (None, "0.32.15")
    assert set(ollama["api"]["show"]) == {"llama3.1:8b"}
    backend = answer["backend"]
    assert backend["health"] == {"ok": False, "status": 503, "error": None}
    assert backend["env_files"][0]["values"]["CHAT_NUM_CTX"] == "8192"
    assert (backend["env_files"][0]["refusals"], backend["directory_exists"]) == ([], True)


def test_what_a_journal_quotes_of_the_hosts_secrets_is_masked_unless_asked_for(
    guest: dict[str, Any], module: Module
) -> None:
    answer = module(**guest)
    (failure,) = answer["ollama"]["journal"]["failures"]
    assert failure["line"] == "cudaMalloc failed: out of memory, said ********"
    assert SECRET not in str(answer)
    shown = module(**guest, show_secrets=True)
    assert SECRET in shown["ollama"]["journal"]["failures"][0]["line"]
    shown["ollama"]["journal"] = None
    assert SECRET not in str(shown)  # files and environments never show it


def test_a_host_that_has_nothing_is_a_finding_and_no_failure(system: FakeSystem, module: Module) -> None:
    answer = module(ollama={"url": "http://127.0.0.1:9"}, models=[])
    assert "failed" not in answer
    assert answer["host"]["systemd"] is None
    assert answer["ollama"]["unit"]["error"] == "systemctl show failed; is systemd the init system here?"
    assert "connection refused" in answer["ollama"]["api"]["error"]
    assert (answer["ollama"]["process"], answer["ollama"]["journal"]["failures"]) == (None, [])
    backend = answer["backend"]
    assert (backend["kind"], backend["pids"], backend["env_files"], backend["health"]) == ("none", [], [], None)


def test_what_would_keep_a_key_from_being_set_is_said_before_anything_is_written(
    guest: dict[str, Any], module: Module, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(b"A=\0\n")
    guest["profile_file"] = {"path": str(tmp_path / "no" / ".env.stable"), "env": {"CHAT_NUM_CTX": "4096"}}
    backend = module(**guest)["backend"]
    assert "NUL" in backend["env_files"][0]["refusals"][0]
    assert backend["profile_file"]["refusals"] == [
        f"the directory {tmp_path}/no is missing; create it, or correct the path"
    ]


def test_the_journal_is_read_from_where_it_was_asked_for(
    guest: dict[str, Any], module: Module, system: FakeSystem
) -> None:
    module(**guest, journal_since=1_700_000_000.0)
    asked = [words for words in system.asked if words[0] == "journalctl"]
    assert len(asked) == 2 and all("--since=@1700000000" in words for words in asked)


def test_another_gpu_library_is_read_as_nvml_is(
    guest: dict[str, Any], module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = RecordedGpu(9000, listed_mib=[700]), RecordedGpu(500, index=1)
    monkeypatch.setattr(gpu_memory_info, "LIBRARY", RecordedLibrary(*gpus))
    read = module(**guest, gpus=["0"])["nvml"]
    assert (read["status"], read["message"]) == ("ok", "AMD SMI answers")
    assert [(gpu["used_mib"], gpu["processes"][0]["used_mib"]) for gpu in read["gpus"]] == [(9000, 700)]
    assert [gpu["index"] for gpu in read["ignored"]] == [1]


def test_an_ollama_that_is_no_unit_is_read_as_a_unit_is(
    guest: dict[str, Any], module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ContainerHost()
    host.container.set_to = {"OLLAMA_NUM_PARALLEL": "3"}
    host.container.lines = ['time=2026-11-30T10:00:00Z level=INFO msg="server config" env="map[OLLAMA_NUM_PARALLEL:3]"']
    monkeypatch.setattr(gpu_memory_info, "LinuxHost", lambda _show_secrets: host)
    ollama = module(**guest)["ollama"]
    assert (ollama["unit"]["name"], ollama["journal"]["log"]["where"]) == ("the container ollama",) * 2
    assert ollama["process"]["environment"] == {"OLLAMA_NUM_PARALLEL": "3"}
    assert ollama["journal"]["server_config"]["OLLAMA_NUM_PARALLEL"] == "3"
