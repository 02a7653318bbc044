from __future__ import annotations

import bisect
import contextlib
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port, sampling
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import MIB
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_gpus import (
    RecordedGpu,
    RecordedLibrary,
)
from hypothesis import given
from hypothesis import strategies as st


def samples_of(begins: Sequence[float], ends: Sequence[float]) -> sampling.Samples:
    samples = sampling.Samples()
    for begin, end in zip(begins, ends):
        samples.add(begin, end, 0)
    return samples


@pytest.mark.parametrize(
    ("now", "expected"),
    [(100.0, 100.25), (100.2, 100.25), (100.25, 100.5), (100.3, 100.5), (103.9, 104.0)],
)
def test_the_schedule_neither_drifts_nor_catches_up(now: float, expected: float) -> None:
    assert sampling.next_tick(100.0, 0.25, now) == expected


@pytest.mark.parametrize(
    ("begins", "ends", "expected"),
    [
        ([], [], 10.0),
        ([0.0], [0.5], 10.0),
        ([1.0, 2.0, 9.0], [1.5, 2.5, 9.5], 7.5),  # from the begin at 2 to the end at 9.5
        ([4.0, 5.0, 9.0], [4.5, 5.5, 9.5], 4.5),  # here the watch began long before the first read
        ([0.0, 2.0, 4.0], [0.5, 2.5, 4.5], 6.0),  # and here it went on long after the last
    ],
)
def test_gap(begins: list[float], ends: list[float], expected: float) -> None:
    assert samples_of(begins, ends).max_gap_s(0.0, 10.0) == expected


@given(
    steps=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 100)), min_size=1),
    tail=st.integers(0, 50),
    first=st.integers(0, 10_000),
    excess=st.integers(1, 100),
)
def test_whatever_lasts_longer_than_the_gap_is_seen(
    steps: list[tuple[int, int, int]], tail: int, first: int, excess: int
) -> None:
    """Reads that take up to 50 and see some moment of that (in percent), with pauses of up to 50 between them."""
    clock, begins, ends, moments = 0, [], [], []
    for pause, length, percent in steps:
        begins.append(clock + pause)
        clock += pause + length
        ends.append(clock)
        moments.append(begins[-1] + length * percent / 100)
    ended = clock + tail
    gap = samples_of(begins, ends).max_gap_s(0, ended)
    spike = (first % (ended + 1), first % (ended + 1) + gap + excess)
    if spike[1] <= ended:
        seen = bisect.bisect_left(moments, spike[0])
        assert seen < len(moments)
        assert moments[seen] < spike[1]


@pytest.mark.parametrize("number", [1, 499, 500, 999, 1000, 1001, 40_000])
def test_samples_take_no_more_room_the_more_there_are(number: int) -> None:
    samples = sampling.Samples()
    used = [(at * 7919) % 1000 for at in range(number)]
    used[number // 3] = 5000
    for at, mib in enumerate(used):
        samples.add(at - 0.5, at, mib)
    assert (samples.count, samples.first, samples.peak, samples.peak_at) == (number, used[0], 5000, number // 3)
    assert len(samples._times) <= 2 * sampling.TIMELINE_POINTS
    line = samples.line()
    assert len(line) <= sampling.TIMELINE_POINTS and (number // 3, 5000) in line
    assert [at for at, _mib in line] == sorted({at for at, _mib in line})
    assert all(used[int(at)] == mib for at, mib in line)
    if number <= sampling.TIMELINE_POINTS:
        assert line == list(enumerate(used))


def accounted(peak: int, running: bool = True) -> dict[str, Any]:
    return {"peak": peak, "running": running}


def test_accounting_of_the_window() -> None:
    before = {(1, 10): accounted(5), (2, 10): accounted(6), (3, 10): accounted(9, running=False), (4, 10): accounted(1)}
    after = {
        (1, 10): accounted(5),  # its peak is older than the watch
        (2, 10): accounted(7, running=False),  # grew, then ended
        (3, 10): accounted(9, running=False),  # had ended before
        (4, 10): accounted(1, running=False),
        (4, 99): accounted(8),  # another process with a reused pid
        (5, 50): accounted(2, running=False),  # came and went
    }
    assert sampling.accounted_in_window(before, after) == {
        1: {"peak": 5, "grew": False},
        2: {"peak": 7, "grew": True},
        4: {"peak": 8, "grew": True},
        5: {"peak": 2, "grew": True},
    }


@pytest.mark.parametrize(
    ("peak", "sampled_mib", "believed_mib"),
    [(None, 5, None), (0, None, None), (0, 5, None), (4, 5, None), (5, 5, 5), (9, 5, 9), (9, None, 9)],
)
def test_an_accounted_peak_below_the_sampled_one_is_not_believed(
    peak: int | None, sampled_mib: int | None, believed_mib: int | None
) -> None:
    row = None if peak is None else accounted(peak * 1024 * 1024)
    assert sampling.accounted_peak_mib(row, sampled_mib) == believed_mib


@pytest.mark.parametrize(
    ("peaks", "others", "ended", "bound"),
    [
        ([], 0, 0, 0),
        ([3000, 500], 20, 0, 3520),
        ([3000, None], 20, 0, None),  # a process that accounting does not cover
        ([3000], 20, 128, None),  # the driver may have forgotten ended ones
    ],
)
def test_bound(peaks: list[int | None], others: int, ended: int, bound: int | None) -> None:
    assert sampling.bound_mib([{"accounting_peak_mib": peak} for peak in peaks], others, ended) == bound


def figures(**changes: Any) -> dict[str, Any]:
    """The figures of a GPU as the child sends them."""
    return {
        "index": 0,
        "uuid": "GPU-a",
        "peak_used_mib": 12288,
        "peak_at_s": 4.21,
        "bound_mib": None,
        "samples": 100,
        "interval_ms": 50.0,
        "max_gap_ms": 61.0,
        "errors": {},
        "error": None,
        "timeline": [[0.0, 800]],
        "processes": [],
        **changes,
    }


def process(**changes: Any) -> dict[str, Any]:
    known = {"pid": 7, "name": "server", "kind": "compute", "command": None}
    return {**known, "peak_mib": 100, "accounting_peak_mib": None, "accounting_grew": False, **changes}


@pytest.mark.parametrize(
    ("changes", "evidence"),
    [
        ({}, "sampled"),
        ({"bound_mib": 12288}, "bounded"),
        ({"bound_mib": 12289}, "sampled"),
        ({"samples": 0, "peak_used_mib": None}, "none"),
        ({"error": "the GPU is lost"}, "none"),
        ({"error": "the GPU is lost", "bound_mib": 1}, "none"),
        ({"max_gap_ms": 2000.1}, "none"),
    ],
)
def test_evidence(changes: dict[str, Any], evidence: str) -> None:
    gpu = figures(**changes)
    assert sampling.evidence(gpu, 12288) == evidence
    assert bool(sampling.breaches([gpu], 12288)) == (evidence == "none"), "none is never a pass"


def test_without_a_threshold_nothing_is_bounded() -> None:
    assert sampling.evidence(figures(bound_mib=1), None) == "sampled"


@pytest.mark.parametrize(
    ("gpu", "sentence"),
    [
        (figures(), None),
        (figures(peak_used_mib=12711), "GPU 0 (GPU-a): 12711 of at most 12288 MiB used at t=4.2 s"),
        (
            figures(processes=[process(accounting_peak_mib=13000, accounting_grew=True)]),
            "GPU 0 (GPU-a): server (7) alone held 13000 of at most 12288 MiB, says NVML's accounting",
        ),
        (figures(processes=[process(accounting_peak_mib=13000)]), None),  # that peak is older than the watch
        (figures(error="it is lost"), "GPU 0 (GPU-a): no evidence: it is lost"),
        (figures(samples=0, peak_used_mib=None), "GPU 0 (GPU-a): no evidence: its memory was never read"),
        (
            figures(max_gap_ms=5000.0, errors={"NVML_ERROR_UNKNOWN": 3}),
            "GPU 0 (GPU-a): no evidence: its memory went unread for 5.0 s {'NVML_ERROR_UNKNOWN': 3}",
        ),
    ],
)
def test_breaches(gpu: dict[str, Any], sentence: str | None) -> None:
    assert sampling.breaches([gpu], 12288) == ([sentence] if sentence else [])


def test_a_breach_is_told_beside_missing_evidence() -> None:
    assert len(sampling.breaches([figures(peak_used_mib=13000, error="it is lost")], 12288)) == 2


def test_summary_takes_the_highest_peak_and_the_weakest_evidence() -> None:
    low = figures(peak_used_mib=10, samples=5, max_gap_ms=99.0, bound_mib=10, processes=[process(pid=1, peak_mib=None)])
    high = figures(index=1, uuid="GPU-b", timeline=[[1.0, 12288]], processes=[process(pid=2)])
    found = sampling.summary([low, high], 12288)
    assert (found["peak_used_mib"], found["samples"], found["max_gap_ms"]) == (12288, 5, 99.0)
    assert found["evidence"] == "sampled"
    assert found["timeline"] == [[1.0, 12288]]
    assert [(row["gpu"], row["pid"]) for row in found["processes"]] == [(1, 2), (0, 1)]
    assert [gpu["evidence"] for gpu in found["gpus"]] == ["bounded", "sampled"]


def test_summary_of_nothing() -> None:
    found = sampling.summary([], 12288)
    assert (found["peak_used_mib"], found["samples"], found["evidence"], found["gpus"]) == (None, 0, "none", [])


def watch_of(gpu: RecordedGpu) -> sampling._Watch:
    return sampling._Watch(RecordedLibrary(gpu), gpu)


def at_most(watch: sampling._Watch) -> tuple[float, int, list[int]]:
    """When, how much of it used, and how much of it listed."""
    kept = watch.result(0.0, 10.0, 0.05)["at_most"]
    return kept["at_s"], kept["memory"]["used"] // MIB, [row["used_bytes"] // MIB for row in kept["processes"]]


def test_a_sample_is_one_read_and_a_listing_one_more() -> None:
    gpu = RecordedGpu(800)
    watch = watch_of(gpu)
    before = gpu.reads
    for _unused in range(50):
        watch.sample(0.0)
    assert (gpu.reads - before, gpu.listings) == (50, 0)
    watch.list_processes(1.0)
    assert (gpu.reads - before, gpu.listings) == (51, 1)


@pytest.mark.parametrize(
    ("used", "listed", "kept"),
    [
        ([800, 9000, 9000, 800, 800], [800, 9000, 800], (1.0, 9000, [9000])),  # the highest, not the last
        ([800, 9000, 9000, 9000, 9000], [800, 9000, 7000], (1.0, 9000, [9000])),  # the first of two as high
        ([800, 8000, 9000, 9000, 9000], [800, 8000, 9000], (2.0, 9000, [9000])),  # one that stood still is better
        ([800, 9000, 800, 800, 800], [800, 800, 800], (1.0, 9000, [800])),  # it ended meanwhile: in nobody's name
        ([800, 800, 9000, 9000, 800], [800, 800, 9000], (1.0, 9000, [800])),  # it came meanwhile
    ],
)
def test_the_listing_nearest_to_the_peak_is_kept_with_the_memory_beside_it(
    used: list[int], listed: list[int], kept: tuple[float, int, list[int]]
) -> None:
    watch = watch_of(RecordedGpu(800, *used, listed_mib=listed))
    for now in (0.0, 1.0, 2.0):
        if now:
            watch.sample(now)
        watch.list_processes(now)
    assert at_most(watch) == kept


def test_what_did_not_stand_still_is_listed_again_once_a_second() -> None:
    gpu = RecordedGpu(800, 800, 8000, 9000, 9000, 9000)
    watch = watch_of(gpu)
    watch.list_processes(0.0)
    listings = []
    for now in (1.0, 1.5, 2.0, 3.0, 4.0):
        watch.sample(now)
        watch.list_on_new_maximum(now)
        listings.append(gpu.listings)
    assert listings == [2, 2, 3, 3, 3]


def test_a_listing_that_failed_is_none() -> None:
    gpu = RecordedGpu(800, 800, 9000, listed_mib=[800], fails=[2, 3])
    watch = watch_of(gpu)
    watch.list_processes(0.0)
    watch.sample(1.0)
    watch.list_processes(1.0)
    assert at_most(watch) == (0.0, 800, [800])
    assert at_most(watch_of(RecordedGpu(800))) == (0.0, 800, [])


def test_command_of_a_real_process() -> None:
    command = ["llama-server", "-c", "echo started; read x"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, executable="/bin/sh", stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline() == b"started\n"
        assert sampling.runner_command(process.pid) == command
    assert sampling.runner_command(process.pid) is None


def sampled(library: RecordedLibrary, *wanted: str) -> list[dict[str, Any]]:
    """The figures of a second look at GPUs, by the same calls as with NVML."""
    with contextlib.closing(sampling.Sampler(wanted, 10, library=library)) as sampler:
        sampler.start()
        while sampler.progress(1) is None:
            pass
        return sampler.stop()


def test_another_library_is_sampled_as_nvml_is() -> None:
    library = RecordedLibrary(RecordedGpu(800, 800, 9000, 800, listed_mib=[700]), RecordedGpu(500, index=1))
    library.gpus[1].uuid = "GPU-b"
    first, second = sampled(library)
    assert (first["peak_used_mib"], first["memory_api"], first["error"]) == (9000, "recorded", None)
    assert [(row["name"], row["peak_mib"]) for row in first["processes"]] == [("x", 700)]
    assert (second["uuid"], second["peak_used_mib"], second["samples"] > 0) == ("GPU-b", 500, True)
    assert sampling.breaches([first], 8999) and not sampling.breaches([first], 9000)
    assert [gpu["uuid"] for gpu in sampled(library, "GPU-b")] == ["GPU-b"]


def test_what_another_library_says_is_told_in_its_words() -> None:
    (gpu,) = sampled(RecordedLibrary(RecordedGpu(800, None, 800)))
    assert (gpu["errors"], gpu["error"]) == ({"AMDSMI_GONE": 1}, "the GPU is gone; reboot")
    for library, wanted, told in (
        (RecordedLibrary(), (), "AMD SMI shows no GPU"),
        (RecordedLibrary(RecordedGpu(800)), ("GPU-c",), "no GPU GPU-c here"),
        (RecordedLibrary(RecordedGpu(None)), (), "GPU 0: the GPU is gone"),
        (RecordedLibrary(problem=port.GpuProblem("no_permission", "become root")), (), "become root"),
    ):
        with pytest.raises(port.GpuProblem, match=told):
            sampled(library, *wanted)
