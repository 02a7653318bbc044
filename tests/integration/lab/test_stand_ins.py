"""The lab's Ollama and backend as plain processes on loopback, on a simulated GPU of their own."""

from __future__ import annotations

import concurrent.futures
import csv
import importlib.util
import json
import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import dotenv
import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines

from tests.integration.lab.lab_host import (
    DESKTOP_MIB,
    GUIDES_MODEL,
    LAB,
    SMALL_MODEL,
    Lab,
    argument,
    eventually,
    logged,
    runner,
    runner_command,
)

# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_llama_cpps_own_projection(lab_models: Any) -> None:
    models = {blob.case: blob for blob in lab_models.blobs().values()}
    for row in csv.DictReader((LAB / "data" / "lab_models_projection.csv").open()):
        layers, *numbers = (int(row[key]) for key in ("num_gpu", "num_ctx", "num_parallel", "num_batch"))
        assert models[row["case"]].memory(layers, *numbers, "f16", True).projected == int(row["projected_gpu_mib"]), row


def test_memory_on_two_gpus_is_what_llama_cpp_has_on_each(lab_models: Any) -> None:
    models = {blob.case: blob for blob in lab_models.blobs().values()}
    for row in csv.DictReader((LAB / "data" / "lab_models_on_two_gpus.csv").open()):
        numbers = [int(row[key]) for key in ("num_ctx", "num_parallel", "num_batch")]
        blob = models[row["case"]]
        memory = blob.memory(blob.offloadable_layers, *numbers, "f16", True, free=(24000, 24000))
        for card, told in zip(memory.cards, (row["first_gpu_mib"], row["last_gpu_mib"])):
            weights, kv, compute = map(int, told.split("+"))
            assert abs(card.weights - weights) <= 1 and abs(card.kv - kv) <= 1 and abs(card.compute - compute) <= 1, row


@pytest.mark.parametrize(
    ("layers", "num_ctx", "parallel", "batch", "cache", "flash", "projected"),
    [
        (33, 16384, 2, 512, "f16", True, 11833),
        (33, 8192, 1, 2048, "f16", True, 9125),
        (33, 4096, 4, 256, "f16", True, 9713),
        (33, 4096, 2, 512, "q8_0", True, 8269),
        (99, 4096, 2, 512, "f16", True, 8749),
    ],
)
def test_memory_beyond_the_table(lab_models: Any, layers: int, num_ctx: int, parallel: int, batch: int, cache: str,
                                 flash: bool, projected: int) -> None:  # fmt: skip
    """Against llama-server's own figures for cases that the lab's table does not have."""
    (model,) = (blob for blob in lab_models.blobs().values() if blob.name == GUIDES_MODEL)
    assert abs(model.memory(layers, num_ctx, parallel, batch, cache, flash).projected - projected) <= 1


@pytest.mark.parametrize(
    ("layers", "num_ctx", "parallel", "peak"),
    [(40, 4096, 2, 800 + 1836 + 8749 + 305), (35, 2048, 1, 800 + 684 + 7979 + 305)],
    ids=["stable", "conservative"],
)
def test_the_guides_profiles_run(lab: Lab, layers: int, num_ctx: int, parallel: int, peak: int) -> None:
    lab.desktop()
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL=str(parallel))
    backend = lab.backend(ollama, OLLAMA_GPU_LAYERS=layers, CHAT_NUM_CTX=num_ctx)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda n: backend.post("/api/chat", message="story", conversation_id=n), "123"))
    assert [status for status, _ in answers] == [200, 200, 200], answers
    assert {answer["conversation_id"] for _, answer in answers} == {"1", "2", "3"}
    assert all(len(answer["response"].split()) == 48 for _, answer in answers)
    assert lab.gpu.peak_used_mib() == peak
    command = runner_command(ollama)
    assert argument(command, "-c") == str(num_ctx * parallel)
    assert argument(command, "-np") == str(parallel)
    assert argument(command, "-ngl") == str(layers)
    assert argument(command, "-ub") == "512"


def test_the_baseline_runs_out_of_memory(lab: Lab) -> None:
    lab.desktop()
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="2")
    backend = lab.backend(ollama)
    status, answer = backend.post("/api/chat", message="story", conversation_id="1")
    assert status == 502
    assert "llama-server process has terminated: exit status 1: cudaMalloc failed: out of memory" in answer["detail"]
    assert "allocating 2048.00 MiB on device 0: cudaMalloc failed: out of memory" in ollama.log
    assert "n_gpu_layers already set by user to 999, abort" in ollama.log
    assert lab.gpu.used_mib() == DESKTOP_MIB + 6444
    assert ollama.get("/api/ps") == {"models": []}


def test_an_encoder_without_room_fails_by_itself(lab: Lab) -> None:
    lab.gpu.add(lab.gpu.Process(pid=lab.gpu.GHOST_PID, mib=12000, ghost=1))
    backend = lab.backend(lab.ollama())
    status, answer = backend.post("/api/chat", message="story", conversation_id="1")
    assert (status, answer["detail"][:32]) == (500, "torch.cuda.OutOfMemoryError: CUD")


# --- the scheduler ----------------------------------------------------------------------------------------------------


def test_what_does_not_fit_evicts_what_is_loaded(lab: Lab) -> None:
    lab.gpu.add(lab.gpu.Process(pid=lab.gpu.GHOST_PID, mib=4000, ghost=1))
    ollama = lab.ollama()
    assert ollama.chat(GUIDES_MODEL, num_gpu=99)[0] == 200
    assert ollama.chat(SMALL_MODEL, num_gpu=99)[0] == 200
    assert [model["name"] for model in ollama.get("/api/ps")["models"]] == [SMALL_MODEL]
    assert "predicted to exceed available memory, evicting" in ollama.log


def test_what_fits_is_loaded_beside(lab: Lab) -> None:
    ollama = lab.ollama()
    assert ollama.chat("qwen2.5:3b")[0] == ollama.chat(SMALL_MODEL)[0] == 200
    assert {model["name"] for model in ollama.get("/api/ps")["models"]} == {"qwen2.5:3b", SMALL_MODEL}


def test_no_more_models_than_allowed(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_MAX_LOADED_MODELS="1")
    assert ollama.chat("qwen2.5:3b")[0] == ollama.chat(SMALL_MODEL)[0] == 200
    assert [model["name"] for model in ollama.get("/api/ps")["models"]] == [SMALL_MODEL]


def test_a_forced_load_that_fails_beside_others_gets_the_gpu_to_itself(lab: Lab) -> None:
    lab.gpu.add(lab.gpu.Process(pid=lab.gpu.GHOST_PID, mib=4000, ghost=1))
    ollama = lab.ollama()
    assert ollama.chat(GUIDES_MODEL, num_gpu=99)[0] == 200
    # An explicit partial offload is not checked beforehand.
    assert ollama.chat(SMALL_MODEL, num_gpu=28, num_ctx=8192)[0] == 200
    assert "llama-server load failed; evicting all other models and retrying once" in ollama.log
    assert [model["name"] for model in ollama.get("/api/ps")["models"]] == [SMALL_MODEL]


def cards(lab: Lab, *totals: int) -> None:
    lab.gpu.create([lab.gpu.Gpu(total=total) for total in totals])
    lab.gpu.add(lab.gpu.Process(gpu=0, pid=lab.gpu.GHOST_PID, mib=DESKTOP_MIB, ghost=1))


def used(lab: Lab, count: int = 2) -> list[int]:
    return [lab.gpu.used_mib(card) for card in range(count)]


def test_a_model_gets_the_gpu_with_the_most_free(lab: Lab) -> None:
    cards(lab, 16380, 16380)
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="2")
    assert re.findall(r"inference compute.* name=(CUDA\d)", ollama.log) == ["CUDA1", "CUDA0"]
    assert logged(ollama, r"default_num_ctx=(\d+)") == "32768"
    assert ollama.chat(num_ctx=4096, num_batch=512)[0] == 200
    assert used(lab) == [DESKTOP_MIB, 8749 + 305]
    assert argument(runner_command(ollama), "--split-mode") == "none"


def test_models_beside_each_other_go_where_room_is(lab: Lab) -> None:
    cards(lab, 16380, 16380)
    ollama = lab.ollama()
    for model in (GUIDES_MODEL, SMALL_MODEL):
        assert ollama.chat(model, num_ctx=4096, num_batch=512)[0] == 200
    assert lab.gpu.used_mib(0) > DESKTOP_MIB + 3000 and lab.gpu.used_mib(1) > 8000
    assert len(ollama.get("/api/ps")["models"]) == 2


def test_a_model_is_spread_where_that_is_asked_for_or_no_gpu_has_room(lab: Lab) -> None:
    """llama.cpp's own figures of two devices, 3757+544+228 and 3847+480+188, less what the desktop moves."""
    cards(lab, 16380, 16380)
    lab.gpu.clear(lab.gpu.Process)
    ollama = lab.ollama(OLLAMA_SCHED_SPREAD="1", OLLAMA_NUM_PARALLEL="2")
    assert ollama.chat(num_ctx=4096, num_batch=512)[0] == 200
    first, last = used(lab)
    assert abs(first - (3757 + 544 + 228 + 305)) <= 2 and abs(last - (3847 + 480 + 188 + 305)) <= 2
    assert "CUDA1 KV buffer size" in ollama.log and "targets for free memory can be met" in ollama.log


def test_layers_are_divided_by_free_memory_in_cudas_order(lab: Lab) -> None:
    cards(lab, 8188, 12282)
    ollama = lab.ollama()
    assert ollama.chat(num_ctx=16384, num_batch=512)[0] == 200  # 10186 MiB by Ollama, more than 80 % of either
    small, large = used(lab)
    assert small > DESKTOP_MIB + 2000 and large > small
    assert re.search(r"using device CUDA0 .*02:00", ollama.log)


def test_an_order_by_address_is_kept(lab: Lab) -> None:
    cards(lab, 8188, 12282)
    ollama = lab.ollama(CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_VISIBLE_DEVICES="0")
    assert ollama.chat(SMALL_MODEL, num_ctx=4096, num_batch=512)[0] == 200
    assert lab.gpu.used_mib(1) == 0


def test_other_options_reload_and_missing_ones_do_not(lab: Lab) -> None:
    ollama = lab.ollama()
    loads: list[int] = []
    wanted: list[dict[str, Any]] = [{"num_gpu": 20}] * 2 + [{}, {"num_gpu": 21}, {"num_gpu": 21, "num_ctx": 2048}]
    for options in wanted:
        assert ollama.chat(**options)[0] == 200
        loads.append(ollama.log.count('msg="starting llama-server"'))
    assert loads == [1, 1, 1, 2, 3]


def test_a_runner_that_died_is_replaced(lab: Lab) -> None:
    ollama = lab.ollama()
    ollama.chat("qwen2.5:3b")
    first = runner(ollama)
    os.kill(int(first.name), signal.SIGKILL)
    eventually(lambda: ") Z " in (first / "stat").read_text())
    status, answer = ollama.chat("qwen2.5:3b")
    assert status == 200, answer
    assert runner(ollama) != first


@pytest.mark.parametrize(("parallel", "take_turns"), [("1", True), ("2", False)])
def test_slots(lab: Lab, parallel: str, take_turns: bool) -> None:
    """With one slot the second reply starts when the first is done; with two they are written together."""
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL=parallel, LAB_SPEEDUP="5")
    ollama.chat("qwen2.5:3b")
    pieces: list[str] = []

    def stream(name: str) -> None:
        body = json.dumps({"model": "qwen2.5:3b", "prompt": name}).encode()
        with urllib.request.urlopen(ollama.url + "/api/generate", body, timeout=60) as answer:
            pieces.extend(name for _ in answer)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(stream, "ab"))
    changes = sum(before != after for before, after in zip(pieces, pieces[1:]))
    assert len(pieces) == 2 * 49
    assert (changes == 1) is take_turns


def test_keep_alive(lab: Lab) -> None:
    ollama = lab.ollama()
    ollama.chat("qwen2.5:3b")
    assert len(ollama.get("/api/ps")["models"]) == 1
    assert ollama.post("/api/generate", model="qwen2.5:3b", keep_alive=0)[1]["done_reason"] == "unload"
    eventually(lambda: ollama.get("/api/ps")["models"] == [])
    eventually(lambda: lab.gpu.used_mib() == 0)


# --- environment ------------------------------------------------------------------------------------------------------


def test_invalid_and_unknown_variables(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="two", OLLAMA_GPU_LAYERS="40", OLLAMA_FLASH_ATTENTION="maybe",
                        OLLAMA_MAX_QUEUE=' "7" ', OLLAMA_KEEP_ALIVE="90")  # fmt: skip
    warning = (
        'level=WARN source=config.go:263 msg="invalid environment variable, using default" key=OLLAMA_NUM_PARALLEL'
    )
    assert f"{warning} value=two default=1" in ollama.log
    config = logged(ollama, r'msg="server config" env="map\[(.*)\]"')
    assert "OLLAMA_NUM_PARALLEL:1" in config
    assert "OLLAMA_MAX_QUEUE:7" in config
    assert "OLLAMA_KEEP_ALIVE:1m30s" in config
    assert "OLLAMA_FLASH_ATTENTION:true" in config
    assert "GPU_LAYERS" not in config
    assert re.search(r"Listening on 127\.0\.0\.1:\d+ \(version 0\.32\.15\)", ollama.log)
    eventually(lambda: 'msg="vram-based default context" total_vram="16.0 GiB" default_num_ctx=4096' in ollama.log)
    assert ollama.chat("qwen2.5:3b")[0] == 200
    assert argument(runner_command(ollama), "-np") == "1"
    assert argument(runner_command(ollama), "--flash-attn") == "on"


def test_a_layer_count_in_the_environment_reaches_the_runner(lab: Lab) -> None:
    ollama = lab.ollama(LLAMA_ARG_N_GPU_LAYERS="20")
    assert ollama.chat()[0] == 200
    assert "-ngl" not in runner_command(ollama)
    assert logged(ollama, r"offloaded (\d+/\d+) layers to GPU") == "20/33"
    assert ollama.chat(num_gpu=5)[0] == 200
    assert "offloaded 5/33 layers to GPU" in ollama.log
    (model,) = ollama.get("/api/ps")["models"]
    assert 0 < model["size_vram"] < model["size"]


@pytest.mark.parametrize("target", [1024, 9000, 16000])
def test_a_margin_is_left_free(lab: Lab, target: int) -> None:
    ollama = lab.ollama(LLAMA_ARG_FIT_TARGET=str(target))
    assert ollama.chat(num_ctx=4096, num_batch=512)[0] == 200
    layers = int(logged(ollama, r"offloaded (\d+)/33 layers to GPU"))
    assert lab.gpu.free_mib() >= target
    assert {1024: layers == 33, 9000: 20 < layers < 33, 16000: layers == 0}[target]
    # One layer more would not have left it.
    assert layers == 33 or lab.gpu.free_mib() - target < 1000


@pytest.mark.parametrize(
    ("name", "value"), [("LLAMA_ARG_FIT_TARGET", ""), ("LLAMA_ARG_N_GPU_LAYERS", "many"), ("LLAMA_ARG_FIT", "2")]
)
def test_a_malformed_argument_in_the_environment_breaks_everything(lab: Lab, name: str, value: str) -> None:
    ollama = lab.ollama(**{name: value})
    eventually(lambda: "vram-based default context" in ollama.log)
    assert "failure during llama-server GPU discovery" in ollama.log
    assert "library=cpu" in ollama.log
    status, answer = ollama.chat()
    assert status == 500
    assert answer["error"].startswith("llama-server process has terminated: exit status 1")


def test_an_unknown_cache_type_fails_every_load(lab: Lab) -> None:
    assert lab.ollama(OLLAMA_KV_CACHE_TYPE="q9").chat()[0] == 500


@pytest.mark.parametrize(("num_ctx", "batch"), [(2048, "512"), (8192, "1024"), (40000, "2048")])
def test_the_batch_grows_with_the_context(lab: Lab, num_ctx: int, batch: str) -> None:
    ollama = lab.ollama()
    assert ollama.chat("qwen2.5:3b", num_ctx=num_ctx)[0] == 200
    assert argument(runner_command(ollama), "-ub") == batch


# --- the API ----------------------------------------------------------------------------------------------------------


def test_processes_look_like_the_real_ones(lab: Lab) -> None:
    ollama = lab.ollama()
    process = Path(f"/proc/{ollama.process.pid}")
    assert (process / "cmdline").read_text().split("\0") == [str(lab.home / "bin" / "ollama"), "serve", ""]
    assert (process / "comm").read_text() == "ollama\n"
    ollama.chat("qwen2.5:3b")
    assert (runner(ollama) / "comm").read_text() == "llama-server\n"
    command = runner_command(ollama)
    assert command[:2] == [str(lab.home / "lib" / "ollama" / "llama-server"), "--model"]
    assert command[-2:] == ["--keep", "4"]


def test_models(lab: Lab) -> None:
    ollama = lab.ollama()
    assert ollama.get("/api/version") == {"version": "0.32.15"}
    listed = {model["name"]: model for model in ollama.get("/api/tags")["models"]}
    assert set(listed) == {GUIDES_MODEL, SMALL_MODEL, "qwen2.5:3b", "nomic-embed-text:latest"}
    assert listed[GUIDES_MODEL]["details"]["quantization_level"] == "Q8_0"
    assert re.fullmatch(r"[0-9a-f]{64}", listed[GUIDES_MODEL]["digest"])
    shown = ollama.post("/api/show", model=GUIDES_MODEL)[1]
    assert shown["model_info"]["llama.block_count"] == 32
    assert len(shown["tensors"]) == 291
    assert shown["capabilities"] == ["completion", "tools"]


def test_a_loaded_model_is_listed_with_its_memory(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="2")
    ollama.chat(num_ctx=4096, num_batch=512)
    (model,) = ollama.get("/api/ps")["models"]
    assert model["context_length"] == 4096
    assert model["size"] == model["size_vram"]
    assert abs(model["size_vram"] / 2**20 - 8749) < 1
    assert lab.gpu.used_mib() == 8749 + 305


def test_a_reply_with_figures(lab: Lab) -> None:
    ollama = lab.ollama()
    status, answer = ollama.chat(num_predict=10)
    assert (status, answer["eval_count"], answer["done"], answer["done_reason"]) == (200, 10, True, "length")
    assert answer["message"]["role"] == "assistant"
    assert answer["total_duration"] > answer["load_duration"] > 0
    assert answer["prompt_eval_count"] > 0
    # 7605 MiB at 288 GB/s; a busy machine is slower, never faster.
    assert 0 < answer["eval_count"] / answer["eval_duration"] * 1e9 < 37
    again = ollama.chat(num_predict=10)[1]
    assert again["message"] == answer["message"]
    assert again["load_duration"] < answer["load_duration"]


def test_a_streamed_reply(lab: Lab) -> None:
    ollama = lab.ollama()
    body = json.dumps({"model": "qwen2.5:3b", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    with urllib.request.urlopen(ollama.url + "/api/chat", body, timeout=60) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer]
    assert [line["done"] for line in lines] == [False] * 48 + [True]
    assert lines[-1]["eval_count"] == 48


def test_a_prompt_longer_than_the_context_loses_its_middle(lab: Lab) -> None:
    ollama = lab.ollama()
    fits = ollama.post("/api/generate", model=GUIDES_MODEL, prompt="x" * 4 * 2039, stream=False,
                       options={"num_ctx": 2048, "num_predict": 200})[1]  # fmt: skip
    assert (fits["prompt_eval_count"], fits["eval_count"]) == (2047, 200)  # the reply shifts the context
    assert "truncating input prompt" not in ollama.log
    longer = ollama.post("/api/generate", model=GUIDES_MODEL, prompt="x" * 4 * 5000, stream=False,
                         options={"num_ctx": 2048})[1]  # fmt: skip
    assert longer["prompt_eval_count"] == 1027
    assert 'msg="truncating input prompt" limit=1027 prompt=5008 keep=5 new=1027' in ollama.log


def test_openai_chat_and_embeddings(lab: Lab) -> None:
    ollama = lab.ollama()
    messages = [{"role": "user", "content": "Hi"}]
    answer = ollama.post("/v1/chat/completions", model="qwen2.5:3b", messages=messages)[1]
    assert answer["usage"]["completion_tokens"] == 48
    vectors = ollama.post("/api/embed", model="nomic-embed-text", input=["a", "b"])[1]["embeddings"]
    assert len(vectors) == 2
    assert ollama.post("/api/embed", model="qwen2.5:3b", input="a")[0] == 501  # it was not started for that


def test_an_embedder_has_one_slot_no_cache_and_no_words(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="4", OLLAMA_CONTEXT_LENGTH="4096")
    assert ollama.post("/api/embed", model="nomic-embed-text", input="a")[0] == 200
    command = runner_command(ollama)
    assert (argument(command, "-c"), argument(command, "-np"), argument(command, "-ub")) == ("2048", "1", "2048")
    assert "--embedding" in command
    (loaded,) = ollama.get("/api/ps")["models"]
    assert (loaded["name"], round(loaded["size_vram"] / 1024**2)) == ("nomic-embed-text:latest", 312)
    assert lab.gpu.used_mib() == 312 + 305
    assert "offloaded 13/13 layers to GPU" in ollama.log
    assert ollama.post("/api/embed", model="nomic-embed-text", input="a", options={"num_batch": 512})[0] == 200
    assert lab.gpu.used_mib() == 240 + 305
    assert ollama.post("/api/show", model="nomic-embed-text")[1]["capabilities"] == ["embedding"]
    status, answer = ollama.chat("nomic-embed-text")
    assert (status, answer["error"]) == (400, '"nomic-embed-text" does not support chat')


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"think": True}, '"qwen2.5:3b" does not support thinking'),
        ({"suffix": "b"}, "registry.ollama.ai/library/qwen2.5:3b does not support insert"),
    ],
)
def test_what_a_model_cannot_is_refused_before_it_is_loaded(lab: Lab, asked: dict[str, Any], error: str) -> None:
    ollama = lab.ollama()
    status, answer = ollama.post("/api/generate", model="qwen2.5:3b", prompt="a", **asked)
    assert (status, answer["error"], ollama.get("/api/ps")["models"]) == (400, error, [])


def test_a_load_has_as_many_lines_as_a_real_one_and_they_tear(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_NUM_PARALLEL="2", OLLAMA_CONTEXT_LENGTH="4096")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        chat = pool.submit(ollama.chat)
        while not chat.done():
            ollama.get("/api/version")
    eventually(lambda: "all slots are idle" in ollama.log)
    lines = ollama.log.splitlines()
    begin = next(number for number, line in enumerate(lines) if "starting llama-server" in line)
    end = next(number for number, line in enumerate(lines) if "llama-server started in" in line)
    of_load = [line for line in lines[begin:end] if not line.startswith("[GIN]")]
    assert 150 < len(of_load) < 400
    assert any("[GIN]" in line for line in of_load), "no line of the access log stands within a runner's"
    facts = log_lines.parse((float(number), line) for number, line in enumerate(lines))
    (load,) = facts["loads"]
    assert (load["started"], load["offloaded"], load["offloadable"]) == (True, 33, 33)
    assert set(load["buffers_mib"]) == {"CUDA0 model", "CUDA0 KV", "CUDA0 compute"}
    assert facts["failures"] == [] and len(facts["tokens_per_s"]) == 1


@pytest.mark.parametrize(
    ("characters", "options", "tokens"),
    [
        (4 * 100, {}, 108),
        (4 * 9000, {}, 2048),  # the context that it was trained for
        (4 * 9000, {"num_ctx": 1024}, 1024),
        (4 * 9000, {"num_batch": 512}, 512),  # llama-server refuses more, and Ollama tries again with less
    ],
)
def test_a_text_to_embed_is_cut_to_what_the_runner_reads_at_once(
    lab: Lab, characters: int, options: dict[str, Any], tokens: int
) -> None:
    ollama = lab.ollama(OLLAMA_CONTEXT_LENGTH="4096")
    status, answer = ollama.post("/api/embed", model="nomic-embed-text", input="x" * characters, options=options)
    assert (status, answer["prompt_eval_count"], len(answer["embeddings"])) == (200, tokens, 1)
    eventually(lambda: f"task.n_tokens = {tokens}" in ollama.log)


def test_what_is_listed_has_the_name_that_was_asked_for_and_expires_later_with_each_use(lab: Lab) -> None:
    ollama = lab.ollama(OLLAMA_KEEP_ALIVE="-1")
    assert ollama.post("/api/copy", source="qwen2.5:3b", destination="own")[0] == 200
    assert ollama.chat("own")[0] == 200
    (first,), (again,) = ollama.get("/api/ps")["models"], ollama.get("/api/ps")["models"]
    assert first["name"] == "own:latest"
    assert first["expires_at"] == again["expires_at"] > "2300"
    assert ollama.chat("own")[0] == 200
    assert ollama.get("/api/ps")["models"][0]["expires_at"] > first["expires_at"]


@pytest.mark.parametrize("name", ["QWEN2.5:3B", "library/qwen2.5:3b", "Registry.ollama.ai/library/qwen2.5:3b:local"])
def test_a_model_has_many_names(lab: Lab, name: str) -> None:
    assert lab.ollama().post("/api/show", model=name)[0] == 200


def test_the_cloud_answers_those_who_have_signed_in_without_the_gpu(lab: Lab) -> None:
    ollama = lab.ollama()
    stub = {"model": "gpt-oss:120b-cloud", "from": "gpt-oss:120b", "remote_host": "https://ollama.com"}
    assert ollama.post("/api/create", **stub, stream=False)[0] == 200
    assert ollama.post("/api/copy", source="gpt-oss:120b-cloud", destination="stub")[0] == 200
    listed = {model["name"]: model.get("remote_model") for model in ollama.get("/api/tags")["models"]}
    assert (listed["stub:latest"], listed["qwen2.5:3b"]) == ("gpt-oss:120b", None)
    for name in ("stub", "gpt-oss:120b-cloud", "nobody:cloud"):
        assert ollama.chat(name) == (401, {"error": "unauthorized"})
    assert ollama.chat("nobody-cloud")[0] == 404
    (lab.home / ".ollama" / "models" / "lab-signed-in").touch()
    assert ollama.chat("stub")[0] == ollama.chat("nobody:cloud")[0] == 200
    assert lab.gpu.used_mib() == 0


def test_derived_models(lab: Lab) -> None:
    ollama = lab.ollama()
    capped = {"model": "capped", "from": GUIDES_MODEL, "parameters": {"num_gpu": 20}, "stream": False}
    assert ollama.call("POST", "/api/create", capped) == (200, {"status": "success"})
    assert ollama.post("/api/show", model="capped")[1]["parameters"] == "num_gpu                        20"
    assert ollama.chat("capped")[0] == 200
    assert argument(runner_command(ollama), "-ngl") == "20"
    assert ollama.post("/api/copy", source="capped", destination="other")[0] == 200
    assert ollama.call("DELETE", "/api/delete", {"model": "capped"})[0] == 200
    assert {model["name"] for model in ollama.get("/api/tags")["models"]} >= {"other:latest", GUIDES_MODEL}
    assert ollama.post("/api/show", model="capped")[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/chat", {"model": "none", "messages": []}, 404, "model 'none' not found"),
        ("/api/generate", {"model": "none"}, 404, "model 'none' not found"),
        ("/api/show", {}, 400, "model is required"),
        ("/api/create", {"model": "x", "modelfile": "FROM y"}, 400, "neither 'from' or 'files' was specified"),
        ("/api/chat", {"model": "qwen2.5:3b", "messages": [{"content": "x"}], "options": {"num_gpu": "5"}}, 500,
         'option "num_gpu" must be of type integer'),
    ],
)  # fmt: skip
def test_errors(lab: Lab, path: str, body: dict[str, Any], status: int, error: str) -> None:
    assert lab.ollama().call("POST", path, body) == (status, {"error": error})


def test_unknown_options_are_dropped_with_a_warning(lab: Lab) -> None:
    ollama = lab.ollama()
    assert ollama.chat("qwen2.5:3b", gpu_layers=40)[0] == 200
    assert 'level=WARN source=types.go:1007 msg="invalid option provided" option=gpu_layers' in ollama.log
    assert "-ngl" not in runner_command(ollama)


# --- the backends' files ----------------------------------------------------------------------------------------------


def test_backends_read_a_key_that_stands_twice_as_python_dotenv_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("stand_in_backend", LAB / "stand_ins" / "backend.py")
    assert spec is not None and spec.loader is not None
    backend = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(backend)
    path = tmp_path / ".env"
    path.write_text("A=1\nB='x y'\nexport A=\"2\" # all\n# A=3\nB=z # none\nKEPT=file\nA = 4\n")
    monkeypatch.setattr(os, "environ", {"KEPT": "before"})
    backend.load_dotenv(path)
    assert os.environ == {**dotenv.dotenv_values(path), "KEPT": "before"}
    assert os.environ["A"] == "4"
