"""Ollama servers to be held against what the collection takes for granted: the lab's stand-ins, or a real one.

    OLLAMA_BINARY=/usr/local/bin/ollama ./script/test conformance

A real server runs on loopback with a home and models of its own, and may not call its cloud. Its model is a file that
the test writes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines

from tests.integration.conformance import tiny_gguf
from tests.integration.lab.conftest import lab, module  # noqa: F401
from tests.integration.lab.lab_host import GUIDES_MODEL, Service, eventually, free_port

BINARY = os.environ.get("OLLAMA_BINARY")


@dataclasses.dataclass
class Server(Service):
    """`subject` is the model that the tests are about, `layers` how many of it can be offloaded."""

    subject: str
    layers: int

    @property
    def version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.get("/api/version")["version"].split("-")[0].split("."))

    @property
    def runs_llama_server(self) -> bool:
        return self.version >= (0, 30)

    def journal(self) -> dict[str, Any]:
        """What the collection reads from this server's log."""
        return log_lines.parse((0.0, line) for line in self.log.splitlines())

    def loads(self) -> list[dict[str, Any]]:
        return [load for load in self.journal()["loads"] if load["started"]]

    def lines(self, path: str, **body: object) -> list[dict[str, Any]]:
        """What a streaming answer brings, line by line."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return [json.loads(line) for line in answer]

    def say(self, model: str = "", **options: object) -> tuple[int, Any]:
        options = {"num_predict": 2, **options}
        return self.post("/api/generate", model=model or self.subject, prompt="a", stream=False, options=options)


Start = Callable[..., Server]


def real(home: Path, environment: dict[str, str]) -> Server:
    assert BINARY is not None
    port, log_file = free_port(), home / "ollama.log"
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OLLAMA_MODELS": str(home / "models"),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_NO_CLOUD": "1",
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [BINARY, "serve"],
            env={**given, **environment},
            stdout=log,
            stderr=log,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log_file, "tiny:latest", tiny_gguf.OFFLOADABLE)
    eventually(lambda: server.answers("/api/version"))
    tiny_gguf.write(home / "tiny.gguf")
    content = (home / "tiny.gguf").read_bytes()
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/api/blobs/{digest}", content, method="POST")):
        pass
    status, answer = server.post("/api/create", model="tiny", files={"tiny.gguf": digest}, stream=False)
    assert (status, answer) == (200, {"status": "success"}), answer
    return server


@pytest.fixture(params=["real"] if BINARY else ["0.24.0", "0.32.15"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts a server with such an environment."""
    processes = []

    def run(**environment: str) -> Server:
        if request.param == "real":
            server = real(tmp_path, environment)
        else:
            stand_in = request.getfixturevalue("lab").ollama(LAB_OLLAMA_VERSION=request.param, **environment)
            server = Server(**vars(stand_in), subject=GUIDES_MODEL, layers=33)
        processes.append(server.process)
        return server

    yield run
    for process in processes:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def server(start: Start) -> Server:
    return start()
