"""NVML reading and sampling against the simulated library, through NVIDIA's unmodified bindings."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, port, sampling
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import memory_parts

SPIKES = 200
BASE_MIB = 1000


@pytest.fixture(autouse=True)
def loaded(library: Path) -> None:
    """The loader finds a library that is already there by its name, so forked children need no LD_LIBRARY_PATH."""
    ctypes.CDLL(str(library))


@pytest.fixture
def sampler() -> Iterator[sampling.Sampler]:
    sampler = sampling.Sampler(interval_ms=10)
    with contextlib.closing(sampler):
        yield sampler


def wait_until(gpus: Any, used_mib: int) -> None:
    deadline = time.monotonic() + 10
    while gpus.used_mib() != used_mib:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def progress_until(sampler: sampling.Sampler, peak_mib: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        figures = sampler.progress(timeout_s=1)
        if figures and figures["peak_used_mib"] >= peak_mib:
            return
        assert time.monotonic() < deadline


@contextlib.contextmanager
def stopped(sampler: sampling.Sampler) -> Iterator[None]:
    """What happens within, sampling does not see."""
    assert sampler._child is not None
    os.kill(sampler._child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, sampler._child.pid, os.WSTOPPED)
    try:
        yield
    finally:
        os.kill(sampler._child.pid, signal.SIGCONT)


def allowed(set_it: str) -> bool:
    """Whether a process of this user, in this control group, may do so."""
    return subprocess.run([sys.executable, "-c", f"import os; {set_it}"], capture_output=True).returncode == 0


def test_the_sampler_comes_before_what_keeps_the_cores_busy(gpus: Any, sampler: sampling.Sampler) -> None:
    sampler.start()
    assert sampler._child is not None
    pid = sampler._child.pid
    if allowed("os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"):
        assert os.sched_getscheduler(pid) == os.SCHED_RR
    elif allowed("os.setpriority(os.PRIO_PROCESS, 0, -10)"):
        assert os.getpriority(os.PRIO_PROCESS, pid) == -10
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "only the child"


def test_every_spike_longer_than_the_reported_gap_is_seen(
    gpus: Any, sampler: sampling.Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "TIMELINE_POINTS", 10**6)  # all samples, to tell the spikes apart
    chance = random.Random(20)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=BASE_MIB, name="desktop"))
    first = at = time.time() + 1
    spikes = []
    for number in range(SPIKES):  # short ones, and now and then a long one, for machines where gaps are long
        spikes.append(
            gpus.Spike(add=100 + number, at=at, duration=chance.uniform(0.002, 0.4 if number % 10 == 0 else 0.09))
        )
        at += spikes[-1].duration + 0.01
    gpus.add(*spikes)
    durations = {BASE_MIB + spike.add: spike.duration for spike in spikes}
    sampler.start()
    assert time.time() < first
    time.sleep(at - time.time())
    (gpu,) = sampler.stop()
    seen = {mib for _, mib in gpu["timeline"]}
    must_see = {height for height, duration in durations.items() if 1000 * duration > gpu["max_gap_ms"]}
    print(f"max_gap_ms {gpu['max_gap_ms']}, spikes {SPIKES}, longer {len(must_see)}, seen {len(seen & set(durations))}")
    assert must_see, f"the machine is too busy to tell: the worst gap was {gpu['max_gap_ms']} ms"
    assert must_see <= seen
    assert seen <= {BASE_MIB, *durations}
    assert gpu["peak_used_mib"] == max(seen)


def test_peak_equals_the_ledger(gpus: Any, sampler: sampling.Sampler) -> None:
    gpus.create([gpus.Gpu(reserved=300)])
    sampler.start()
    gpus.reserve(5000)
    progress_until(sampler, 5000)
    gpus.release()
    wait_until(gpus, 0)
    (gpu,) = sampler.stop()
    assert gpu["peak_used_mib"] == gpus.peak_used_mib() == 5000
    assert (gpu["baseline_mib"], gpu["reserved_mib"], gpu["memory_api"]) == (0, 300, "v2")
    assert gpu["timeline"][-1][1] == 0


def test_processes_with_their_peaks(gpus: Any, sampler: sampling.Sampler) -> None:
    gpus.reserve(700, kind="both")
    sampler.start()
    gpus.reserve(2000, kind="both")
    progress_until(sampler, 2000)
    (gpu,) = sampler.stop()
    (process,) = gpu["processes"]
    assert (process["pid"], process["kind"], process["peak_mib"]) == (os.getpid(), "both", 2000)
    assert process["command"] is None, "a command line may hold secrets"


def split(moment: dict[str, Any]) -> Counter[str]:
    owners = memory_parts.Known(frozenset(), frozenset(), {})
    found: Counter[str] = Counter()
    for part in memory_parts.split(moment["memory"], moment["processes"], owners):
        found[part["what"]] += part["mib"]
    assert found.total() == moment["memory"]["total"] // memory_parts.MIB
    return found


def test_who_held_the_most_is_known_when_it_is_gone(gpus: Any, sampler: sampling.Sampler) -> None:
    gpus.create([gpus.Gpu(reserved=300)])
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800, kind="graphics", name="desktop"))
    sampler.start()
    time.sleep(sampling.LISTING_INTERVAL_S)
    gpus.reserve(5000)
    progress_until(sampler, 5800)
    gpus.release()
    wait_until(gpus, 800)
    (gpu,) = sampler.stop()
    moment = gpu["at_most"]
    assert [(row["pid"], row["used_bytes"] // memory_parts.MIB) for row in moment["processes"]] == [
        (os.getpid(), 5000), (gpus.GHOST_PID, 800),
    ]  # fmt: skip
    assert split(moment) == {"others": 5800, "reserved": 300, "free": 16380 - 6100}
    assert moment["at_s"] >= gpu["peak_at_s"]


def test_what_comes_and_goes_while_processes_are_listed_is_not_attributed(gpus: Any, sampler: sampling.Sampler) -> None:
    """Each listing takes long, and memory never stands still for as long: the sum holds at every moment."""
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800, name="desktop"))
    at = time.time()
    gpus.add(*(gpus.Spike(add=100 * (number % 7), at=at + number * 0.02, duration=0.02) for number in range(200)))
    gpus.add(gpus.Fault(function="nvmlDeviceGet*RunningProcesses*", delay_ms=30))
    sampler.start()
    time.sleep(2.5)
    (gpu,) = sampler.stop()
    found = split(gpu["at_most"])
    assert found["others"] == 800
    assert found["not attributed"] in range(0, 601, 100)


@pytest.mark.parametrize(
    ("lists", "listed"),
    [("", (True, 900)), ("no-figures", (True, None)), ("nothing", None), ("foreign-pids", (False, 900))],
)
def test_what_a_driver_keeps_back_is_still_in_the_sum(
    gpus: Any, sampler: sampling.Sampler, lists: str, listed: tuple[bool, int | None] | None
) -> None:
    """WSL 2 has no figure of a process; where the host is a container, processes are hidden or have other pids."""
    gpus.create([gpus.Gpu(lists=lists)])
    gpus.reserve(900)
    (seen,) = nvml_library.snapshot()["gpus"]
    rows = [(row["name"] is not None, row["used_mib"]) for row in seen["processes"]]
    assert rows == ([listed] if listed else [])
    assert split(seen) == {"others" if lists == "" else "not attributed": 900, "free": 16380 - 900}
    sampler.start()
    (gpu,) = sampler.stop()
    assert split(gpu["at_most"]) == split(seen)


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("DriverNotLoaded", "driver_not_loaded", "modprobe"),
        ("NoPermission", "no_permission", "root"),
        ("LibRmVersionMismatch", "version_mismatch", "reboot"),
        ("GpuIsLost", "gpu_lost", "Xid 79"),
        ("Unknown", "error", "NVML_ERROR_UNKNOWN"),
    ],
)
def test_snapshot_names_what_is_wrong(gpus: Any, code: str, status: str, words: str) -> None:
    gpus.add(gpus.Fault(function="nvmlInit*", code=code))
    found = nvml_library.snapshot()
    assert (found["status"], found["gpus"]) == (status, [])
    assert words in found["message"]


def test_snapshot_survives_crash_and_hang(gpus: Any) -> None:
    gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo*", crash=1))
    crashed = nvml_library.snapshot()
    assert crashed["status"] == "crashed"
    assert "SIG" in crashed["message"]
    gpus.clear(gpus.Fault)
    gpus.add(gpus.Fault(function="nvmlInit*", delay_ms=60_000))
    assert nvml_library.snapshot(timeout_s=0.5)["status"] == "timeout"


def test_a_lost_gpu_does_not_hide_the_other(gpus: Any) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu(total=8192)])
    gpus.add(gpus.Fault(gpu=0, code="GpuIsLost"))
    found = nvml_library.snapshot()
    assert found["status"] == "ok"
    lost, other = found["gpus"]
    assert "lost" in lost["error"]
    assert lost["used_mib"] is None
    assert (other["error"], other["total_mib"], other["used_mib"]) == (None, 8192, 0)
    gpus.add(gpus.Fault(gpu=1, code="GpuIsLost"))
    assert nvml_library.snapshot()["status"] == "gpu_lost"


def test_old_driver_is_read_and_named(gpus: Any) -> None:
    gpus.create([gpus.Gpu(reserved=300)], gpus.Driver(version="470.256.02"))
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800, name="desktop"))
    found = nvml_library.snapshot()
    (gpu,) = found["gpus"]
    assert found["driver_version"] == "470.256.02"
    assert (gpu["memory_api"], gpu["used_mib"], gpu["reserved_mib"]) == ("v1", 1100, None)


@pytest.mark.parametrize("fault", [{"code": "GpuIsLost"}, {"code": "Unknown"}])
def test_a_gpu_that_fails_while_watched_proves_nothing(gpus: Any, sampler: sampling.Sampler, fault: Any) -> None:
    sampler.start()
    gpus.add(gpus.Spike(add=100, duration=60))
    progress_until(sampler, 100)
    gpus.add(gpus.Fault(gpu=0, function="nvmlDeviceGetMemoryInfo*", **fault))
    time.sleep(0.1)
    found = sampler.stop()
    assert found[0]["peak_used_mib"] == 100
    assert found[0]["errors"]
    assert sampling.summary(found, 12288)["evidence"] == "none"
    assert "no evidence" in sampling.breaches(found, 12288)[0]


def test_a_gpu_that_was_lost_for_a_while_proves_nothing(gpus: Any, sampler: sampling.Sampler) -> None:
    gpus.add(gpus.Fault(gpu=0, function="nvmlDeviceGetMemoryInfo*", code="GpuIsLost", from_call=10, to_call=12))
    sampler.start()
    gpus.add(gpus.Spike(add=100, at=time.time() + 0.5, duration=60))
    progress_until(sampler, 100)
    assert sampling.evidence(sampler.stop()[0], 12288) == "none"


def test_a_crash_or_hang_while_watched_is_a_message(gpus: Any, sampler: sampling.Sampler) -> None:
    sampler.start()
    gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo*", crash=1))
    with pytest.raises(port.GpuProblem, match="crashed") as crashed:
        sampler.stop()
    assert crashed.value.status == "crashed"
    gpus.clear(gpus.Fault)
    hanging = sampling.Sampler()
    with contextlib.closing(hanging):
        hanging.start()
        gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo*", delay_ms=60_000))
        with pytest.raises(port.GpuProblem) as hung:
            hanging.stop(timeout_s=0.5)
    assert hung.value.status == "timeout"


def test_gpus_are_chosen_by_index_or_uuid(gpus: Any) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu(total=8192, uuid="GPU-b")])
    for wanted, expected in (((), [0, 1]), (("1",), [1]), (("GPU-b", "1"), [1])):
        with contextlib.closing(sampling.Sampler(wanted)) as sampler:
            sampler.start()
            assert [gpu["index"] for gpu in sampler.stop()] == expected
    for wanted in ("2", "GPU-x"):
        with (
            contextlib.closing(sampling.Sampler([wanted])) as sampler,
            pytest.raises(port.GpuProblem, match=wanted),
        ):
            sampler.start()


def test_accounting_bounds_what_sampling_may_have_missed(gpus: Any, sampler: sampling.Sampler) -> None:
    set_accounting = "from pynvml import *; nvmlInit(); nvmlDeviceSetAccountingMode(nvmlDeviceGetHandleByIndex(0), 1)"
    if os.geteuid() != 0:
        pytest.skip("accounting is switched on by root")
    subprocess.run([sys.executable, "-c", set_accounting], check=True)
    sampler.start()
    with stopped(sampler):
        gpus.reserve(6000)
        gpus.reserve(4000)
    progress_until(sampler, 4000)
    (gpu,) = sampler.stop()
    (process,) = gpu["processes"]
    assert gpu["peak_used_mib"] == 4000
    assert (process["accounting_peak_mib"], process["accounting_grew"]) == (6000, True)
    assert gpu["bound_mib"] == 6000
    assert sampling.evidence(gpu, 12288) == "bounded"
    assert sampling.evidence(gpu, 5999) == "sampled"
    assert "accounting" in sampling.breaches([gpu], 5999)[0]


def test_runs_as_ansible_sends_it(gpus: Any) -> None:
    """The module comes out of a zip on the other side; its child must not need that zip."""
    gpus.reserve(900)
    root = Path(__file__).parents[3]
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", "selo.gpu_memory.gpu_memory_assert"]
    done = subprocess.run(
        [*command, "-a", "duration=0.3 max_used_mib=800 interval_ms=20"],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(root / ".collections"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    head, _, answer = done.stdout.partition(" => ")
    assert "FAILED" in head, done.stderr
    found = json.loads(answer)
    assert (found["peak_used_mib"], found["evidence"]) == (900, "sampled")
    assert "900 of at most 800 MiB" in found["msg"]
