"""The helper that holds GPU memory, through CUDA's driver API."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.selo.gpu_memory.script.lib.gpu_check import helper
from ansible_collections.selo.gpu_memory.script.lib.gpu_check.cuda import Cuda, CudaProblem


class Holder:
    def __init__(self) -> None:
        self._cuda: Cuda | None = None
        self._held: int | None = None

    def devices(self) -> dict[str, Any]:
        """The GPUs that CUDA shows. No memory is taken yet."""
        self._cuda = Cuda()
        return {
            "cuda_version": self._cuda.version(),
            "devices": [device._asdict() for device in self._cuda.devices()],
        }

    def open(self, ordinal: int) -> dict[str, Any]:
        began = time.monotonic()
        self._opened().open(ordinal)
        return {
            "pid": os.getpid(),
            "comm": _comm(),
            "called": os.path.basename(sys.executable),
            "program": os.path.basename(os.readlink("/proc/self/exe")),
            "free_mib": self._opened().free_mib(),
            "took_ms": round(1000 * (time.monotonic() - began), 1),
        }

    def hold(self, mib: int) -> dict[str, Any]:
        """Hold so much, all of it touched, and no longer what was held before."""
        cuda = self._opened()
        if self._held is not None:
            cuda.free(self._held)
            self._held = None
        began = time.monotonic()
        if mib:
            self._held = cuda.allocate(mib)
        return {"took_ms": round(1000 * (time.monotonic() - began), 3)}

    def spikes(self, plan: Sequence[Sequence[int]], pause_ms: int) -> dict[str, Any]:
        """Hold each (ms, MiB) of a plan, with a pause before each. When each was held for certain: [[from, to], ...]"""
        cuda = self._opened()
        held = []
        for ms, mib in plan:
            time.sleep(pause_ms / 1000)
            address = cuda.allocate(mib, touched=False)
            start = time.monotonic()
            time.sleep(ms / 1000)
            end = time.monotonic()
            cuda.free(address)
            held.append([start, end])
        return {"held": held}

    def close(self) -> None:
        if self._cuda is not None:
            with contextlib.suppress(CudaProblem):
                if self._held is not None:
                    self._cuda.free(self._held)
            self._cuda.close()

    def _opened(self) -> Cuda:
        if self._cuda is None:
            raise CudaProblem("no GPU is open")
        return self._cuda


def _comm() -> str:
    with open("/proc/self/comm", encoding="utf-8", errors="replace") as file:
        return file.read().rstrip("\n")


def main(parent: int) -> None:
    holder = Holder()
    with contextlib.closing(holder):
        verbs: dict[str, Callable[..., helper.Answer]] = {
            "devices": holder.devices,
            "open": holder.open,
            "hold": holder.hold,
            "spikes": holder.spikes,
        }
        helper.serve(verbs, parent, (CudaProblem, OSError))
