"""What the figures of a check prove. Pure: `judge` makes of what was measured the list of checks.

A check is {name, expected, measured, ok, why}: `ok` is None where it could not be told here, and then `why` says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import MIB
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.sampling import UNSEEN_LIMIT_MS
from ansible_collections.selo.gpu_memory.script.lib.gpu_check.cuda import DEVICE_UNAVAILABLE

TOLERANCE_MIB = 8  # what page tables and the driver's rounding may add
STEPS_MIB = (64, 256, 1024, 512, 0)
SPIKES_MS, REPEATS = (10, 20, 50, 100), 5
LOWEST_MIB, APART_MIB = 64, 24  # each spike has a height of its own, by which a sample tells which one it saw
PLATEAU = (500, 640)  # ms, MiB: longer than any gap that is worth a word, and higher than every spike
SECOND_MIB = 512
LEAST_FREE_MIB = 4096  # of which less than half is ever held
NEEDED = (
    "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetIndex",
    "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetPciInfo", "nvmlDeviceGetComputeRunningProcesses",
)  # fmt: skip
Facts = Mapping[str, Any]
Check = dict[str, Any]


def spike_plan() -> list[tuple[int, int]]:
    """(ms, MiB) of each: every length several times, all heights different, then the plateau."""
    lengths = [ms for _round in range(REPEATS) for ms in SPIKES_MS]
    return [(ms, LOWEST_MIB + APART_MIB * number) for number, ms in enumerate(lengths)] + [PLATEAU]


def is_same_gpu(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two (UUID, PCI address) are of one GPU. A MIG instance has a UUID of its own, and its GPU's address."""
    return one[0].lower() == other[0].lower() or _address(one[1]) == _address(other[1]) != []


def _address(pci: str) -> list[int]:
    """NVML writes 00000000:01:00.0, CUDA 0000:01:00.0."""
    try:
        return [int(part, 16) for part in pci.replace(".", ":").split(":")]
    except ValueError:
        return []


def distribution(times: Sequence[float]) -> dict[str, Any]:
    """Of times in µs: how many, and the middle one, the one that 99 % do not exceed, and the longest."""
    ordered = sorted(times)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)], 1)

    return {"n": len(ordered), "p50_us": at(0.5), "p99_us": at(0.99), "max_us": round(ordered[-1], 1)}


def listed_pid(before: Facts, after: Facts, pid: int) -> int | None:
    """As what NVML lists our process: by its own pid, or as the one that came when it opened the GPU (a host's pid)."""
    old, new = ({row["pid"] for row in reading["processes"]} for reading in (before, after))
    came = new - old
    if pid in came:
        return pid
    return came.pop() if len(came) == 1 else None


def held_by(reading: Facts, pid: int | None) -> int | None:
    return next((row["used_mib"] for row in reading["processes"] if row["pid"] == pid), None)


def spikes_seen(sampling: Facts) -> list[Check]:
    """Each spike of the plan: how long it was held for certain, whether a sample shows it, and whether one must."""
    found = []
    for (ms, mib), (start, end) in zip(spike_plan(), sampling["held"]):
        height = sampling["gpu"]["baseline_mib"] + mib
        found.append(
            {
                "ms": ms,
                "mib": mib,
                "held_ms": round(1000 * (end - start), 2),
                "seen": any(abs(used - height) <= TOLERANCE_MIB for _at, used in sampling["gpu"]["timeline"]),
                "must": 1000 * (end - start) > sampling["gpu"]["max_gap_ms"],
            }
        )
    return found


def judge(facts: Facts) -> list[Check]:
    """All checks, in the order in which they are told."""
    checks = [
        _driver(facts), _gpu(facts), _totals(facts), _sums(facts), _v1(facts), _reserved(facts), _steps(facts),
        _process(facts), _pids(facts), _names(facts), _attributed(facts), _others(facts), _two(facts), _dies(facts),
        _accounting(facts), _calls(facts),
    ]  # fmt: skip
    for hz in facts["sampling"]:
        checks += [_gaps(facts, hz), _spikes(facts, hz), _peak(facts, hz)]
    return [*checks, _freed(facts)]


def broken(problem: str) -> Check:
    """Of a driver that failed in the middle."""
    return _check("to the end", "NVML and CUDA answer all the time", None, False, problem)


def _check(name: str, expected: str, measured: Any, ok: bool | None, why: str = "", excuse: str = "") -> Check:
    """`excuse`: why it may be otherwise here; then a check that does not hold tells nothing."""
    if ok is False and excuse:
        ok, why = None, excuse
    return {"name": name, "expected": expected, "measured": measured, "ok": ok, "why": why}


def _failed(name: str, expected: str, part: Facts, excuse: str = "") -> Check:
    """Of a part that ended with a problem."""
    return _check(name, expected, None, False, str(part["problem"]), excuse)


def _mig(facts: Facts) -> str:
    return "MIG is on: NVML shows the whole GPU, CUDA one instance of it" if facts["gpu"]["mig"] else ""


def _moved(facts: Facts) -> str:
    """Why the figures of the whole GPU may be off."""
    if facts["place"]["wsl"]:
        return "WSL 2: Windows decides what of it is in the GPU's memory"
    if facts["moved_mib"] > TOLERANCE_MIB // 2:
        return f"other processes' memory moved by {facts['moved_mib']} MiB meanwhile; try again on a quiet GPU"
    return _mig(facts)


def _no_figures(facts: Facts) -> str:
    """Why the figures of processes may be missing."""
    if facts["place"]["wsl"]:
        return "WSL 2: the driver gives no figures of processes"
    if facts["gpu"]["memory_api"] == "v1":
        return "a driver before R510: the bindings list no processes"
    if facts["place"]["own_pids"]:
        return "a container with pids of its own: NVML may list the host's, or hide this one"
    return _mig(facts)


def _readings(facts: Facts) -> list[Facts]:
    second = facts["second"]
    return [
        facts["before"], facts["opened"], *facts["steps"],
        *(second[part] for part in ("held", "died") if part in second), facts["after"],
    ]  # fmt: skip


def has_mps(reading: Facts) -> bool:
    return any(row["kind"] == "mps" for row in reading["processes"])


def _listed(facts: Facts) -> int | None:
    return listed_pid(facts["before"], facts["opened"], facts["holder"]["pid"])


def _driver(facts: Facts) -> Check:
    return _check("driver", "the product's reader and CUDA answer", facts["versions"], True)


def _gpu(facts: Facts) -> Check:
    nvml, cuda = facts["gpu"], facts["holder"]
    measured = {
        "same_name": nvml["name"] == cuda["name"],
        "same_uuid": nvml["uuid"].lower() == cuda["uuid"].lower(),
        "same_address": _address(nvml["pci_bus_id"]) == _address(cuda["pci"]),
    }
    good = all(measured.values())
    measured = {**measured, "nvml": [nvml["name"], nvml["pci_bus_id"]], "cuda": [cuda["name"], cuda["pci"]]}
    return _check("gpu", "NVML and CUDA give one name, UUID and PCI address", measured, good, excuse=_mig(facts))


def _totals(facts: Facts) -> Check:
    nvml, cuda = facts["gpu"]["total_mib"], facts["holder"]["total_mib"]
    measured = {"nvml_mib": nvml, "cuda_mib": cuda, "reserved_mib": facts["gpu"]["reserved_mib"]}
    return _check(
        "totals", "CUDA's total is NVML's less what the driver keeps (at most 10 %)", measured,
        0.9 * nvml <= cuda <= nvml, excuse=_mig(facts),
    )  # fmt: skip


def _sums(facts: Facts) -> Check:
    memories = [reading["memory"] for reading in _readings(facts)]
    off = max(abs(one["total"] - one["used"] - one["free"] - (one["reserved"] or 0)) for one in memories)
    return _check(
        "sums", "total = used + free + reserved in each reading, ± 1 MiB",
        {"readings": len(memories), "most_off_bytes": off}, off <= MIB,
    )  # fmt: skip


def _v1(facts: Facts) -> Check:
    expected = "used of memory v1 is used + reserved of v2"
    pairs = [(one["v1_used"], one["memory"]) for one in _readings(facts) if one["v1_used"] is not None]
    if not pairs or pairs[0][1]["reserved"] is None:
        return _check("memory v1", expected, None, None, "this driver has one version of the call")
    off = max(abs(v1 - memory["used"] - memory["reserved"]) for v1, memory in pairs)
    measured = {"readings": len(pairs), "most_off_mib": _mib(off)}
    return _check("memory v1", expected, measured, off <= TOLERANCE_MIB * MIB, excuse=_moved(facts))


def _reserved(facts: Facts) -> Check:
    expected = "what the driver reserves does not follow what processes hold"
    values = [reading["memory"]["reserved"] for reading in _readings(facts)]
    if values[0] is None:
        return _check("reserved", expected, None, None, "this driver does not tell it (before R510)")
    measured = {"least_mib": _mib(min(values)), "most_mib": _mib(max(values))}
    return _check("reserved", expected, measured, max(values) - min(values) <= TOLERANCE_MIB * MIB)


def _steps(facts: Facts) -> Check:
    start = facts["opened"]["memory"]["used"]
    rows = [
        {"mib": step["mib"], "used_more_mib": _mib(step["memory"]["used"] - start), "after_ms": step["after_ms"]}
        for step in facts["steps"]
    ]
    good = all(row["after_ms"] is not None for row in rows)
    return _check("steps", "used rises and falls by what is held", rows, good, excuse=_moved(facts))


def _process(facts: Facts) -> Check:
    expected, pid = "the process's figure rises and falls by what it holds", _listed(facts)
    start = held_by(facts["opened"], pid)
    held = [held_by(step, pid) for step in facts["steps"]]
    if start is None or None in held:
        return _check("process", expected, None, False, "NVML gives no figure of it", _no_figures(facts))
    rows = [{"mib": step["mib"], "more_mib": (now or 0) - start} for step, now in zip(facts["steps"], held)]
    good = all(abs(row["more_mib"] - row["mib"]) <= TOLERANCE_MIB for row in rows)
    return _check("process", expected, {"context_mib": start, "steps": rows}, good, excuse=_mig(facts))


def _pids(facts: Facts) -> Check:
    pid, listed = facts["holder"]["pid"], _listed(facts)
    measured = {"own": pid, "listed": listed}
    why = "" if listed == pid else "NVML does not list it" if listed is None else "NVML lists it by another pid"
    excuse = f"{why}; {_no_figures(facts)}" if why and _no_figures(facts) else ""
    return _check("pids", "NVML lists a process by the pid that it has here", measured, listed == pid, why, excuse)


def _names(facts: Facts) -> Check:
    expected, holder, name = "NVML and the product name the program", facts["holder"], facts["name"]
    if _listed(facts) != holder["pid"]:
        return _check("names", expected, None, None, "it is not listed by its pid, which may be somebody else's there")
    measured = {"nvml": name["nvml"], "product": name["product"], "program": holder["program"]}
    known = (holder["program"], holder["called"], holder["comm"])  # the file, or a link to it
    good = name["product"] == holder["comm"] and (name["nvml"] in known or name["nvml"] is None)
    return _check("names", expected, measured, good, name["error"] or "", _no_figures(facts))


def _attributed(facts: Facts) -> Check:
    expected = "the processes' figures are no more than what is used"
    rests = []
    for reading in _readings(facts):
        figures = [row["used_mib"] for row in reading["processes"]]
        if None not in figures:
            rests.append(_mib(reading["memory"]["used"]) - sum(figures))
    if not rests:
        return _check("not attributed", expected, None, None, "NVML gives no figure of some processes")
    measured = {"least_mib": min(rests), "most_mib": max(rests)}
    return _check("not attributed", expected, measured, min(rests) >= -TOLERANCE_MIB, excuse=_moved(facts))


def _others(facts: Facts) -> Check:
    """Counted alone: whose processes they are is nobody's business."""
    rows = facts["before"]["processes"]
    measured = {
        "listed": len(rows),
        "not_in_proc": facts["place"]["strangers"],
        "without_name": sum(row["name"] is None for row in rows),
        "without_figure": sum(row["used_mib"] is None for row in rows),
    }
    why = "" if rows else "nobody else uses this GPU, or NVML hides it"
    return _check("other processes", "other containers' processes are listed", measured, True if rows else None, why)


def _exclusive(part: Facts) -> str:
    return "the GPU's compute mode lets one process use it" if part.get("code") == DEVICE_UNAVAILABLE else ""


def _two(facts: Facts) -> Check:
    expected, second = "two processes are told apart, each with what it holds", facts["second"]
    if "held" not in second:
        return _failed("two processes", expected, second, _exclusive(second))
    pids = [_listed(facts), listed_pid(facts["steps"][-1], second["opened"], second["holder"]["pid"])]
    starts = [held_by(second["opened"], pid) for pid in pids]
    held = [held_by(second["held"], pid) for pid in pids]
    if None in starts or None in held:
        return _check("two processes", expected, None, False, "NVML gives no figures of them", _no_figures(facts))
    more = [(now or 0) - (start or 0) for now, start in zip(held, starts)]
    good = abs(more[0]) <= TOLERANCE_MIB and abs(more[1] - SECOND_MIB) <= TOLERANCE_MIB
    return _check(
        "two processes", expected, {"first_more_mib": more[0], "second_more_mib": more[1]}, good, excuse=_mig(facts)
    )


def _dies(facts: Facts) -> Check:
    expected, second = "what a killed process held is free again, and it is no longer listed", facts["second"]
    if second.get("spared"):
        return _check(
            "a process that dies", expected, None, None, "MPS serves this GPU: killing its client may harm others"
        )
    if "died" not in second:
        return _failed("a process that dies", expected, second, _exclusive(second))
    pid = listed_pid(facts["steps"][-1], second["opened"], second["holder"]["pid"])
    gone = pid not in {row["pid"] for row in second["died"]["processes"]}
    measured = {"after_ms": second["died"]["after_ms"], "still_listed": not gone}
    good = second["died"]["after_ms"] is not None and gone
    return _check("a process that dies", expected, measured, good, excuse=_moved(facts))


def _accounting(facts: Facts) -> Check:
    expected = "accounting's peak is no less than what a process held, and stays when it has been killed"
    row, killed = facts["accounting"], facts["second"].get("accounting")
    if row["mode"] != "enabled":
        why = {"disabled": "accounting is off, and is not switched on here"}.get(row["mode"], "this GPU has none")
        return _check("accounting", expected, {"mode": row["mode"]}, None, why)
    held = (held_by(facts["opened"], _listed(facts)) or 0) + max(STEPS_MIB)
    good = (row["peak_mib"] or 0) >= held - TOLERANCE_MIB
    measured = {"held_mib": held, "peak_mib": row["peak_mib"]}
    if killed:
        good = good and (killed["peak_mib"] or 0) >= SECOND_MIB and killed["running"] is False
        measured.update(killed_peak_mib=killed["peak_mib"], killed_is_running=killed["running"])
    return _check("accounting", expected, measured, good, row["error"] or "", _no_figures(facts))


def _calls(facts: Facts) -> Check:
    calls = facts["costs"]["calls"]
    missing = {name: cost["error"] for name, cost in calls.items() if cost["error"]}
    memory = any(not calls[f"nvmlDeviceGetMemoryInfo {version}"]["error"] for version in ("v1", "v2"))
    good = memory and not any(name in missing for name in NEEDED)
    measured = {"made": len(calls), "not_available": missing}
    expected = "every call that the product cannot do without is there"
    return _check("calls", expected, measured, good, excuse=_no_figures(facts))


def _gaps(facts: Facts, hz: str) -> Check:
    name, expected = f"gaps at {hz} Hz", f"no longer than the product allows ({UNSEEN_LIMIT_MS} ms)"
    sampling = facts["sampling"][hz]
    if "problem" in sampling:
        return _failed(name, expected, sampling)
    gpu = sampling["gpu"]
    measured = {key: gpu[key] for key in ("samples", "interval_ms", "max_gap_ms", "errors")}
    good = gpu["samples"] > 0 and gpu["max_gap_ms"] <= UNSEEN_LIMIT_MS and not gpu["error"]
    return _check(name, expected, measured, good, gpu["error"] or "")


def _spikes(facts: Facts, hz: str) -> Check:
    name, expected = f"spikes at {hz} Hz", "every spike that was held for longer than the longest gap is seen"
    sampling = facts["sampling"][hz]
    if "problem" in sampling:
        return _failed(name, expected, sampling)
    spikes = spikes_seen(sampling)
    by_length: dict[str, str] = {}
    for ms in (*SPIKES_MS, PLATEAU[0]):
        of = [spike for spike in spikes if spike["ms"] == ms]
        by_length[f"{ms} ms"] = f"{sum(spike['seen'] for spike in of)} of {len(of)}"
    must = [spike for spike in spikes if spike["must"]]
    if not must:
        return _check(name, expected, by_length, None, "no spike was longer than the longest gap: this machine is busy")
    return _check(name, expected, by_length, all(spike["seen"] for spike in must), excuse=_moved(facts))


def _peak(facts: Facts, hz: str) -> Check:
    name, expected = f"peak at {hz} Hz", f"the peak is the plateau's, {PLATEAU[1]} MiB over the baseline"
    sampling = facts["sampling"][hz]
    if "problem" in sampling:
        return _failed(name, expected, sampling)
    gpu = sampling["gpu"]
    measured = {"more_mib": gpu["peak_used_mib"] - gpu["baseline_mib"]}
    good = abs(measured["more_mib"] - PLATEAU[1]) <= TOLERANCE_MIB
    return _check(name, expected, measured, good, excuse=_moved(facts))


def _freed(facts: Facts) -> Check:
    more = _mib(facts["after"]["memory"]["used"] - facts["opened"]["memory"]["used"])
    good = abs(more) <= TOLERANCE_MIB
    return _check("freed", "in the end as much is used as before", {"more_mib": more}, good, excuse=_moved(facts))


def _mib(count: int) -> int:
    return round(count / MIB)
