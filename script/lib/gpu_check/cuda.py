"""What is needed of CUDA's driver API, by ctypes: to allocate, to touch, to free. For a process of its own.

The primary context, not one of our own: cuCtxCreate has changed its arguments with CUDA 13, these have not since 7.0.
"""

from __future__ import annotations

import contextlib
import ctypes
import uuid
from typing import Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import MIB

LIBRARY = "libcuda.so.1"

_int, _uint, _size, _pointer = ctypes.c_int, ctypes.c_uint, ctypes.c_size_t, ctypes.POINTER
_address = ctypes.c_uint64  # CUdeviceptr
_uuid_bytes = ctypes.c_ubyte * 16
# Each with its arguments, under the first of its names that the library has. All return a CUresult, an int.
FUNCTIONS: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("cuInit",): (_uint,),
    ("cuGetErrorName",): (_int, _pointer(ctypes.c_char_p)),
    ("cuDriverGetVersion",): (_pointer(_int),),
    ("cuDeviceGetCount",): (_pointer(_int),),
    ("cuDeviceGet",): (_pointer(_int), _int),
    ("cuDeviceGetName",): (ctypes.c_char_p, _int, _int),
    ("cuDeviceGetPCIBusId",): (ctypes.c_char_p, _int, _int),
    ("cuDeviceGetUuid", "cuDeviceGetUuid_v2"): (_pointer(_uuid_bytes), _int),  # of a MIG instance v2 has its own
    ("cuDeviceTotalMem_v2",): (_pointer(_size), _int),
    ("cuDevicePrimaryCtxRetain",): (_pointer(ctypes.c_void_p), _int),
    ("cuDevicePrimaryCtxRelease_v2", "cuDevicePrimaryCtxRelease"): (_int,),  # _v2 since 11.0
    ("cuCtxSetCurrent",): (ctypes.c_void_p,),
    ("cuCtxSynchronize",): (),
    ("cuMemGetInfo_v2",): (_pointer(_size), _pointer(_size)),
    ("cuMemAlloc_v2",): (_pointer(_address), _size),
    ("cuMemFree_v2",): (_address,),
    ("cuMemsetD8_v2",): (_address, ctypes.c_ubyte, _size),
}
OUT_OF_MEMORY, DEVICE_UNAVAILABLE = 2, 46
_COMPAT = "take the directory of cuda-compat out of LD_LIBRARY_PATH, so that the driver's own libcuda.so.1 is loaded"
_MPS = "look at nvidia-cuda-mps-control's log, or unset CUDA_MPS_PIPE_DIRECTORY to do without MPS"
_HIDDEN = (
    "see whether CUDA_VISIBLE_DEVICES hides the GPU, whether this user may open /dev/nvidia* and /dev/nvidia-uvm, "
    "whether a container was given the GPU (--gpus all), and with MIG whether there is an instance (nvidia-smi -L)"
)
CURES = {
    OUT_OF_MEMORY: "other processes hold the GPU's memory; try again when there is more",
    34: "a stub of libcuda.so.1 is loaded; take the directory `stubs` out of LD_LIBRARY_PATH",
    DEVICE_UNAVAILABLE: "the GPU's compute mode lets one process use it (nvidia-smi -q -d COMPUTE); end the other one",
    100: _HIDDEN,
    101: _HIDDEN,
    304: "the operating system blocks the call: pass the /dev/nvidia* devices on to this container or control group",
    802: "the system is not ready: on NVSwitch machines start nvidia-fabricmanager, of the driver's own version",
    803: f"libcuda.so.1 and the kernel driver are of different versions: {_COMPAT}, or reboot after an upgrade",
    804: _COMPAT,
    **dict.fromkeys(range(805, 811), _MPS),
    999: "load nvidia_uvm (modprobe nvidia_uvm; after a suspend, rmmod it first); look for Xid lines in journalctl -k",
}


class CudaProblem(Exception):
    """A call of CUDA's failed: the text is cause and cure, `code` the CUresult or None."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Device(NamedTuple):
    ordinal: int
    uuid: str
    pci: str
    name: str
    total_mib: int


class Cuda:
    """The driver, initialised. One context at a time, of `open`."""

    def __init__(self) -> None:
        path = nvml_library.find_library(library=LIBRARY)
        try:
            library = ctypes.CDLL(path or LIBRARY)
        except OSError:
            raise CudaProblem(
                f"{LIBRARY} cannot be loaded, and is in none of the directories where distributions put it; install "
                "the NVIDIA driver's CUDA library (Debian: libcuda1); start a container with "
                "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
            ) from None
        self._functions = {}
        for names, arguments in FUNCTIONS.items():
            found = next((getattr(library, name) for name in names if hasattr(library, name)), None)
            if found is None:
                raise CudaProblem(
                    f"{LIBRARY} has no {names[0]}: this NVIDIA driver is too old; R450 or newer is needed"
                )
            found.argtypes, found.restype = arguments, _int
            self._functions[names[0]] = found
        self._opened: int | None = None
        self._call("cuInit", 0)

    def _call(self, name: str, *arguments: Any) -> None:
        code = self._functions[name](*arguments)
        if code:
            cure = CURES.get(code)
            raise CudaProblem(f"{name}: {self._error_name(code)}{f'; {cure}' if cure else ''}", code)

    def _error_name(self, code: int) -> str:
        said = ctypes.c_char_p()
        known = self._functions["cuGetErrorName"](code, ctypes.byref(said)) == 0 and said.value
        return known.decode(errors="replace") if known else f"CUDA error {code}"

    def _number(self, name: str, kind: Any, *arguments: Any) -> int:
        value = kind()
        self._call(name, ctypes.byref(value), *arguments)
        return int(value.value)

    def version(self) -> str:
        """The CUDA version that the driver serves."""
        number = self._number("cuDriverGetVersion", _int)
        return f"{number // 1000}.{number % 1000 // 10}"

    def devices(self) -> list[Device]:
        """The GPUs that CUDA shows to this process; in MIG mode the one instance that it shows."""
        found = []
        for ordinal in range(self._number("cuDeviceGetCount", _int)):
            device = self._number("cuDeviceGet", _int, ordinal)
            identity = _uuid_bytes()
            self._call("cuDeviceGetUuid", ctypes.byref(identity), device)
            total = self._number("cuDeviceTotalMem_v2", _size, device)
            uuid_text = f"GPU-{uuid.UUID(bytes=bytes(identity))}"
            pci, name = (self._text(ask, device) for ask in ("cuDeviceGetPCIBusId", "cuDeviceGetName"))
            found.append(Device(device, uuid_text, pci, name, total // MIB))
        return found

    def _text(self, name: str, device: int) -> str:
        into = ctypes.create_string_buffer(256)
        self._call(name, into, len(into), device)
        return nvml_library.text(lambda: into.value)

    def open(self, device: int) -> None:
        """Make the GPU's primary context this thread's, and have CUDA load what it needs to touch memory."""
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._opened = device
        self._call("cuCtxSetCurrent", context)
        self.free(self.allocate(2))

    def close(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(CudaProblem):
                self._call("cuCtxSetCurrent", None)
                self._call("cuDevicePrimaryCtxRelease_v2", self._opened)
            self._opened = None

    def free_mib(self) -> int:
        free, total = _size(), _size()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return int(free.value) // MIB

    def allocate(self, mib: int, touched: bool = True) -> int:
        address = self._number("cuMemAlloc_v2", _address, mib * MIB)
        if touched:
            self._call("cuMemsetD8_v2", address, 0x5A, mib * MIB)
            self._call("cuCtxSynchronize")
        return address

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", address)
