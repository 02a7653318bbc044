# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sampling GPU memory in a child process while something else loads the GPUs, and what the samples prove.

The first half is arithmetic on finished series, the second the child's loop, the third the parent's side of it.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import select
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking, series
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.library import LIBRARY
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuProcess
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import (
        Accounted,
        AccountedNow,
        PeakProcess,
        Progress,
        Sampled,
        SampledGpu,
        WatchedProcess,
    )

TIMELINE_POINTS = 500
LISTING_INTERVAL_S = 1.0
UNSEEN_LIMIT_MS = 2000  # a GPU that went unread for longer than this may have done anything
PROGRESS_INTERVAL_S = 0.5
ENDED_PROCESSES_KEPT = 128  # the driver forgets older ones, whatever its buffer size says
EVIDENCE = ("none", "sampled", "bounded")  # weakest first


def next_tick(started: float, interval_s: float, now: float) -> float:
    """The next moment of the schedule after `now`; moments that were missed are not caught up."""
    return started + (math.floor((now - started) / interval_s) + 1) * interval_s


class Samples:
    """The reads of one GPU, in memory that does not grow with their number.

    Times are seconds of the monotonic clock, memory is bytes. Attributes: `count`, `first` and `peak` (memory), and
    `peak_at`, when the peak was first read.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = self.peak = self.peak_at = 0.0
        self._first_end = self._last_begin = self._gap = 0.0
        # A line of twice the points that are wanted; each stands for the highest of `_run` reads.
        self._times, self._highest = array("d"), array("d")
        self._run, self._in_run = 1, 0

    def add(self, begin: float, end: float, used: float) -> None:
        """A read that lasted from `begin` to `end`."""
        if self.count:
            self._gap = max(self._gap, end - self._last_begin)
        else:
            self._first_end, self.first = end, used
        self.count += 1
        self._last_begin = begin
        if used > self.peak:
            self.peak, self.peak_at = used, end
        if self._in_run == 0:
            self._times.append(end)
            self._highest.append(used)
        elif used > self._highest[-1]:
            self._times[-1], self._highest[-1] = end, used
        self._in_run = (self._in_run + 1) % self._run
        if self._in_run == 0 and len(self._times) == 2 * TIMELINE_POINTS:
            halved = series.timeline(self._times, self._highest, TIMELINE_POINTS)
            self._times, self._highest = (array("d", values) for values in zip(*halved))
            self._run *= 2

    def max_gap_s(self, started: float, ended: float) -> float:
        """The longest time for which something may have gone unseen, in a watch from `started` to `ended`.

        A read shows one moment between its begin and its end, so whatever lasts longer than from the begin of one read
        to the end of the next was seen.
        """
        if not self.count:
            return ended - started
        return max(self._first_end - started, ended - self._last_begin, self._gap)

    def line(self) -> list[tuple[float, float]]:
        """At most `TIMELINE_POINTS` pairs (time, used), the peak among them."""
        return series.timeline(self._times, self._highest, TIMELINE_POINTS)


def accounted_in_window(
    before: Mapping[tuple[int, int], Accounted], after: Mapping[tuple[int, int], Accounted]
) -> dict[int, AccountedNow]:
    """Of two readings of accounting, by (pid, start): what lived between them, by pid, as peak bytes and `grew`.

    `grew` means that the peak was reached between the two readings.
    """
    lived: dict[int, AccountedNow] = {}
    for key, row in sorted(after.items(), key=lambda item: item[0][1]):
        known = before.get(key)
        if known is None or known["running"]:
            lived[key[0]] = {"peak": row["peak"], "grew": known is None or row["peak"] > known["peak"]}
    return lived


def accounted_peak_mib(row: AccountedNow | None, sampled_mib: int | None) -> int | None:
    """A process's accounted peak, if it can be believed: drivers may count nothing for a process in a container."""
    peak_mib = port.mib_up(row["peak"]) if row else 0
    return peak_mib if peak_mib > 0 and peak_mib >= (sampled_mib or 0) else None


def bound_mib(processes: Sequence[PeakProcess], others_mib: int, ended: int) -> int | None:
    """The most a GPU can have held: the sum of all processes' accounted peaks and what belongs to no process.

    None if accounting does not cover it: a process without an accounted peak (it started before accounting was on, or
    in a container), or so many `ended` ones that the driver may have forgotten some.
    """
    peaks: list[int | None] = [process["accounting_peak_mib"] for process in processes]
    known = [peak for peak in peaks if peak is not None]
    return sum(known) + others_mib if len(known) == len(peaks) and ended < ENDED_PROCESSES_KEPT else None


def evidence(gpu: SampledGpu, max_used_mib: int | None) -> str:
    """What the figures of one GPU prove: `none`, `sampled` (a lower bound) or `bounded` (it cannot have been more)."""
    if blindness(gpu):
        return "none"
    if max_used_mib is not None and gpu["bound_mib"] is not None and gpu["bound_mib"] <= max_used_mib:
        return "bounded"
    return "sampled"


def blindness(gpu: SampledGpu) -> str | None:
    """Why the figures of one GPU prove nothing."""
    if gpu["error"]:
        return str(gpu["error"])
    if not gpu["samples"]:
        return "its memory was never read"
    if gpu["max_gap_ms"] > UNSEEN_LIMIT_MS:
        return f"its memory went unread for {gpu['max_gap_ms'] / 1000:.1f} s {dict(gpu['errors']) or ''}".rstrip()
    return None


def summary(gpus: Sequence[SampledGpu], max_used_mib: int | None) -> Sampled:
    """The figures of all GPUs as one: the highest peak, the weakest evidence, the worst gap."""
    sampled = [gpu for gpu in gpus if gpu["samples"]]
    processes = ({"gpu": gpu["index"], **process} for gpu in gpus for process in gpu.get("processes") or [])
    of_each = [
        {**{name: value for name, value in gpu.items() if name != "processes"}, "evidence": evidence(gpu, max_used_mib)}
        for gpu in gpus
    ]
    highest = max(sampled, key=lambda gpu: gpu["peak_used_mib"] or 0, default=None)
    return {
        "peak_used_mib": highest["peak_used_mib"] if highest else None,
        "samples": min((gpu["samples"] for gpu in gpus), default=0),
        "interval_ms": max((gpu["interval_ms"] for gpu in gpus), default=None),
        "max_gap_ms": max((gpu["max_gap_ms"] for gpu in gpus), default=None),
        "evidence": min((evidence(gpu, max_used_mib) for gpu in gpus), key=EVIDENCE.index, default="none"),
        "timeline": highest["timeline"] if highest else [],
        "processes": sorted(cast("Sequence[PeakProcess]", processes), key=lambda process: -(process["peak_mib"] or 0)),
        "gpus": cast("list[SampledGpu]", of_each),
    }


def breaches(gpus: Sequence[SampledGpu], max_used_mib: int | None) -> list[str]:
    """A sentence for each GPU that was over the threshold, or of which nothing is known."""
    found = []
    for gpu in gpus:
        name = f"GPU {gpu['index']} ({gpu['uuid']})"
        if gpu["samples"] and max_used_mib is not None:
            if (gpu["peak_used_mib"] or 0) > max_used_mib:
                found.append(
                    f"{name}: {gpu['peak_used_mib']} of at most {max_used_mib} MiB used at t={gpu['peak_at_s']:.1f} s"
                )
            else:
                found += [
                    f"{name}: {process['name'] or 'process'} ({process['pid']}) alone held "
                    f"{process['accounting_peak_mib']} of at most {max_used_mib} MiB, says NVML's accounting"
                    for process in gpu["processes"]
                    if process["accounting_grew"] and (process["accounting_peak_mib"] or 0) > max_used_mib
                ]
        if blindness(gpu):
            found.append(f"{name}: no evidence: {blindness(gpu)}")
    return found


def runner_command(pid: int) -> list[str] | None:
    """What may be shown of the command line of one of Ollama's runners; None for any other process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = [word.decode(errors="replace") for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return None
    return masking.shown_command(command) if servers.is_runner(command) else None


class Moment(NamedTuple):
    """One listing of a GPU's processes, and the memory beside it.

    `settled`: memory was the same before and after it. Where it was not, the higher read stands, so that what came or
    went while the processes were listed is in no process's name; a listing that has even more than that counts for
    nothing (`parts.split`).
    """

    at: float
    memory: port.Memory
    settled: bool
    processes: Sequence[GpuProcess]

    def is_nearer_to_the_peak(self, other: Moment | None) -> bool:
        """Higher than the one that is kept; of two as high the first settled one."""
        return other is None or (self.memory.used, self.settled) > (other.memory.used, other.settled)


class _Watch:
    """One GPU: its samples and who used it. Lives in the child."""

    def __init__(self, library: port.OpenLibrary, gpu: port.OpenGpu) -> None:
        self._library, self._gpu = library, gpu
        self._samples = Samples()
        self._errors: Counter[str] = Counter()
        self._problems: dict[str, port.GpuProblem] = {}
        self._failing: str | None = None
        self._processes: dict[tuple[int, str | None], WatchedProcess] = {}
        self._listed_used, self._listed_at, self._others_mib = -1.0, -math.inf, 0
        self._at_most: Moment | None = None
        self.index, self.uuid, self.memory_api, self._read = gpu.index, gpu.uuid, gpu.memory_api, gpu.memory
        self._memory = self._read()
        self._accounting = gpu.accounting()

    def sample(self, begin: float) -> float:
        """Read once; the time after it. This is the fast path."""
        try:
            memory = self._read()
        except Exception as problem:
            self._failed(problem)
            return time.monotonic()
        end = time.monotonic()
        self._samples.add(begin, end, memory.used)
        self._failing = None
        self._memory = memory
        return end

    @property
    def last(self) -> float:
        return self._memory.used

    @property
    def peak(self) -> float:
        return self._samples.peak

    def list_on_new_maximum(self, now: float) -> None:
        if self.last > self._listed_used and now - self._listed_at >= LISTING_INTERVAL_S:
            self.list_processes(now)

    def list_processes(self, now: float) -> None:
        """List them right after a sample and before another one, so that it is known what was used meanwhile."""
        before, rows, listed = self._memory, [], True
        try:
            rows = self._gpu.processes()
        except Exception as problem:
            listed = False
            self._failed(problem)
        self.sample(time.monotonic())
        moment = Moment(now, port.beside(before, self._memory), before.used == self._memory.used, rows)
        if listed and moment.is_nearer_to_the_peak(self._at_most):
            self._at_most = moment
        self._listed_at = now
        if moment.settled:  # else it is listed again, if there is still as much
            self._listed_used = max(self._listed_used, self.last)
        listed_mib = sum(row["used_mib"] or 0 for row in rows)
        self._others_mib = max(self._others_mib, port.mib_up(int(self.last)) - listed_mib)
        for row in rows:
            known = self._processes.setdefault(
                (row["pid"], row["name"]),
                {
                    "pid": row["pid"],
                    "name": row["name"],
                    "kind": row["kind"],
                    "peak_mib": None,
                    "command": runner_command(row["pid"]),
                },
            )
            if row["used_mib"] is not None:
                known["peak_mib"] = max(known["peak_mib"] or 0, row["used_mib"])

    def result(self, started: float, ended: float, interval_s: float) -> SampledGpu:
        seen = self._samples
        processes, bound = self._account()
        at_most = self._at_most or Moment(started, self._memory, False, [])
        return {
            "index": self.index,
            "uuid": self.uuid,
            "total_mib": self._memory.total // port.MIB,
            "reserved_mib": None if self._memory.reserved is None else port.mib_up(self._memory.reserved),
            "memory_api": self.memory_api,
            "baseline_mib": port.mib_up(int(seen.first)) if seen.count else None,
            "peak_used_mib": port.mib_up(int(seen.peak)) if seen.count else None,
            "peak_at_s": round((seen.peak_at if seen.peak else started) - started, 3) if seen.count else None,
            "at_most": {
                "at_s": round(at_most.at - started, 3),
                "memory": at_most.memory.as_dict(),
                "processes": [
                    {"pid": row["pid"], "name": row["name"], "used_bytes": row["used_bytes"]}
                    for row in at_most.processes
                ],
            },
            "bound_mib": bound,
            "samples": seen.count,
            "interval_ms": round(1000 * interval_s, 2),
            "max_gap_ms": round(1000 * seen.max_gap_s(started, ended), 2),
            "errors": dict(self._errors),
            "error": self._error(),
            "timeline": [[round(at - started, 3), port.mib_up(int(used))] for at, used in seen.line()],
            "processes": processes,
        }

    def _failed(self, problem: Exception) -> None:
        name = self._library.error_name(problem)
        self._errors[name] += 1
        self._failing = name
        if name not in self._problems:
            self._problems[name] = self._library.explain(problem)

    def _error(self) -> str | None:
        """That it was lost at any time, or what fails now."""
        lost = next((problem for problem in self._problems.values() if problem.status == "gpu_lost"), None)
        found = lost or self._problems.get(self._failing or "")
        return str(found) if found else None

    def _account(self) -> tuple[list[PeakProcess], int | None]:
        """All processes of the watch with both their peaks, and the bound that follows."""
        before, after = self._accounting, self._gpu.accounting()
        lived = accounted_in_window(before, after) if before is not None and after is not None else None
        listed = {pid for pid, _unused in self._processes}
        for pid in lived or {}:
            if pid not in listed:  # it came and went between two listings
                self._processes[pid, None] = {
                    "pid": pid, "name": None, "kind": "compute", "peak_mib": None, "command": None,
                }  # fmt: skip
        processes: list[PeakProcess] = []
        for process in self._processes.values():
            row = (lived or {}).get(process["pid"])
            peak_mib = accounted_peak_mib(row, process["peak_mib"])
            processes.append(
                {
                    "pid": process["pid"],
                    "name": process["name"],
                    "kind": process["kind"],
                    "peak_mib": process["peak_mib"],
                    "command": process["command"],
                    "accounting_peak_mib": peak_mib,
                    "accounting_grew": bool(peak_mib and row and row["grew"]),
                }
            )
        ended = sum(not row["running"] for row in (after or {}).values())
        return processes, None if lived is None else bound_mib(processes, self._others_mib, ended)


def _choose(library: port.OpenLibrary, wanted: Sequence[str], of: str) -> list[_Watch]:
    """The GPUs to watch: all, or those named by index or UUID, each once. `of`: the library's name."""
    count = library.count()
    if not count:
        raise port.GpuProblem("error", f"{of} shows no GPU")
    watches: dict[str, _Watch] = {}
    for name in wanted or [str(index) for index in range(count)]:
        try:
            watch = _Watch(library, library.gpu(name))
        except LookupError:
            raise port.GpuProblem(
                "error", f"no GPU {name} here: it must be an index below {count} or the UUID of a GPU"
            ) from None
        except Exception as problem:
            found = library.explain(problem)
            raise port.GpuProblem(found.status, f"GPU {name}: {found}") from None
        watches[watch.uuid] = watch
    return sorted(watches.values(), key=lambda watch: watch.index)


def _come_first() -> None:
    """Ahead of all that keeps the cores busy, which would be gaps: in real time, for far below a percent of a core.

    Only root may, and not in every container or control group; a gap says what came of it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    except OSError:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)


def _sample(
    send: child_process.Send,
    lifeline: int,
    wanted: Sequence[str],
    interval_s: float,
    bindings_path: str | None,
    source: port.GpuLibrary,
) -> None:
    """The child: sample until the parent lets go, then send the result."""
    try:
        watches = _choose(source.connect(bindings_path), wanted, source.NAME)
    except port.GpuProblem as problem:
        send({"kind": "problem", "status": problem.status, "message": str(problem)})
        return
    gc.freeze()
    gc.disable()  # nothing below makes cycles, and a collection is a gap
    _come_first()
    started = now = time.monotonic()
    for watch in watches:
        watch.list_processes(now)
    send({"kind": "started"})
    ticks, progress_due = 0, now
    while not select.select([lifeline], [], [], max(0.0, next_tick(started, interval_s, now) - time.monotonic()))[0]:
        ticks += 1
        now = time.monotonic()
        for watch in watches:
            now = watch.sample(now)
        for watch in watches:
            watch.list_on_new_maximum(now)
        if now >= progress_due:
            progress_due = now + PROGRESS_INTERVAL_S
            figures = {
                "t_s": round(now - started, 1),
                "used_mib": port.mib_up(int(max(watch.last for watch in watches))),
                "peak_used_mib": port.mib_up(int(max(watch.peak for watch in watches))),
            }
            send({"kind": "progress", "figures": figures})
    achieved_s = (now - started) / max(1, ticks)
    for watch in watches:
        watch.list_processes(now)
    ended = time.monotonic()
    send({"kind": "result", "gpus": [watch.result(started, ended, achieved_s) for watch in watches]})


class Sampler:
    """Samples the chosen GPUs from `start` to `stop`. Start it before any thread exists."""

    def __init__(
        self,
        gpus: Sequence[str] = (),
        interval_ms: int = 50,
        bindings_path: str | None = None,
        library: port.GpuLibrary = LIBRARY,
    ) -> None:
        self._library, self._arguments = library, (tuple(gpus), interval_ms / 1000, bindings_path, library)
        self._child: child_process.Child | None = None

    def start(self, timeout_s: float = 20) -> None:
        """Return once the first samples are taken; GpuProblem if there can be none."""
        self._child = child_process.Child(lambda send, lifeline: _sample(send, lifeline, *self._arguments))
        self._expect("started", timeout_s)

    def progress(self, timeout_s: float) -> Progress | None:
        """The next t_s, used_mib and peak_used_mib (highest over the GPUs), about twice a second; None if none came.

        GpuProblem if the sampler crashed.
        """
        message = self._receive(timeout_s)
        return message["figures"] if message and message["kind"] == "progress" else None

    def stop(self, timeout_s: float = 10) -> list[SampledGpu]:
        """Take the last samples and return the figures of each GPU; GpuProblem if the sampler crashed or hangs."""
        self._started().let_go()
        gpus: list[SampledGpu] = self._expect("result", timeout_s)["gpus"]
        return gpus

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _started(self) -> child_process.Child:
        if self._child is None:
            raise RuntimeError("the sampler was not started")
        return self._child

    def _expect(self, kind: str, timeout_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while True:
            message = self._receive(deadline - time.monotonic())
            if message is None:
                raise self._library.ended(child_process.ChildTimedOut(f"no answer within {timeout_s:g} s"))
            if message["kind"] == kind:
                return message

    def _receive(self, timeout_s: float) -> dict[str, Any] | None:
        try:
            message = self._started().receive(timeout_s)
        except child_process.ChildCrashed as problem:
            raise self._library.ended(problem) from None
        if message and message["kind"] == "problem":
            raise port.GpuProblem(message["status"], message["message"])
        return message
