"""What the sampler costs: CPU seconds per second at 20 and 100 Hz, beside a bare loop of nvidia-ml-py in the same run.

    PYTHONPATH=.collections python3 bench/sampler.py [seconds]

Uses this machine's GPU, or without one the simulated library, whose reading of its state is part of both figures.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import time
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, sampling
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process

LAB = Path(__file__).parents[1] / "molecule" / "lab" / "simulated_gpu"
LIMIT = 0.05  # of a core, at 100 Hz


def use_simulation(directory: str) -> None:
    sys.path.insert(0, str(LAB))
    import simulated_gpu

    os.environ["SIMULATED_GPU_STATE"] = f"{directory}/state"
    ctypes.CDLL(str(simulated_gpu.build(Path(directory))))
    simulated_gpu.create()
    simulated_gpu.add(simulated_gpu.Process(pid=simulated_gpu.GHOST_PID, ghost=1, mib=800, name="desktop"))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, to the nanosecond where the kernel counts so."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def share(pid: int, seconds: float) -> float:
    before, began = cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(pid) - before) / (time.monotonic() - began)


def sampler_share(interval_ms: int, seconds: float) -> tuple[float, float]:
    """Share of a core, and the worst gap in ms."""
    sampler = sampling.Sampler(["0"], interval_ms)
    sampler.start()
    assert sampler._child is not None
    used = share(sampler._child.pid, seconds)
    (gpu,) = sampler.stop()
    sampler.close()
    return used, gpu["max_gap_ms"]


def bare_share(interval_ms: int, seconds: float) -> float:
    def loop(send: child_process.Send, lifeline: int) -> None:
        nvml, _ = nvml_library.connect(None)
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        send({"ready": True})
        while True:
            nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            time.sleep(interval_ms / 1000)

    child = child_process.Child(loop)
    child.receive(20)
    used = share(child.pid, seconds)
    child.close()
    return used


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as directory:
        simulated = nvml_library.snapshot()["status"] != "ok"
        if simulated:
            use_simulation(directory)
        print(f"{'simulated library' if simulated else 'real GPU'}, {seconds:g} s each, load {os.getloadavg()[0]:.1f}")
        for interval_ms in (50, 10):
            sampler, gap_ms = sampler_share(interval_ms, seconds)
            bare = bare_share(interval_ms, seconds)
            print(
                f"{1000 // interval_ms:3} Hz: sampler {sampler:.2%} of a core, bare loop {bare:.2%}, "
                f"ratio {sampler / bare:.2f}, worst gap {gap_ms:.1f} ms"
            )
    if sampler > LIMIT:
        sys.exit(f"over the limit of {LIMIT:.0%} at 100 Hz")


if __name__ == "__main__":
    main()
