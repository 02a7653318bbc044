"""The lab's Ollama 0.24: `ollama runner`, to which the server sends layers as JSON."""

from __future__ import annotations

import csv
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.lab.lab_host import (
    DESKTOP_MIB,
    GUIDES_MODEL,
    SMALL_MODEL,
    Lab,
    Service,
    eventually,
    logged,
    runner,
    runner_command,
)

PROJECTION = Path(__file__).parents[2] / "data" / "planner" / "llama_projection.csv"
MIB = 1024 * 1024


def ollama_024(lab: Lab, **environment: str) -> Service:
    return lab.ollama(LAB_OLLAMA_VERSION="0.24.0", **environment)


def test_a_prompt_longer_than_the_context_loses_its_middle(lab: Lab) -> None:
    ollama = ollama_024(lab)
    answer = ollama.post("/api/generate", model=GUIDES_MODEL, prompt="x" * 4 * 5000, stream=False,
                         options={"num_ctx": 2048})[1]  # fmt: skip
    assert answer["prompt_eval_count"] == 2048
    assert 'source=runner.go:153 msg="truncating input prompt" limit=2048 prompt=5008 keep=5 new=2048' in ollama.log


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_with_every_layer_is_llama_cpps_own_projection(lab_models: Any) -> None:
    """The table counts layers as since 0.30, so that only all layers mean the same."""
    models = {blob.case: blob for blob in lab_models.blobs().values()}
    rows = [row for row in csv.DictReader(PROJECTION.open()) if row["case"] in models and int(row["num_gpu"]) >= 29]
    checked = 0
    for row in rows:
        blob = models[row["case"]]
        numbers = [int(row[key]) for key in ("num_gpu", "num_ctx", "num_parallel", "num_batch")]
        if numbers[0] < blob.offloadable_layers:
            continue
        flash = row["flash_attention"] == "on"
        memory = blob.memory(*numbers, row["cache_type"], flash, since_030=False)
        got = {"weights": memory.weights, "kv": memory.kv, "compute": memory.compute}
        for term, mib in got.items():
            tolerance = 1 if flash or term != "compute" else mib / 10
            assert abs(mib - int(row[f"gpu_{term}_mib"])) <= tolerance, (row, term)
        checked += 1
    assert checked >= 14


@pytest.mark.parametrize(("layers", "blocks", "output"), [(0, 0, 0), (1, 1, 0), (32, 32, 0), (33, 32, 1), (99, 32, 1)])
def test_the_output_layer_counts_last(lab_models: Any, layers: int, blocks: int, output: int) -> None:
    (model,) = (blob for blob in lab_models.blobs().values() if blob.name == GUIDES_MODEL)
    memory = model.memory(layers, 4096, 1, 512, "f16", True, since_030=False)
    block, last = model.block_mib(0), model.output_mib
    assert memory.weights == pytest.approx(blocks * block + output * last)
    assert memory.kv == pytest.approx(blocks * 16)
    # CUDA copies an output matrix that stays on the host, to multiply by it.
    assert (memory.compute > last) is (blocks > 0 and not output)


@pytest.mark.parametrize(
    ("layers", "num_ctx", "parallel", "peak"),
    [(40, 4096, 2, 800 + 1836 + 8915 + 305), (35, 2048, 1, 800 + 684 + 8146 + 305)],
    ids=["stable", "conservative"],
)
def test_the_guides_profiles_run(lab: Lab, layers: int, num_ctx: int, parallel: int, peak: int) -> None:
    lab.desktop()
    ollama = ollama_024(lab, OLLAMA_NUM_PARALLEL=str(parallel))
    backend = lab.backend(ollama, OLLAMA_GPU_LAYERS=layers, CHAT_NUM_CTX=num_ctx)
    answers = [backend.post("/api/chat", message="story", conversation_id=n) for n in "123"]
    assert [status for status, _ in answers] == [200, 200, 200], answers
    assert abs(lab.gpu.peak_used_mib() - peak) <= 1
    request = logged(ollama, r'msg=load request="\{(.*)\}"')
    assert f"Parallel:{parallel} BatchSize:512 FlashAttention:Auto KvSize:{num_ctx * parallel} KvCacheType: " in request
    assert re.search(r"GPULayers:33\[ID:GPU-[-0-9a-f]+ Layers:33\(0\.\.32\)\]", request)
    assert f'msg="loading model" "model layers"=33 requested={layers}' in ollama.log


def test_the_baseline_runs_out_of_memory(lab: Lab) -> None:
    lab.desktop()
    ollama = ollama_024(lab, OLLAMA_NUM_PARALLEL="2")
    status, answer = lab.backend(ollama).post("/api/chat", message="story", conversation_id="1")
    assert status == 502
    assert "llama runner process has terminated: cudaMalloc failed: out of memory" in answer["detail"]
    assert "panic: unable to create llama context" in ollama.log
    assert 'msg="llama runner terminated" error="exit status 2"' in ollama.log
    assert lab.gpu.used_mib() == DESKTOP_MIB + 6444
    assert ollama.get("/api/ps") == {"models": []}


# --- the runner -------------------------------------------------------------------------------------------------------


def test_the_runner_looks_like_the_real_one(lab: Lab) -> None:
    ollama = ollama_024(lab)
    assert ollama.get("/api/version") == {"version": "0.24.0"}
    assert "capabilities" not in ollama.get("/api/tags")["models"][0]
    ollama.chat("qwen2.5:3b")
    assert (runner(ollama) / "comm").read_text() == "ollama\n"
    command = runner_command(ollama)
    assert command[:3] == [str(lab.home / "bin" / "ollama"), "runner", "--model"]
    assert command[4] == "--port"
    assert len(command) == 6
    assert logged(ollama, r'msg="starting runner" cmd="(.* --model .*)"') == " ".join(command)
    assert re.search(r'msg="llama runner started in \d+\.\d\d seconds"', ollama.log)


def test_a_loaded_model_is_listed_with_ollamas_estimate(lab: Lab) -> None:
    ollama = ollama_024(lab, OLLAMA_NUM_PARALLEL="2")
    ollama.chat(num_ctx=4096)
    (model,) = ollama.get("/api/ps")["models"]
    assert model["context_length"] == 4096
    assert model["size"] == model["size_vram"]
    # It counts the attention scores that flash attention does without.
    assert model["size_vram"] / MIB == pytest.approx(7605.3 + 1024 + 560, abs=1)
    assert abs(lab.gpu.used_mib() - (8915 + 305)) <= 1
    for line in ('"model weights" device=CUDA0 size="7.4 GiB"', '"kv cache" device=CUDA0 size="1.0 GiB"',
                 '"compute graph" device=CUDA0 size="560.0 MiB"', '"total memory" size="9.0 GiB"'):  # fmt: skip
        assert f"msg={line}" in ollama.log


def test_a_partial_offload_leaves_the_output_layer_on_the_host(lab: Lab) -> None:
    ollama = ollama_024(lab)
    assert ollama.chat(num_gpu=20)[0] == 200
    assert "load_tensors: offloading 20 repeating layers to GPU" in ollama.log
    assert "offloading output layer" not in ollama.log
    assert logged(ollama, r"offloaded (\d+/\d+) layers to GPU") == "20/33"
    assert "Layers:20(12..31)" in ollama.log
    (model,) = ollama.get("/api/ps")["models"]
    assert 0 < model["size_vram"] < model["size"]
    assert ollama.chat(num_gpu=0)[0] == 200
    assert lab.gpu.used_mib() == 0
    assert "GPULayers:[]" in ollama.log


def test_the_batch_does_not_grow_with_the_context(lab: Lab) -> None:
    ollama = ollama_024(lab)
    assert ollama.chat("qwen2.5:3b", num_ctx=16384)[0] == 200
    assert "BatchSize:512 " in ollama.log
    assert ollama.chat("qwen2.5:3b", num_ctx=256)[0] == 200
    assert "BatchSize:256 " in ollama.log


def test_a_runner_that_died_is_replaced(lab: Lab) -> None:
    ollama = ollama_024(lab)
    ollama.chat("qwen2.5:3b")
    first = runner(ollama)
    os.kill(int(first.name), signal.SIGKILL)
    eventually(lambda: ") Z " in (first / "stat").read_text())
    assert ollama.chat("qwen2.5:3b")[0] == 200
    assert runner(ollama) != first


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overhead_mib", [0, 4092, 9000, 16000])
def test_the_overhead_is_left_free(lab: Lab, overhead_mib: int) -> None:
    ollama = ollama_024(lab, OLLAMA_GPU_OVERHEAD=str(overhead_mib * MIB))
    assert ollama.chat(num_ctx=4096)[0] == 200
    layers = int(logged(ollama, r"offloaded (\d+)/33 layers to GPU"))
    assert lab.gpu.free_mib() >= overhead_mib
    assert {0: layers == 33, 4092: layers == 33, 9000: 15 < layers < 33, 16000: layers == 0}[overhead_mib]
    assert f"OLLAMA_GPU_OVERHEAD:{overhead_mib * MIB} " in logged(ollama, r'msg="server config" env="map\[(.*)\]"')


def test_an_explicit_layer_count_switches_the_overhead_off(lab: Lab) -> None:
    ollama = ollama_024(lab, OLLAMA_GPU_OVERHEAD=str(9000 * MIB))
    assert ollama.chat(num_ctx=4096, num_gpu=40)[0] == 200
    assert "offloaded 33/33 layers to GPU" in ollama.log
    assert lab.gpu.free_mib() < 9000


@pytest.mark.parametrize(
    ("name", "value"), [("LLAMA_ARG_N_GPU_LAYERS", "5"), ("LLAMA_ARG_FIT_TARGET", "9000"), ("LLAMA_ARG_CTX_SIZE", "")]
)
def test_llama_cpps_variables_have_no_effect(lab: Lab, name: str, value: str) -> None:
    ollama = ollama_024(lab, **{name: value})
    assert ollama.chat()[0] == 200
    assert "offloaded 33/33 layers to GPU" in ollama.log
    assert "LLAMA_ARG" not in ollama.log


def test_what_does_not_fit_evicts_what_is_loaded(lab: Lab) -> None:
    lab.gpu.add(lab.gpu.Process(pid=lab.gpu.GHOST_PID, mib=4000, ghost=1))
    ollama = ollama_024(lab)
    assert ollama.chat(GUIDES_MODEL)[0] == 200
    # Also an explicit partial offload is checked here, unlike since 0.30.
    assert ollama.chat(SMALL_MODEL, num_gpu=28, num_ctx=8192)[0] == 200
    assert [model["name"] for model in ollama.get("/api/ps")["models"]] == [SMALL_MODEL]
    message = "model requires more gpu memory than is currently available, evicting a model to make space"
    assert f'msg="{message}"' in ollama.log
    assert ollama.log.count("llama runner started in") == 2


def test_what_fits_is_loaded_beside(lab: Lab) -> None:
    ollama = ollama_024(lab)
    assert ollama.chat("qwen2.5:3b")[0] == ollama.chat(SMALL_MODEL)[0] == 200
    assert {model["name"] for model in ollama.get("/api/ps")["models"]} == {"qwen2.5:3b", SMALL_MODEL}


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flash", "used", "warning"),
    [
        ("q8_0", "1", "q8_0", None),
        ("q8_0", "", "", "OLLAMA_FLASH_ATTENTION must be enabled to use a quantized OLLAMA_KV_CACHE_TYPE"),
        ("q8_0", "0", "", "OLLAMA_FLASH_ATTENTION must be enabled to use a quantized OLLAMA_KV_CACHE_TYPE"),
        ("q5_1", "1", "", "unsupported OLLAMA_KV_CACHE_TYPE"),
        ("bf16", "", "", "unsupported OLLAMA_KV_CACHE_TYPE"),
    ],
)
def test_cache_types(lab: Lab, kind: str, flash: str, used: str, warning: str | None) -> None:
    ollama = ollama_024(lab, OLLAMA_KV_CACHE_TYPE=kind, OLLAMA_FLASH_ATTENTION=flash)
    assert ollama.chat()[0] == 200
    assert f" KvCacheType:{used} " in ollama.log
    if warning:
        assert f'level=WARN source=server.go:{240 if "enabled" in warning else 251} msg="{warning}" type={kind}' in (
            ollama.log
        )


def test_ollamas_own_engine_tries_a_layout_before_it_loads(lab: Lab) -> None:
    lab.desktop()
    ollama = ollama_024(lab, OLLAMA_NEW_ENGINE="1")
    assert ollama.chat("qwen2.5:3b", num_gpu=99)[0] == 200
    assert runner_command(ollama)[1:3] == ["runner", "--ollama-engine"]
    assert 'msg="offloaded 37/37 layers to GPU"' in ollama.log
    assert re.search(r"Operation:fit .*Operation:alloc .*Operation:commit ", ollama.log, re.DOTALL)
    (model,) = ollama.get("/api/ps")["models"]
    assert model["size"] == model["size_vram"]


def test_ollamas_own_engine_refuses_a_layout_that_cannot_be_allocated(lab: Lab) -> None:
    lab.gpu.add(lab.gpu.Process(pid=lab.gpu.GHOST_PID, mib=9000, ghost=1))
    ollama = ollama_024(lab, OLLAMA_NEW_ENGINE="1")
    assert ollama.chat(num_gpu=40) == (500, {"error": "memory layout cannot be allocated with num_gpu = 40"})
    # Left to itself it takes what fits.
    assert ollama.chat()[0] == 200
    assert 0 < int(logged(ollama, r'.*msg="offloaded (\d+)/33 layers to GPU"')) < 32
