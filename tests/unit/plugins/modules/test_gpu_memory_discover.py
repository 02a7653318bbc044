"""The module: what it finds among real processes of this test; which unit holds them is a fake."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_discover
from ansible_collections.selo.gpu_memory.tests.unit.plugins.fake_ollama import FakeOllama, Model
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
Start = Callable[..., int]


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The unit of each process that this host has; only these are there."""
    found: dict[int, str] = {}
    monkeypatch.setattr(host_read, "all_pids", lambda: list(found))
    monkeypatch.setattr(
        server_process,
        "whose",
        lambda pid: {"kind": "unit" if found[pid] else "process", "name": found[pid] or None},
    )
    return found


@pytest.fixture
def start(units: dict[int, str]) -> Iterator[Start]:
    """`start(directory, words, unit, **environment)`: a process that waits until the test is over."""
    processes = []

    def started(directory: Path, words: list[str], unit: str, **environment: str) -> int:
        process = subprocess.Popen(
            words, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout and process.stdout.readline() == "up\n"  # only now /proc has all of it
        units[process.pid] = unit
        return process.pid

    yield started
    for process in processes:
        process.communicate()


def ollama(directory: Path) -> list[str]:
    """Words that start a program by the name of `ollama`."""
    program = directory / "ollama"
    program.write_text(WAITS)
    return [sys.executable, str(program), "serve"]


def test_a_host_with_one_server_and_its_backend(
    start: Start, serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeOllama()
    fake.models = {"llama3.1:8b": Model("weights")}
    fake.wrong = {"/api/ps": (200, b'{"models": []}')}
    url = serve(fake)
    backend = tmp_path / "backend"
    backend.mkdir()
    (backend / ".env").write_text("CHAT_NUM_CTX=8192\nSECRET_KEY=hunter2\n")
    start(tmp_path, ollama(tmp_path), "ollama.service", OLLAMA_HOST=url.replace("http://", ""))
    start(backend, [sys.executable, "-c", WAITS, "--password=hunter2"], "chat.service")
    for check_mode in (True, False):
        answer = Run(capsys)(gpu_memory_discover, check_mode=check_mode)
        assert not answer["changed"]
        assert answer["ollama"] == {"unit": "ollama.service", "url": url}
        assert (answer["models"], answer["notes"]) == (["llama3.1:8b"], [])
        assert answer["backends"] == [
            {
                "kind": "unit",
                "unit": "chat.service",
                "directory": str(backend),
                "env_files": [{"path": ".env"}],
                "keys_found": ["CHAT_NUM_CTX"],
            }
        ]
        assert "hunter2" not in str(answer)


def test_a_backend_without_a_unit_is_a_command_and_two_are_noted(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".env").write_text("OLLAMA_GPU_LAYERS=40\n")
        (tmp_path / name / "main.py").write_text(WAITS)
        start(tmp_path / name, [sys.executable, "main.py", "--password=hunter2"], "")
    answer = Run(capsys)(gpu_memory_discover)
    assert answer["ollama"] is None and answer["models"] == []
    assert [one["directory"] for one in answer["backends"]] == [str(tmp_path / "a"), str(tmp_path / "b")]
    first = answer["backends"][0]
    assert (first["kind"], first["process_match"]) == ("command", r"main\.py( |$)")
    assert first["command"].endswith(" main.py") and "hunter2" not in str(answer)
    assert answer["notes"] == [
        "no Ollama server runs here",
        "more than one backend was found; keep the one that calls Ollama in gpu_memory_backend",
    ]


def test_a_server_in_a_container_and_one_that_does_not_answer_are_noted(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ollama(tmp_path)
    start(tmp_path, command, "")
    assert "which is of no unit, and only a unit" in Run(capsys)(gpu_memory_discover)["notes"][0]
    start(tmp_path, command, "ollama.service", OLLAMA_HOST="127.0.0.1:9")
    answer = Run(capsys)(gpu_memory_discover)
    assert answer["ollama"] == {"unit": "ollama.service", "url": "http://127.0.0.1:9"}
    assert answer["notes"][0].startswith("2 Ollama servers run here (process ")
    assert "Ollama does not answer at http://127.0.0.1:9: " in answer["notes"][1]


def test_files_that_hold_none_of_our_keys_or_cannot_be_read_are_no_backends(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("others", b"A=1\n"), ("binary", b"CHAT_NUM_CTX=\0\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".env").write_bytes(content)
        start(tmp_path / name, [sys.executable, "-c", WAITS], f"{name}.service")
    assert Run(capsys)(gpu_memory_discover)["backends"] == []
