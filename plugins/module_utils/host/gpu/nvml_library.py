# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVML as a `port.GpuLibrary`, through NVIDIA's own Python bindings: which are good, what GPUs say, what errors mean.

`snapshot` and `ended` may be called in a module's own process. Everything else loads native code: it is for a child.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import (
    MIB,
    GpuProblem,
    Memory,
    beside,
    mib_up,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        Bindings,
        Gpu,
        GpuProcess,
        Nvml,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Accounted

NAME = "NVML"
DEVICES = "/dev/nvidia"
DRIVER_VERSION_FILE = "/proc/driver/nvidia/version"
CURE_BINDINGS = (
    "install nvidia-ml-py 12.535.108 or newer for this Python (pip install nvidia-ml-py), "
    "or install it on the controller, which then sends it"
)

GPU_FACTS = (
    "uuid", "name", "pci_bus_id", "total_mib", "used_mib", "reserved_mib", "free_mib", "memory", "memory_api",
    "compute_capability", "compute_mode", "mig", "accounting", "persistence", "error",
)  # fmt: skip
LISTINGS = 3  # tries to list the processes while memory stands still
LIBRARY = "libnvidia-ml.so.1"
# Where distributions put the driver's libraries without always telling the loader: Debian (also as tesla-470), Ubuntu,
# Fedora and RHEL, RPM Fusion, Arch, old Ubuntu, NixOS, WSL 2, container toolkits, GKE, and the GPU operator.
LIBRARY_PLACES = (
    "/usr/lib/*-linux-gnu/nvidia/*", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib64/nvidia", "/usr/lib",
    "/usr/lib/nvidia-[0-9]*", "/run/opengl-driver/lib", "/usr/lib/wsl/lib", "/usr/lib/wsl/drivers/*",
    "/usr/local/nvidia/lib64", "/usr/local/nvidia/lib", "/home/kubernetes/bin/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/*-linux-gnu", "/run/nvidia/driver/usr/lib64",
)  # fmt: skip
COMPUTE_MODES = ("default", "exclusive_thread", "prohibited", "exclusive_process")  # nvmlComputeMode_t
MODULES_FILE = "/proc/modules"
INVALID_ARGUMENT, NOT_FOUND = 2, 6
NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH, GPU_IS_LOST = 3, 13, 25, 15
UNKNOWN_ERROR = 999
STATUS_OF_CODE = {
    4: "no_permission",
    9: "driver_not_loaded",
    12: "library_missing",
    GPU_IS_LOST: "gpu_lost",
    17: "no_permission",
    18: "version_mismatch",
}


def snapshot(bindings_path: str | None = None, timeout_s: float = 20) -> Nvml:
    """All that NVML shows, once, read in a child process.

    `bindings_path`: a directory with `pynvml.py` for hosts that have no good bindings of their own.
    Returns status (ok, or bindings_missing, bindings_bad, driver_not_loaded, library_missing, version_mismatch,
    no_permission, gpu_lost, crashed, timeout, error), message (cause and cure), driver_version, bindings
    {path, version, source}, gpus. Memory is in MiB, used and reserved rounded up; `memory` is the same in bytes, as it
    was beside the listing of the `processes`. A GPU that cannot be read has an `error` text and nulls; the status is
    not ok only when that is true of all of them.
    """
    try:
        return child_process.call(lambda: _read_everything(bindings_path), timeout_s)
    except (child_process.ChildCrashed, child_process.ChildTimedOut) as problem:
        return _unread(ended(problem), None)


def _unread(problem: GpuProblem, driver_version: str | None) -> Nvml:
    return {
        "driver_version": driver_version,
        "bindings": None,
        "gpus": [],
        "status": problem.status,
        "message": str(problem),
    }


def ended(problem: Exception) -> GpuProblem:
    """What it means that the child which reads NVML crashed or hung."""
    if isinstance(problem, child_process.ChildTimedOut):
        return GpuProblem("timeout", f"NVML hangs ({problem}); look for Xid lines in the kernel log")
    return GpuProblem(
        "crashed", f"the process that read NVML crashed ({problem}); check the driver installation with nvidia-smi"
    )


# What follows runs in a child.


def load_bindings(bindings_path: str | None) -> tuple[ModuleType, Bindings]:
    """The first good `pynvml.py` of this Python, else the sent one, with where it is from.

    Good is 12.535.108 or newer, known by its process record: older ones lack memory v2 or misread the process list.
    Looking for the file, not the import, passes by the pynvml package (a directory with an old API) and its redirector.
    """
    rejected = []
    places = [(directory, "host") for directory in sys.path] + [(bindings_path or "", "sent")]
    for directory, source in places:
        path = os.path.join(directory, "pynvml.py")
        if not directory or not os.path.isfile(path):
            if directory and os.path.isfile(os.path.join(directory, "pynvml", "__init__.py")):
                rejected.append(f"{directory}/pynvml is the old pynvml package")
            continue
        try:
            bindings = _import_file(path)
            if hasattr(bindings, "c_nvmlProcessInfo_v2_t"):
                return bindings, {"path": path, "version": _version_beside(path), "source": source}
            reason = f"{_version_beside(path) or 'its version'} is too old"
        except Exception as problem:
            reason = f"it does not import ({type(problem).__name__}: {problem})"
        rejected.append(f"{path}: {reason}")
    if rejected:
        raise GpuProblem("bindings_bad", f"no good NVML bindings for Python: {', '.join(rejected)}; {CURE_BINDINGS}")
    raise GpuProblem("bindings_missing", f"no NVML bindings for {sys.executable}; {CURE_BINDINGS}")


def connect(bindings_path: str | None) -> OpenNvml:
    """NVML, initialised."""
    bindings, source = load_bindings(bindings_path)
    find_library()
    try:
        bindings.nvmlInit()
    except Exception as problem:
        raise explain(bindings, problem) from None
    return OpenNvml(bindings, source)


class OpenNvml:
    """NVML while it is initialised: a `port.OpenLibrary`. `source`: where its bindings are from."""

    def __init__(self, bindings: ModuleType, source: Bindings) -> None:
        self.bindings, self.source = bindings, source

    def count(self) -> int:
        return int(self.bindings.nvmlDeviceGetCount())

    def gpu(self, name: str) -> OpenGpu:
        try:
            if name.isdigit():
                handle = self.bindings.nvmlDeviceGetHandleByIndex(int(name))
            else:
                handle = self.bindings.nvmlDeviceGetHandleByUUID(name)
        except self.bindings.NVMLError as problem:
            if code_of(problem) in (INVALID_ARGUMENT, NOT_FOUND):
                raise LookupError(name) from None
            raise
        return OpenGpu(self.bindings, handle)

    def explain(self, problem: Exception) -> GpuProblem:
        return explain(self.bindings, problem)

    def error_name(self, problem: Exception) -> str:
        return error_name(self.bindings, problem)


class OpenGpu:
    """A `port.OpenGpu`."""

    def __init__(self, bindings: ModuleType, handle: Any) -> None:
        self._bindings, self._handle = bindings, handle
        self.index = int(bindings.nvmlDeviceGetIndex(handle))
        self.uuid = text(bindings.nvmlDeviceGetUUID, handle)
        # The read itself, with nothing around it: it is the sampler's fast path.
        self.memory_api, self.memory = memory_reader(bindings, handle)

    @property
    def pci_bus_id(self) -> str:
        return str(self._bindings.nvmlDeviceGetPciInfo(self._handle).busId)

    def processes(self) -> list[GpuProcess]:
        return processes(self._bindings, self._handle)

    def accounting(self) -> dict[tuple[int, int], Accounted] | None:
        """None where it is off. It is never switched on here."""
        if accounting_mode(self._bindings, self._handle) != "enabled":
            return None
        rows: dict[tuple[int, int], Accounted] = {}
        try:
            for pid in self._bindings.nvmlDeviceGetAccountingPids(self._handle):
                stats = self._bindings.nvmlDeviceGetAccountingStats(self._handle, pid)
                rows[pid, stats.startTime] = {"peak": stats.maxMemoryUsage, "running": bool(stats.isRunning)}
        except Exception:  # also the bindings' TypeError for a peak that is not available: then nothing is proven
            return None
        return rows


def find_library(places: Sequence[str] = LIBRARY_PLACES, library: str = LIBRARY) -> str | None:
    """Load a library of the driver from where a distribution put it, if the loader does not know it; its path, or None.

    Once it is loaded, the bindings get it by its name.
    """
    with contextlib.suppress(OSError):
        ctypes.CDLL(library)
        return None
    for path in (path for place in places for path in sorted(glob.glob(f"{place}/{library}"))):
        with contextlib.suppress(OSError):  # also one for another processor
            ctypes.CDLL(path)
            return path
    return None


def text(ask: Callable[..., Any], *about: Any) -> str:
    """A text of the driver's, as the bindings' function `ask` reads it. What is no printable UTF-8 is escaped.

    The bindings decode by themselves, and raise where that fails; what they wrap does not.
    """
    raw = getattr(ask, "__wrapped__", ask)(*about)
    decoded = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else str(raw)
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in decoded)


def explain(nvml: ModuleType, problem: Exception) -> GpuProblem:
    """An exception of the bindings as status, cause and cure."""
    if isinstance(problem, GpuProblem):
        return problem
    code = code_of(problem)
    status = STATUS_OF_CODE.get(code or 0, "error")
    loaded = kernel_driver_version()
    if status == "driver_not_loaded" and _is_loaded("nouveau"):
        words = (
            "the GPU is driven by nouveau instead of the NVIDIA kernel driver, which can then not be loaded; install "
            "NVIDIA's, put `blacklist nouveau` into /etc/modprobe.d, rebuild the initramfs and reboot"
        )
    elif status == "driver_not_loaded":
        words = (
            "the NVIDIA kernel driver is not loaded; load it (modprobe nvidia) or install it and reboot. After an "
            "upgrade of the kernel it must be built again (dkms autoinstall), and with Secure Boot be signed"
        )
    elif status == "library_missing" and sys.maxsize < 2**32:
        words = (
            f"this Python ({sys.executable}) is one of 32 bits, and cannot load a {LIBRARY} of 64; name a Python of 64 "
            "bits in ansible_python_interpreter"
        )
    elif status == "library_missing":
        words = (
            f"{LIBRARY} cannot be loaded, and is in none of the directories where distributions put it; install the "
            "NVIDIA driver's libraries (Debian: libnvidia-ml1), or name their directory in /etc/ld.so.conf.d and run "
            "ldconfig"
        )
    elif status == "version_mismatch":
        words = (
            f"the NVIDIA kernel driver that runs is {loaded or 'of one version'}, the libraries on disk are "
            f"{_library_version() or 'of another'}: the driver was upgraded while it ran; reboot, or reload its modules"
        )
    elif status == "no_permission":
        words = (
            "this user or control group may not use the NVIDIA driver; become root, and in a container pass the "
            "/dev/nvidia* devices on"
        )
    elif status == "gpu_lost":
        words = "the GPU is lost (fallen off the bus); look for Xid 79 in the kernel log, reset the GPU or power-cycle"
    elif code is None and type(problem).__name__ == "NVMLLibraryMismatchError":
        words = f"the NVIDIA driver{' ' + loaded if loaded else ''} is older than R510; install a newer driver"
    elif code == UNKNOWN_ERROR:
        words = (
            "NVML says: Unknown Error (NVML_ERROR_UNKNOWN); look for NVRM and Xid lines in the kernel log "
            "(journalctl -k), reset the GPU (nvidia-smi --gpu-reset) or reboot; in a container, restart it, since a "
            "daemon-reload of systemd can take its devices away"
        )
    else:
        words = f"NVML says: {problem} ({error_name(nvml, problem)})"
    return GpuProblem(status, words)


def code_of(problem: Exception) -> int | None:
    value = getattr(problem, "value", None)
    return value if isinstance(value, int) else None


def error_name(nvml: ModuleType, problem: Exception) -> str:
    """`NVML_ERROR_GPU_IS_LOST` and the like; the exception's type where it has no code."""
    code = code_of(problem)
    return type(problem).__name__ if code is None else _error_names(nvml).get(code, f"NVML_ERROR {code}")


@functools.lru_cache
def _error_names(nvml: ModuleType) -> dict[int, str]:
    return {getattr(nvml, name): name for name in dir(nvml) if name.startswith("NVML_ERROR_")}


def kernel_driver_version() -> str | None:
    """Version of the kernel module that runs, without NVML."""
    with contextlib.suppress(OSError), open(DRIVER_VERSION_FILE, encoding="ascii", errors="replace") as file:
        version = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", file.read())
        return version.group(1) if version else None
    return None


def _is_loaded(module: str) -> bool:
    with contextlib.suppress(OSError), open(MODULES_FILE, encoding="ascii", errors="replace") as file:
        return any(line.startswith(f"{module} ") for line in file)
    return False


def memory_reader(nvml: ModuleType, handle: object) -> tuple[str, Callable[[], Memory]]:
    """`v2` or, on drivers before R510, `v1`, and a function that reads the memory of one GPU."""

    def read_v2() -> Memory:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return Memory(memory.total, memory.used, memory.free, memory.reserved)

    def read_v1() -> Memory:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return Memory(memory.total, memory.used, memory.free, None)

    try:
        read_v2()
    except nvml.NVMLError as problem:
        if code_of(problem) not in (NOT_SUPPORTED, FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH):
            raise
    else:
        return "v2", read_v2
    try:
        read_v1()
    except nvml.NVMLError as problem:
        if code_of(problem) != NOT_SUPPORTED:
            raise
        words = (
            "NVML has no memory figures of this GPU: it shares the host's memory (Jetson, GB10) or is split (MIG), and "
            "cannot be judged here; leave this host out, or switch MIG off"
        )
        raise GpuProblem("error", words) from None
    return "v1", read_v1


def held(nvml: ModuleType, handle: object, read: Callable[[], Memory]) -> tuple[Memory, list[GpuProcess]]:
    """Memory and `processes` of a GPU, of one moment where memory stands still for as long as a listing takes."""
    after = read()
    for _unused in range(LISTINGS):
        before, rows, after = after, processes(nvml, handle), read()
        if before.used == after.used:
            break
    return beside(before, after), rows


def processes(nvml: ModuleType, handle: object) -> list[GpuProcess]:
    """Who holds memory of a GPU, each once: pid, name, used_bytes and used_mib, kind.

    The figures are None where the driver has none, as under WSL 2; the name is None of a process that is not here.
    """
    found: dict[int, GpuProcess] = {}
    for kind, listed in (
        ("compute", nvml.nvmlDeviceGetComputeRunningProcesses),
        ("graphics", nvml.nvmlDeviceGetGraphicsRunningProcesses),
        ("mps", nvml.nvmlDeviceGetMPSComputeRunningProcesses),
    ):
        try:
            rows = listed(handle)
        except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as problem:
            if code_of(problem) == GPU_IS_LOST:
                raise
            continue
        for row in rows:
            used = row.usedGpuMemory
            process = found.setdefault(
                row.pid,
                {
                    "pid": row.pid,
                    "name": process_name(nvml, row.pid),
                    "used_bytes": used,
                    "kind": kind,
                    "used_mib": None,
                },
            )
            if process["kind"] != kind:  # one process, two kinds of context: the same memory listed twice
                process["kind"] = "mps" if "mps" in (kind, process["kind"]) else "both"
                both = [count for count in (used, process["used_bytes"]) if count is not None]
                process["used_bytes"] = max(both, default=None)
    for process in found.values():
        used = process["used_bytes"]
        process["used_mib"] = None if used is None else mib_up(used)
    return sorted(found.values(), key=lambda process: int(process["pid"]))


def process_name(nvml: ModuleType, pid: int) -> str | None:
    """The short name alone, since a command line may hold secrets. NVML knows processes that /proc here does not."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")
    with contextlib.suppress(nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return os.path.basename(text(nvml.nvmlSystemGetProcessName, pid).partition(" ")[0]) or None
    return None


def accounting_mode(nvml: ModuleType, handle: object) -> str:
    try:
        mode = nvml.nvmlDeviceGetAccountingMode(handle)
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError):
        return "unsupported"
    return "enabled" if mode == nvml.NVML_FEATURE_ENABLED else "disabled"


def _import_file(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("pynvml", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    bindings = importlib.util.module_from_spec(spec)
    sys.modules["pynvml"] = bindings  # the bindings look themselves up by name
    spec.loader.exec_module(bindings)
    return bindings


def _version_beside(path: str) -> str | None:
    """The version that pip or a distribution package noted beside the file."""
    for note in glob.glob(os.path.join(glob.escape(os.path.dirname(path)), "nvidia_ml_py-*-info")):
        version = re.search(r"nvidia_ml_py-([0-9.]*[0-9])", os.path.basename(note))
        if version:
            return version.group(1)
    return None


def _library_version() -> str | None:
    """Version of the NVML library that is loaded, as its file name has it."""
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        version = re.search(r"libnvidia-ml\.so\.(\d+\.\d[\d.]*)", file.read())
        return version.group(1) if version else None
    return None


def _read_everything(bindings_path: str | None) -> Nvml:
    try:
        library = connect(bindings_path)
    except GpuProblem as problem:
        return _unread(problem, kernel_driver_version())
    nvml = library.bindings
    facts: Nvml = {
        "driver_version": None,
        "bindings": library.source,
        "gpus": [],
        "status": "ok",
        "message": "NVML answers",
    }
    try:
        facts["driver_version"] = text(nvml.nvmlSystemGetDriverVersion)
        gpus = [_read_gpu(nvml, index) for index in range(library.count())]
    except Exception as problem:
        found = explain(nvml, problem)
        return {**facts, "status": found.status, "message": str(found)}
    facts["gpus"] = [gpu for gpu, _unused in gpus]
    first = next((problem for _unused, problem in gpus if problem), None)
    if first and all(problem for _unused, problem in gpus):
        facts["status"], facts["message"] = first.status, str(first)
    return facts


def _read_gpu(nvml: ModuleType, index: int) -> tuple[Gpu, GpuProblem | None]:
    gpu = cast("Gpu", {"index": index, **dict.fromkeys(GPU_FACTS), "processes": []})
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        gpu["uuid"] = text(nvml.nvmlDeviceGetUUID, handle)
        gpu["name"] = text(nvml.nvmlDeviceGetName, handle)
        gpu["pci_bus_id"] = nvml.nvmlDeviceGetPciInfo(handle).busId
        capability = _optional(nvml, lambda: nvml.nvmlDeviceGetCudaComputeCapability(handle))
        gpu["compute_capability"] = capability and f"{capability[0]}.{capability[1]}"
        mode = _optional(nvml, lambda: nvml.nvmlDeviceGetComputeMode(handle))
        gpu["compute_mode"] = COMPUTE_MODES[mode] if mode in range(len(COMPUTE_MODES)) else None
        gpu["mig"] = bool(_optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0]))
        gpu["accounting"] = accounting_mode(nvml, handle)
        persistence = _optional(nvml, lambda: nvml.nvmlDeviceGetPersistenceMode(handle))
        gpu["persistence"] = None if persistence is None else bool(persistence)
        gpu["memory_api"], read = memory_reader(nvml, handle)
        memory, gpu["processes"] = held(nvml, handle, read)
    except Exception as problem:
        found = explain(nvml, problem)
        gpu["error"] = str(found)
        return gpu, found
    gpu["total_mib"], gpu["used_mib"], gpu["free_mib"] = memory.total // MIB, mib_up(memory.used), memory.free // MIB
    gpu["reserved_mib"] = None if memory.reserved is None else mib_up(memory.reserved)
    gpu["memory"] = memory.as_dict()
    return gpu, None


def _optional(nvml: ModuleType, ask: Callable[[], Any]) -> Any:
    """What a GPU may not have: None then. A lost GPU is still an error."""
    try:
        return ask()
    except (nvml.NVMLError, nvml.NVMLLibraryMismatchError) as problem:
        if code_of(problem) == GPU_IS_LOST:
            raise
        return None
