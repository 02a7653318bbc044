"""A GPU library that is not NVML: what each GPU of it says is written down before, and nothing native is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import MIB

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu, GpuProcess, Nvml
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Accounted

TOTAL_MIB = 16380


class Gone(Exception):
    """The GPU does not answer any more."""


class RecordedGpu:
    """A GPU: what each read and each listing says, and how often each was asked. Of the last read there is no end.

    A read of None says that the GPU is gone; one that is gone before the first cannot even be opened.
    """

    uuid, pci_bus_id, memory_api = "GPU-a", "0000:03:00.0", "recorded"

    def __init__(
        self, *used_mib: int | None, listed_mib: Sequence[int] = (), fails: Sequence[int] = (), index: int = 0
    ) -> None:
        self.index = index
        self._used, self._listed, self._fails = list(used_mib), list(listed_mib), fails
        self.is_gone = used_mib[0] is None
        self.reads = self.listings = 0

    def memory(self) -> port.Memory:
        self.reads += 1
        used = self._used.pop(0) if len(self._used) > 1 else self._used[0]
        if used is None:
            raise Gone
        return port.Memory(TOTAL_MIB * MIB, used * MIB, (TOTAL_MIB - used) * MIB, 0)

    def processes(self) -> list[GpuProcess]:
        self.listings += 1
        if self.listings in self._fails:
            raise RuntimeError("no list")
        mib = self._listed.pop(0) if self._listed else 0
        row: GpuProcess = {"pid": 4194305, "name": "x", "kind": "compute", "used_bytes": mib * MIB, "used_mib": mib}
        return [row] if mib else []

    def accounting(self) -> Mapping[tuple[int, int], Accounted] | None:
        return None


class RecordedLibrary:
    NAME, DEVICES = "AMD SMI", "/dev/dri/render"

    def __init__(self, *gpus: RecordedGpu, problem: port.GpuProblem | None = None) -> None:
        self.gpus, self.problem = gpus, problem

    def snapshot(self, bindings_path: str | None = None, timeout_s: float = 20) -> Nvml:
        gpus = [
            {
                "index": gpu.index,
                "uuid": gpu.uuid,
                "pci_bus_id": gpu.pci_bus_id,
                "used_mib": gpu.memory().used // MIB,
                "processes": gpu.processes(),
                "error": None,
            }
            for gpu in self.gpus
        ]
        return {
            "status": "ok",
            "message": f"{self.NAME} answers",
            "driver_version": None,
            "bindings": None,
            "gpus": cast("list[Gpu]", gpus),
        }

    def connect(self, bindings_path: str | None) -> port.OpenLibrary:
        if self.problem:
            raise self.problem
        return self

    def ended(self, problem: Exception) -> port.GpuProblem:
        return port.GpuProblem("crashed", f"{self.NAME} is gone ({problem})")

    def count(self) -> int:
        return len(self.gpus)

    def gpu(self, name: str) -> port.OpenGpu:
        for gpu in self.gpus:
            if name in (str(gpu.index), gpu.uuid):
                if gpu.is_gone:
                    raise Gone
                return gpu
        raise LookupError(name)

    def explain(self, problem: Exception) -> port.GpuProblem:
        if isinstance(problem, port.GpuProblem):
            return problem
        if isinstance(problem, Gone):
            return port.GpuProblem("gpu_lost", "the GPU is gone; reboot")
        return port.GpuProblem("error", f"{self.NAME} says: {problem}")

    def error_name(self, problem: Exception) -> str:
        return f"AMDSMI_{type(problem).__name__.upper()}"
