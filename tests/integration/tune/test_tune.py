"""Tuning on a lab host against exhaustive search: what llama.cpp projected for every setting, and 305 MiB for CUDA.

The first configuration is the issue's, and runs with every change; the rest is for script/test-long.
"""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pynvml
import pytest

ROOT = Path(__file__).parents[3]
LAB = os.environ.get("TUNE_LAB", "tune-test")
DESKTOP_MIB, CARD_MIB, CUDA_MIB = 800, 16380, 305
MODELS = {
    "llama31-8b": "llama3.1:8b-instruct-q8_0",
    "llama32-3b": "llama3.2:3b-instruct-q8_0",
    "qwen25-3b": "qwen2.5:3b",
}
EMBEDDER = "nomic-embed-text:latest"
TRUTH = {
    (row["case"], *(int(row[name]) for name in ("num_gpu", "num_ctx", "num_parallel", "num_batch"))): int(
        row["projected_gpu_mib"]
    )
    + (CUDA_MIB if int(row["num_gpu"]) else 0)
    for row in csv.DictReader((ROOT / "molecule" / "lab" / "data" / "lab_models_projection.csv").open())
}
SETTINGS = ("num_gpu", "num_ctx", "num_parallel", "num_batch")
GRID = {"num_parallel": [1, 2], "num_ctx": [4096, 8192]}
# case, threshold, what others hold besides the desktop, searched over besides layers, objective, the planner's factor,
# and how many probes it may take
CONFIGURATIONS: list[tuple[str, int, int, dict[str, list[int]], list[str], float, int]] = [
    ("llama31-8b", 9000, 0, {}, ["tokens_per_s"], 1.0, 3),
    ("llama31-8b", 9000, 0, {}, ["tokens_per_s"], 0.9, 6),
    ("llama31-8b", 9000, 0, {}, ["tokens_per_s"], 1.1, 6),
    ("llama31-8b", 12288, 3000, {}, ["tokens_per_s"], 1.0, 3),
    ("llama31-8b", 16000, 8000, {}, ["tokens_per_s"], 1.0, 3),
    ("llama31-8b", 7000, 0, {"num_ctx": [2048, 4096, 8192]}, ["num_ctx", "tokens_per_s"], 1.0, 3),
    ("llama31-8b", 16380, 9000, {"num_ctx": [2048, 4096]}, ["tokens_per_s", "num_ctx"], 1.0, 3),
    ("llama32-3b", 4096, 0, {}, ["tokens_per_s"], 1.0, 3),
    ("llama32-3b", 5000, 500, {"num_batch": [512, 1024]}, ["num_batch", "tokens_per_s"], 1.0, 3),
    ("llama32-3b", 16380, 13000, {}, ["tokens_per_s"], 0.9, 6),
    ("qwen25-3b", 3000, 0, {}, ["tokens_per_s"], 1.0, 3),
    ("qwen25-3b", 3200, 300, GRID, ["num_parallel", "num_ctx", "tokens_per_s"], 1.0, 4),
    ("qwen25-3b", 2500, 1000, {}, ["tokens_per_s"], 1.1, 6),
]  # fmt: skip
Run = Callable[..., dict[str, Any]]


def lab(*words: str, stdin: bytes | None = None) -> bytes:
    environment = {**os.environ, "LAB_NAME": LAB, "LAB_SPEEDUP": "20"}
    done = subprocess.run(
        [ROOT / "script" / "lab", *words], env=environment, input=stdin, capture_output=True, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout


def on_host(*words: str, stdin: bytes | None = None) -> bytes:
    return lab("exec", "gpu01", *words, stdin=stdin)


def packed() -> bytes:
    """What the driver needs on the host: the collection's module_utils, NVML's bindings and itself."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        below = "ansible_collections/selo/gpu_memory/plugins/module_utils"
        for path in sorted((ROOT / "plugins" / "module_utils").rglob("*.py")):
            archive.add(path, f"{below}/{path.relative_to(ROOT / 'plugins' / 'module_utils')}")
        archive.add(str(pynvml.__file__), "bindings/pynvml.py")
        archive.add(Path(__file__).with_name("driver.py"), "driver.py")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def host() -> Iterator[None]:
    lab("up", "1")
    try:
        lab("reset", "gpu01")
        on_host("mkdir", "/opt/tune-test")
        on_host("tar", "-C", "/opt/tune-test", "-x", stdin=packed())
        yield
    finally:
        lab("down")


@pytest.fixture
def others(host: None) -> Iterator[Callable[[int], None]]:
    """Gives the GPU another user for the time of a test."""
    script = "/opt/gpu-memory-lab/simulated_gpu/simulated_gpu.py"
    started: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "LAB_NAME": LAB}

    def hold(mib: int) -> None:
        if mib:
            code = f"import sys, time; sys.path.insert(0, '{os.path.dirname(script)}'); import simulated_gpu"
            code += f"; simulated_gpu.reserve({mib}); print('held', flush=True); sys.stdin.read()"
            command = [ROOT / "script" / "lab", "exec", "gpu01", "python3", "-c", code]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe))
            stdout = started[-1].stdout
            assert stdout is not None and stdout.readline() == b"held\n"

    yield hold
    for process in started:
        process.communicate(timeout=60)


def tuned(
    case: str,
    threshold: int,
    over: dict[str, list[int]],
    objective: list[str],
    factor: float,
    beside: Sequence[str] = (),
) -> dict[str, Any]:
    wanted = {
        "unit": "ollama.service", "url": "http://127.0.0.1:11434", "model": MODELS[case], "mode": "search",
        "max_used_mib": threshold, "base": {"num_ctx": 4096, "num_parallel": 2, "num_batch": 512}, "over": over,
        "at_least": {}, "objective": objective, "profiles": {}, "max_probes": 20, "load_timeout": 300,
        "gpu_gb_per_s": 0, "host_gb_per_s": 0, "beside": beside,
    }  # fmt: skip
    gpu = {"uuid": "0", "name": "NVIDIA GeForce RTX 4060 Ti", "total_mib": CARD_MIB, "reserved_mib": 0}
    given = {"factor": factor, "wanted": wanted, "gpu": gpu}
    answer = on_host("python3", "/opt/tune-test/driver.py", stdin=json.dumps(given).encode())
    result: dict[str, Any] = json.loads(answer)
    assert "problem" not in result, result
    return result


def exhaustive(case: str, limit_mib: int, over: dict[str, list[int]], objective: list[str]) -> dict[str, int] | None:
    """The best setting by the table: every one of them tried. More layers are faster, and so is less cache."""
    grid = {"num_ctx": [4096], "num_parallel": [2], "num_batch": [512], **over}
    held = [
        dict(zip(SETTINGS, key[1:]))
        for key, use in TRUTH.items()
        if key[0] == case and use <= limit_mib and all(dict(zip(SETTINGS, key[1:]))[n] in grid[n] for n in grid)
    ]

    def score(setting: dict[str, int]) -> tuple[float, ...]:
        speed = (setting["num_gpu"], -setting["num_ctx"])
        order = [speed if name == "tokens_per_s" else (setting[name],) for name in objective]
        return tuple(float(number) for numbers in order for number in numbers)

    return max(held, key=score, default=None)


def in_use() -> tuple[int, str]:
    used = int(on_host("python3", "/opt/gpu-memory-lab/simulated_gpu/simulated_gpu.py", "used"))
    return used, on_host("curl", "--silent", "http://127.0.0.1:11434/api/ps").decode()


def named(place: int, each: tuple[Any, ...]) -> Any:
    marks = [] if place else [pytest.mark.short]
    return pytest.param(each, id=f"{each[0]}-{each[1]}-{each[2]}-{each[5]:g}", marks=marks)


@pytest.mark.parametrize("configuration", [named(*numbered) for numbered in enumerate(CONFIGURATIONS)])
def test_equal_to_exhaustive_search(others: Callable[[int], None], configuration: tuple[Any, ...]) -> None:
    case, threshold, held_mib, over, objective, factor, most = configuration
    others(held_mib)
    before = DESKTOP_MIB + held_mib
    assert in_use()[0] == before
    began = time.monotonic()
    result = tuned(case, threshold, over, objective, factor)
    best = exhaustive(case, threshold - before, over, objective)
    found = result["best"] and {name: result["best"][name] for name in SETTINGS}
    walk = result["guide_walk"]
    tried = [tuple(probe["setting"][name] for name in SETTINGS) for probe in result["probes"]]
    print(
        f"figure: tune {MODELS[case]} within {threshold} MiB, others {before}, planner x {factor:g}: {found} by "
        f"{len(tried)} probes ({math.ceil(time.monotonic() - began)} s); the guide's walk by 5: {walk}"
    )
    assert found == best, tried
    assert result["proven"]
    assert len(tried) <= most, tried
    # Every peak that was measured is what the table has.
    for probe, setting in zip(result["probes"], tried):
        if probe["peak_mib"] is not None and probe["outcome"] != "out of memory":
            assert probe["peak_mib"] == before + TRUTH[(case, *setting)], probe
        else:
            assert before + TRUTH[(case, *setting)] > CARD_MIB
    # Nothing is left loaded, and nothing else either.
    used, loaded = in_use()
    assert (used, json.loads(loaded)["models"]) == (before, [])
    assert b"gpu-memory-tune" not in on_host("systemctl", "list-units", "--all", "--no-legend")


@pytest.mark.short
def test_beside_another_model(others: Callable[[int], None]) -> None:
    body = {"model": EMBEDDER, "input": "", "keep_alive": "30m"}
    on_host("curl", "--silent", "--fail", "http://127.0.0.1:11434/api/embed", "--data", json.dumps(body))
    with_embedder, _loaded = in_use()
    assert with_embedder > DESKTOP_MIB
    result = tuned("llama31-8b", 9000, {}, ["tokens_per_s"], 1.0, [EMBEDDER])
    best = exhaustive("llama31-8b", 9000 - with_embedder, {}, ["tokens_per_s"])
    assert result["best"] and {name: result["best"][name] for name in SETTINGS} == best, result["probes"]
    assert (result["others_mib"], result["beside"], result["loaded_again"]) == (with_embedder, [EMBEDDER], [EMBEDDER])
    assert [probe["others_mib"] for probe in result["probes"]] == [with_embedder] * len(result["probes"])
    assert in_use()[0] == with_embedder
    on_host("curl", "--silent", "http://127.0.0.1:11434/api/embed", "--data", json.dumps({**body, "keep_alive": 0}))


@pytest.mark.short
def test_a_setting_for_which_another_model_must_go_does_not_hold(others: Callable[[int], None]) -> None:
    others(8000)
    result = tuned("llama32-3b", CARD_MIB, {}, ["tokens_per_s"], 1.0, [MODELS["qwen25-3b"]])
    told = [str(probe["detail"]["error"]) for probe in result["probes"]]
    assert any(f"Ollama unloaded {MODELS['qwen25-3b']} to make room" in error for error in told), result["probes"]
    # Ollama takes the last layer's word for the whole model alone: with one less it asks for no room.
    assert 0 < result["best"]["num_gpu"] < 29
    assert in_use()[0] == DESKTOP_MIB + 8000


def test_what_was_loaded_is_loaded_again(others: Callable[[int], None]) -> None:
    options = {"num_gpu": 11, "num_ctx": 2048, "num_batch": 256}
    body = {"model": MODELS["llama32-3b"], "options": options, "keep_alive": "30m", "stream": False}
    on_host("curl", "--silent", "--fail", "http://127.0.0.1:11434/api/generate", "--data", json.dumps(body))
    before = on_host("pgrep", "--full", "--list-full", "llama-server").decode()
    result = tuned("qwen25-3b", 3000, {}, ["tokens_per_s"], 1.0)
    assert result["loaded_again"] == result["loaded_before"] == [MODELS["llama32-3b"]]
    after = on_host("pgrep", "--full", "--list-full", "llama-server").decode()

    def settings(command: str) -> list[str]:
        words = command.split()
        return [words[words.index(flag) + 1] for flag in ("--model", "-c", "-np", "-ngl", "-b")]

    assert settings(before) == settings(after)
