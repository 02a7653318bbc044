"""The simulated GPUs, seen through unmodified nvidia-ml-py and gpustat."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

MIB = 1024 * 1024
Nvml = Callable[[str], Any]
Start = Callable[[str], "subprocess.Popen[str]"]

MEMORY = "result = [x // 2**20 for x in (lambda m: (m.total, m.used, m.free))(nvmlDeviceGetMemoryInfo(gpu))]"
HOLD = "simulated_gpu.reserve({mib}, kind='{kind}'); print('held', flush=True); sys.stdin.readline()"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the driver does")


def hold(start: Start, mib: int, kind: str = "compute") -> subprocess.Popen[str]:
    """A process that holds memory until it is told to end."""
    child = start(HOLD.format(mib=mib, kind=kind))
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


# ---- memory and processes ----


def test_memory_v1_counts_the_reserved_part_as_used_and_v2_apart(gpus: Any, nvml: Nvml) -> None:
    gpus.create([gpus.Gpu(total=16380, reserved=300)])
    gpus.reserve(5000)
    assert nvml(MEMORY) == [16380, 5300, 11080]
    v2 = nvml("""
m = nvmlDeviceGetMemoryInfo(gpu, version=nvmlMemory_v2)
result = [x // 2**20 for x in (m.total, m.reserved, m.used, m.free)]""")
    assert v2 == [16380, 300, 5000, 11080]
    assert (gpus.used_mib(), gpus.free_mib()) == (5000, 11080)


def test_memory_v2_wants_its_version(nvml: Nvml) -> None:
    assert nvml("result = name_of(nvmlDeviceGetMemoryInfo, gpu, 1)") == "NVMLError_ArgumentVersionMismatch"


def test_processes_are_listed_by_kind_with_their_memory(gpus: Any, nvml: Nvml, start: Start) -> None:
    children = {kind: hold(start, 100 + i, kind).pid for i, kind in enumerate(("compute", "graphics", "both", "mps"))}
    lists = nvml("""
result = [[[p.pid, p.usedGpuMemory] for p in get(gpu)] for get in (nvmlDeviceGetComputeRunningProcesses,
    nvmlDeviceGetGraphicsRunningProcesses, nvmlDeviceGetMPSComputeRunningProcesses,
    nvmlDeviceGetComputeRunningProcesses_v2)]""")
    compute = [[children["compute"], 100 * MIB], [children["both"], 102 * MIB]]
    graphics = [[children["graphics"], 101 * MIB], [children["both"], 102 * MIB]]
    assert lists == [compute, graphics, [[children["mps"], 103 * MIB]], compute]
    assert nvml(MEMORY)[1] == 100 + 101 + 102 + 103


def test_the_unversioned_process_symbol_fills_the_old_structure(gpus: Any, nvml: Nvml) -> None:
    gpus.reserve(7)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=8))
    assert nvml("""
class Old(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong)]
room, count = (Old * 4)(), ctypes.c_uint(4)
code = nvml.nvmlLib.nvmlDeviceGetComputeRunningProcesses(gpu, ctypes.byref(count), room)
result = [code, count.value, *[[p.pid, p.used] for p in room[:2]]]
""") == [0, 2, [os.getpid(), 7 * MIB], [gpus.GHOST_PID, 8 * MIB]]


def test_a_killed_process_frees_its_memory_even_before_its_parent_notices(gpus: Any, nvml: Nvml, start: Start) -> None:
    child = hold(start, 9000)
    assert gpus.used_mib() == 9000
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and left as a zombie
    assert nvml(MEMORY)[1] == 0 == gpus.used_mib()
    child.wait()
    assert nvml(MEMORY)[1] == 0 == gpus.used_mib()
    gpus.reserve(16380)


def test_a_reused_pid_is_another_process_and_a_ghost_needs_none(gpus: Any, nvml: Nvml, state: Path) -> None:
    gpus.reserve(500)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=70))
    assert nvml(MEMORY)[1] == 570 == gpus.used_mib()
    state.write_text(state.read_text().replace(f"born={gpus._born(os.getpid())}", "born=1"))
    assert nvml(MEMORY)[1] == 70 == gpus.used_mib()


def test_a_process_name_comes_from_proc_or_from_the_ghost(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800, name="/usr/lib/xorg/Xorg with blanks"))
    names = nvml(f"""
result = [nvmlSystemGetProcessName({gpus.GHOST_PID}), nvmlSystemGetProcessName(os.getpid()),
          name_of(nvmlSystemGetProcessName, {gpus.GHOST_PID + 1})]""")
    assert names == ["/usr/lib/xorg/Xorg with blanks", sys.executable, "NVMLError_NotFound"]


# ---- the ledger ----


def test_reserve_sets_a_total_and_refuses_what_does_not_fit(gpus: Any) -> None:
    gpus.reserve(4000)
    gpus.reserve(3000)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800))
    with pytest.raises(gpus.OutOfMemory) as caught:
        gpus.reserve(15581)
    assert (caught.value.requested_mib, caught.value.free_mib) == (12581, 12580)
    assert gpus.used_mib() == 3800
    gpus.reserve(15580)
    assert gpus.free_mib() == 0
    gpus.release()
    assert gpus.used_mib() == 800


def test_a_process_may_shrink_while_a_spike_leaves_no_room(gpus: Any) -> None:
    gpus.reserve(5000)
    gpus.add(gpus.Spike(add=99999, duration=3600))
    assert gpus.free_mib() == 0
    gpus.reserve(4000)


@pytest.mark.parametrize("mib", [-1, 1.5, "100"])
def test_reserve_wants_whole_mib(gpus: Any, mib: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        gpus.reserve(mib)


def test_reserving_for_nobody_or_on_no_gpu_is_refused(gpus: Any) -> None:
    with pytest.raises(ProcessLookupError):
        gpus.reserve(1, pid=gpus.GHOST_PID)
    with pytest.raises(ValueError, match="no GPU 1"):
        gpus.reserve(1, gpu=1)


def test_the_peak_is_what_nvml_could_show_at_most(gpus: Any, nvml: Nvml) -> None:
    steps = random.Random(20).sample(range(15000), 40)
    seen = nvml(f"""
seen = []
for mib in {steps}:
    simulated_gpu.reserve(mib)
    seen.append(nvmlDeviceGetMemoryInfo(gpu).used // 2**20)
result = seen""")
    assert seen == steps
    assert gpus.peak_used_mib() == max(steps)
    gpus.reset_peak()
    assert gpus.peak_used_mib() == 0
    with pytest.raises(gpus.OutOfMemory):
        gpus.reserve(16381)
    assert gpus.peak_used_mib() == 0


def test_the_peak_knows_what_nobody_looked_at(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()

    def pass_to(moment: float) -> None:
        monkeypatch.setattr(gpus, "time", SimpleNamespace(time=lambda: now + moment))

    pass_to(0)
    gpus.reserve(1000)
    gpus.add(gpus.Spike(add=2000, at=now + 1, duration=2))
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=300, at=now + 2, until=now + 9))
    assert gpus.peak_used_mib() == 1000
    pass_to(1.5)
    assert (gpus.used_mib(), gpus.peak_used_mib()) == (3000, 3000)
    pass_to(5)
    assert (gpus.used_mib(), gpus.peak_used_mib()) == (1300, 3300)
    gpus.release()
    pass_to(10)
    assert (gpus.used_mib(), gpus.peak_used_mib()) == (0, 3300)
    gpus.reset_peak()
    assert gpus.peak_used_mib() == 0


def test_concurrent_processes_never_get_more_than_there_is(gpus: Any, start: Start) -> None:
    grab = """
got = 0
try:
    while True:
        simulated_gpu.reserve(got + 100)
        got += 100
except simulated_gpu.OutOfMemory:
    print(got, flush=True)
    sys.stdin.readline()"""
    children = [start(grab) for _ in range(4)]
    got = [int(child.stdout.readline()) for child in children if child.stdout]
    assert sum(got) == 16300 == gpus.used_mib() == gpus.peak_used_mib()


@root_only
def test_users_share_the_ledger_whatever_their_umask(gpus: Any, state: Path) -> None:
    state.with_name("state.lock").unlink()
    for uid in (1, 2):
        child = os.fork()
        if child == 0:
            os.setuid(uid)
            os.umask(0o077)
            gpus.reserve(100 * uid)
            os._exit(0 if gpus.used_mib() == 100 * uid else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert state.stat().st_uid == uid
    gpus.reserve(50)
    assert (gpus.used_mib(), gpus.peak_used_mib()) == (50, 200)


# ---- accounting ----

STATS = "s = nvmlDeviceGetAccountingStats(gpu, {}); result = [s.maxMemoryUsage // 2**20, s.isRunning, s.time > 0]"


def test_accounting_keeps_the_exact_peak_of_an_ended_process(gpus: Any, nvml: Nvml, start: Start) -> None:
    gpus.add(gpus.Accounting())
    child = start("""
for mib in (1000, 7321, 20):
    simulated_gpu.reserve(mib)
    time.sleep(0.002)  # accounted time is in whole ms
print("held", flush=True)
sys.stdin.readline()""")
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    assert nvml(STATS.format(child.pid)) == [7321, 1, False]
    child.kill()
    child.wait()
    assert nvml(STATS.format(child.pid)) == [7321, 0, True]
    v2 = "s = nvmlDeviceGetAccountingStats_v2(gpu, {}); result = [s.pid, s.maxMemoryUsage // 2**20, s.isRunning]"
    assert nvml(v2.format(child.pid)) == [child.pid, 7321, 0]
    gpus.reserve(1)
    assert nvml("result = nvmlDeviceGetAccountingPids(gpu)") == [child.pid, os.getpid()]


def test_accounting_knows_only_processes_that_came_while_it_was_on(gpus: Any, nvml: Nvml) -> None:
    gpus.reserve(100)
    off = nvml("result = [nvmlDeviceGetAccountingMode(gpu), name_of(nvmlDeviceGetAccountingStats, gpu, os.getppid())]")
    assert off == [0, "NVMLError_NotSupported"]
    gpus.add(gpus.Accounting())
    gpus.reserve(200)
    on = nvml("result = [nvmlDeviceGetAccountingMode(gpu), name_of(nvmlDeviceGetAccountingStats, gpu, os.getppid())]")
    assert on == [1, "NVMLError_NotFound"]


def test_a_reused_pid_hides_the_process_that_runs(gpus: Any, nvml: Nvml) -> None:
    """As the driver does: it looks among the ended processes first."""
    gpus.add(gpus.Accounting())
    gpus.reserve(200)
    assert nvml(STATS.format(os.getpid())) == [200, 1, False]
    gpus.add(gpus.Accounted(pid=os.getpid(), born=1, peak=999, start=1, end=2))
    assert nvml(STATS.format(os.getpid())) == [999, 0, True]


def test_only_the_last_ended_processes_are_remembered(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Accounting(), *(gpus.Accounted(pid=pid, born=1, peak=1) for pid in range(1000, 1200)))
    gpus.reserve(1)
    pids = nvml("result = [nvmlDeviceGetAccountingBufferSize(gpu), *nvmlDeviceGetAccountingPids(gpu)]")
    assert pids == [4000, *range(1072, 1200), os.getpid()]


@root_only
def test_a_switch_set_by_a_careful_root_locks_nobody_out(gpus: Any, nvml: Nvml, start: Start, state: Path) -> None:
    state.with_name("state.lock").unlink()
    assert nvml("os.umask(0o077); nvmlDeviceSetAccountingMode(gpu, 1); result = nvmlDeviceGetAccountingMode(gpu)") == 1
    child = start("os.setuid(65534); simulated_gpu.reserve(5); print(simulated_gpu.used_mib())")
    assert child.communicate() == ("5\n", "")


@root_only
def test_root_switches_accounting_and_clears_ended_processes(gpus: Any, nvml: Nvml, start: Start) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu()])
    assert nvml("""
nvmlDeviceSetAccountingMode(gpu, 1)
nvmlDeviceSetPersistenceMode(gpu, 1)
other = nvmlDeviceGetHandleByIndex(1)
result = [get(card) for get in (nvmlDeviceGetAccountingMode, nvmlDeviceGetPersistenceMode) for card in (gpu, other)]
""") == [1, 0, 1, 0]
    ended, running = hold(start, 10), hold(start, 20)
    ended.communicate("\n")
    pids = "nvmlDeviceGetAccountingPids(gpu)"
    assert nvml(f"result = {pids}") == [ended.pid, running.pid]
    assert nvml(f"nvmlDeviceClearAccountingPids(gpu); result = {pids}") == [running.pid]
    assert gpus.used_mib() == 20
    off_and_on = "nvmlDeviceSetAccountingMode(gpu, 0); nvmlDeviceSetAccountingMode(gpu, 1); result = "
    assert nvml(off_and_on + pids) == []
    assert nvml("nvmlDeviceSetPersistenceMode(gpu, 0); result = nvmlDeviceGetPersistenceMode(gpu)") == 0


def test_nobody_but_root_switches_accounting(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Accounting())
    errors = nvml("""
os.geteuid() == 0 and os.setuid(65534)
result = [name_of(nvmlDeviceSetAccountingMode, gpu, 1), name_of(nvmlDeviceClearAccountingPids, gpu),
          name_of(nvmlDeviceSetPersistenceMode, gpu, 1), nvmlDeviceGetAccountingMode(gpu)]""")
    assert errors == ["NVMLError_NoPermission"] * 3 + [1]


# ---- cards and drivers ----


def test_a_card_is_found_by_index_uuid_and_pci_id(gpus: Any, nvml: Nvml) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu(total=8188, name="Other", uuid="GPU-other")])
    assert nvml("""
info = nvmlDeviceGetPciInfo(nvmlDeviceGetHandleByIndex(1))
handles = [nvmlDeviceGetHandleByIndex(1), nvmlDeviceGetHandleByUUID("GPU-other"),
           nvmlDeviceGetHandleByPciBusId(info.busId), nvmlDeviceGetHandleByPciBusId("0000:02:00.0"),
           nvmlDeviceGetHandleByPciBusId("02:00.0")]
result = [[nvmlDeviceGetIndex(h), nvmlDeviceGetName(h), nvmlDeviceGetUUID(h), nvmlDeviceGetMemoryInfo(h).total >> 20]
          for h in handles] + [info.busId, nvmlDeviceGetCount()]""") == [[1, "Other", "GPU-other", 8188]] * 5 + [
        "00000000:02:00.0",
        2,
    ]


def test_cards_that_are_not_there(nvml: Nvml) -> None:
    errors = nvml("""
result = [name_of(nvmlDeviceGetHandleByIndex, 1), name_of(nvmlDeviceGetHandleByUUID, "GPU-x"),
          name_of(nvmlDeviceGetHandleByPciBusId, "0000:99:00.0"), name_of(nvmlDeviceGetName, None)]""")
    assert errors == [f"NVMLError_{name}" for name in ("InvalidArgument", "NotFound", "NotFound", "InvalidArgument")]


def test_the_default_card_is_the_lab_s(nvml: Nvml) -> None:
    facts = nvml("""
uuid = nvmlDeviceGetUUID(gpu)
result = [nvmlDeviceGetName(gpu), uuid[:4], len(uuid), nvmlSystemGetDriverVersion(), nvmlSystemGetNVMLVersion(),
          nvmlSystemGetCudaDriverVersion(), nvmlDeviceGetCudaComputeCapability(gpu),
          name_of(nvmlDeviceGetMigMode, gpu), *[x >> 20 for x in [nvmlDeviceGetMemoryInfo(gpu).total]]]""")
    versions = ["550.163.01", "12.550.163.01", 12040]
    assert facts == ["NVIDIA GeForce RTX 4060 Ti", "GPU-", 40, *versions, [8, 9], "NVMLError_NotSupported", 16380]


def test_mig_forbids_accounting_and_utilization(gpus: Any, nvml: Nvml) -> None:
    gpus.create([gpus.Gpu(mig=1)])
    result = nvml("result = [nvmlDeviceGetMigMode(gpu), name_of(nvmlDeviceGetUtilizationRates, gpu)]")
    assert result == [[1, 1], "NVMLError_NotSupported"]
    if os.geteuid() == 0:
        assert nvml("result = name_of(nvmlDeviceSetAccountingMode, gpu, 1)") == "NVMLError_NotSupported"


def test_a_driver_before_510_has_neither_memory_v2_nor_processes_v3(gpus: Any, nvml: Nvml) -> None:
    gpus.create(driver=gpus.Driver(version="470.256.02", cuda=11040))
    gpus.reserve(5)
    assert nvml("""
try:
    nvmlDeviceGetComputeRunningProcesses(gpu)
except NVMLLibraryMismatchError:
    mismatch = True
result = [name_of(nvmlDeviceGetMemoryInfo, gpu, nvmlMemory_v2), mismatch, nvmlDeviceGetMemoryInfo(gpu).used >> 20,
          nvmlDeviceGetComputeRunningProcesses_v2(gpu)[0].pid]
""") == ["NVMLError_FunctionNotFound", True, 5, os.getpid()]


def test_init_and_shutdown_are_counted(nvml: Nvml) -> None:
    assert nvml("""
nvmlInit()
nvmlShutdown()
before = name_of(nvmlDeviceGetCount)
nvmlShutdown()
result = [before, name_of(nvmlDeviceGetCount), name_of(nvmlShutdown)]
""") == ["Success", "NVMLError_Uninitialized", "NVMLError_Uninitialized"]


# ---- what goes wrong by script ----


def test_one_lost_gpu_leaves_the_other_alone(gpus: Any, nvml: Nvml) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu()])
    gpus.reserve(77, gpu=1)
    assert nvml("""
simulated_gpu.add(simulated_gpu.Fault(gpu=0, code="GpuIsLost"))
other = nvmlDeviceGetHandleByIndex(1)
result = [name_of(nvmlDeviceGetMemoryInfo, gpu), name_of(nvmlDeviceGetHandleByIndex, 0),
          nvmlDeviceGetMemoryInfo(other).used >> 20, nvmlDeviceGetCount()]
""") == ["NVMLError_GpuIsLost", "NVMLError_GpuIsLost", 77, 2]


def test_a_fault_by_call_number_strikes_those_calls_of_that_function_on_that_gpu(gpus: Any, nvml: Nvml) -> None:
    gpus.create([gpus.Gpu(), gpus.Gpu()])
    function = "nvmlDeviceGetMemoryInfo*"
    gpus.add(gpus.Fault(function=function, gpu=0, code="Unknown", from_call=3, to_call=4))
    gpus.add(gpus.Fault(function=function, gpu=0, code="NotSupported", from_call=6))
    errors = """
other = nvmlDeviceGetHandleByIndex(1)
nvmlDeviceGetUtilizationRates(gpu)
result = [[name_of(nvmlDeviceGetMemoryInfo, card) for card in (gpu, other)] for _ in range(7)]"""
    own = ["Success", "Success", "NVMLError_Unknown", "NVMLError_Unknown", "Success", *["NVMLError_NotSupported"] * 2]
    assert nvml(errors) == [[error, "Success"] for error in own]
    assert nvml(errors)[0] == ["Success", "Success"]  # each process counts for itself


def test_a_fault_by_time_begins_and_ends_while_a_process_looks(gpus: Any, nvml: Nvml) -> None:
    assert nvml("""
begin = time.time() + 0.3
end = begin + 0.3
simulated_gpu.add(simulated_gpu.Fault(function="nvmlDeviceGetMemoryInfo", code="GpuIsLost", at=begin, until=end))
result = []
while time.time() < end + 0.3:
    before = time.time()
    name = name_of(nvmlDeviceGetMemoryInfo, gpu)
    after = time.time()
    inside, outside = begin <= before and after < end, after < begin or before >= end
    assert not (inside and name == "Success" or outside and name != "Success"), (before - begin, name)
    if result[-1:] != [name]:
        result.append(name)
""") == ["Success", "NVMLError_GpuIsLost", "Success"]


@pytest.mark.parametrize(
    "code", ["DriverNotLoaded", "NoPermission", "LibRmVersionMismatch", "OperatingSystem", "Unknown"]
)
def test_init_can_fail(gpus: Any, start: Start, code: str) -> None:
    gpus.add(gpus.Fault(function="nvmlInit*", code=code))
    child = start("print(name_of(nvmlInit), name_of(nvmlDeviceGetCount))")
    assert child.communicate()[0].split() == [f"NVMLError_{code}", "NVMLError_Uninitialized"]


def test_every_code_that_can_be_scripted_is_nvml_s(gpus: Any, nvml: Nvml) -> None:
    table = (gpus.SOURCES / "simulated_state.c").read_text().split("RETURNS[] = {")[1].split("};")[0]
    names = [line.split('"')[1] for line in table.splitlines() if '"' in line]
    assert len(names) > 25
    known = nvml(f"""
def once(name):
    simulated_gpu.clear(simulated_gpu.Fault)
    simulated_gpu.add(simulated_gpu.Fault(function="nvmlDeviceGetName", code=name))
    try:
        nvmlDeviceGetName(gpu)
    except NVMLError as error:
        return [error.value, type(error).__name__]
    return [0, "Success"]
constants = {{v for k, v in vars(nvml).items() if k.startswith("NVML_ERROR_")}} | {{0}}
result = {{name: [*once(name), once(name)[0] in constants] for name in {names}}}""")
    assert all(real for _, _, real in known.values()), known
    assert known["GpuIsLost"][:2] == [15, "NVMLError_GpuIsLost"]
    assert known["LibRmVersionMismatch"][:2] == [18, "NVMLError_LibRmVersionMismatch"]


def test_a_crash_kills_only_the_process_that_called(gpus: Any, nvml: Nvml, start: Start) -> None:
    gpus.reserve(123)
    gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo*", crash=1, from_call=2))
    child = start("nvmlInit(); gpu = nvmlDeviceGetHandleByIndex(0)\nwhile True: nvmlDeviceGetMemoryInfo(gpu)")
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGABRT
    assert nvml(MEMORY)[1] == 123


def test_a_delay_takes_its_time_and_no_other_thread_s(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo", delay_ms=300))
    assert nvml("""
slow = threading.Thread(target=nvmlDeviceGetMemoryInfo, args=(gpu,))
begin = time.monotonic()
slow.start()
others = 0
while slow.is_alive():
    nvmlDeviceGetName(gpu)
    others += 1
result = [time.monotonic() - begin >= 0.3, others > 10]""") == [True, True]


def test_a_spike_is_seen_live_and_the_peak_is_its_height(gpus: Any, nvml: Nvml) -> None:
    gpus.reserve(2000)
    assert nvml("""
begin = time.time() + 0.3
simulated_gpu.add(simulated_gpu.Spike(add=3333, at=begin, duration=0.3))
result = []
while time.time() < begin + 0.6:
    used = nvmlDeviceGetMemoryInfo(gpu).used >> 20
    if result[-1:] != [used]:
        result.append(used)
""") == [2000, 5333, 2000]
    assert gpus.peak_used_mib() == 5333


def test_a_stranger_comes_and_goes(gpus: Any, nvml: Nvml) -> None:
    assert nvml("""
begin = time.time() + 0.3
pid = simulated_gpu.GHOST_PID
simulated_gpu.add(simulated_gpu.Process(pid=pid, mib=640, ghost=1, at=begin, until=begin + 0.3))
result = []
while time.time() < begin + 0.6:
    seen = [[p.pid == pid, p.usedGpuMemory >> 20] for p in nvmlDeviceGetComputeRunningProcesses(gpu)]
    if result[-1:] != [seen]:
        result.append(seen)
""") == [[], [[True, 640]], []]
    assert gpus.peak_used_mib() == 640


def test_an_xid_is_told_once_to_each_set_that_was_there_before(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Xid(code=13))
    assert nvml("""
sets = [nvmlEventSetCreate() for _ in range(2)]
for events in sets:
    nvmlDeviceRegisterEvents(gpu, nvmlEventTypeXidCriticalError, events)
quiet = name_of(nvmlEventSetWait, sets[0], 0)
simulated_gpu.add(simulated_gpu.Xid(code=79, at=time.time() + 0.1))
told = [nvmlEventSetWait(events, 5000) for events in sets]
again = name_of(nvmlEventSetWait, sets[0], 20)
result = [quiet, [event.eventData for event in told], nvmlDeviceGetIndex(told[0].device), again]
[nvmlEventSetFree(events) for events in sets]""") == ["NVMLError_Timeout", [79, 79], 0, "NVMLError_Timeout"]


def test_eight_threads_see_a_whole_state_while_others_write(gpus: Any, nvml: Nvml) -> None:
    gpus.add(gpus.Fault(function="nvmlDeviceGetMemoryInfo", code="Unknown", from_call=1001, to_call=1100))
    assert nvml("""
from collections import Counter
seen, lock, busy = Counter(), threading.Lock(), True
def look():
    own = Counter()
    for _ in range(500):
        try:
            m = nvmlDeviceGetMemoryInfo(gpu)
            own["whole" if m.used + m.free == m.total and m.used >> 20 in (1000, 9000, 0) else "torn"] += 1
        except NVMLError as error:
            own[type(error).__name__] += 1
    with lock:
        seen.update(own)
def write():
    while busy:
        simulated_gpu.reserve(1000)
        simulated_gpu.reserve(9000)
threads = [threading.Thread(target=look) for _ in range(8)]
writer = threading.Thread(target=write)
[t.start() for t in (writer, *threads)]
[t.join() for t in threads]
busy = False
writer.join()
result = seen""") == {"whole": 3900, "NVMLError_Unknown": 100}


# ---- the state file ----


def test_without_a_state_there_is_no_driver(gpus: Any, start: Start, state: Path) -> None:
    state.unlink()
    assert start("print(name_of(nvmlInit))").communicate()[0] == "NVMLError_DriverNotLoaded\n"


def test_a_state_one_may_not_read_is_a_device_one_may_not_open(gpus: Any, start: Start, state: Path) -> None:
    state.chmod(0o000)
    code = "os.geteuid() == 0 and os.setuid(65534)\nprint(name_of(nvmlInit))"
    assert start(code).communicate()[0] == "NVMLError_NoPermission\n"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("gpu total=1 colour=green", "unknown key 'colour'"),
        ("card total=1", "unknown record 'card'"),
        ("gpu total=lots", "bad value of key 'total'"),
        ("gpu total=12x", "bad value of key 'total'"),
        ("fault code=Nonsense", "bad value of key 'code'"),
        ("fault crash", "bad value of key 'crash'"),
        (f"gpu name={'x' * 200}", "bad value of key 'name'"),
        ("driver version=1\ndriver version=2", "too many records of kind 'driver'"),
    ],
)
def test_a_state_that_cannot_be_right_is_an_error_that_says_where(
    start: Start, state: Path, line: str, wrong: str
) -> None:
    state.write_text(f"# a comment\n\n{line}\n")
    out, error = start("print(name_of(nvmlInit))").communicate()
    assert out == "NVMLError_Unknown\n"
    assert wrong in error and f"{state}, line {3 + line.count(chr(10))}" in error


def test_a_state_without_a_driver_is_an_error(start: Start, state: Path) -> None:
    state.write_text("gpu total=1\n")
    out, error = start("print(name_of(nvmlInit))").communicate()
    assert (out, "no 'driver' record" in error) == ("NVMLError_Unknown\n", True)


@pytest.mark.parametrize("line", ["gpu total=1 colour=green", "card total=1", "gpu total=lots", "fault crash"])
def test_the_module_refuses_what_the_library_refuses(gpus: Any, state: Path, line: str) -> None:
    state.write_text(f"driver version=1\n{line}\n")
    with pytest.raises(ValueError):
        gpus.used_mib()


def test_library_and_module_know_the_same_records_and_keys(gpus: Any, start: Start, state: Path) -> None:
    """A record of each kind with every key set, as the module writes it, is what the library reads."""
    lines = []
    for record in gpus.RECORDS.values():
        texts = {"code": "GpuIsLost", "function": "nvmlNothing"} if record is gpus.Fault else {}
        values = {"int": 1, "float": 1.5, "str": "x y"}
        fields = dataclasses.fields(record)
        lines.append(gpus._format(record(**{f.name: texts.get(f.name, values[str(f.type)]) for f in fields})))
        assert len(gpus._TOKEN.findall(lines[-1])) == len(fields)
        assert gpus._format(gpus._parse(lines[-1])) == lines[-1]
    state.write_text("\n".join(lines))
    out, error = start("print(name_of(nvmlInit))").communicate()
    assert (out, error) == ("Success\n", "")


@pytest.mark.parametrize("name", ['a"b', "a\nb"])
def test_a_name_that_would_break_the_file_is_refused(gpus: Any, state: Path, name: str) -> None:
    before = state.read_text()
    with pytest.raises(ValueError, match="quote, backslash or line break"):
        gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, name=name))
    assert state.read_text() == before
    assert sorted(path.name for path in state.parent.iterdir()) == ["state", "state.lock"]


# ---- tools ----


def run_cli(gpus: Any, *arguments: object) -> str:
    command = [sys.executable, gpus.__file__, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_command_line_scripts_a_scenario(gpus: Any, nvml: Nvml) -> None:
    run_cli(gpus, "create", "--total", 16380, "--total", 8188, "--reserved", 20, "--driver", "535.1", "--uuid", "GPU-1")
    run_cli(gpus, "stranger", "--mib", 800, "--kind", "graphics", "--name", "/usr/lib/xorg/Xorg")
    run_cli(gpus, "spike", "--add", 100, "--gpu", 1)
    run_cli(gpus, "fault", "--function", "nvmlDeviceGetName", "--code", "Unknown", "--from-call", 2)
    run_cli(gpus, "fault", "--function", "nvmlDeviceGetUUID", "--code", "Unknown", "--in", 3600, "--for", 1)
    assert nvml("""
other = nvmlDeviceGetHandleByIndex(1)
result = [nvmlDeviceGetMemoryInfo(gpu).used >> 20, nvmlDeviceGetMemoryInfo(other).used >> 20,
          nvmlDeviceGetGraphicsRunningProcesses(gpu)[0].usedGpuMemory >> 20, nvmlSystemGetDriverVersion(),
          name_of(nvmlDeviceGetName, gpu), name_of(nvmlDeviceGetName, gpu), nvmlDeviceGetUUID(gpu)]
""") == [820, 120, 800, "535.1", "Success", "NVMLError_Unknown", "GPU-1"]
    assert [run_cli(gpus, "peak"), run_cli(gpus, "used", "--gpu", 1)] == ["800\n", "100\n"]
    run_cli(gpus, "clear", "process")
    run_cli(gpus, "clear", "fault")
    run_cli(gpus, "reset-peak")
    assert [run_cli(gpus, "peak"), run_cli(gpus, "peak", "--gpu", 1)] == ["0\n", "100\n"]
    assert "fault" not in run_cli(gpus, "show")


def test_unmodified_gpustat_shows_memory_and_processes(gpus: Any, start: Start) -> None:
    gpus.create([gpus.Gpu(reserved=380), gpus.Gpu()])
    child = hold(start, 4321)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=800, kind="graphics"), gpus.Fault(gpu=1, code="GpuIsLost"))
    gpustat = shutil.which("gpustat", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert gpustat is not None, "gpustat is in requirements-dev.txt"
    shown = json.loads(subprocess.run([gpustat, "--json"], check=True, capture_output=True, text=True).stdout)
    card, lost = shown["gpus"]
    assert shown["driver_version"] == "550.163.01"
    assert (card["memory.used"], card["memory.total"]) == (5121, 16380)
    assert [(p["pid"], p["gpu_memory_usage"]) for p in card["processes"]] == [(child.pid, 4321)]
    assert None not in card.values()
    assert lost["name"] == "((GPU is lost))"
