"""The planner as a command: each kind of model, what is said, and the exit status."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import plan_command
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner.test_gguf_header import (
    WHOLE,
)

DATA = Path(__file__).resolve().parents[5] / "data" / "planner"
LLAMA = str(DATA / "llama31-8b-q8_0.show.json")


@pytest.fixture
def ollama() -> Iterator[str]:
    shown: dict[str, Any] = json.loads(Path(LLAMA).read_text(encoding="utf-8")) | {"parameters": "num_ctx 8192"}

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
            self.answer(200 if asked == "chat" else 404, shown)

        def do_GET(self) -> None:
            self.answer(200, {"version": "0.24.0"})

        def answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_unused: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_dump_of_an_answer_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command.main([LLAMA, "--num-ctx", "4096", "--num-parallel", "2", "--num-batch", "512"]) == 0
    header, row, *_notes = capsys.readouterr().out.splitlines()
    assert header.split() == list(plan_command.HEADINGS)
    assert row.endswith("33/33  4096 x 2    512     7605  1024      120        0      305   9054  8836  9254")


def test_a_running_ollama_says_what_the_model_and_which_release_it_is(
    ollama: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan_command.main(["chat", "--url", ollama, "--json"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)
    assert (planned["num_ctx"], planned["num_batch"]) == (8192, 512)  # by its PARAMETER, and as before 0.30


def test_what_is_no_model_is_told_beside_what_is(ollama: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command.main(["none", LLAMA, "--url", ollama]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("none: no file, and no model of Ollama's:")
    assert LLAMA in said.out


def test_a_gguf_file_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(WHOLE)
    assert plan_command.main([str(path)]) == 1  # read, and too little for a plan
    assert "model_info" in capsys.readouterr().err


def test_a_limit_that_is_not_kept_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [LLAMA, "--num-ctx", "4096", "--max-used-mib", "9000"]
    assert plan_command.main(arguments) == 0
    assert plan_command.main([*arguments, "--other-used-mib", "800"]) == 1
    assert "does not fit into 9000 MiB" in capsys.readouterr().out


def test_the_servers_environment_counts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [LLAMA, "--num-ctx", "4096", "--json"]
    assert plan_command.main([*arguments, "--env", "LLAMA_ARG_NO_KV_OFFLOAD=0", "--env", "OLLAMA_NUM_PARALLEL=2"]) == 0
    (planned,) = json.loads(capsys.readouterr().out)
    assert (planned["kv_mib"], planned["num_parallel"]) == (0, 2)
    assert plan_command.main([*arguments, "--env", "LLAMA_ARG_FIT=maybe"]) == 1
    assert "llama-server does not start" in capsys.readouterr().err


def test_the_default_context_is_by_all_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_command.main([LLAMA, "--json", "--gpu", "16376", "--gpu", "16376"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["num_ctx"] == 32768


@pytest.mark.parametrize("content", ["", "{", "hello", "[1]"])
def test_a_file_of_something_else_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "note"
    path.write_text(content)
    assert plan_command.main([str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"{path}: ")
