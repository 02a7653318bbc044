"""The monitor's child, on a GPU library that is not NVML."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import MIB
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import watch
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_gpus import (
    TOTAL_MIB,
    RecordedGpu,
    RecordedLibrary,
)


def first_message(library: RecordedLibrary) -> dict[str, Any]:
    child = child_process.Child(lambda send, lifeline: watch._read_gpus(send, lifeline, 15.0, "/nowhere", library))
    with contextlib.closing(child):
        message = child.receive(10)
    assert message
    return message


def test_a_dead_gpu_does_not_hide_the_others() -> None:
    library = RecordedLibrary(RecordedGpu(9000, listed_mib=[700]), RecordedGpu(None, index=1))
    living, dead = first_message(library)["gpus"]
    assert living.pop("max_gap_s") >= 0
    assert living == {
        "index": 0, "uuid": "GPU-a", "pci_bus_id": "0000:03:00.0", "samples": 1, "error": None,
        "total": TOTAL_MIB * MIB, "used": 9000 * MIB, "reserved": 0, "peak": 9000 * MIB,
        "processes": [{"name": "x", "used_mib": 700}],
    }  # fmt: skip
    assert (dead["index"], dead["samples"], dead["error"]) == (1, 0, "the GPU is gone; reboot")
    assert first_message(RecordedLibrary(RecordedGpu(None)))["status"] == "gpu_lost"


def test_why_it_cannot_be_read() -> None:
    library = RecordedLibrary(problem=port.GpuProblem("no_permission", "become root"))
    assert first_message(library) == {"problem": "become root", "status": "no_permission"}


def test_the_rest_of_a_line_that_journald_has_cut_is_no_line() -> None:
    writer = watch._Writer("ollama.service")

    def read(**fields: str) -> bool:
        row = {"__REALTIME_TIMESTAMP": "1", "MESSAGE": "CUDA error: out of memory", "_STREAM_ID": "a", **fields}
        return writer.read(json.dumps(row).encode()) is not None

    assert read(_LINE_BREAK="line-max") and not read() and read()
    assert read(_LINE_BREAK="nul") and read(_STREAM_ID="b") and not read(_LINE_BREAK="line-max") and not read()
    assert {"_STREAM_ID", "_LINE_BREAK"} <= set(watch.FIELDS.partition("=")[2].split(","))


def test_what_the_kernel_ends_for_the_limit_of_another_units_group_is_none_of_ours() -> None:
    writer = watch._Writer("ollama.service")

    def read(message: str, **fields: str) -> bool:
        row = {"__REALTIME_TIMESTAMP": "1", "MESSAGE": message, **fields}
        return writer.read(json.dumps(row).encode()) is not None

    def killed(group: str) -> bool:
        kill = f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg={group},task_memcg={group},task=x"
        return read(kill, _TRANSPORT="kernel")

    ours = "/system.slice/gpu.slice/ollama.service"
    assert killed("/system.slice/ollama.service") and not killed(ours) and not killed("/system.slice/web.service")
    assert read("level=INFO msg=x", __MONOTONIC_TIMESTAMP="5", _PID="7", _SYSTEMD_CGROUP=f"{ours}/runner")
    assert killed(ours) and killed(f"{ours}/runner") and not killed("/system.slice/web.service")
    assert read("oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/x", _TRANSPORT="kernel")
    assert read("Out of memory: Killed process 7 (ollama)", _TRANSPORT="kernel")
