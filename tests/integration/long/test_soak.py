"""Half an hour on one lab host: neither the monitor nor the sampling module grows, and neither looks away.

Minutes: SOAK_MINUTES, 30 by default. What was measured is printed (`pytest -s`) and asserted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
LAB = "soak"
ENGINE = os.environ.get("LAB_ENGINE") or ("podman" if shutil.which("podman") else "docker")
CONTAINER = f"{os.environ.get('LAB_PREFIX', '')}{LAB}-gpu01"
INVENTORY = ROOT / ".lab" / LAB / "inventory" / "hosts.yml"
MINUTES = float(os.environ.get("SOAK_MINUTES", "30"))
PERIOD_S = 15
INTERVAL_MS = 50
LOOK_S = 10
CHAT_EVERY = 3  # looks
MOST_GROWTH_KIB = 512
METRICS = "/run/gpu-memory-monitor/gpu_memory.prom"

# Of the monitor and of the module: the processes' own memory (PSS, KiB) and processor time (ticks), and the metrics.
LOOK = f"""
import json, os, subprocess, time
def read(path):
    with open(path) as file:
        return file.read()
def tree(pids):
    parents = {{}}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            parents[pid] = int(read(f"/proc/{{pid}}/stat").rpartition(")")[2].split()[1])
        except OSError:
            pass
    family = set(pids)
    while more := {{pid for pid, parent in parents.items() if parent in family}} - family:
        family |= more
    return family
def figures(pids):
    pss = ticks = 0
    for pid in pids:
        try:
            rows = dict(line.split(":") for line in read(f"/proc/{{pid}}/smaps_rollup").splitlines()[1:])
            pss += int(rows["Pss"].split()[0])
            ticks += sum(map(int, read(f"/proc/{{pid}}/stat").rpartition(")")[2].split()[11:13]))
        except (OSError, KeyError):
            pass
    return {{"pss_kib": pss, "ticks": ticks, "processes": len(pids)}}
main = subprocess.run("systemctl show gpu-memory-monitor -p MainPID --value", shell=True, stdout=-1).stdout
monitor = tree([int(main)])
# The module runs from standard input, and has no name; but its child, and nothing else, has NVML loaded.
module = set()
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
    try:
        if pid not in monitor and "libnvidia-ml" in read(f"/proc/{{pid}}/maps"):
            module |= {{pid, int(read(f"/proc/{{pid}}/stat").rpartition(")")[2].split()[1])}}
    except OSError:
        pass
metrics = dict(line.rsplit(" ", 1) for line in read("{METRICS}").splitlines() if not line.startswith("#"))
print(json.dumps({{"monitor": figures(monitor), "module": figures(module), "metrics": metrics,
    "age_s": time.time() - float(metrics["gpu_memory_last_run_timestamp_seconds"])}}))
"""


@dataclasses.dataclass
class Look:
    at: float
    monitor: dict[str, int]
    module: dict[str, int]
    metrics: dict[str, str]
    age_s: float
    """How long ago the monitor had looked."""


def on_host(*command: str, given: str | None = None) -> str:
    whole = [ENGINE, "exec", "--interactive", CONTAINER, *command]
    done = subprocess.run(whole, input=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def look() -> Look:
    return Look(at=time.monotonic(), **json.loads(on_host("python3", "-", given=LOOK)))


def playbook(*words: str) -> None:
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(INVENTORY), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def grown_kib(looks: list[Look], who: Callable[[Look], dict[str, int]]) -> float:
    """The last quarter against the second: what a start takes is in the first."""
    sizes = [who(look)["pss_kib"] for look in looks]
    quarter = len(sizes) // 4
    return statistics.median(sizes[-quarter:]) - statistics.median(sizes[quarter : 2 * quarter])


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Look], dict[str, Any]]]:
    """The looks of the whole time, and what the module has returned."""

    def lab(*words: str) -> None:
        done = subprocess.run(
            [ROOT / "script" / "lab", *words], env={**os.environ, "LAB_NAME": LAB}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    lab("up", "1")
    report = f"gpu_memory_report_dir={tmp_path_factory.mktemp('report')}"
    playbook("apply-stable.yml", "-e", report, "-e", "gpu_memory_verify=never")
    playbook("playbooks/monitor.yml", "-e", f"monitor_period={PERIOD_S}")
    arguments = {"max_used_mib": 12288, "duration": 60 * MINUTES, "interval_ms": INTERVAL_MS}
    module = ["gpu01", "-m", "selo.gpu_memory.gpu_memory_assert", "-a", json.dumps(arguments), "--become"]
    command = [str(Path(sys.executable).with_name("ansible")), "-i", str(INVENTORY), *module]
    result_file = tmp_path_factory.mktemp("soak") / "result"
    looks = []
    with result_file.open("w") as out:
        environment = {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
        running = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True, env=environment)
        body = json.dumps({"message": "Tell me a story", "conversation_id": "soak"})
        while running.poll() is None:
            seen = look()
            if seen.module["processes"]:
                looks.append(seen)
            if len(looks) % CHAT_EVERY == 1:
                chat = [
                    "systemd-run",
                    "--quiet",
                    "curl",
                    "--silent",
                    "--max-time",
                    "90",
                    "--header",
                    "Content-Type: application/json",
                ]
                on_host(*chat, "--output", "/dev/null", "--data", body, "http://127.0.0.1:8000/api/chat")
            time.sleep(LOOK_S)
    text = result_file.read_text()
    assert " => {" in text, text
    yield looks, json.loads(text.partition(" => ")[2])
    lab("down")


def test_memory_is_flat_and_nothing_looks_away(soaked: tuple[list[Look], dict[str, Any]]) -> None:
    looks, result = soaked
    gaps = [
        float(value)
        for look in looks
        for name, value in look.metrics.items()
        if name.startswith("gpu_memory_sample_gap_seconds")
    ]
    seconds = looks[-1].at - looks[0].at
    busy = (looks[-1].monitor["ticks"] - looks[0].monitor["ticks"]) / os.sysconf("SC_CLK_TCK")
    figures = {
        "minutes": round(seconds / 60, 1),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "monitor_pss_mib": [round(look.monitor["pss_kib"] / 1024, 1) for look in (looks[0], looks[-1])],
        "monitor_peak_pss_mib": round(max(look.monitor["pss_kib"] for look in looks) / 1024, 1),
        "monitor_grown_kib": grown_kib(looks, lambda look: look.monitor),
        "monitor_core_percent": round(100 * busy / seconds, 3),
        "monitor_worst_gap_s": max(gaps),
        "monitor_worst_age_s": round(max(look.age_s for look in looks), 1),
        "module_pss_mib": [round(look.module["pss_kib"] / 1024, 1) for look in (looks[0], looks[-1])],
        "module_grown_kib": grown_kib(looks, lambda look: look.module),
        "module_samples": result["samples"],
        "module_interval_ms": result["interval_ms"],
        "module_worst_gap_ms": result["max_gap_ms"],
    }
    for name, value in figures.items():
        print(f"figure: {name} = {value}")
    assert figures["minutes"] >= 0.9 * MINUTES
    assert figures["monitor_grown_kib"] <= MOST_GROWTH_KIB
    assert figures["module_grown_kib"] <= MOST_GROWTH_KIB
    assert figures["monitor_worst_gap_s"] <= 3
    assert figures["monitor_worst_age_s"] <= 3 * PERIOD_S
    assert figures["module_worst_gap_ms"] <= 3 * INTERVAL_MS
