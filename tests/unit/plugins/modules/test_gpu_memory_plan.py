"""The module: what goes in, what comes out, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_plan

DATA = Path(__file__).parents[3] / "data" / "planner"
TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")
STABLE = {"num_gpu": 40, "num_ctx": 4096, "num_parallel": 2, "num_batch": 512}


def show(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DATA / f"{name}.show.json").read_text())
    return loaded


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    with patch_module_args({"ollama_version": "0.32.13", **arguments}), pytest.raises(SystemExit):
        gpu_memory_plan.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(
        capsys,
        model=show("llama31-8b-q8_0"),
        scenarios=[STABLE, {**STABLE, "num_gpu": 20}],
        max_used_mib=8000,
        other_used_mib=800,
    )
    everything, some = answer["plans"]
    assert not answer["changed"]
    assert [everything[term] for term in TERMS] == [7605, 1024, 120, 0, 305]
    assert (everything["offloaded_layers"], everything["offloadable_layers"]) == (33, 33)
    assert (everything["fits"], some["fits"]) == (False, True)
    for each in answer["plans"]:
        assert each["total_mib"] == sum(each[term] for term in TERMS)
    assert 20 <= answer["max_num_gpu"] < 33


def test_on_several_gpus_each_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """What one GPU may hold is no limit for two together."""
    model = show("llama31-8b-q8_0")
    given = {"model": model, "scenarios": [STABLE], "gpus_free_mib": [15000, 15000], "other_used_mib": 800}
    one = run(capsys, **given, max_used_mib=12288)
    assert [gpu["total_mib"] for gpu in one["plans"][0]["gpus"]] == [9054, 0] and one["max_num_gpu"] is None
    divided = run(capsys, **given, spread=True, max_used_mib=7000)["plans"][0]
    assert divided["fits"] and divided["total_mib"] > 9054 + 300  # a second runtime
    assert all(4000 < gpu["total_mib"] < 6000 for gpu in divided["gpus"])
    assert abs(sum(gpu["total_mib"] for gpu in divided["gpus"]) - divided["total_mib"]) <= 5
    assert not run(capsys, **given, spread=True, max_used_mib=5000)["plans"][0]["fits"]
    assert "before 0.30" in run(capsys, **given, spread=True, ollama_version="0.24.0")["msg"]


def test_without_a_limit_nothing_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, model=show("llama31-8b-q8_0"))
    assert answer["max_num_gpu"] is None
    assert [each["fits"] for each in answer["plans"]] == [None]


def test_several_models(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(
        capsys,
        models=[
            {"name": "chat", "show": show("llama31-8b-q8_0")},
            {"name": "reflect", "show": show("llama32-3b-q8_0"), "num_ctx": 2048},
            {"name": "spare", "show": show("qwen25-3b-q4_k_m")},
        ],
        scenarios=[STABLE],
        max_loaded_models=2,
        max_used_mib=16000,
    )
    together = answer["plans"][0]
    assert sorted(together["loaded"]) == ["chat", "reflect"]
    assert together["total_mib"] == sum(together["models"][name]["total_mib"] for name in together["loaded"])
    assert together["models"]["reflect"]["num_ctx"] == 2048
    assert together["models"]["chat"]["num_ctx"] == 4096


def test_a_calibrated_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    calibrated = {**STABLE, "calibration": {"compute_mib": 130, "runtime_mib": 200}}
    answer = run(capsys, model=show("llama31-8b-q8_0"), scenarios=[calibrated])
    assert [answer["plans"][0][term] for term in TERMS] == [7605, 1024, 130, 0, 200]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "model, models"),
        ({"model": {"error": "not found"}}, "model_info"),
        ({"model": show("llama31-8b-q8_0"), "scenarios": [{}, {"num_gpu": -3}]}, "scenarios[1]: num_gpu is -3"),
        ({"model": show("llama31-8b-q8_0"), "ollama_version": "new"}, "ollama_version is 'new'"),
        ({"model": show("llama31-8b-q8_0"), "scenarios": [{"calibration": {"compute_mib": -1}}]}, "compute_mib is -1"),
        ({"models": [{"name": "chat", "show": {}}]}, "models 'chat': the /api/show answer"),
        ({"models": [{"name": "a", "show": show("llama31-8b-q8_0")}] * 2}, "names 'a' twice"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], named: str) -> None:
    answer = run(capsys, **arguments)
    assert answer["failed"]
    assert named in answer["msg"]


def test_the_models_own_parameters_count_where_a_scenario_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    own = {**show("llama31-8b-q8_0"), "parameters": 'num_ctx                        32768\nstop    "x"\nnum_batch 512'}
    answer = run(capsys, model=own, scenarios=[{"num_parallel": 2}, {"num_parallel": 2, "num_ctx": 4096}])
    by_model, by_request = answer["plans"]
    assert (by_model["num_ctx"], by_model["num_batch"], by_model["kv_mib"]) == (32768, 512, 8192)
    assert (by_request["num_ctx"], by_request["kv_mib"]) == (4096, 1024)


@pytest.mark.parametrize(
    ("environment", "term", "mib"),
    [
        ({"LLAMA_ARG_KV_OFFLOAD": "off"}, "kv_mib", 0),
        ({"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "LLAMA_ARG_CACHE_TYPE_V": "q8_0"}, "kv_mib", 1088),
        ({"LLAMA_ARG_OVERRIDE_TENSOR": "ffn_.*=CPU"}, "weights_mib", 1893),
        ({"LLAMA_ARG_N_GPU_LAYERS": "5"}, "offloaded_layers", 5),
        ({"LLAMA_ARG_DEVICE": "none"}, "offloaded_layers", 0),
        ({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}, "kv_mib", 1088),
        ({"OLLAMA_NUM_PARALLEL": 2}, "kv_mib", 4096),
    ],
)
def test_the_servers_environment_counts(
    capsys: pytest.CaptureFixture[str], environment: dict[str, Any], term: str, mib: int
) -> None:
    model, scenario = show("llama31-8b-q8_0"), {"num_ctx": 16384, "num_batch": 1024}
    (planned,) = run(capsys, model=model, scenarios=[scenario], environment=environment)["plans"]
    assert planned[term] == mib


def test_what_ends_llama_server_is_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, model=show("llama31-8b-q8_0"), environment={"LLAMA_ARG_N_PARALLEL": "0"})
    assert "llama-server does not start: LLAMA_ARG_N_PARALLEL=0" in answer["msg"]


def test_the_default_context_is_by_all_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    (planned,) = run(capsys, model=show("llama31-8b-q8_0"), gpu_totals_mib=[16376, 16376])["plans"]
    assert planned["num_ctx"] == 32768
