"""The module: what it hands to a tuning run, and what it says of one that cannot be; the run itself is a fake here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import tune_run
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_tune
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import Managed
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run

GPU = {"index": 0, "uuid": "GPU-0", "name": "NVIDIA GeForce RTX 4060 Ti", "total_mib": 16380, "reserved_mib": 0}
TASK = {
    "ollama": {"unit": "ollama.service", "url": "http://127.0.0.1:11434"},
    "gpu": GPU,
    "model": "llama3.1:8b",
    "max_used_mib": 12288,
    "base": {"num_ctx": 4096, "num_parallel": 2},
}
RESULT = {"best": {"num_gpu": 33}, "probes": []}
Module = Callable[..., dict[str, Any]]


class FakeTuning:
    """`asked`: what was handed over, as (function, what is wanted, GPU). `fails`: what the run ends with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, tune_run.Wanted, Any]] = []
        self.fails: list[Exception] = []
        monkeypatch.setattr(tune_run, "tune", self.tune)
        monkeypatch.setattr(tune_run, "propose", self.propose)

    def tune(
        self, wanted: tune_run.Wanted, gpu: Any, mask: tune_run.Mask, progress: tune_run.Progress
    ) -> dict[str, Any]:
        self.asked.append(("tune", wanted, gpu))
        progress({"probe": 1})
        for problem in self.fails:
            raise problem
        return dict(RESULT)

    def propose(self, wanted: tune_run.Wanted, gpu: Any, mask: tune_run.Mask) -> dict[str, Any]:
        self.asked.append(("propose", wanted, gpu))
        for problem in self.fails:
            raise problem
        return {"first": None, "why": "nothing is left to try"}


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> FakeTuning:
    return FakeTuning(monkeypatch)


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Module:
    run = Run(capsys)
    return lambda **options: run(gpu_memory_tune, **{**TASK, **options})


def test_a_run_gets_what_was_asked_for_and_its_result_is_the_answer(
    tuning: FakeTuning, module: Module, tmp_path: Path
) -> None:
    answer = module(mode="too_slow", over={"num_ctx": [4096, 5120]}, progress_path=str(tmp_path / "progress"))
    assert (answer["changed"], answer["best"], answer["nvml"]) == (False, RESULT["best"], {"status": "ok"})
    ((function, wanted, gpu),) = tuning.asked
    assert (function, gpu) == ("tune", GPU)
    assert (wanted.unit, wanted.url, wanted.model) == ("ollama.service", "http://127.0.0.1:11434", "llama3.1:8b")
    assert (wanted.mode, wanted.max_used_mib, wanted.over) == ("too_slow", 12288, {"num_ctx": [4096, 5120]})
    assert (wanted.objective, wanted.max_probes, wanted.load_timeout) == (["tokens_per_s"], 8, 600)
    assert json.loads((tmp_path / "progress").read_text()) == {"probe": 1}


def test_the_lease_is_renewed_while_it_probes_and_probing_ends_with_it(
    tuning: FakeTuning, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed = Managed(tmp_path)
    monkeypatch.setattr(gpu_memory_tune.lease_holding, "Paths", lambda: managed.paths)
    monkeypatch.setattr(gpu_memory_tune.lease_holding, "SystemClock", lambda: managed.host)
    managed.keep()
    managed.host.now += 200
    assert module(renew="run1")["best"] == RESULT["best"]
    assert managed.store.stored.summary()["lease"]["left_s"] == 240
    managed.store.drop()
    answer = module(renew="run1")
    assert answer["failed"] and answer["msg"] == "run run1 does not hold this host: nobody does; start a new run"


def test_check_mode_loads_nothing_and_says_what_would_be_tried_first(
    tuning: FakeTuning, module: Module, tmp_path: Path
) -> None:
    answer = module(check_mode=True, progress_path=str(tmp_path / "progress"))
    assert [function for function, *_unused in tuning.asked] == ["propose"]
    assert answer["proposed"]["why"] == "nothing is left to try" and not answer["changed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"over": {"num_threads": [1]}}, "num_threads"),
        ({"at_least": {"num_gpu": "all"}}, "num_gpu"),
        ({"objective": ["beauty"]}, "beauty"),
        ({"mode": "guess"}, "value of mode must be one of: search, still_crashing, too_slow, profiles"),
        ({"progress_path": "/no/such/place"}, "progress_path is /no/such/place, its directory must exist"),
    ],
)
def test_bad_input_is_refused_by_name_before_anything_is_loaded(
    tuning: FakeTuning, module: Module, options: dict[str, Any], words: str
) -> None:
    for check_mode in (True, False):
        answer = module(check_mode=check_mode, **options)
        assert answer["failed"] and words in answer["msg"]
    assert tuning.asked == []


def test_all_that_is_wrong_is_said_at_once(tuning: FakeTuning, module: Module) -> None:
    answer = module(objective=["beauty"], progress_path="/no/such/place")
    assert "beauty" in answer["msg"] and "progress_path" in answer["msg"]


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(
    ("problem", "message", "status"),
    [
        (tune_run.CannotTune("llama3.1:8b makes vectors; name another"), "makes vectors; name another", "ok"),
        (port.GpuProblem("bindings_missing", "no NVML bindings; the cure"), "the cure", "bindings_missing"),
    ],
    ids=["cannot tune", "no NVML"],
)
def test_a_run_that_cannot_be_says_why_and_what_of_nvml(
    tuning: FakeTuning, module: Module, problem: Exception, message: str, status: str, check_mode: bool
) -> None:
    tuning.fails = [problem]
    answer = module(check_mode=check_mode)
    assert answer["failed"] and message in answer["msg"]
    assert answer["nvml"] == {"status": status}  # by which the action plugin knows whether to send bindings


def test_nobody_listens(module: Module) -> None:
    """The real run, as far as it comes without an Ollama."""
    answer = module(ollama={"unit": "no-such.service", "url": "http://127.0.0.1:9"})
    assert answer["failed"] and ("127.0.0.1:9" in answer["msg"] or "no-such.service" in answer["msg"])
