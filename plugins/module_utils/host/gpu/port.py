# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The port to a GPU library: all that is asked of one. `library.py` says which one it is.

A library and its GPUs load native code: they are opened in a child. `GpuLibrary` itself may be asked in any process.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuMemory, GpuProcess, Nvml
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Accounted

MIB = 1024 * 1024


class GpuProblem(Exception):
    """GPUs cannot be read: `status` is one of the words of `GpuLibrary.snapshot`, the text is cause and cure."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


class Memory(NamedTuple):
    """Bytes. `used` leaves out what the driver reserves for itself, except where the driver cannot tell."""

    total: int
    used: int
    free: int
    reserved: int | None

    def as_dict(self) -> GpuMemory:
        return {"total": self.total, "used": self.used, "free": self.free, "reserved": self.reserved}


class OpenGpu(Protocol):
    """One GPU that is open. What it raises is for `OpenLibrary.explain`."""

    @property
    def index(self) -> int: ...

    @property
    def uuid(self) -> str: ...

    @property
    def pci_bus_id(self) -> str: ...

    @property
    def memory_api(self) -> str:
        """Which of the library's ways to read memory it takes."""

    def memory(self) -> Memory: ...

    def processes(self) -> list[GpuProcess]:
        """Who holds memory of it, each once: pid, name, used_bytes and used_mib (None if unknown), kind."""

    def accounting(self) -> Mapping[tuple[int, int], Accounted] | None:
        """By (pid, start) the `peak` bytes, and whether it is `running`; None where nobody keeps account of them."""


class OpenLibrary(Protocol):
    def count(self) -> int:
        """How many GPUs there are, also those that cannot be opened."""

    def gpu(self, name: str) -> OpenGpu:
        """Open one by index or UUID; LookupError if there is none of this name."""

    def explain(self, problem: Exception) -> GpuProblem:
        """What was raised as status, cause and cure; a GpuProblem as it is."""

    def error_name(self, problem: Exception) -> str:
        """What was raised by the library's own name for it."""


class GpuLibrary(Protocol):
    # In what is said of it.
    NAME: str
    # How the paths of its device files begin.
    DEVICES: str

    def snapshot(self, bindings_path: str | None = None, timeout_s: float = 20) -> Nvml:
        """All GPUs once, as the return value `nvml` of gpu_memory_info. Never raises."""

    def connect(self, bindings_path: str | None) -> OpenLibrary:
        """Open it, in a child; GpuProblem where it cannot be."""

    def ended(self, problem: Exception) -> GpuProblem:
        """What it means that the child which has opened it crashed or hung."""


def beside(before: Memory, after: Memory) -> Memory:
    """Which of the reads before and after a listing stands for it: the higher one, so that what came or went fits."""
    return before if before.used > after.used else after


def mib_up(count: int) -> int:
    """Bytes to MiB, rounded up, so that more bytes than a threshold are never shown as the threshold."""
    return math.ceil(count / MIB)
