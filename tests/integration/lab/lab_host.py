"""The lab's Ollama and backend as plain processes on loopback: a lab host without the container."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

LAB = Path(__file__).parents[3] / "molecule" / "lab"
STAND_INS = LAB / "stand_ins"
GUIDES_MODEL = "llama3.1:8b-instruct-q8_0"
SMALL_MODEL = "llama3.2:3b-instruct-q8_0"
DESKTOP_MIB = 800
SPEEDUP = "20"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], Any], within_s: float = 20) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.02)
    return found


@dataclasses.dataclass
class Service:
    """A process of the lab that answers HTTP."""

    process: subprocess.Popen[bytes]
    url: str
    log_file: Path

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        return status, json.loads(content) if content[:1] in (b"{", b"[") else content.decode()

    def get(self, path: str) -> Any:
        return self.call("GET", path)[1]

    def post(self, path: str, **body: object) -> tuple[int, Any]:
        return self.call("POST", path, body)

    def chat(self, model: str = GUIDES_MODEL, **options: object) -> tuple[int, Any]:
        messages = [{"role": "user", "content": "What is AI?"}]
        return self.post("/api/chat", model=model, messages=messages, stream=False, options=options)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def answers(self, path: str) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return self.call("GET", path)[0] == 200
        except OSError:
            return False


@dataclasses.dataclass
class Lab:
    """A lab host without the container."""

    home: Path
    gpu: ModuleType
    children: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)

    def run(self, name: str, command: list[str], environment: dict[str, str], **options: Any) -> tuple[Any, Path]:
        log_file = self.home / f"{name}.log"
        with log_file.open("wb") as log:
            environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), **environment}
            given = {
                "LAB_HOME": str(LAB),
                "LAB_SPEEDUP": SPEEDUP,
                "SIMULATED_GPU_STATE": os.environ["SIMULATED_GPU_STATE"],
            }
            process = subprocess.Popen(command, env={**given, **environment}, stdout=log, stderr=log, **options)
        self.children.append(process)
        return process, log_file

    def ollama(self, **environment: str) -> Service:
        port = free_port()
        program = str(self.home / "bin" / "ollama")
        process, log = self.run("ollama", [program, "serve"], {"OLLAMA_HOST": f"127.0.0.1:{port}", **environment})
        service = Service(process, f"http://127.0.0.1:{port}", log)
        eventually(lambda: service.answers("/api/version"))
        return service

    def backend(self, ollama: Service, **settings: object) -> Service:
        """The guide's backend with its .env as the lab has it, but for these settings."""
        here = self.home / "backend"
        here.mkdir()
        shutil.copy(STAND_INS / "backend_guide" / "main.py", here)
        text = (STAND_INS / "backend_guide" / "baseline.env").read_text()
        for key, value in settings.items():
            text = re.sub(rf"^{key}=\S*", f"{key}={value}", text, flags=re.MULTILINE)
        (here / ".env").write_text(text)
        port = free_port()
        given = {"PORT": str(port), "OLLAMA_BASE_URL": ollama.url}
        process, log = self.run("backend", [sys.executable, "main.py"], given, cwd=here)
        service = Service(process, f"http://127.0.0.1:{port}", log)
        eventually(lambda: service.answers("/health"))
        return service

    def desktop(self) -> None:
        self.run("desktop", [str(STAND_INS / "Xorg"), ":0"], {})
        eventually(lambda: self.gpu.used_mib() == DESKTOP_MIB)


def parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def runner(ollama: Service) -> Path:
    """The one runner, in /proc."""
    processes = (process for process in Path("/proc").iterdir() if process.name.isdecimal())
    (child,) = (process for process in processes if parent(process) == ollama.process.pid)
    return child


def runner_command(ollama: Service) -> list[str]:
    return (runner(ollama) / "cmdline").read_text().split("\0")[:-1]


def argument(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def logged(ollama: Service, pattern: str) -> str:
    match = re.search(pattern, ollama.log)
    assert match, f"{pattern} is not in\n{ollama.log}"
    return match[match.lastindex or 0]
