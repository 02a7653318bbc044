from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library, port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process

# What tells releases of the bindings apart, copied from them.
GOOD = """
import ctypes
nvmlMemory_v2 = 0x2000028
class c_nvmlProcessInfo_v2_t(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint)]
"""
TOO_OLD = "class c_nvmlProcessInfo_t: pass"  # 11.450: no memory v2
MISREADS = GOOD.replace("_v2_t", "_t")  # 12.535.77: one size of process record, and the wrong one


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Directories host and sent; only host is on sys.path."""
    for name in ("host", "later", "sent"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "host"), str(tmp_path / "later")])
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    return tmp_path


def load(places: Path) -> tuple[str, str, str | None]:
    _unused, found = nvml_library.load_bindings(str(places / "sent"))
    return found["source"], Path(found["path"]).parent.name, found["version"]


def test_the_hosts_good_bindings_come_first(places: Path) -> None:
    (places / "host/pynvml.py").write_text(GOOD)
    (places / "host/nvidia_ml_py-12.570.86.dist-info").mkdir()
    (places / "sent/pynvml.py").write_text(GOOD)
    assert load(places) == ("host", "host", "12.570.86")


@pytest.mark.parametrize("bad", [TOO_OLD, MISREADS, "import no_such_module", "syntax error"])
def test_bad_bindings_are_passed_by(places: Path, bad: str) -> None:
    (places / "host/pynvml.py").write_text(bad)
    with pytest.raises(port.GpuProblem, match="host/pynvml.py.*pip install nvidia-ml-py") as problem:
        load(places)
    assert problem.value.status == "bindings_bad"
    (places / "sent/pynvml.py").write_text(GOOD)
    assert load(places) == ("sent", "sent", None)
    (places / "later/pynvml.py").write_text(GOOD)
    assert load(places) == ("host", "later", None)


def test_the_old_package_does_not_shadow(places: Path) -> None:
    (places / "host/pynvml").mkdir()
    (places / "host/pynvml/__init__.py").write_text("raise SystemExit('the old API')")
    with pytest.raises(port.GpuProblem, match="old pynvml package") as problem:
        load(places)
    assert problem.value.status == "bindings_bad"
    (places / "host/pynvml.py").write_text(GOOD)
    assert load(places) == ("host", "host", None)


def test_no_bindings_at_all(places: Path) -> None:
    with pytest.raises(port.GpuProblem, match="no NVML bindings for .*; install nvidia-ml-py") as problem:
        nvml_library.load_bindings(None)
    assert problem.value.status == "bindings_missing"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.45.04  Release Build  (x@y)\n", "595.45.04"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.86  Tue Oct 26\nGCC version: 9.3.0\n", "470.86"),
        ("something else", None),
        (None, None),
    ],
)
def test_kernel_driver_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, version: str | None
) -> None:
    if text is not None:
        (tmp_path / "version").write_text(text)
    monkeypatch.setattr(nvml_library, "DRIVER_VERSION_FILE", str(tmp_path / "version"))
    assert nvml_library.kernel_driver_version() == version


class FakeError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"code {value}")
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """No subclass of NVMLError in the real bindings either."""


def fake_nvml(**functions: Any) -> Any:
    """A fake of the bindings, as far as a test needs them."""
    fake = ModuleType("pynvml")
    fake.__dict__.update(
        NVMLError=FakeError,
        NVMLLibraryMismatchError=NVMLLibraryMismatchError,
        NVML_ERROR_GPU_IS_LOST=15,
        NVML_ERROR_UNKNOWN=999,
        nvmlMemory_v2=2,
        nvmlSystemGetProcessName=raises(FakeError(6)),
        **functions,
    )
    return fake


def raises(problem: Exception) -> Any:
    def function(*arguments: Any, **options: Any) -> Any:
        raise problem

    return function


def test_version_mismatch_names_the_running_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu\n")
    monkeypatch.setattr(nvml_library, "DRIVER_VERSION_FILE", str(tmp_path / "version"))
    found = nvml_library.explain(fake_nvml(), FakeError(18))
    assert found.status == "version_mismatch"
    assert "550.54.14" in str(found)
    assert "reboot" in str(found)


@pytest.mark.parametrize(
    ("problem", "status", "words"),
    [
        (FakeError(999), "error", "NVML_ERROR_UNKNOWN"),
        (FakeError(999), "error", "--gpu-reset"),
        (FakeError(77), "error", "NVML_ERROR 77"),
        (FakeError(17), "no_permission", "control group"),
        (NVMLLibraryMismatchError("Unversioned function called"), "error", "older than R510"),
        (KeyError("x"), "error", "KeyError"),
    ],
)
def test_explain(problem: Exception, status: str, words: str) -> None:
    found = nvml_library.explain(fake_nvml(), problem)
    assert (found.status, words in str(found)) == (status, True), str(found)


def test_a_python_of_32_bits_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ldconfig" in str(nvml_library.explain(fake_nvml(), FakeError(12)))
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    found = nvml_library.explain(fake_nvml(), FakeError(12))
    assert found.status == "library_missing" and "ansible_python_interpreter" in str(found)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ("nouveau 2899968 1 - Live 0x0000000000000000\nmxm_wmi 12288 1 nouveau, Live 0x0\n", "blacklist nouveau"),
        ("drm 741376 2 nouveau_like, Live 0x0000000000000000\n", "dkms autoinstall"),
        (None, "modprobe nvidia"),
    ],
)
def test_a_driver_that_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modules: str | None, words: str
) -> None:
    if modules is not None:
        (tmp_path / "modules").write_text(modules)
    monkeypatch.setattr(nvml_library, "MODULES_FILE", str(tmp_path / "modules"))
    found = nvml_library.explain(fake_nvml(), FakeError(9))
    assert found.status == "driver_not_loaded" and words in str(found)


def row(pid: int, mib: int | None) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * port.MIB)


def test_processes_are_listed_once() -> None:
    own = os.getpid()
    nvml = fake_nvml(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [row(own, 100), row(4194305, 7), row(4194306, None)],
        nvmlDeviceGetGraphicsRunningProcesses=lambda handle: [row(own, 100), row(4194307, 5)],
        nvmlDeviceGetMPSComputeRunningProcesses=raises(FakeError(3)),
    )
    found = {process["pid"]: (process["kind"], process["used_mib"]) for process in nvml_library.processes(nvml, None)}
    assert found == {
        own: ("both", 100),
        4194305: ("compute", 7),
        4194306: ("compute", None),
        4194307: ("graphics", 5),
    }
    comm = Path(f"/proc/{own}/comm").read_text().strip()
    assert [process["name"] for process in nvml_library.processes(nvml, None) if process["pid"] == own] == [comm]


def test_names_of_processes_elsewhere_are_short() -> None:
    nvml = fake_nvml()
    assert nvml_library.process_name(nvml, 4194305) is None
    nvml.nvmlSystemGetProcessName = lambda pid: "/usr/bin/server --token=sesame"
    assert nvml_library.process_name(nvml, 4194305) == "server"


def test_memory_v1_is_only_for_drivers_without_v2() -> None:
    memory = SimpleNamespace(total=10, used=4, free=6, reserved=1)

    def read(codes: dict[Any, int]) -> Any:
        def function(handle: Any, version: Any = None) -> Any:
            if version in codes:
                raise FakeError(codes[version])
            return memory

        return nvml_library.memory_reader(fake_nvml(nvmlDeviceGetMemoryInfo=function), None)

    assert read({})[0] == "v2"
    assert read({2: 13})[0] == read({2: 25})[0] == "v1"
    assert read({2: 13})[1]().reserved is None
    with pytest.raises(FakeError):
        read({2: 15})  # a lost GPU is no old driver
    with pytest.raises(port.GpuProblem, match="shares the host's memory"):
        read({2: 3, None: 3})


@pytest.mark.parametrize(("count", "mib"), [(0, 0), (1, 1), (port.MIB, 1), (port.MIB + 1, 2)])
def test_more_bytes_than_a_threshold_are_never_shown_as_it(count: int, mib: int) -> None:
    assert port.mib_up(count) == mib


@pytest.mark.parametrize(
    ("work", "status", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "crashed", "SIGSEGV"),
        (os.abort, "crashed", "SIGABRT"),
        (lambda: os._exit(3), "crashed", "status 3"),
        (lambda: time.sleep(60), "timeout", "0.5 s"),
        (raises(RuntimeError("odd")), "crashed", "RuntimeError: odd"),
    ],
)
def test_snapshot_is_safe_from_the_library(monkeypatch: pytest.MonkeyPatch, work: Any, status: str, words: str) -> None:
    monkeypatch.setattr(nvml_library, "_read_everything", lambda bindings_path: work())
    # What ends by itself is awaited for as long as a busy machine may need.
    found = nvml_library.snapshot(timeout_s=0.5 if status == "timeout" else 60)
    assert (found["status"], words in found["message"], found["gpus"]) == (status, True, []), found["message"]


def test_the_child_prints_nothing_and_holds_nothing_open(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "held").open("w") as held:

        def work() -> child_process.Message:
            print("noise", flush=True)
            os.write(2, b"noise")
            return {
                "links": [
                    os.readlink(f"/proc/self/fd/{fd}")
                    for fd in os.listdir("/proc/self/fd")
                    if os.path.exists(f"/proc/self/fd/{fd}")
                ]
            }

        links = child_process.call(work, 10)["links"]
        assert held.name not in links
    assert capfd.readouterr() == ("", "")


def test_no_child_is_left_behind() -> None:
    child = child_process.Child(lambda send, lifeline: time.sleep(60))
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_learns_of_its_parents_death() -> None:
    """The lifeline closes by itself when its holder dies, so that a killed module leaves no sampler behind."""

    def parent(send: child_process.Send, lifeline: int) -> None:
        grandchild = child_process.Child(lambda send, lifeline: os.read(lifeline, 1))
        send({"pid": grandchild.pid})
        os.kill(os.getpid(), signal.SIGKILL)

    dying = child_process.Child(parent)
    message = dying.receive(10)
    assert message is not None
    deadline = time.monotonic() + 10
    while Path(f"/proc/{message['pid']}").exists() and "Z" not in Path(f"/proc/{message['pid']}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    dying.close()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [(b"NVIDIA L4", "NVIDIA L4"), (b"card \xff\xfe", r"card \xff\xfe"), (b"a\x1b[31m\nb", r"a\x1b[31m\nb"), ("x", "x")],
)
def test_a_text_that_is_no_utf8_is_shown_escaped(raw: Any, shown: str) -> None:
    def bindings_decode(_handle: int) -> str:
        return str(raw, "utf-8", "strict")

    bindings_decode.__wrapped__ = lambda _handle: raw  # type: ignore[attr-defined]
    assert nvml_library.text(bindings_decode, 0) == shown


def test_a_library_that_the_loader_does_not_know_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[str] = []

    def load_library(path: str) -> None:
        if path not in known:
            raise OSError(path)

    monkeypatch.setattr(nvml_library.ctypes, "CDLL", load_library)
    for place in ("x86_64-linux-gnu", "aarch64-linux-gnu"):
        (tmp_path / place).mkdir()
        (tmp_path / place / nvml_library.LIBRARY).touch()
    places = [f"{tmp_path}/*-linux-gnu"]
    assert nvml_library.find_library(places) is None
    known.append(f"{tmp_path}/x86_64-linux-gnu/{nvml_library.LIBRARY}")
    assert nvml_library.find_library(places) == known[0]
    known.append(nvml_library.LIBRARY)
    assert nvml_library.find_library(places) is None
    (tmp_path / "x86_64-linux-gnu" / "libcuda.so.1").touch()
    known.append(f"{tmp_path}/x86_64-linux-gnu/libcuda.so.1")
    assert nvml_library.find_library(places, "libcuda.so.1") == known[-1]


def memory_of(used: int) -> port.Memory:
    return port.Memory(100, used, 100 - used, 0)


@pytest.mark.parametrize(
    ("reads", "listings", "used"),
    [
        ([8, 8], 1, 8),
        ([8, 9, 9], 2, 9),
        ([9, 8, 8], 2, 8),
        ([6, 7, 8, 9], 3, 9),  # it never stands still: the higher read of the last listing
        ([9, 8, 7, 6], 3, 7),
    ],
)
def test_processes_are_listed_while_memory_stands_still(
    monkeypatch: pytest.MonkeyPatch, reads: list[int], listings: int, used: int
) -> None:
    listed: list[str] = []
    monkeypatch.setattr(nvml_library, "processes", lambda nvml, handle: listed.append(handle) or [len(listed)])
    left = iter(map(memory_of, reads))
    assert nvml_library.held(fake_nvml(), "gpu", lambda: next(left)) == (memory_of(used), [listings])
    assert next(left, None) is None
