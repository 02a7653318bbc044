"""script/gpu-check on the simulated GPU, what it says where it cannot check, and the simulation held to real runs."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.script.lib.gpu_check import checks, compare, cuda, helper, run

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / "script" / "gpu-check"
REAL_RUNS = sorted((ROOT / "tests" / "data" / "gpu-check").glob("*.json"))
RESERVED_MIB, CONTEXT_MIB = 700, 305  # as nvidia-smi has it of an H200; what the lab's processes hold
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def check(gpus: Any, tmp_path: Path) -> Run:
    def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROGRAM), *arguments]
        return subprocess.run(
            command, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=280
        )

    return started


def prepared(gpus: Any) -> str:
    """Two cards; the UUID of the second, which is like a real one: a part reserved, a desktop on it, accounting on."""
    gpus.create([gpus.Gpu(), gpus.Gpu(name="NVIDIA H200", total=143771, reserved=RESERVED_MIB, mig=0)])
    gpus.add(gpus.Process(gpu=1, pid=gpus.GHOST_PID, ghost=1, mib=800, kind="graphics", name="/usr/lib/xorg/Xorg"))
    with gpus._changing() as state:
        state.records.append(gpus.Accounting(gpu=1))
    return str(gpus._State.read().card(1).uuid)


@pytest.fixture(scope="module")
def record(module: Any, library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One whole run on the simulated GPU, by a Python for which Ansible and other collections are a trap."""
    directory = tmp_path_factory.mktemp("gpu-check")
    for trap in ("ansible", "ansible_collections"):
        (directory / trap).mkdir()
        (directory / trap / "__init__.py").write_text("raise ImportError('gpu-check wants no Ansible')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMULATED_GPU_STATE", str(directory / "gpu" / "state"))
        uuid = prepared(module)
        done = subprocess.run(
            [sys.executable, str(PROGRAM), "--gpu", uuid, "--out", str(directory / "run.json")],
            env={**os.environ, "LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": str(directory)},
            capture_output=True,
            text=True,
            timeout=280,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("SIMULATED"), "a simulated run never looks like a real one"
        assert module.used_mib(1) == 800, "all is free again"
        assert module.peak_used_mib(1) == 800 + CONTEXT_MIB + max(checks.STEPS_MIB), "and no more was ever held"
        assert module.peak_used_mib(0) == 0, "of another GPU nothing is taken"
    found: dict[str, Any] = json.loads((directory / "run.json").read_text())
    assert (found["gpu"]["index"], found["gpu"]["uuid"], found["gpu"]["total_mib"]) == (1, uuid, 143771)
    return found


def test_every_check_holds_on_the_simulated_gpu(record: dict[str, Any]) -> None:
    assert {check["name"]: check["why"] or check["measured"] for check in record["checks"] if not check["ok"]} == {}
    assert (record["schema"], record["simulated"], record["result"]) == (1, True, "ok")


def test_the_record_has_costs_gaps_and_spikes(record: dict[str, Any]) -> None:
    assert {name for name, cost in record["calls"].items() if cost["error"]} == set()
    for cost in [*record["calls"].values(), record["memory_call_busy"]]:
        assert 0 < cost["p50_us"] <= cost["p99_us"] <= cost["max_us"]
    for sampled in record["sampling"].values():
        assert [spike["ms"] for spike in sampled["spikes"]] == [ms for ms, _mib in checks.spike_plan()]
        assert sampled["max_gap_ms"] >= sampled["interval_ms"] * 0.9


def test_nobody_s_process_is_named_in_the_record(record: dict[str, Any]) -> None:
    assert "Xorg" not in json.dumps(record)


# ---- where it cannot be checked ----


def test_without_a_driver_it_says_so(check: Run, state: Path) -> None:
    state.unlink()
    done = check()
    assert done.returncode == 2
    assert done.stderr.startswith(
        "gpu-check: No NVIDIA driver on this machine. If it has no NVIDIA GPU, there is nothing"
    )
    assert "kernel driver is not loaded" in done.stderr and done.stdout == ""


def test_without_cuda_it_says_what_to_install(check: Run, library: Path, tmp_path: Path) -> None:
    (tmp_path / library.name).symlink_to(library)
    done = check(LD_LIBRARY_PATH=str(tmp_path))
    assert done.returncode == 2
    assert "libcuda.so.1 cannot be loaded" in done.stderr and "compute,utility" in done.stderr


def test_a_full_gpu_is_left_alone(check: Run, gpus: Any) -> None:
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=13000))
    done = check()
    assert done.returncode == 2
    assert "only 3380 MiB are free of GPU 0" in done.stderr
    assert gpus.peak_used_mib() == 13000, "not even a context was made"


def test_a_gpu_that_is_not_there_is_named_with_those_that_are(check: Run) -> None:
    done = check("--gpu", "7")
    assert done.returncode == 2
    assert "--gpu 7: no such GPU here; it must be one of: 0 = GPU-" in done.stderr


def test_a_place_that_cannot_be_written_is_told_before_anything_is_held(check: Run, gpus: Any, tmp_path: Path) -> None:
    done = check("--out", str(tmp_path / "missing" / "run.json"))
    assert done.returncode == 2
    assert "cannot write" in done.stderr and "--out" in done.stderr
    assert check("--out", str(tmp_path)).returncode == 2
    assert gpus.peak_used_mib() == 0


# ---- where the driver is at fault ----


def test_a_driver_that_crashes_in_the_middle_is_a_failed_check(check: Run, gpus: Any, tmp_path: Path) -> None:
    gpus.add(gpus.Fault(function="cuMemAlloc_v2", crash=1, from_call=3))
    done = check()
    assert done.returncode == 1
    record = json.loads((tmp_path / "gpu-check.json").read_text())
    (broken,) = record["checks"]
    assert (broken["name"], broken["ok"], record["result"]) == ("to the end", False, "failed")
    assert "the holder ended: SIGABRT" in broken["why"]
    assert gpus.used_mib() == 0


def test_memory_that_does_not_come_back_is_a_failed_check(gpus: Any, tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, str(PROGRAM)], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while gpus.used_mib() <= CONTEXT_MIB + checks.LOWEST_MIB:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.005)
    gpus.add(gpus.Process(pid=gpus.GHOST_PID, ghost=1, mib=512, name="what a driver forgot"))
    out, _nothing = child.communicate(timeout=280)
    assert child.returncode == 1
    assert re.search("FAILED +freed", out)
    record = json.loads((tmp_path / "gpu-check.json").read_text())
    assert "freed" in [check["name"] for check in record["checks"] if check["ok"] is False]


def test_its_processes_end_with_it_even_inside_a_driver_that_hangs(gpus: Any, tmp_path: Path) -> None:
    gpus.add(gpus.Fault(function="cuMemAlloc_v2", delay_ms=600_000))
    child = subprocess.Popen([sys.executable, str(PROGRAM)], cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while gpus.used_mib() < CONTEXT_MIB:
        assert time.monotonic() < deadline and child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    while gpus.used_mib():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_driver_that_hangs_is_a_message_and_its_process_is_ended(gpus: Any) -> None:
    gpus.add(gpus.Fault(function="cuInit", delay_ms=600_000))
    holder = helper.Helper(str(PROGRAM), "holder", time.monotonic() + 60)
    with contextlib.closing(holder), pytest.raises(helper.HelperProblem, match="the holder hangs"):
        holder.ask("devices", 0.5)
    assert not Path(f"/proc/{holder.pid}").exists()


# ---- the simulation and real runs ----


@pytest.mark.parametrize("path", [None, *REAL_RUNS], ids=lambda path: path.stem if path else "itself")
def test_the_simulated_gpu_is_like_the_real_ones(record: dict[str, Any], path: Path | None) -> None:
    real = json.loads(path.read_text()) if path else record
    assert real["simulated"] == (path is None), "only runs on a real GPU belong into tests/data/gpu-check"
    assert compare.differences(record, real) == []


def test_the_page_says_which_real_runs_there_were() -> None:
    page = (ROOT / "docs" / "gpu-check.md").read_text()
    assert [path.name for path in REAL_RUNS if path.name not in page] == []
    assert ("**Last real run: none yet.**" in page) == (not REAL_RUNS)


def changed(record: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    real = copy.deepcopy(record)
    change(real)
    return real


def test_what_a_real_gpu_does_otherwise_is_told(record: dict[str, Any]) -> None:
    def fails(real: dict[str, Any]) -> None:
        real["checks"][5].update(ok=False, measured={"least_mib": 300, "most_mib": 420})

    (told,) = compare.differences(record, changed(record, fails))
    assert told.startswith("reserved holds simulated, not with the real driver")
    without = changed(record, lambda mine: mine["calls"]["nvmlDeviceGetName"].update(error="NVML_ERROR_NOT_SUPPORTED"))
    assert "nvmlDeviceGetName answers with the real driver" in compare.differences(without, record)[0]
    assert compare.differences(record, without) == [], "a GPU may lack what another has"
    without = changed(record, lambda mine: mine["gpu"].update(persistence=None, reserved_mib=0))
    assert len(compare.differences(without, record)) == 2
    broken = {"schema": 1, "checks": [checks.broken("it hung")]}
    assert compare.differences(record, broken) == ["the real run broke off: it hung"]
    assert "schema" in compare.differences(record, changed(record, lambda real: real.update(schema=2)))[0]


# ---- CUDA's driver API ----


def cuda_code(code: str, library: Path) -> str:
    """Run code with `driver`, opened on the first GPU, in a process of its own."""
    prelude = f"""
from ansible_collections.selo.gpu_memory.script.lib.gpu_check.cuda import Cuda, CudaProblem
driver = Cuda()
driver.open(0)
{code}
"""
    path = {"LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": str(ROOT / ".collections")}
    done = subprocess.run(
        [sys.executable, "-c", prelude], env={**os.environ, **path}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_more_than_there_is_is_refused_with_its_name(gpus: Any, library: Path) -> None:
    said = cuda_code(
        """
try:
    driver.allocate(16380)
except CudaProblem as problem:
    print(problem.code, problem)
""",
        library,
    )
    assert said.startswith("2 cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY; other processes hold")


def test_what_is_freed_is_free_and_a_pointer_is_freed_once(gpus: Any, library: Path) -> None:
    said = cuda_code(
        """
before = driver.free_mib()
address = driver.allocate(511)
print(before - driver.free_mib())
driver.free(address)
print(before - driver.free_mib())
try:
    driver.free(address)
except CudaProblem as problem:
    print(problem)
driver.close()
driver.close()
""",
        library,
    )
    assert said.splitlines() == ["512", "0", "cuMemFree_v2: CUDA_ERROR_INVALID_VALUE"]
    assert gpus.used_mib() == 0


TYPES = {
    "int": ctypes.c_int, "CUdevice": ctypes.c_int, "CUresult": ctypes.c_int, "unsigned": ctypes.c_uint,
    "unsigned char": ctypes.c_ubyte, "size_t": ctypes.c_size_t, "CUdeviceptr": ctypes.c_uint64,
    "CUcontext": ctypes.c_void_p, "CUuuid": ctypes.c_ubyte * 16, "char *": ctypes.c_char_p,
}  # fmt: skip


def as_ctypes(parameter: str) -> Any:
    """A parameter of a C prototype, its name left out, as ctypes has it."""
    words = re.sub(r"\bconst\b|__attribute__.*", "", parameter).replace("*", " * ").split()
    kind = " ".join(words[:-1])
    return TYPES[kind] if kind in TYPES else ctypes.POINTER(TYPES[kind.removesuffix("*").strip()])


def test_every_function_is_called_with_the_types_that_it_has() -> None:
    """A pointer without its type would be cut in half, on the first real GPU alone."""
    source = (ROOT / "molecule" / "lab" / "simulated_gpu" / "simulated_cuda.c").read_text()
    for macro, body in re.findall(r"#define (\w+)\(function\) \\\n((?:.*\\\n)*)", source):
        source += "".join(body.replace("function", name) for name in re.findall(rf"^{macro}\((\w+)\)", source, re.M))
    found = dict(re.findall(r"API CUresult (\w+)\(((?:[^()]|\(\([^()]*\)\))*)\)", source))
    for names, arguments in cuda.FUNCTIONS.items():
        for name in names:
            parameters = [] if found[name] == "void" else found[name].split(", ")
            assert [as_ctypes(parameter) for parameter in parameters] == list(arguments), name


# ---- what the figures prove ----


def test_gpus_are_told_apart_by_uuid_or_address() -> None:
    nvml = ("GPU-0a", "00000000:C1:00.0")
    assert checks.is_same_gpu(("GPU-0A", ""), nvml)
    assert checks.is_same_gpu(("MIG-7", "0000:c1:00.0"), nvml)
    assert not checks.is_same_gpu(("MIG-7", "0000:c2:00.0"), nvml)
    assert not checks.is_same_gpu(("MIG-7", ""), ("GPU-0a", ""))


def test_a_distribution_is_of_what_was_measured() -> None:
    assert checks.distribution([float(number) for number in range(1, 201)]) == {
        "n": 200, "p50_us": 100.0, "p99_us": 198.0, "max_us": 200.0,
    }  # fmt: skip
    assert checks.distribution([7.0]) == {"n": 1, "p50_us": 7.0, "p99_us": 7.0, "max_us": 7.0}


def test_a_process_may_be_listed_by_the_pid_that_the_host_has_for_it() -> None:
    def listing(*pids: int) -> dict[str, Any]:
        return {"processes": [{"pid": pid} for pid in pids]}

    assert checks.listed_pid(listing(5), listing(5, 42), 42) == 42
    assert checks.listed_pid(listing(5), listing(5, 90017), 42) == 90017
    assert checks.listed_pid(listing(5, 42), listing(5, 42, 90017), 42) == 90017, "the host's 42 is another"
    assert checks.listed_pid(listing(5), listing(5), 42) is None
    assert checks.listed_pid(listing(5), listing(5, 6, 7), 42) is None, "which of them cannot be told"


def test_spikes_have_heights_that_no_sample_mistakes_and_take_little() -> None:
    heights = sorted(mib for _ms, mib in checks.spike_plan())
    assert min(high - low for low, high in zip(heights, heights[1:])) > 2 * checks.TOLERANCE_MIB
    assert all(mib % 2 == 0 for mib in heights), "CUDA gives memory in pieces of 2 MiB"
    assert max(*heights, *checks.STEPS_MIB) + checks.SECOND_MIB < checks.LEAST_FREE_MIB / 2


def test_memory_is_matched_though_cuda_counts_otherwise() -> None:
    gpus = [{"index": n, "uuid": f"GPU-{n}", "pci_bus_id": f"00000000:0{n}:00.0", "error": None} for n in range(3)]
    gpus = [{**gpu, "free_mib": 16000} for gpu in gpus]
    devices = [{"uuid": f"GPU-{n}", "pci": f"0000:0{n}:00.0"} for n in (2, 0)]
    assert run.matched(gpus, devices, None)[0]["index"] == 2, "the first that CUDA shows"
    assert run.matched(gpus, devices, "0")[1] is devices[1]
    with pytest.raises(run.CannotCheck, match="CUDA does not show GPU-1; it shows: GPU-2"):
        run.matched(gpus, devices, "1")
    lost = [{**gpus[0], "error": "the GPU is lost"}, *gpus[1:]]
    with pytest.raises(run.CannotCheck, match="GPU 0: the GPU is lost"):
        run.matched(lost, devices, "0")
    assert run.matched(lost, devices[::-1], None)[0]["index"] == 2


PLACES = {"wsl": False, "own_pids": False, "strangers": 0}


@pytest.mark.parametrize(
    ("name", "place", "ok", "why"),
    [
        ("pids", {}, False, "another pid"),
        ("pids", {"own_pids": True}, None, "container"),
        ("names", {}, None, "somebody else's"),
        ("process", {}, True, ""),
        ("process", {"wsl": True}, True, ""),
    ],
)
def test_a_container_s_pids_excuse_what_they_explain(name: str, place: Any, ok: bool | None, why: str) -> None:
    def reading(used: int, *rows: tuple[int, int | None]) -> dict[str, Any]:
        memory = {"used": used * port.MIB}
        return {"memory": memory, "processes": [{"pid": pid, "used_mib": mib, "kind": "compute"} for pid, mib in rows]}

    facts = {
        "place": {**PLACES, **place},
        "gpu": {"mig": False, "memory_api": "v2"},
        "holder": {"pid": 42, "comm": "python3", "called": "python3", "program": "python3.11"},
        "name": {"nvml": "python3", "product": "bash", "error": None},
        "before": reading(0),
        "opened": reading(300, (90017, 300)),
        "steps": [{"mib": mib, **reading(300 + mib, (90017, 300 + mib))} for mib in checks.STEPS_MIB],
    }
    found = {"pids": checks._pids, "process": checks._process, "names": checks._names}[name](facts)
    assert found["ok"] is ok
    assert why in found["why"]
    assert "bash" not in json.dumps(found), "what runs under that pid here is somebody else's"


@pytest.mark.parametrize(
    ("change", "ok"),
    [
        ({}, True),
        ({"accounting": {"mode": "enabled", "peak_mib": 1200, "error": None}}, False),
        ({"second": {"accounting": {"peak_mib": 812, "running": True}}}, False),
        ({"second": {"accounting": {"peak_mib": 0, "running": False}}}, False),
        ({"second": {"problem": "no"}}, True),
        ({"accounting": {"mode": "disabled"}}, None),
    ],
)
def test_accounting_is_held_to_what_was_held(change: Any, ok: bool | None) -> None:
    opened = {"processes": [{"pid": 42, "used_mib": 300, "kind": "compute"}]}
    facts = {
        "place": PLACES, "gpu": {"mig": False, "memory_api": "v2"}, "holder": {"pid": 42},
        "before": {"processes": []}, "opened": opened,
        "accounting": {"mode": "enabled", "peak_mib": 1324, "error": None},
        "second": {"accounting": {"peak_mib": 812, "running": False}},
    }  # fmt: skip
    assert checks._accounting({**facts, **change})["ok"] is ok


def test_what_a_place_explains_is_not_told_and_anything_else_fails() -> None:
    facts: dict[str, Any] = {
        "place": PLACES, "moved_mib": 0, "gpu": {"mig": False, "memory_api": "v2"}, "opened": {"memory": {"used": 0}},
        "after": {"memory": {"used": 500 * port.MIB}},
        "second": {"problem": "no", "code": cuda.DEVICE_UNAVAILABLE},
    }  # fmt: skip
    assert checks._freed(facts)["ok"] is False
    for excused in ({"place": {**PLACES, "wsl": True}}, {"moved_mib": 50}, {"gpu": {**facts["gpu"], "mig": True}}):
        assert checks._freed({**facts, **excused})["ok"] is None
    assert (checks._two(facts)["ok"], checks._dies(facts)["ok"]) == (None, None), "compute mode is exclusive"
    assert checks._two({**facts, "second": {"problem": "no", "code": 999}})["ok"] is False
    spared = {"second": {"held": {}, "spared": True}}
    assert "MPS" in checks._dies({**facts, **spared})["why"]
    calls = {name: {"error": None} for name in checks.NEEDED}
    calls.update({f"nvmlDeviceGetMemoryInfo {version}": {"error": None} for version in ("v1", "v2")})
    assert checks._calls({**facts, "costs": {"calls": calls}})["ok"] is True
    calls["nvmlDeviceGetComputeRunningProcesses"] = {"error": "NVMLLibraryMismatchError"}
    assert checks._calls({**facts, "costs": {"calls": calls}})["ok"] is False
    old = {"gpu": {"mig": False, "memory_api": "v1"}, "costs": {"calls": calls}}
    assert "before R510" in checks._calls({**facts, **old})["why"]


def test_a_spike_that_must_be_seen_and_is_not_fails() -> None:
    plan = checks.spike_plan()
    held, at = [], 0.0
    for ms, _mib in plan:
        held.append([at, at + ms / 1000])
        at += 1
    gpu = {"baseline_mib": 1000, "max_gap_ms": 30.0, "timeline": [[0, 1000 + mib] for ms, mib in plan if ms > 30]}
    facts = {"sampling": {"20": {"held": held, "gpu": gpu}}, "moved_mib": 0, "gpu": {"mig": False}, "place": PLACES}
    good = checks._spikes(facts, "20")
    assert (good["ok"], good["measured"]["20 ms"], good["measured"]["50 ms"]) == (True, "0 of 5", "5 of 5")
    gpu["timeline"].pop(3)
    assert checks._spikes(facts, "20")["ok"] is False
    assert checks._spikes({**facts, "moved_mib": 100}, "20")["ok"] is None, "somebody else's memory was in the way"
    gpu["max_gap_ms"] = 900.0
    assert checks._spikes(facts, "20")["ok"] is None


def test_errors_are_worded_with_a_cure() -> None:
    assert "nvidia-fabricmanager" in cuda.CURES[802]
    assert "nvidia_uvm" in cuda.CURES[999]
    assert "compute mode" in cuda.CURES[cuda.DEVICE_UNAVAILABLE]


def test_the_table_shortens_what_holds_and_never_what_fails() -> None:
    row = {"name": "sums", "expected": "x" * 90, "measured": {"off": "y" * 90}, "why": ""}
    about = SimpleNamespace(gpu={"index": 0, "name": "NVIDIA H200", "total_mib": 143771})
    record = {"simulated": False, "gpu": about.gpu, "versions": {"driver": "1", "cuda": "2"}, "took_s": 1.0}
    good = run.table({**record, "checks": [{**row, "ok": True}]})
    bad = run.table({**record, "checks": [{**row, "ok": False}]})
    assert "y" * 90 in good and "x" * 90 not in good and not good.startswith("SIMULATED")
    assert "y" * 90 in bad and "x" * 90 in bad and "1 failed" in bad
