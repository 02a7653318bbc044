"""What a load taught of a host counts for the same model with the same settings there, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import generations
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import calibration, prediction
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    MODEL,
    RUNNER,
    changed,
    declared,
    gpu,
    journal,
    load,
    process,
    read,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import show

MIB = 1024 * 1024
BLOB = "/blobs/a"
SHOW = {**show("llama31-8b-q8_0"), "blob": BLOB}
WEIGHTS, KV = 7605.3, 1024.0  # of 33 layers, and of 8192 tokens in f16


def after(size_vram_mib: float = 8800, **changes: Any) -> dict[str, Any]:
    """A host after a load: 8800 MiB allocated, so that compute is 8800 - weights - KV."""
    return read(
        **{
            "ollama__api__show": {MODEL: SHOW},
            "ollama__api__loaded": [
                {
                    "name": MODEL,
                    "size": int(size_vram_mib * MIB),
                    "size_vram": int(size_vram_mib * MIB),
                    "context_length": 4096,
                }
            ],
            **changes,
        }
    )


def measured(**changes: Any) -> list[dict[str, Any]]:
    return calibration.measure(load(processes=[process(peak_mib=9200)]), after(**changes))


def test_compute_and_runtime_are_what_is_left():
    (entry,) = measured()
    assert entry["model"] == MODEL
    assert entry["compute_mib"] == pytest.approx(8800 - WEIGHTS - KV, abs=1)
    assert entry["runtime_mib"] == pytest.approx(9200 - 8800, abs=1)
    assert entry["at"] == read()["host"]["time"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"ollama__api__show": {}}, id="a model that /api/show does not tell"),
        pytest.param({"ollama__api__show": {MODEL: {**SHOW, "blob": "/blobs/b"}}}, id="a runner of another file"),
        pytest.param({"ollama__journal": journal(loads=[], last_load=None)}, id="layers that were not read back"),
        pytest.param({"size_vram_mib": 0}, id="nothing on the GPU"),
        pytest.param({"size_vram_mib": 8000}, id="less allocated than weights and KV"),
        pytest.param({"size_vram_mib": 9500}, id="more allocated than the process has"),
        pytest.param({"ollama__api__version": "unknown"}, id="no release"),
    ],
)
def test_without_every_figure_nothing_is_learnt(changes):
    assert measured(**changes) == []


def gone(**changes: Any) -> list[dict[str, Any]]:
    """What is learnt of a model that made room for the next, which only embeds and of which nothing else is known."""
    one = {**journal()["last_load"], "buffers_mib": {"CUDA0 model": 7605.0, "CUDA0 KV": 1024.0, "CUDA0 compute": 171.0}}
    last = {**one, "command": ["llama-server", "--model", "/blobs/e", "--embedding"], "buffers_mib": {}}
    host = after(
        **{
            "ollama__runners": [{"pid": 401, "command": last["command"], "environment": {}}],
            "ollama__api__loaded": [{"name": "e", "size": 9, "size_vram": 9, "context_length": 512}],
            "ollama__journal": journal(loads=[one, last], last_load=last),
            **changes,
        }
    )
    processes = [process(peak_mib=9200), process(peak_mib=300, pid=401, command=last["command"])]
    return calibration.measure(load(processes=processes, load__loaded=[MODEL, "e"]), host)


def test_a_model_that_is_loaded_no_more_is_learnt_of_by_the_log():
    (entry,) = gone()
    assert entry == {
        **measured()[0],
        "compute_mib": pytest.approx(171, abs=1),
        "runtime_mib": pytest.approx(400, abs=1),
    }
    cut = {"problem": None, "dropped": 3, "cut": False, "lines": 9}
    assert gone(ollama__journal=journal(log=cut)) == []
    never = {**journal()["last_load"], "started": False}
    assert gone(ollama__journal=journal(loads=[never], last_load=never)) == []


def test_nothing_is_learnt_of_a_process_that_nvml_does_not_tell():
    assert calibration.measure(load(processes=[process(peak_mib=None)]), after()) == []
    assert calibration.measure(load(processes=[]), after()) == []


def test_before_0_30_size_vram_is_an_estimate_and_the_buffers_count():
    command = ["/usr/local/bin/ollama", "runner", "--model", BLOB, "--port", "1"]
    one = {
        **journal()["last_load"],
        "command": command,
        "sent": {"num_ctx_total": 8192, "num_parallel": 2, "num_batch": 512, "num_gpu": 40},
        "buffers_mib": {"CUDA0 model": 7605.0, "CUDA0 KV": 1024.0, "CUDA0 compute": 271.0},
    }
    host = after(
        size_vram_mib=5000,
        ollama__api__version="0.24.0",
        ollama__runners=[{"pid": 400, "command": command, "environment": {}}],
        ollama__journal=journal(loads=[one], last_load=one),
    )
    (entry,) = calibration.measure(load(processes=[process(peak_mib=9200, command=command)]), host)
    assert entry["compute_mib"] == pytest.approx(271, abs=1)
    assert entry["runtime_mib"] == pytest.approx(300, abs=1)


def predicted(host: dict[str, Any], **declaration: Any) -> dict[str, Any]:
    found, notes = prediction.predict(declared(models=[MODEL], **declaration), host, host["ollama"]["api"]["version"])
    assert found is not None and notes == []
    return found


def test_the_next_plan_has_the_measured_figures_without_a_band_and_says_since_when():
    host = after(state__calibration=measured())
    plan = predicted(host)
    assert (plan["compute_mib"], plan["runtime_mib"], plan["total_mib"]) == (171, 400, 9200)
    assert plan["band_mib"] == [9200, 9200]
    assert plan["measured_at"] == {MODEL: read()["host"]["time"]}


OTHERS = {
    "no figure": ({"state__calibration": []}, {}),
    "a state that an older collection wrote": ({}, {}),
    "another context": ({}, {"overrides": {"intent": {"num_ctx": 2048}}}),
    "another parallel": ({}, {"overrides": {"intent": {"num_parallel": 1}}}),
    "other layers": ({}, {"overrides": {"intent": {"gpu_layers": 20}}}),
    "another model under that name": ({"ollama__api__models": [{"name": MODEL, "digest": "d2", "size": 1}]}, {}),
    "another release": ({"ollama__api__version": "0.32.13"}, {}),
    "another driver": ({"nvml__driver_version": "580.1"}, {}),
    "another cache": ({"ollama__process__environment": {"OLLAMA_KV_CACHE_TYPE": "q8_0"}}, {}),
}


@pytest.mark.parametrize(("host", "declaration"), [pytest.param(*case, id=what) for what, case in OTHERS.items()])
def test_nothing_else_is_calibrated_by_it(host, declaration):
    known = {} if host == {} and declaration == {} else {"state__calibration": measured()}
    plan = predicted(after(**{**known, **host}), **declaration)
    assert plan["measured_at"] == {MODEL: None}
    assert plan["band_mib"][0] < plan["band_mib"][1]
    assert plan["runtime_mib"] == planner.RUNTIME_MIB


def test_the_newest_figure_of_each_setting_is_kept_and_not_without_end():
    one, again, other = ({"key": [key], "at": at} for key, at in (("a", 1), ("a", 2), ("b", 1)))
    assert generations._newest([one, other], [again]) == [other, again]
    many = [{"key": [str(number)], "at": number} for number in range(100)]
    assert generations._newest(many, [])[0]["at"] == 100 - generations.CALIBRATIONS


def test_a_setting_of_the_runner_that_is_not_known_teaches_nothing():
    command = [word for word in RUNNER if word not in ("-b", "512")]
    one = {**journal()["last_load"], "command": command}
    host = changed(
        after(),
        {
            "ollama.runners": [{"pid": 400, "command": command, "environment": {}}],
            "ollama.journal": journal(loads=[one], last_load=one),
        },
    )
    assert calibration.measure(load(processes=[process(peak_mib=9200, command=command)]), host) == []


def test_a_model_that_was_divided_teaches_nothing_and_is_taught_nothing() -> None:
    both = [process(peak_mib=4600, gpu=gpu) for gpu in (0, 1)]
    assert calibration.measure(load(processes=both), after()) == []
    (entry,) = measured()
    host = read(state__calibration=[entry])
    scenario = planner.Scenario(num_ctx=4096, num_parallel=2, num_batch=512)
    model = planner.Model.from_show(SHOW)
    for free, spread, counts in (((), False, True), ((16000, 15000), False, True), ((16000, 15000), True, False)):
        plan = planner.plan(model, scenario, ollama_version="0.32.15", gpus_free_mib=free, spread=spread)
        entry["key"] = calibration.key_of(host, MODEL, plan, scenario)
        assert bool(calibration.known(host, MODEL, plan, scenario)) is counts


def test_an_entry_of_several_gpus_of_a_release_that_did_not_tell_them_apart_does_not_count() -> None:
    scenario = planner.Scenario(num_ctx=4096, num_parallel=2, num_batch=512)
    plan = planner.plan(planner.Model.from_show(SHOW), scenario, ollama_version="0.32.15")
    two = read(nvml__gpus=[gpu(), gpu(1)])
    key = calibration.key_of(two, MODEL, plan, scenario)
    assert key[3] == ["GPU-1", read()["nvml"]["gpus"][0]["uuid"], calibration.ON_ONE_GPU]
    assert calibration.key_of(read(), MODEL, plan, scenario)[3] == [read()["nvml"]["gpus"][0]["uuid"]]
