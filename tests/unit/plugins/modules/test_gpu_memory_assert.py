"""The module in its own process, with a fake of the NVML bindings; tests/integration/lab has it with the real ones."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ansible
import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import leases, state_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import load_test
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_assert
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run

# Where this Ansible and this collection are imported from.
LIBRARIES = [str(Path(ansible.__file__).parents[1]), str(Path(load_test.__file__).parents[7])]
# A fake GPU whose use is read from a file, in MiB. The host's own bindings are left out of sys.path by -S.
FAKE_BINDINGS = """
import ctypes, os, types
MIB = 1024 * 1024
nvmlMemory_v2 = 2
NVML_FEATURE_ENABLED = 1
NVML_ERROR_GPU_IS_LOST = 15
class NVMLError(Exception):
    value = 3
class NVMLLibraryMismatchError(Exception):
    pass
class c_nvmlProcessInfo_v2_t(ctypes.Structure):
    _fields_ = [("pid", ctypes.c_uint), ("used", ctypes.c_ulonglong), ("gi", ctypes.c_uint), ("ci", ctypes.c_uint)]
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetIndex(handle): return handle
def nvmlDeviceGetUUID(handle): return "GPU-fake"
def nvmlDeviceGetAccountingMode(handle): raise NVMLError
def nvmlDeviceGetComputeRunningProcesses(handle): return []
nvmlDeviceGetGraphicsRunningProcesses = nvmlDeviceGetMPSComputeRunningProcesses = nvmlDeviceGetComputeRunningProcesses
def nvmlDeviceGetMemoryInfo(handle, version=None):
    with open(os.path.join(os.path.dirname(__file__), "used_mib")) as file:
        used = int(file.read())
    return types.SimpleNamespace(total=16380 * MIB, used=used * MIB, free=(16380 - used) * MIB, reserved=0)
"""


@pytest.fixture
def bindings(tmp_path: Path) -> Path:
    (tmp_path / "pynvml.py").write_text(FAKE_BINDINGS)
    (tmp_path / "used_mib").write_text("800")
    return tmp_path


@pytest.fixture
def run(bindings: Path) -> Any:
    """Run the module; returns its answer."""

    def run(check_mode: bool = False, **parameters: Any) -> dict[str, Any]:
        arguments = {"bindings_path": str(bindings), "_ansible_check_mode": check_mode, **parameters}
        paths = [str(bindings), *LIBRARIES]  # before the site-packages, where the real bindings may be
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(bindings / "state")],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode != 0) == bool(answer.get("failed"))
        return answer

    return run


# As Ansible starts a module, for all releases: 2.19 and later want a profile of serialization.
RUN = """
import sys
import threading
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_assert
Paths.__new__.__defaults__ = (sys.argv[1], *Paths.__new__.__defaults__[1:])
gpu_memory_assert.main()
"""


def test_measures_without_a_threshold(run: Any) -> None:
    found = run(duration=0.3, interval_ms=20)
    assert (found["changed"], found["evidence"], found["peak_used_mib"]) == (False, "sampled", 800)
    assert found["samples"] >= 3
    assert found["max_gap_ms"] > 0
    assert found["load"] is None
    assert found["gpus"][0]["uuid"] == "GPU-fake"


def test_a_load_that_takes_too_much_fails_with_all_figures(run: Any, serve: Any, bindings: Path) -> None:
    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        new = bindings / f"new-{threading.get_ident()}"
        new.write_text("12711")
        new.replace(bindings / "used_mib")
        return 200, b"{}"

    found = run(max_used_mib=12288, load={"url": serve(answer), "bodies": [{"message": "hi"}]})
    assert found["failed"]
    assert found["msg"].startswith("GPU 0 (GPU-fake): 12711 of at most 12288 MiB used at t=")
    assert (found["peak_used_mib"], found["gpus"][0]["baseline_mib"]) == (12711, 800)
    assert (found["load"]["ok"], found["load"]["requests"]) == (3, 3)
    assert found["timeline"][-1][1] == 12711


def test_exactly_the_threshold_passes(run: Any) -> None:
    assert "failed" not in run(max_used_mib=800, duration=0.1)
    assert run(max_used_mib=799, duration=0.1)["failed"]


def test_failed_requests_fail(run: Any, serve: Any) -> None:
    answers = iter([(500, b'{"error": "runner stopped"}'), (502, b""), (200, b"")])
    url = serve(lambda handler, body: next(answers))
    found = run(max_used_mib=12288, load={"url": url, "concurrency": 1, "requests": 3})
    assert found["msg"].startswith("2 of 3 requests failed: status 500 instead of 200: runner stopped (and 1 other")
    assert found["evidence"] == "sampled"


def test_other_models_are_asked_for_and_fail_by_name(run: Any, serve: Any) -> None:
    asked: list[Any] = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        asked.append((handler.path.rpartition("/")[2], json.loads(body), handler.headers.get("X-Key")))
        return (500, b'{"error": "no memory"}') if handler.path.endswith("/embed") else (200, b"{}")

    url, elsewhere = serve(answer), serve(answer)

    def other(model: str, url: str) -> dict[str, Any]:
        body = {"model": model, "input": ""}
        return {"model": model, "url": url, "bodies": [body], "prompt_at": "input", "prompts": "fill",
                "context_tokens": 8}  # fmt: skip

    others = [other("a", f"{url}/chat"), other("b", f"{elsewhere}/chat"), other("e", f"{url}/embed")]
    load = {"url": url, "concurrency": 1, "bodies": [{}], "headers": {"X-Key": "sesame"}, "seed": 5, "others": others}
    found = run(max_used_mib=12288, load=load)
    assert found["msg"] == (
        "e, asked for at Ollama itself: 1 of 1 requests failed: status 500 instead of 200: no memory"
    )
    assert [(body.get("model"), key) for _path, body, key in asked] == [
        (None, "sesame"),
        ("a", "sesame"),
        ("b", None),
        ("e", "sesame"),
    ]
    texts = [body["input"] for _path, body, _key in asked[1:]]
    assert len(set(texts)) == 3  # names of one model share a prompt cache
    assert {len(text.split()) for text in texts} == {7}
    assert found["load"]["loaded"] == ["a", "b"]


def test_nvml_that_cannot_be_read_fails_and_sends_no_load(run: Any, serve: Any, bindings: Path) -> None:
    requests = []
    url = serve(lambda handler, body: (requests.append(body), (200, b""))[1])
    (bindings / "pynvml.py").write_text(FAKE_BINDINGS + "\ndef nvmlInit(): import os; os.abort()\n")
    found = run(max_used_mib=12288, load={"url": url})
    assert found["failed"]
    assert "SIGABRT" in found["msg"]
    assert (found["evidence"], found["nvml"], found["peak_used_mib"]) == ("none", {"status": "crashed"}, None)
    assert requests == []


def test_check_mode_does_nothing(run: Any, serve: Any, bindings: Path) -> None:
    requests = []
    url = serve(lambda handler, body: (requests.append(body), (200, b""))[1])
    found = run(check_mode=True, max_used_mib=1, load={"url": url}, progress_path=str(bindings / "progress"))
    assert (found["changed"], found["skipped"]) == (False, True)
    assert requests == []
    assert not (bindings / "progress").exists()


def test_header_values_stay_inside(run: Any, serve: Any) -> None:
    seen = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        seen.append(handler.headers["Authorization"])
        return 403, f"no entry for {handler.headers['Authorization']}".encode()

    found = run(load={"url": serve(answer), "headers": {"Authorization": "Bearer sesame"}})
    assert seen == ["Bearer sesame"] * 3
    assert "sesame" not in json.dumps(found)


def test_progress_can_be_read_meanwhile(run: Any, serve: Any, bindings: Path) -> None:
    path = bindings / "progress.json"
    seen = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        while not path.exists():
            pass
        seen.append((json.loads(path.read_text()), stat.S_IMODE(path.stat().st_mode)))
        return 200, b""

    run(max_used_mib=12288, load={"url": serve(answer), "concurrency": 1, "requests": 1}, progress_path=str(path))
    figures, mode = seen[0]
    assert mode == 0o600
    assert {**figures, "t_s": 0} == {
        "t_s": 0,
        "used_mib": 800,
        "peak_used_mib": 800,
        "max_used_mib": 12288,
        "requests_done": 0,
        "requests": 1,
    }
    assert [name for name in os.listdir(bindings) if name.startswith(".progress")] == []


def test_the_lease_is_renewed_while_the_load_runs_and_when_it_has_ended(run: Any, serve: Any, bindings: Path) -> None:
    lease, clock, seen = bindings / "state" / "lease.json", SystemClock(), []
    lease.parent.mkdir()
    kept = {"run_id": "run1", "holder": "alice", "generation": "0001", "since": 0, "restore_after_s": 240}
    state_files.write_json(str(lease), {**kept, "boot": "another", "deadline_s": 0})

    def left_s() -> float:
        return leases.left_s(json.loads(lease.read_text()), clock.boot_time())

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        while not left_s():
            pass
        seen.append(json.loads(lease.read_text())["deadline_s"])
        return 200, b""

    run(renew="run1", load={"url": serve(answer), "concurrency": 1, "requests": 1})
    assert json.loads(lease.read_text())["deadline_s"] > seen[0]
    assert left_s() > 230


def test_a_load_ends_where_the_host_is_not_held_for_it_any_more(run: Any, serve: Any, tmp_path: Path) -> None:
    figures = tmp_path / "progress.json"
    figures.touch()
    result = run(renew="run1", load={"url": serve(lambda handler, body: (200, b""))}, progress_path=str(figures))
    assert "run1 does not hold this host" in result["msg"] and not figures.exists()


@pytest.mark.parametrize("waits", [True, False])
def test_a_load_renews_its_lease_at_its_start_and_then_as_long_as_somebody_waits(
    run: Any, serve: Any, bindings: Path, waits: bool
) -> None:
    """With a lease so short that it is due all the time."""
    lease, progress, seen = bindings / "state" / "lease.json", bindings / "progress.json", []
    sign = Path(waiting.sign(str(progress)))
    lease.parent.mkdir()
    kept = {"run_id": "run1", "holder": "alice", "generation": "0001", "since": 0, "restore_after_s": 0.1}
    state_files.write_json(str(lease), {**kept, "boot": "another", "deadline_s": 0})

    def deadline() -> float:
        return float(json.loads(lease.read_text())["deadline_s"])

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        while not deadline():
            pass
        seen.append(deadline())
        while waits and deadline() == seen[0]:
            sign.touch()
        return 200, b""

    load = {"url": serve(answer), "concurrency": 1, "requests": 1}
    sign.touch()  # of before
    run(renew="run1", is_waited_for=True, progress_path=str(progress), load=load)
    assert (deadline() > seen[0]) == waits
    # Whoever waited takes this away, and does not where the host was suspended meanwhile.
    assert waits or not (progress.exists() or sign.exists())


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_used_mib": 0, "duration": 1}, "max_used_mib is 0, it must be at least 1"),
        ({"interval_ms": 5, "duration": 1}, "interval_ms is 5, it must be at least 10 and at most 100"),
        ({"interval_ms": 101, "duration": 1}, "interval_ms is 101, it must be at least 10 and at most 100"),
        ({"duration": -1}, "duration is -1.0, it must be at least 0.1"),
        ({}, "load, duration"),
        ({"load": {"url": "localhost:8000"}}, "load.url is localhost:8000: not a URL"),
        ({"load": {"url": "http://a", "concurrency": 0}}, "load.concurrency is 0"),
        ({"load": {"url": "http://a", "requests": 0}}, "load.requests is 0"),
        ({"load": {"url": "http://a", "timeout": 0}}, "load.timeout is 0"),
        ({"load": {"url": "http://a", "expect_status": 20}}, "load.expect_status is 20"),
        ({"load": {"url": "http://a", "path": "/x"}}, "path"),
        ({"duration": 1, "is_waited_for": True}, "is_waited_for is true, so progress_path must be set"),
        ({"duration": 1, "progress_path": "/no/such/place"}, "progress_path is /no/such/place"),
    ],
)
def test_bad_parameters_are_named(
    parameters: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory_assert, "measure", None)  # nothing is measured: no process of its own is needed
    found = Run(capsys)(gpu_memory_assert, **parameters)
    assert found["failed"]
    assert words in found["msg"]
    assert "Traceback" not in json.dumps(found)


def test_a_gpu_that_is_not_there_is_named(run: Any) -> None:
    found = run(duration=1, gpus=["GPU-x"])
    assert found["failed"] and "GPU GPU-x" in found["msg"] and "Traceback" not in json.dumps(found)


def test_headers_that_were_sent_apart_are_gone_once_read_and_never_shown(run, serve, tmp_path):
    seen = []
    path = tmp_path / "headers"

    def answer(handler, _body):
        seen.append((handler.headers["Authorization"], path.exists()))
        return 403, f"no entry for {handler.headers['Authorization']}".encode()

    for load in ({"url": serve(answer)}, {"url": "nonsense"}):
        path.write_text('{"Authorization": "Bearer sesame"}')
        found = run(load=load, headers_path=str(path))
        assert found["failed"] and "sesame" not in json.dumps(found)
        assert not path.exists()
    assert set(seen) == {("Bearer sesame", False)}
    assert "cannot be read" in run(load={"url": "http://127.0.0.1"}, headers_path=str(path))["msg"]
    path.symlink_to(tmp_path / "used_mib")
    assert "cannot be read" in run(load={"url": "http://127.0.0.1"}, headers_path=str(path))["msg"]


@pytest.mark.parametrize(
    "changes, failure",
    [
        ({}, []),
        ({"ok": 2, "requests": 2}, ["2 requests were answered, and 3 were to be sent"]),
        ({"wanted": None, "ok": 0}, ["0 requests were answered, and some were to be sent"]),
        ({"broken": "the load test broke: KeyError"}, ["the load test broke: KeyError"]),
        (
            {"others": [{"model": "e", "wanted": 1, "ok": 0, "failed": 0}]},
            ["0 requests for e were answered, and 1 were to be sent"],
        ),
    ],
)
def test_a_request_that_is_missing_is_a_failure(changes: dict[str, Any], failure: list[str]) -> None:
    figures = {"wanted": 3, "requests": 3, "ok": 3, "failed": 0, "errors": [], "broken": None, "others": []}
    assert gpu_memory_assert.failures_of([], {**figures, **changes}, None, None) == failure
