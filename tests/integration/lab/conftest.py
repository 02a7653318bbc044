"""Simulated GPUs for a test: an own state file, the library built from source, and children that use real bindings."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.integration.lab import lab_host

MODULE = Path(__file__).parents[3] / "molecule" / "lab" / "simulated_gpu" / "simulated_gpu.py"
PRELUDE = """
import ctypes, json, os, sys, threading, time
import pynvml, simulated_gpu
from pynvml import *
nvml = pynvml

def name_of(call, *arguments):
    "The name of the NVML error a call ends with."
    try:
        call(*arguments)
    except NVMLError as error:
        return type(error).__name__
    return "Success"
"""


@pytest.fixture(scope="session")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_gpu", MODULE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["simulated_gpu"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="session")
def library(module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which(os.environ.get("CC", "cc")) is None and "CI" not in os.environ:
        pytest.skip("no C compiler")
    with tempfile.TemporaryDirectory() as directory:  # not tmp_path: other users must get there
        Path(directory).chmod(0o755)
        yield module.build(Path(directory))


@pytest.fixture
def gpus(module: ModuleType, library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module simulated_gpu on a state of its own, with the lab's default card."""
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("SIMULATED_GPU_STATE", f"{directory}/gpu/state")
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
        monkeypatch.setenv("PYTHONPATH", str(MODULE.parent))
        Path(directory).chmod(0o755)
        module.create()
        yield module


@pytest.fixture
def state(gpus: Any) -> Path:
    return Path(os.environ["SIMULATED_GPU_STATE"])


Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(gpus: Any) -> Iterator[Start]:
    """Start Python code in a process of its own, with unmodified nvidia-ml-py; it is killed at the end of the test."""
    children: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + code]
        pipe = subprocess.PIPE
        children.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return children[-1]

    yield run
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def nvml(start: Start) -> Callable[[str], Any]:
    """Run such code with NVML initialised and `gpu` the first card's handle; returns what it leaves in `result`."""

    def run(code: str) -> Any:
        child = start("nvmlInit(); gpu = nvmlDeviceGetHandleByIndex(0)\n" + code + "\nprint(json.dumps(result))")
        out, error = child.communicate(timeout=60)
        assert child.returncode == 0, error
        return json.loads(out.splitlines()[-1])

    return run


@pytest.fixture
def lab(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab_host.Lab]:
    monkeypatch.setenv("SIMULATED_GPU_STATE", str(tmp_path / "gpu" / "state"))
    module.create()
    for program, directory in (("ollama", "bin"), ("llama-server", "lib/ollama")):
        (tmp_path / directory).mkdir(parents=True)
        shutil.copy(lab_host.STAND_INS / "ollama" / program, tmp_path / directory)
    host = lab_host.Lab(tmp_path, module)
    yield host
    for child in host.children:
        child.terminate()
    for child in host.children:
        child.wait(timeout=20)


@pytest.fixture
def lab_models(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(lab_host.STAND_INS))
    monkeypatch.syspath_prepend(str(lab_host.STAND_INS / "ollama"))
    import lab_models  # type: ignore[import-not-found]

    return lab_models
