"""The helper that reads NVML, with the product's own functions, and measures what each call costs."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, port
from ansible_collections.selo.gpu_memory.script.lib.gpu_check import checks, helper

CALLS, MOST_S = 300, 1.0  # how often a call is measured, and for how long at most
EVERY_S = 0.02
QUIET_S = 1.5


class Reader:
    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._handle: Any = None

    def open(self, bindings: str | None, uuid: str) -> dict[str, Any]:
        began = time.monotonic()
        library = nvml_library.connect(bindings)
        took_ms = round(1000 * (time.monotonic() - began), 1)
        self._nvml = library.bindings
        self._uuid = uuid
        self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        self.memory_api, self._read = nvml_library.memory_reader(self._nvml, self._handle)
        return {
            "nvml_version": nvml_library.text(self._nvml.nvmlSystemGetNVMLVersion),
            "bindings": library.source,
            "init_ms": took_ms,
            "simulated": hasattr(ctypes.CDLL(nvml_library.LIBRARY), "simulated_nvml"),
        }

    def read(self) -> dict[str, Any]:
        """Memory in bytes by both versions of the call, read one right after the other, and the processes."""
        nvml = self._opened()
        memory, v1 = self._read()._asdict(), None
        with contextlib.suppress(nvml.NVMLError):
            v1 = nvml.nvmlDeviceGetMemoryInfo(self._handle).used
        return {
            "memory": memory,
            "v1_used": v1,
            "processes": nvml_library.processes(nvml, self._handle),
        }

    def quiet(self) -> dict[str, Any]:
        """How much the used memory moves, in MiB, while the check does nothing."""
        used = []
        until = time.monotonic() + QUIET_S
        while time.monotonic() < until:
            used.append(self._read().used)
            time.sleep(EVERY_S)
        return {"moved_mib": port.mib_up(max(used) - min(used))}

    def wait(self, used: int, tolerance: int, seconds: float) -> dict[str, Any]:
        """Read until the used bytes are these: how long that took, in ms, or None; then all figures."""
        began = now = time.monotonic()
        reached = False
        while not reached and now - began <= seconds:
            reached = abs(self._read().used - used) <= tolerance
            now = time.monotonic()
            if not reached:
                time.sleep(0.001)
        return {"after_ms": round(1000 * (now - began), 2) if reached else None, **self.read()}

    def name(self, pid: int) -> dict[str, Any]:
        """What NVML and the product call a process. NVML's is shortened to the program, as the product does it."""
        nvml = self._opened()
        try:
            full = nvml_library.text(nvml.nvmlSystemGetProcessName, pid)
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as problem:
            return {
                "nvml": None,
                "product": nvml_library.process_name(nvml, pid),
                "error": nvml_library.error_name(nvml, problem),
            }
        short = full.partition(" ")[0].rpartition("/")[2]
        return {"nvml": short, "product": nvml_library.process_name(nvml, pid), "error": None}

    def accounting(self, pid: int) -> dict[str, Any]:
        """What accounting holds of a process. Its mode is read and never set."""
        nvml = self._opened()
        mode = nvml_library.accounting_mode(nvml, self._handle)
        if mode != "enabled":
            return {"mode": mode, "peak_mib": None, "running": None, "error": None}
        try:
            stats = nvml.nvmlDeviceGetAccountingStats(self._handle, pid)
        except Exception as problem:  # also the bindings' own TypeError, for a peak that is not available
            return {"mode": mode, "peak_mib": None, "running": None, "error": nvml_library.error_name(nvml, problem)}
        peak = port.mib_up(stats.maxMemoryUsage)
        return {"mode": mode, "peak_mib": peak, "running": bool(stats.isRunning), "error": None}

    def costs(self, pid: int) -> dict[str, Any]:
        """Each call that the product makes: whether it is there, and what it costs."""
        nvml, gpu = self._opened(), self._handle
        index = nvml.nvmlDeviceGetIndex(gpu)
        calls: dict[str, Callable[[], Any]] = {
            "nvmlSystemGetDriverVersion": nvml.nvmlSystemGetDriverVersion,
            "nvmlDeviceGetCount": nvml.nvmlDeviceGetCount,
            "nvmlDeviceGetHandleByIndex": lambda: nvml.nvmlDeviceGetHandleByIndex(index),
            "nvmlDeviceGetHandleByUUID": lambda: nvml.nvmlDeviceGetHandleByUUID(self._uuid),
            "nvmlSystemGetProcessName": lambda: nvml_library.text(nvml.nvmlSystemGetProcessName, pid),
            "nvmlDeviceGetMemoryInfo v1": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu),
            "nvmlDeviceGetMemoryInfo v2": lambda: nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2),
            "nvmlDeviceGetAccountingStats": lambda: nvml.nvmlDeviceGetAccountingStats(gpu, pid),
        }
        for name in (
            "Index", "UUID", "Name", "PciInfo", "CudaComputeCapability", "MigMode", "PersistenceMode", "AccountingMode",
            "AccountingPids", "ComputeRunningProcesses", "GraphicsRunningProcesses", "MPSComputeRunningProcesses",
        ):  # fmt: skip
            calls[f"nvmlDeviceGet{name}"] = functools.partial(getattr(nvml, f"nvmlDeviceGet{name}"), gpu)
        return {"calls": {name: self._cost(call) for name, call in calls.items()}}

    def cost_of_memory(self, seconds: float) -> dict[str, Any]:
        """What the call of the sampler costs, read all the time for so long."""
        return checks.distribution(self._times(self._read, 10**9, seconds))

    def _cost(self, call: Callable[[], Any]) -> dict[str, Any]:
        try:
            call()
        except Exception as problem:
            return {"error": nvml_library.error_name(self._opened(), problem)}
        try:
            return {"error": None, **checks.distribution(self._times(call, CALLS, MOST_S))}
        except Exception as problem:
            return {"error": f"now and then {nvml_library.error_name(self._opened(), problem)}"}

    @staticmethod
    def _times(call: Callable[[], Any], most: int, seconds: float) -> list[float]:
        """How long each call took, in µs."""
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < most and (not times or time.perf_counter() < until):
            began = time.perf_counter()
            call()
            times.append(1e6 * (time.perf_counter() - began))
        return times

    def told(self, problem: Exception) -> str:
        """What is wrong, in the product's words."""
        return str(problem) if self._nvml is None else str(nvml_library.explain(self._nvml, problem))

    def _opened(self) -> ModuleType:
        if self._nvml is None:
            raise port.GpuProblem("error", "NVML is not open")
        return self._nvml


def main(parent: int) -> None:
    reader = Reader()
    verbs = {
        name: getattr(reader, name)
        for name in ("open", "read", "quiet", "wait", "name", "accounting", "costs", "cost_of_memory")
    }
    helper.serve(verbs, parent, (Exception,), reader.told)
