"""Runs on a lab host: tells the simulated GPU what a real llama-server holds of the software GPU.

    python3 runner_memory.py

Mesa's lavapipe backs what is allocated on its device by a file in memory called `allocation fd`. What of it is resident
is what a card would have given out: the buffers of the journal's lines `VulkanN … buffer size` and `Vulkan_Host …`. It
has no CUDA, so CONTEXT_MIB stands for a context and its kernels, as in the lab's stand-in; everything else is real.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, "/opt/gpu-memory-lab/simulated_gpu")
import simulated_gpu

PROGRAM = "/usr/local/lib/ollama/llama-server"
BACKED_BY = "/memfd:allocation"
CONTEXT_MIB = 305
EVERY_S = 0.1


def runners() -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].decode() == PROGRAM and b"--model" in words:
            found.append(int(process.name))
    return found


def device_mib(pid: int) -> float:
    kib, counts = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            counts = len(words) > 5 and words[5].startswith(BACKED_BY)
        elif counts and words[0] == "Rss:":
            kib += int(words[1])
    return kib / 1024


def main() -> None:
    told: dict[int, int] = {}
    while True:
        for pid in runners():
            try:
                mib = math.ceil(device_mib(pid))
                if mib and told.get(pid) != mib + CONTEXT_MIB:
                    simulated_gpu.reserve(mib + CONTEXT_MIB, pid=pid)
                    told[pid] = mib + CONTEXT_MIB
            except (OSError, ProcessLookupError, IndexError):
                continue  # it has just ended
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main()
