"""The check as a whole: measure, judge, write one JSON, print one table."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import glob
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import sampling as gpu_sampling
from ansible_collections.selo.gpu_memory.script.lib.gpu_check import checks
from ansible_collections.selo.gpu_memory.script.lib.gpu_check.helper import Helper, HelperProblem

SCHEMA = 1
NOT_TOLD = ("timeline", "processes", "at_most", "uuid")  # of a sampled GPU: long, or whose it is
BUDGET_S = 200  # and what the sampler may take to end
FREQUENCIES_HZ = (20, 100)
WIDTH = 100  # of what the table says of a check that holds
PAUSE_MS = 250
INITIAL_PIDS = 0xEFFFFFFC  # the inode of the kernel's first pid namespace
ALL_RIGHT, A_CHECK_FAILED, CANNOT_CHECK = 0, 1, 2
Facts = Mapping[str, Any]
NO_DRIVER_HERE = ("driver_not_loaded", "library_missing")
NO_DRIVER = "No NVIDIA driver on this machine. If it has no NVIDIA GPU, there is nothing to check here; else: "
DESCRIPTION = """\
Hold what the product reads of a real GPU against plain allocations: NVML through the product's own reader and sampler,
CUDA's driver API through ctypes. Takes about a minute, holds at most 2 GiB of GPU memory, changes no setting.
Exit status: 0 all checks hold or cannot be told here, 1 one does not hold, 2 it cannot be checked here.
"""


class CannotCheck(Exception):
    """Here there is nothing to check: the text is cause and cure."""


def main(program: str, arguments: Sequence[str] | None = None) -> int:
    """Exit status. `program`: the script, which is run again for each helper."""
    wanted = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_about: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    try:
        _must_be_writable(wanted.out)
        facts = measure(program, wanted.gpu, wanted.bindings, began + BUDGET_S)
        record = recorded(facts, time.monotonic() - began)
        print(table(record))
        _write(wanted.out, json.dumps(record, indent=1) + "\n")
    except CannotCheck as problem:
        print(f"gpu-check: {problem}", file=sys.stderr)
        return CANNOT_CHECK
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(f"written to {wanted.out}")
    return ALL_RIGHT if record["result"] == "ok" else A_CHECK_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-check", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", help="index in NVML's order, or UUID (default: the first that CUDA shows)")
    parser.add_argument(
        "--bindings", help="a directory with pynvml.py of nvidia-ml-py (default: this Python's, else .venv)"
    )
    parser.add_argument("--out", default="gpu-check.json", help="where the JSON goes (default: %(default)s)")
    return parser


def _must_be_writable(path: str) -> None:
    """Told before anything is measured."""
    there = path if os.path.exists(path) else os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(there, os.W_OK):
        raise CannotCheck(f"cannot write {path}; name another file with --out")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as problem:
        raise CannotCheck(f"cannot write {path}: {problem.strerror}; name another file with --out") from None


def measure(program: str, wanted: str | None, bindings: str | None, ends: float) -> dict[str, Any]:
    """All that is measured, for `checks.judge`. CannotCheck where there is no driver, no GPU, no CUDA or no room.

    Where the driver fails later on, `broken` says how, and the rest is missing.
    """
    bindings = bindings or _bindings_of(Path(program).resolve().parents[1])
    snapshot = nvml_library.snapshot(bindings, timeout_s=60)
    if snapshot["status"] != "ok":
        no_bindings = snapshot["status"].startswith("bindings_")
        hint = "; or give the directory of its one file, pynvml.py, with --bindings" if no_bindings else ""
        raise CannotCheck(f"{NO_DRIVER if snapshot['status'] in NO_DRIVER_HERE else ''}{snapshot['message']}{hint}")
    facts: dict[str, Any] = {}
    with contextlib.ExitStack() as ending:

        def start(role: str) -> Helper:
            return ending.enter_context(contextlib.closing(Helper(program, role, ends)))

        try:
            holder, reader = start("holder"), start("reader")
            seen = holder.ask("devices", 60)
            gpu, device = matched(snapshot["gpus"], seen["devices"], wanted)
            facts.update(gpu=gpu, reader=reader.ask("open", 60, bindings=bindings, uuid=gpu["uuid"]))
            facts["versions"] = {
                "driver": snapshot["driver_version"], "nvml": facts["reader"]["nvml_version"],
                "cuda": seen["cuda_version"], "bindings": facts["reader"]["bindings"]["version"],
            }  # fmt: skip
            facts["before"] = reader.ask("read")
            facts["place"] = _place(facts["before"])
            facts["holder"] = {**device, **holder.ask("open", 60, ordinal=device["ordinal"])}
            _must_have_room(facts["holder"]["free_mib"], "to CUDA", checks.LEAST_FREE_MIB // 2)  # less in an instance
        except HelperProblem as problem:
            raise CannotCheck(str(problem)) from None
        try:
            facts["opened"] = reader.ask("read")
            quiet = reader.ask("quiet")["moved_mib"]
            facts["steps"] = _steps(reader, holder, facts["opened"]["memory"]["used"])
            pid = checks.listed_pid(facts["before"], facts["opened"], holder.pid) or holder.pid
            facts.update(name=reader.ask("name", pid=pid), accounting=reader.ask("accounting", pid=pid))
            facts.update(costs=reader.ask("costs", 60, pid=pid), busy=_busy(reader, holder))
            facts["second"] = _second(start, reader, device["ordinal"], facts["steps"][-1])
            facts["sampling"] = {str(hz): _sampled(holder, hz, gpu["uuid"], bindings) for hz in FREQUENCIES_HZ}
            facts["after"] = reader.ask("read")
            facts["moved_mib"] = max(quiet, reader.ask("quiet")["moved_mib"])
        except HelperProblem as problem:
            facts["broken"] = str(problem)
    return facts


def matched(gpus: Sequence[Facts], devices: Sequence[Facts], wanted: str | None) -> tuple[Facts, Facts]:
    """The GPU to check, as NVML and as CUDA show it. Their orders differ, and CUDA_VISIBLE_DEVICES hides some."""
    chosen = [gpu for gpu in gpus if wanted in (None, str(gpu["index"]), gpu["uuid"])]
    if not chosen:
        known = ", ".join(f"{gpu['index']} = {gpu['uuid']}" for gpu in gpus)
        raise CannotCheck(f"--gpu {wanted}: no such GPU here; it must be one of: {known}")
    if all(gpu["error"] for gpu in chosen):
        raise CannotCheck(f"GPU {chosen[0]['index']}: {chosen[0]['error']}")
    chosen = [gpu for gpu in chosen if not gpu["error"]]
    for device in devices:
        for gpu in chosen:
            if checks.is_same_gpu((device["uuid"], device["pci"]), (gpu["uuid"], gpu["pci_bus_id"])):
                _must_have_room(gpu["free_mib"], f"of GPU {gpu['index']}", checks.LEAST_FREE_MIB)
                return gpu, device
    shown = ", ".join(f"{device['uuid']} at {device['pci']}" for device in devices) or "none"
    raise CannotCheck(
        f"CUDA does not show {' or '.join(str(gpu['uuid']) for gpu in chosen)}; it shows: {shown}. See "
        "CUDA_VISIBLE_DEVICES, or choose another with --gpu"
    )


def _must_have_room(free_mib: int, where: str, least_mib: int) -> None:
    if free_mib < least_mib:
        raise CannotCheck(
            f"only {free_mib} MiB are free {where}; the check wants {least_mib}, so that it takes nothing that others "
            "may need: end something, or choose another GPU with --gpu"
        )


def _bindings_of(root: Path) -> str | None:
    """Where this checkout's .venv has nvidia-ml-py, for a Python that has none of its own."""
    found = sorted(glob.glob(f"{glob.escape(str(root))}/.venv/lib/python3*/site-packages/pynvml.py"))
    return os.path.dirname(found[-1]) if found else None


def _place(reading: Facts) -> dict[str, Any]:
    """What of this machine decides how much can be told. No names: the record may be passed on."""
    own_pids = False
    with contextlib.suppress(OSError):
        own_pids = os.stat("/proc/self/ns/pid").st_ino != INITIAL_PIDS
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "root": os.geteuid() == 0,
        "wsl": "microsoft" in platform.release().lower(),
        "own_pids": own_pids,
        "strangers": sum(not os.path.exists(f"/proc/{row['pid']}") for row in reading["processes"]),
    }


def _steps(reader: Helper, holder: Helper, start: int) -> list[dict[str, Any]]:
    """Hold more and less, each until NVML shows it."""
    found = []
    for mib in checks.STEPS_MIB:
        took_ms = holder.ask("hold", mib=mib)["took_ms"]
        found.append({"mib": mib, "took_ms": took_ms, **_until(reader, start + mib * port.MIB, 2)})
    return found


def _until(reader: Helper, used: int, within_s: float) -> dict[str, Any]:
    return reader.ask("wait", within_s + 20, used=used, tolerance=checks.TOLERANCE_MIB * port.MIB, seconds=within_s)


def _busy(reader: Helper, holder: Helper) -> dict[str, Any]:
    """What reading memory costs while another process allocates and frees."""
    holder.begin("spikes", plan=[(10, checks.LOWEST_MIB)] * 50, pause_ms=5)
    cost = reader.ask("cost_of_memory", seconds=0.7)
    holder.answer()
    return cost


def _second(start: Callable[[str], Helper], reader: Helper, ordinal: int, before: Facts) -> dict[str, Any]:
    """Another process that holds something, and is killed. Of the first it is no problem if there can be none."""
    other, found = start("holder"), {}
    try:
        other.ask("devices", 60)
        found["holder"] = other.ask("open", 60, ordinal=ordinal)
        found["opened"] = reader.ask("read")
        used = found["opened"]["memory"]["used"]
        other.ask("hold", mib=checks.SECOND_MIB)
        found["held"] = _until(reader, used + checks.SECOND_MIB * port.MIB, 2)
    except HelperProblem as problem:
        return {**found, "problem": str(problem), "code": problem.code}
    if checks.has_mps(found["held"]):
        return {**found, "spared": True}
    other.kill()
    found["died"] = _until(reader, before["memory"]["used"], 10)
    pid = checks.listed_pid(before, found["opened"], other.pid)
    found["accounting"] = reader.ask("accounting", pid=pid or other.pid)
    return found


def _sampled(holder: Helper, hz: int, uuid: str, bindings: str | None) -> dict[str, Any]:
    """The product's sampler at work while memory comes and goes."""
    with contextlib.closing(gpu_sampling.Sampler([uuid], 1000 // hz, bindings)) as sampler:
        try:
            sampler.start(timeout_s=60)
            held = holder.ask("spikes", 60, plan=checks.spike_plan(), pause_ms=PAUSE_MS)["held"]
            (gpu,) = sampler.stop(timeout_s=20)
        except port.GpuProblem as problem:
            return {"problem": str(problem)}
    if not gpu["samples"]:
        return {"problem": gpu["error"] or "its memory was never read"}
    return {"held": held, "gpu": gpu}


def recorded(facts: Facts, took_s: float) -> dict[str, Any]:
    """The record that is written: what was found, without anything that names a person or another's process."""
    found = [checks.broken(facts["broken"])] if "broken" in facts else checks.judge(facts)
    gpu = {name: facts["gpu"][name] for name in ("index", *nvml_library.GPU_FACTS)}
    record = {
        "schema": SCHEMA,
        "simulated": facts["reader"]["simulated"],
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "took_s": round(took_s, 1),
        "result": "failed" if any(check["ok"] is False for check in found) else "ok",
        "place": facts["place"],
        "versions": facts["versions"],
        "gpu": gpu,
        "opening": {"nvml_init_ms": facts["reader"]["init_ms"], "cuda_context_ms": facts["holder"]["took_ms"]},
        "tolerance_mib": checks.TOLERANCE_MIB,
        "checks": found,
    }
    if "broken" in facts:
        return record
    sampling = {
        hz: {
            **{name: value for name, value in of["gpu"].items() if name not in NOT_TOLD},
            "spikes": checks.spikes_seen(of),
        }
        for hz, of in facts["sampling"].items()
        if "gpu" in of
    }
    return {
        **record, "moved_mib": facts["moved_mib"], "calls": facts["costs"]["calls"], "memory_call_busy": facts["busy"],
        "sampling": sampling,
    }  # fmt: skip


def table(record: Facts) -> str:
    """The record for people: a line a check."""
    gpu, versions = record["gpu"], record["versions"]
    title = f"GPU {gpu['index']}, {gpu['name']}, {gpu['total_mib']} MiB"
    title += f", driver {versions['driver']}, CUDA {versions['cuda']}"
    lines = ["SIMULATED: no GPU is involved"] if record["simulated"] else []
    lines += [title, ""]
    for check in record["checks"]:
        mark = {True: "ok", False: "FAILED", None: "not told"}[check["ok"]]
        said = check["why"] or told(check["measured"])
        if check["ok"] is False:
            said = f"{check['expected']}; {check['why'] and check['why'] + '; '}{told(check['measured'])}"
        lines.append(f"{mark:8}  {check['name']:18}  {said if check['ok'] is False else _short(said)}")
    counted = [sum(check["ok"] is ok for check in record["checks"]) for ok in (True, False, None)]
    return "\n".join(
        [*lines, "", "{} hold, {} failed, {} could not be told here; {} s".format(*counted, record["took_s"])]
    )


def _short(said: str) -> str:
    return said if len(said) <= WIDTH else f"{said[: WIDTH - 1]}…"


def told(measured: Any) -> str:
    """What was measured, in one line."""
    if isinstance(measured, dict):
        return ", ".join(f"{name} {told(value)}" for name, value in measured.items())
    if isinstance(measured, list):
        return "; ".join(told(value) for value in measured)
    return "none" if measured in (None, "") else str(measured)
