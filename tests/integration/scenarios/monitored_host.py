"""The monitor on a lab host as the scenarios' tests see it: by its metrics and by what systemd says."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.integration.scenarios import lab_host

METRICS = "/run/gpu-memory-monitor/gpu_memory.prom"
TEXTFILES = "/var/lib/prometheus/node-exporter"
UNIT = "gpu-memory-monitor.service"
RAN = "gpu_memory_last_run_timestamp_seconds"
STRANGER = f"python3 {lab_host.SIMULATED_GPU} spike --add"  # with how many MiB somebody else takes
NO_STRANGER = f"python3 {lab_host.SIMULATED_GPU} clear spike"
DROP_IN_OF_ANOTHER = f"sed -i 's/OLLAMA_NUM_PARALLEL=2/OLLAMA_NUM_PARALLEL=3/' {lab_host.DROP_IN}"

LOG_DROP_IN = "/etc/systemd/system/ollama.service.d/20-log.conf"


def log_to(*lines: str) -> str:
    """What sends Ollama's log elsewhere, with lines of a unit; back without any."""
    text = "\\n".join(["[Service]", *lines, ""])
    return f"printf '{text}' > {LOG_DROP_IN}; systemctl daemon-reload; systemctl restart ollama"


# Runs on the host: a command, and then how many times the monitor looks until a metric has a value.
COUNT_PERIODS = """
import subprocess, sys, time
path, ran, command, key, wanted = sys.argv[1:]
def read():
    with open(path) as file:
        return dict(line.rstrip("\\n").rsplit(" ", 1) for line in file if not line.startswith("#"))
def reached(values):
    if wanted.startswith("="):
        return values and all(value == float(wanted[1:]) for value in values)
    return any(value >= float(wanted) for value in values)
if command:
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
before, seen, deadline = read()[ran], set(), time.monotonic() + 120
while True:
    now = read()
    seen |= {now[ran]} - {before}
    values = [float(value) for name, value in now.items() if name.startswith(key)]
    if reached(values):
        break
    if time.monotonic() > deadline:
        sys.exit(f"{key} is {values} after {len(seen)} periods")
    time.sleep(0.05)
print(len(seen))
"""


def periods_until(host: Any, metric: str, wanted: float | str, command: str = "") -> int:
    """How many periods the monitor takes to show `metric` at `wanted` or more (all of them at N for `=N`)."""
    words = ["python3", "-", METRICS, RAN, command, f"gpu_memory_{metric}", str(wanted)]
    quoted = " ".join("%s" for _ in words)
    return int(host.check_output(f"{quoted} <<'X'\n{COUNT_PERIODS.replace('%', '%%')}\nX", *words))


def metrics(host: Any) -> dict[str, float]:
    lines = host.file(METRICS).content_string.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("gpu_memory_"): float(value) for name, value in pairs}


def value(host: Any, metric: str) -> float:
    (found,) = [value for name, value in metrics(host).items() if re.match(rf"{metric}(\{{|$)", name)]
    return found


def loaded_models(host: Any) -> list[str]:
    listed = json.loads(host.check_output("curl --silent --fail http://127.0.0.1:11434/api/ps"))["models"]
    return [model["name"] for model in listed]


def address() -> str:
    """The scenario's host, as the tests reach it."""
    found = re.search(r"HostName (\S+)", (lab_host.scenario_directory() / "ssh_config").read_text())
    assert found
    return found[1]


def eventually(condition: Callable[[], Any], within_s: float = 60) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.2)
    return found


def promtool(*arguments: str, given: str | None = None) -> None:
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
