"""Runs on a lab host: tells the simulated GPU what a real llama-server holds of its device.

    python3 runner_memory.py

The device is a process, the runner's child (`llama-server` beside this file). What of its memory is resident is what a
card would have given out, but for IDLE_MIB, which it has without a model. It has no CUDA, so CONTEXT_MIB stands for a
context and its kernels, as in the lab's stand-in; everything else is real.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, "/opt/gpu-memory-lab/simulated_gpu")
import simulated_gpu

DEVICE = "ggml-rpc-server"
IDLE_MIB, CONTEXT_MIB = 2, 305
EVERY_S = 0.25


def held() -> dict[int, float]:
    """MiB of each runner's device, by the runner; what only looks for devices is no runner."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() != DEVICE:
                continue
            lines = (process / "status").read_text().splitlines()
            of = {
                name: value.split()[0]
                for name, _colon, value in (line.partition(":") for line in lines)
                if value.split()
            }
            if b"--model" in Path(f"/proc/{of['PPid']}/cmdline").read_bytes().split(b"\0"):
                found[int(of["PPid"])] = int(of["RssAnon"]) / 1024 - IDLE_MIB
        except (OSError, KeyError):
            continue  # it has just ended
    return found


def main() -> None:
    told: dict[int, int] = {}
    while True:
        for pid, mib in held().items():
            whole = math.ceil(max(mib, 0)) + CONTEXT_MIB
            try:
                if told.get(pid) != whole:
                    simulated_gpu.reserve(whole, pid=pid)
                    told[pid] = whole
            except (OSError, ProcessLookupError, IndexError):
                continue
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
