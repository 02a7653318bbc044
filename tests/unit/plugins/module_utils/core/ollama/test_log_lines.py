"""Journal lines as Ollama v0.1.32 to v0.33 and the llama.cpp inside write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines
from hypothesis import given
from hypothesis import strategies as st

CONFIG = (
    'time=2026-09-02T16:51:59.107Z level=INFO source=routes.go:1951 msg="server config" env="map[CUDA_VISIBLE_DEVICES: '
    "HTTPS_PROXY:http://user:pa55word@proxy:3128 HTTP_PROXY: LLAMA_ARG_FIT: LLAMA_ARG_FIT_TARGET:4092 "
    "OLLAMA_CONTEXT_LENGTH:4096 OLLAMA_DEBUG:INFO OLLAMA_FLASH_ATTENTION:false OLLAMA_GPU_OVERHEAD:0 "
    "OLLAMA_HOST:http://0.0.0.0:11434 OLLAMA_KEEP_ALIVE:1h0m0s OLLAMA_KV_CACHE_TYPE: OLLAMA_LOAD_TIMEOUT:5m0s "
    "OLLAMA_MAX_LOADED_MODELS:1 OLLAMA_MODELS:/mnt/out of memory models/blobs OLLAMA_NUM_PARALLEL:2 "
    "OLLAMA_ORIGINS:[http://localhost https://localhost http://localhost:* http://0.0.0.0:* app://* file://* "
    "vscode-webview://*] OLLAMA_REMOTES:[ollama.com] OLLAMA_SCHED_SPREAD:false OLLAMA_VULKAN:true "
    'ROCR_VISIBLE_DEVICES: http_proxy: https_proxy: no_proxy:]"'
)
BLOB = "/root/.ollama/models/blobs/sha256-9ed150d4"
START_0_32 = (
    'time=2026-09-02T16:52:34.600Z level=INFO source=llama_server.go:433 msg="starting llama-server" '
    f'cmd="/usr/lib/ollama/llama-server --model {BLOB} --port 44067 --host 127.0.0.1 --no-webui --offline -c 8192 '
    '-np 2 --log-verbosity 4 --no-log-prefix -ngl 40 --flash-attn auto -b 1024 -ub 1024 --context-shift --keep 4"'
)
START_0_24 = (
    'time=2026-05-20T19:18:01.984-03:00 level=INFO source=server.go:430 msg="starting runner" '
    f'cmd="/usr/local/bin/ollama runner --model {BLOB} --port 46001"'
)
START_0_9 = (
    'time=2025-07-16T08:18:26.380Z level=INFO source=server.go:438 msg="starting llama server" '
    f'cmd="/usr/bin/ollama runner --model {BLOB} --ctx-size 8192 --batch-size 512 --n-gpu-layers 29 --threads 4 '
    '--no-mmap --parallel 2 --port 42357"'
)
DISCOVERY_0_24 = (
    'time=2026-05-05T01:30:32.686+08:00 level=INFO source=server.go:432 msg="starting runner" '
    'cmd="/home/a/bin/ollama runner --ollama-engine --port 45186"'
)
STARTED = 'time=x level=INFO source=llama_server.go:1362 msg="llama-server started in 36.45 seconds"'
CUDA_OOM = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 7605.33 MiB on device 0: cudaMalloc failed: out of memory"
)
EVICT = (
    'level=WARN source=sched.go:667 msg="llama-server load failed; evicting all other models and retrying once" '
    'error="cudaMalloc failed: out of memory"'
)
SMALLER = 'level=WARN msg="llama-server load failed; reducing automatic context and retrying once" old_num_ctx=32768'
PIPELINE = "llama_context: compute buffer allocation failed, retrying without pipeline parallelism"
BACKOFF = 'level=INFO source=server.go:1050 msg="model layout did not fit, applying backoff" backoff=0.10'


def parse(*lines: str) -> dict:
    return log_lines.parse((1000.0 + second, line) for second, line in enumerate(lines))


def severities(*lines: str) -> list[str]:
    return [failure["severity"] for failure in parse(*lines)["failures"]]


def test_server_config_survives_spaces_brackets_and_urls_and_holds_no_secret():
    facts = parse(CONFIG)
    assert facts["server_config"] == {
        "CUDA_VISIBLE_DEVICES": "",
        "LLAMA_ARG_FIT": "",
        "LLAMA_ARG_FIT_TARGET": "4092",
        "OLLAMA_CONTEXT_LENGTH": "4096",
        "OLLAMA_FLASH_ATTENTION": "false",
        "OLLAMA_GPU_OVERHEAD": "0",
        "OLLAMA_KEEP_ALIVE": "1h0m0s",
        "OLLAMA_KV_CACHE_TYPE": "",
        "OLLAMA_LOAD_TIMEOUT": "5m0s",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_SCHED_SPREAD": "false",
        "OLLAMA_VULKAN": "true",
    }
    assert facts["failures"] == []  # "out of memory" there is the name of a directory
    assert "pa55word" not in str(facts)


def test_the_last_server_config_counts():
    assert parse(CONFIG, CONFIG.replace("PARALLEL:2", "PARALLEL:1"))["server_config"]["OLLAMA_NUM_PARALLEL"] == "1"
    assert parse("level=INFO msg=hello")["server_config"] is None


@pytest.mark.parametrize(
    "line, wanted",
    [
        (START_0_32, {"num_ctx_total": 8192, "num_parallel": 2, "num_gpu": 40, "num_batch": 1024}),
        (START_0_9, {"num_ctx_total": 8192, "num_parallel": 2, "num_gpu": 29, "num_batch": 512}),
        (START_0_24, {"num_ctx_total": None, "num_parallel": None, "num_gpu": None, "num_batch": None}),
    ],
)
def test_a_start_of_each_era_is_a_load(line, wanted):
    (load,) = parse(line)["loads"]
    assert load["at"] == 1000.0
    assert log_lines.runner_settings(load["command"]) == wanted


GPU = "GPU-38079876-a1c8-5fa0-92ea-8efc513d7869"
REQUESTED_0_24 = 'time=x level=INFO source=server.go:532 msg="loading model" "model layers"=33 requested={}'
SENT_0_24 = (
    'time=x level=INFO source=runner.go:895 msg=load request="{{Operation:{} LoraPath:[] Parallel:2 BatchSize:512 '
    f"FlashAttention:Auto KvSize:8192 KvCacheType: NumThreads:8 GPULayers:33[ID:{GPU} Layers:33(0..32)] "
    'MultiUserCache:false ProjectorPath: MainGPU:0 UseMmap:true}}"'
)
CLOSED_0_24 = (
    'time=x level=INFO source=runner.go:1297 msg=load request="{Operation:close LoraPath:[] Parallel:0 BatchSize:0 '
    "FlashAttention:Disabled KvSize:0 KvCacheType: NumThreads:0 GPULayers:[] MultiUserCache:false ProjectorPath: "
    'MainGPU:0 UseMmap:false}"'
)


@pytest.mark.parametrize("requested, num_gpu", [(40, 40), (0, 0), (-1, None)])
def test_a_runner_that_gets_its_settings_as_json_says_them(requested, num_gpu):
    lines = [START_0_24, REQUESTED_0_24.format(requested), *map(SENT_0_24.format, ("fit", "alloc", "commit"))]
    (load,) = parse(*lines, CLOSED_0_24)["loads"]
    wanted = {"num_ctx_total": 8192, "num_parallel": 2, "num_gpu": num_gpu, "num_batch": 512}
    assert log_lines.runner_settings(load["command"], load["sent"]) == wanted


def test_a_command_line_goes_before_what_was_sent():
    settings = log_lines.runner_settings(["-c", "4096"], {"num_ctx_total": 8192, "num_gpu": 5})
    assert (settings["num_ctx_total"], settings["num_gpu"], settings["num_batch"]) == (4096, 5, None)


def test_the_layout_of_ollamas_own_engine():
    facts = parse(
        START_0_24,
        'level=INFO source=device.go:240 msg="model weights" device=CUDA0 size="7.5 GiB"',
        'level=INFO source=device.go:245 msg="model weights" device=CPU size="532.3 MiB"',
        'level=INFO source=device.go:251 msg="kv cache" device=CUDA0 size="1.0 GiB"',
        'level=INFO source=device.go:262 msg="compute graph" device=CUDA0 size="560.0 MiB"',
        'level=INFO source=device.go:272 msg="total memory" size="9.0 GiB"',
    )
    assert facts["loads"][0]["buffers_mib"] == {"CUDA0 model": 7680, "CUDA0 KV": 1024, "CUDA0 compute": 560}


def test_llama_cpps_own_figures_replace_the_estimate():
    lines = ('msg="kv cache" device=CUDA0 size="1.1 GiB"', "llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB")
    assert parse(START_0_24, *lines)["loads"][0]["buffers_mib"] == {"CUDA0 KV": 1024.0}


def test_quotes_in_a_command_line():
    (load,) = parse(r'msg="starting llama-server" cmd="/x/llama-server --model \"/my models/a\" -c 8192"')["loads"]
    assert load["command"] == ["/x/llama-server", "--model", "/my models/a", "-c", "8192"]


def test_a_quote_without_its_partner_still_gives_the_words():
    (load,) = parse('msg="starting llama-server" cmd="/x/llama-server --model /it\'s/a -c 8192"')["loads"]
    assert log_lines.runner_settings(load["command"])["num_ctx_total"] == 8192


def test_a_runner_that_only_looks_for_gpus_is_no_load():
    facts = parse(DISCOVERY_0_24, START_0_24, DISCOVERY_0_24, "load_tensors: offloaded 33/33 layers to GPU")
    assert len(facts["loads"]) == 1
    assert facts["loads"][0]["offloaded"] == 33


@pytest.mark.parametrize(
    "line",
    [
        STARTED,
        'level=INFO source=server.go:637 msg="llama runner started in 8.78 seconds"',
    ],
)
def test_started(line):
    assert [load["started"] for load in parse(START_0_32, line)["loads"]] == [True]
    assert [load["started"] for load in parse(START_0_32)["loads"]] == [False]


@pytest.mark.parametrize(
    "line",
    [
        "llm_load_tensors: offloaded 20/33 layers to GPU",
        "load_tensors: offloaded 20/33 layers to GPU",
        'time=x level=INFO source=ggml.go:482 msg="offloaded 20/33 layers to GPU"',
    ],
)
def test_offloaded_layers(line):
    (load,) = parse(START_0_32, line)["loads"]
    assert (load["offloaded"], load["offloadable"]) == (20, 33)


def test_layers_without_an_announced_load_are_a_load_of_their_own():
    (load,) = parse("llm_load_tensors: offloaded 33/33 layers to GPU", STARTED)["loads"]
    assert (load["offloaded"], load["command"], load["started"]) == (33, [], True)


def test_only_buffers_on_gpus_count_and_the_last_one_of_each():
    (load,) = parse(
        START_0_32,
        "load_tensors:        CUDA0 model buffer size =  1000.00 MiB",  # a dry run
        "load_tensors:   CPU_Mapped model buffer size =   532.31 MiB",
        "load_tensors:   CPU_REPACK model buffer size =  1404.00 MiB",
        "load_tensors:          CPU model buffer size =   635.54 MiB",
        "load_tensors:        CUDA0 model buffer size =  7605.33 MiB",
        "load_tensors:        CUDA1 model buffer size =   500 MiB",
        "load_tensors:  CUDA0_Split model buffer size =    10.50 MiB",
        "llama_context:  CUDA_Host  output buffer size =     0.99 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =   832.00 MiB",
        "llama_memory_recurrent:      CUDA0 RS buffer size =    12.00 MiB",
        "sched_reserve:      CUDA0 compute buffer size =   120.06 MiB",
        "sched_reserve:  CUDA_Host compute buffer size =    24.01 MiB",
    )["loads"]
    assert load["buffers_mib"] == {
        "CUDA0 model": 7605.33,
        "CUDA1 model": 500.0,
        "CUDA0_Split model": 10.5,
        "CUDA0 KV": 1024.0,
        "CUDA0 RS": 12.0,
        "CUDA0 compute": 120.06,
    }


# llama-server's own lines, each with what an environment made of the same model.
ON_GPU = [
    "load_tensors: offloaded 31/31 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =    28.69 MiB",
    "load_tensors: RPC0[127.0.0.1:30761] model buffer size =    92.10 MiB",
    "llama_context:        CPU  output buffer size =     0.19 MiB",
    "llama_kv_cache: RPC0[127.0.0.1:30761] KV buffer size =    90.00 MiB",
    "sched_reserve: RPC0[127.0.0.1:30761] compute buffer size =    17.51 MiB",
    "sched_reserve:        CPU compute buffer size =     8.52 MiB",
]
DEVICE_NONE = [
    "load_tensors: offloaded 31/31 layers to GPU",
    "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB",
    "llama_context:        CPU  output buffer size =     0.19 MiB",
    "llama_kv_cache:        CPU KV buffer size =    90.00 MiB",
    "sched_reserve:        CPU compute buffer size =    18.64 MiB",
]
KV_OFFLOAD_OFF = [*ON_GPU[:4], DEVICE_NONE[3], *ON_GPU[5:]]
SOME_LAYERS = ["load_tensors: offloaded 8/31 layers to GPU", *ON_GPU[1:], DEVICE_NONE[3]]
OUTPUT_LAYER = ["load_tensors: offloaded 1/31 layers to GPU", *ON_GPU[1:4], DEVICE_NONE[3]]
AN_EMBEDDERS = [*ON_GPU[:3], *ON_GPU[5:]]


@pytest.mark.parametrize(
    ("lines", "what"),
    [
        pytest.param(ON_GPU, None, id="all on the GPU"),
        pytest.param(DEVICE_NONE, "all of it", id="LLAMA_ARG_DEVICE=none"),
        pytest.param(KV_OFFLOAD_OFF, "its cache", id="LLAMA_ARG_KV_OFFLOAD=off"),
        pytest.param(SOME_LAYERS, None, id="some layers, each with its cache"),
        pytest.param(OUTPUT_LAYER, None, id="the output layer alone, which has no cache"),
        pytest.param(AN_EMBEDDERS, None, id="a model without a cache"),
        pytest.param(["load_tensors: offloaded 31/31 layers to GPU"], None, id="no buffers were told"),
        pytest.param(["load_tensors: offloaded 0/31 layers to GPU", *DEVICE_NONE[1:]], None, id="asked for"),
    ],
)
def test_what_is_on_the_cpu_though_layers_are_said_to_be_on_the_gpu(lines, what):
    (load,) = parse(*lines)["loads"]
    assert log_lines.kept_off(load) == what


def test_speed_of_answers_is_not_that_of_prompts():
    facts = parse(
        "slot print_timing: id  1 | task 0 | prompt eval time =   13734.80 ms /   871 tokens "
        "(   15.77 ms per token,    63.42 tokens per second)",
        "slot print_timing: id  1 | task 0 |        eval time =    3523.21 ms /    42 tokens "
        "(   85.93 ms per token,    11.64 tokens per second)",
        "       eval time =    3001.24 ms /    92 tokens (   32.62 ms per token,    30.65 tokens per second)",
        "llama_print_timings:        eval time = 100.00 ms / 10 runs (10.00 ms per token, 100.00 tokens per second)",
        "       eval time =       0.00 ms /     1 tokens (    0.00 ms per token,      inf tokens per second)",
        "slot print_timing: id  1 | task 0 |       total time =   17258.01 ms /   913 tokens",
    )
    assert [speed for _at, speed in facts["tokens_per_s"]] == [11.64, 30.65, 100.0]


PROJECTOR = (
    'level=WARN source=llama_server.go:1091 msg="llama-server startup failed with projector GPU offload; retrying with '
    'projector CPU offload" model=/m error="llama-server reported out-of-memory during startup: cudaMalloc failed"'
)
REQUEST = 'level=INFO source=runner.go:925 msg=load request="{{Operation:{} Parallel:1 BatchSize:512 KvSize:4096 }}"'
FATAL = [
    CUDA_OOM,
    "cudaMalloc failed: out of memory",
    "CUDA error: out of memory",
    "CUDA error 2 at /go/src/llm/ggml-cuda.cu:7155: out of memory",
    "llama_context: failed to allocate compute pp buffers",
    "llama_kv_cache: failed to allocate buffer for kv cache",
    "alloc_tensor_range: failed to allocate CUDA0 buffer of size 8000000000",
    "unable to allocate CUDA0 buffer",
    "ggml_gallocr_reserve_n: allocation failed",
    "not enough memory",
    "insufficient memory",
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    "unable to load model",
    "unable to create llama context",
    'msg="Load failed" error="llama runner process has terminated: exit status 2"',
    "llama runner process no longer running: -1",
    "llama-server process has terminated: signal: killed",
    "llama-server process no longer running",
    "llama-server reported out-of-memory during startup",
    "model requires more system memory (11.1 GiB) than is available (6.0 GiB)",
    'msg="model request too large for system" requested="20 GiB"',
    "memory layout cannot be allocated with num_gpu = 26",
    "failed to commit memory for model",
    "model failed to load, this may be due to resource limitations or an internal error",
    "model runner has unexpectedly stopped, this may be due to resource limitations",
    "timed out waiting for llama runner to start - progress 0.00 -",
    "timed out waiting for llama-server to start",
    'level=ERROR source=llama_server.go:1640 msg="llama-server completion error" error="Post \\"x\\": EOF"',
    'level=ERROR source=llama_server.go:1934 msg="llama-server chat error" error="Post \\"x\\": EOF"',
    'level=ERROR source=server.go:1474 msg="post predict" error="Post \\"x\\": EOF"',
    "Unsupported cache type: q3_0",
    "V cache quantization requires flash_attn",
    "kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",
    "kernel: oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=llama-server,pid=12",
    "systemd[1]: ollama.service: A process of this unit has been killed by the OOM killer.",
    "systemd[1]: ollama.service: Failed with result 'oom-kill'.",
    "kernel: Out of memory: Killed process 12 (llama-server)",
]
WARNINGS = [
    EVICT,
    SMALLER,
    PIPELINE,
    BACKOFF,
    "gpu VRAM usage didn't recover within timeout",
    "common_fit_params: failed to fit params to free device memory: n_gpu_layers already set by user to 40, abort",
    "not enough vram available, falling back to CPU only",
    "no compatible GPUs were discovered",
    'msg="server busy, please try again.  maximum pending requests exceeded"',
    'msg="invalid environment variable, using default" key=OLLAMA_GPU_OVERHEAD value=8G default=0',
    'level=ERROR msg="invalid setting" OLLAMA_NUM_PARALLEL=x',
    'msg="requested context size too large for model" num_ctx=8192 num_parallel=2 n_ctx_train=4096',
    'msg="model architecture does not currently support parallel requests" architecture=qwen3vl',
    'msg="truncating input prompt" limit=4096',
    'msg="invalid option provided" option=gpu_layers',
    'msg="kv cache type not supported by model" type=q4_0',
    'msg="quantized kv cache requested but flash attention disabled"',
    'msg="OLLAMA_FLASH_ATTENTION must be enabled to use a quantized OLLAMA_KV_CACHE_TYPE"',
    "llama-server VRAM tracking: no per-device buffer sizes were parsed",
]
HARMLESS = [
    "common_fit_params: successfully fit params to free device memory",
    "common_init_: fitting params to device memory ...",
    # ollama/ollama#5469, #9766: host memory that could not be pinned
    "ggml_cuda_host_malloc: failed to allocate 16607.35 MiB of pinned memory: out of memory",
    "ggml_cuda_host_malloc: warning: failed to allocate 0.14 MiB of pinned memory: invalid argument",
    # ollama/ollama#8006, #9625: a client that did not wait for its load
    'level=WARN source=llama_server.go:1301 msg="client connection closed before llama-server finished loading, abort"',
    'level=INFO source=sched.go:641 msg="Load failed" '
    'error="timed out waiting for llama-server to start: context canceled"',
    'level=ERROR source=sched.go:455 msg="error loading llama server" '
    'error="timed out waiting for llama runner to start: context canceled"',
    "srv         alloc: failed to allocate memory for prompt cache state: std::bad_alloc",
    "ggml_backend_sched_alloc_splits: failed to allocate graph, reserving (backend_ids_changed = 1)",
    "ggml_gallocr_alloc_graph: cannot reallocate multi buffer graph automatically, call reserve",
    "warning: failed to mlock 4299161600-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
    # a runner that is ended when it is not needed any more, after it has said such a word
    'level=ERROR source=llama_server.go:1023 msg="llama-server terminated" error="signal: killed" exit=-1',
    "slot create_check: id  0 | task 3 | created context checkpoint 1 of 32 (pos_min = 0, size = 1.2 MiB)",
    'msg="vram-based default context" total_vram="15.6 GiB" default_num_ctx=4096',
    'msg="system memory" total="6.7 GiB" free="6.1 GiB" free_swap="1.9 GiB"',
    'msg="starting llama-server" cmd="/x/llama-server --model /srv/out of memory/a"',
    '[GIN] 2026/05/05 - 01:30:24 | 200 |  4.006473015s | 127.0.0.1 | POST     "/api/generate"',
    '[GIN] 2026/05/05 - 01:30:24 | 404 |    1.2µs | 192.0.2.7 | GET      "/oom-kill/cudaMalloc failed: out of memory"',
    '\x1b[97;42m[GIN] 2026/05/05 - 01:30:24 | 404 | 1.2µs | 192.0.2.7 | GET "/runner process has terminated"',
    'level=WARN msg="another option" option="x error=\\"out of memory\\" error=cudaMalloc failed"',
    'level=INFO source=sched.go:591 msg="failed to create server" model="CUDA error" error="no such file"',
    'level=ERROR source=routes.go:1 msg="chat prompt error" error="no template for \\"out of memory\\""',
    'level=DEBUG source=llama_server.go:9 msg="chat request" prompt="why cudaMalloc failed: out of memory"',
    'level=TRACE msg="out of memory"',
    'srv  log_server_request: request: {"prompt": "cudaMalloc failed: out of memory"}',
    "srv  load_model: loading model '/srv/out of memory/a'",
    "NVRM: Xid (PCI:0000:01:00): 79, as a client would have it",
    "oom-kill:constraint=CONSTRAINT_NONE,task=llama-server,pid=12",
    "systemd[1]: Started ollama.service - cudaMalloc failed: out of memory.",
]


@pytest.mark.parametrize("line", FATAL)
def test_fatal(line):
    (failure,) = parse(f"  {line} ")["failures"]
    assert failure == {"severity": "fatal", "at": 1000.0, "line": line}


@pytest.mark.parametrize("line", WARNINGS)
def test_warning(line):
    assert severities(line) == ["warning"]


REFRESHED = (
    'time=x level=INFO source=runner.go:522 msg="failure during llama-server GPU discovery" '
    'OLLAMA_LIBRARY_PATH="[/usr/lib/ollama /usr/lib/ollama/cuda_v12]" extra_envs={} '
    'error="context deadline exceeded" detail=""'
)
FOUND_GPU = 'time=x level=INFO source=types.go:42 msg="inference compute" id=GPU-3 filter_id="" library={} compute=8.9'


@pytest.mark.parametrize("environment", ["map[CUDA_VISIBLE_DEVICES:0]", "map[]"])
def test_a_slow_refresh_of_free_memory_is_no_failure(environment):
    """ml/device.go: where GPUs of several libraries stand in a host, it names no variables, as a start does."""
    slow = REFRESHED.format(environment)
    assert severities(slow) == []  # a log since some later moment
    assert severities(CONFIG, FOUND_GPU.format("CUDA"), slow) == []


def test_a_discovery_that_failed_at_the_start_counts_unless_a_gpu_was_found_after_it():
    failed = REFRESHED.format("map[]")
    assert severities(CONFIG, failed, FOUND_GPU.format("cpu")) == ["fatal"]
    assert severities(CONFIG, failed, FOUND_GPU.format("CUDA")) == ["recovered"]
    assert severities(CONFIG, FOUND_GPU.format("CUDA"), CONFIG, failed) == ["fatal"]  # of the next start


def test_a_device_that_another_process_serves_has_a_name_with_its_address():
    facts = parse(START_0_32, "load_tensors: RPC0[127.0.0.1:50052] model buffer size =   235.16 MiB")
    assert facts["loads"][0]["buffers_mib"] == {"RPC0[127.0.0.1:50052] model": 235.16}


def test_what_a_client_wrote_is_no_layer_and_no_buffer():
    path = '[GIN] 2026/05/05 - 01:30:24 | 404 | 1.2µs | 192.0.2.7 | GET "/load_tensors: offloaded 0/33 layers to GPU"'
    asked = 'level=WARN msg="invalid option provided" option="load_tensors: CUDA0 model buffer size = 9.00 MiB"'
    echo = 'srv  request: {"prompt": "load_tensors: offloaded 1/33 layers to GPU"}'
    forged = '[GIN] 2026/05/05 - 01:30:24 | 404 | 1µs | 192.0.2.7 | GET "/ msg=\\"server config\\" env=\\"map[A:b]\\""'
    facts = parse(CONFIG, START_0_32, "load_tensors: offloaded 33/33 layers to GPU", STARTED, path, asked, echo, forged)
    (load,) = facts["loads"]
    assert (load["offloaded"], load["buffers_mib"]) == (33, {})
    assert facts["server_config"]["OLLAMA_NUM_PARALLEL"] == "2"
    assert facts["lines"] == 5


def test_a_load_that_failed_is_one_failure_told_by_its_plainest_line():
    died = 'level=INFO source=sched.go:641 msg="Load failed" error="llama-server process has terminated: exit status 1"'
    lines = (START_0_32, "alloc_tensor_range: failed to allocate CUDA0 buffer of size 8", CUDA_OOM, "CUDA error", died)
    facts = parse(*lines, *lines, *lines)
    assert [failure["line"] for failure in facts["failures"]] == [CUDA_OOM] * 3


def test_a_load_that_takes_long_to_fail_is_one_failure():
    """ollama/ollama#9260: 14 seconds between the allocation and the end."""
    died = "llama_model_load: error loading model: unable to allocate CUDA0 buffer"
    ended = (
        'level=INFO source=sched.go:641 msg="Load failed" error="llama-server process has terminated: exit status 1"'
    )
    lines = [(0.0, START_0_32), (2.0, CUDA_OOM), (16.0, died), (40.0, ended)]
    assert [failure["line"] for failure in log_lines.parse(lines)["failures"]] == [CUDA_OOM]
    later = [*lines, (900.0, "llama-server process no longer running")]
    assert len(log_lines.parse(later)["failures"]) == 2


GIN = '[GIN] 2026/11/30 - 05:49:06 | 200 |  1.2µs | 127.0.0.1 | GET      "/api/tags"'
SERVERS = 'time=2026-11-30T05:49:06.001Z level=INFO source=sched.go:1 msg="llama-server started in 1.00 seconds"'


@pytest.mark.parametrize("within", [GIN, SERVERS])
@pytest.mark.parametrize("at", [1, 5, 14, 25, 35])
def test_a_line_that_is_torn_by_another_is_read_whole(within, at):
    line = "load_tensors: offloaded 31/33 layers to GPU"
    facts = parse(START_0_32, line[:at] + within, GIN, SERVERS, line[at:], "llama_context: n_ctx = 8192")
    (load,) = facts["loads"]
    assert (load["offloaded"], load["offloadable"], load["started"]) == (31, 33, True)


def test_a_failure_that_is_torn_is_one_and_what_a_client_sends_tears_nothing():
    assert severities(START_0_32, CUDA_OOM[:60] + GIN, CUDA_OOM[60:]) == ["fatal"]
    forged = f'srv  request: {{"prompt": "x {SERVERS} cudaMalloc failed"}}'
    facts = parse(START_0_32, forged, "load_tensors: offloaded 31/33 layers to GPU")
    assert (facts["loads"][0]["started"], facts["failures"]) == (False, [])
    dots = parse(START_0_32, "......" + GIN, "llama_context: constructing llama_context", *("x" + GIN,) * 5000)
    assert len(dots["loads"]) == 1


def test_failures_far_apart_are_not_one():
    gone = "llama-server process no longer running"
    facts = log_lines.parse([(0.0, START_0_32), (1.0, STARTED), (2.0, gone), (4.0, gone), (3600.0, gone)])
    assert [failure["at"] for failure in facts["failures"]] == [2.0, 3600.0]


def test_when_the_server_started_and_when_it_last_worked():
    answer = "slot print_timing: eval time = 100.00 ms / 10 tokens (10.00 ms per token, 100.00 tokens per second)"
    facts = parse(CONFIG, START_0_32, STARTED, CUDA_OOM)
    assert (facts["server_at"], facts["worked_at"]) == (1000.0, 1002.0)
    facts = parse(START_0_32, STARTED, CUDA_OOM, answer)
    assert (facts["server_at"], facts["worked_at"], facts["loads"][0]["tokens_per_s"]) == (None, 1003.0, [100.0])


ONE_PASS = (
    "load_tensors: loading model tensors, this can take a while... (mmap = false, direct_io = false)",
    "load_tensors:      Vulkan0 model buffer size = {model} MiB",
    "llama_context: constructing llama_context",
    "llama_kv_cache_iswa: creating non-SWA KV cache, size = 8192 cells",
    "llama_kv_cache:    Vulkan0 KV buffer size =    24.00 MiB",
    "llama_kv_cache_iswa: creating     SWA KV cache, size = 3072 cells",
    "llama_kv_cache:    Vulkan0 KV buffer size =    45.00 MiB",
    "sched_reserve:    Vulkan0 compute buffer size =    {compute} MiB",
)


def test_the_caches_of_a_model_with_sliding_windows_add_up_and_its_dry_runs_do_not():
    dry = [line.format(model="0.00", compute="60.00") for line in ONE_PASS]
    real = [line.format(model="220.00", compute="53.20") for line in ONE_PASS]
    (load,) = parse(START_0_32, *dry, *dry, *real, "alloc_compute_meta: Vulkan0 compute buffer size = 10.00 MiB")[
        "loads"
    ]
    assert load["buffers_mib"] == {"Vulkan0 model": 220.0, "Vulkan0 KV": 69.0, "Vulkan0 compute": 63.2}
    (_first, again) = parse(START_0_32, *real, STARTED, START_0_32, *real)["loads"]
    assert again["buffers_mib"]["Vulkan0 KV"] == 69.0


@pytest.mark.parametrize(
    "command, wanted",
    [
        (["--flash-attn", "auto"], "auto"),
        (["--flash-attn=off", "-b", "1"], "off"),
        (["-fa", "on"], "on"),
        (["--flash-attn", "--kv"], "on"),
        (["-fa"], "on"),
        (["-ctk", "f16"], None),
    ],
)
def test_flash_attention_of_a_runner(command, wanted):
    assert log_lines.runner_flash_attention(command) == wanted


def test_a_model_that_is_made_of_a_file_is_no_load():
    lines = (
        'level=INFO source=quantization.go:124 msg="quantizing model" type=COPY input=/a output=/b',
        "llama_quantize: quantizing '/a' to '/b' as COPY",
        "[   2/ 236] token_embd.weight            - [   640, 262144,      1,      1], type =   q8_0, size = 170 MiB",
        "llama_model_quantize_impl: model size  =   235.16 MiB (7.36 BPW)",
    )
    facts = parse(*lines)
    assert (facts["loads"], facts["failures"]) == ([], [])


@pytest.mark.parametrize("line", HARMLESS)
def test_harmless(line):
    assert severities(line) == []


@pytest.mark.parametrize(
    "lines, wanted",
    [
        pytest.param((START_0_32, CUDA_OOM), ["fatal"], id="nobody tries again"),
        pytest.param((START_0_32, CUDA_OOM, EVICT, START_0_32), ["fatal", "warning"], id="a retry without an end"),
        pytest.param((START_0_32, CUDA_OOM, EVICT, START_0_32, STARTED), ["recovered", "warning"], id="evicted"),
        pytest.param((START_0_32, CUDA_OOM, SMALLER, START_0_32, STARTED), ["recovered", "warning"], id="reduced"),
        pytest.param((START_0_32, CUDA_OOM, PIPELINE, STARTED), ["recovered", "warning"], id="in the same runner"),
        pytest.param(
            (START_0_24, CUDA_OOM, BACKOFF, CUDA_OOM, BACKOFF, STARTED),
            ["recovered", "warning", "recovered", "warning"],
            id="backoff of 0.24",
        ),
        pytest.param(
            (START_0_32, CUDA_OOM, EVICT, START_0_32, CUDA_OOM), ["fatal", "warning", "fatal"], id="the retry fails too"
        ),
        pytest.param(
            (START_0_32, CUDA_OOM, EVICT, START_0_32, CUDA_OOM, START_0_32, STARTED),
            ["fatal", "warning", "fatal"],
            id="the retry fails too, a later request does not",
        ),
        pytest.param(
            (START_0_32, CUDA_OOM, START_0_32, CUDA_OOM, EVICT, START_0_32, STARTED),
            ["fatal", "recovered", "warning"],
            id="the first one nobody tried again",
        ),
        pytest.param((START_0_32, CUDA_OOM, START_0_32, STARTED), ["fatal"], id="a later request is no retry"),
        pytest.param(
            (START_0_32, CUDA_OOM, PIPELINE, CUDA_OOM, START_0_32, STARTED),
            ["fatal", "warning", "fatal"],
            id="a retry in the same runner that does not help",
        ),
        pytest.param((START_0_32, STARTED, STARTED, CUDA_OOM), ["fatal"], id="while it answers"),
        pytest.param(
            (START_0_32, CUDA_OOM, PROJECTOR, START_0_32, STARTED),
            ["recovered", "warning"],
            id="its projector elsewhere",
        ),
        pytest.param(
            (START_0_24, REQUEST.format("alloc"), CUDA_OOM, REQUEST.format("alloc"), REQUEST.format("commit"), STARTED),
            ["recovered"],
            id="fewer layers, since 0.11.5",
        ),
        pytest.param(
            (START_0_24, REQUEST.format("alloc"), CUDA_OOM, REQUEST.format("close")), ["fatal"], id="not asked again"
        ),
    ],
)
def test_recovered_only_after_a_retry_that_worked(lines, wanted):
    assert severities(*lines) == wanted


@pytest.mark.parametrize(
    "command, wanted",
    [
        (["-c", "8192", "-np", "2", "-ngl", "33", "-b", "512"], (8192, 2, 33, 512)),
        (["--ctx-size=8192", "--parallel=2", "--n-gpu-layers=-1", "--batch-size=512"], (8192, 2, None, 512)),
        (["--gpu-layers", "20"], (None, None, 20, None)),
        (["-ngl", "auto", "-c"], (None, None, None, None)),
        (["-ngl", "\u00b2", "-c", "--5", "-np", ""], (None, None, None, None)),
        (["-ngl", "10", "-ngl", "20"], (None, None, 20, None)),
        (["-ub", "1024"], (None, None, None, None)),
        ([], (None, None, None, None)),
    ],
)
def test_runner_settings(command, wanted):
    assert tuple(log_lines.runner_settings(command).values()) == wanted


FRAGMENTS = st.one_of(
    st.text(),
    st.sampled_from(
        [CONFIG, START_0_32, START_0_24, REQUESTED_0_24, SENT_0_24, STARTED, EVICT, PIPELINE, *FATAL, *WARNINGS]
    ),
    st.sampled_from(
        [
            'msg="server config" env="map[',
            ']"',
            'msg="starting llama-server" cmd="',
            "offloaded 1/",
            "33/33 layers to GPU",
            "CUDA0 model buffer size = ",
            "1.2.3 MiB",
            ". MiB",
            "eval time = . ms / 1 tokens ",
            ". tokens per second",
            "1.2.3 tokens per second",
            "-c",
            "--model",
            "\\",
            '"',
            "'",
            "\n",
        ]  # fmt: skip
    ),
)


@given(st.lists(st.lists(FRAGMENTS, max_size=6).map(" ".join), max_size=12))
def test_random_text_never_raises(lines):
    facts = parse(*lines)
    for load in facts["loads"]:
        log_lines.runner_settings(load["command"], load["sent"])
    assert {failure["severity"] for failure in facts["failures"]} <= {"fatal", "recovered", "warning"}


@given(st.lists(st.text() | st.sampled_from(["-c", "-np", "-ngl", "-b", "-c=", "-1", "\u0663"])))
def test_random_commands_never_raise(command):
    assert all(value is None or isinstance(value, int) for value in log_lines.runner_settings(command).values())


@pytest.mark.parametrize(
    "line",
    [
        "A" * 100_000, "A:" * 50_000, "a " * 50_000, "A " * 50_000 + "buffer size", "A" * 100_000 + " buffer size",
        "msg=" + ' "' * 50_000, 'level=WARN msg="' + "\\" * 100_001, "msg=a " + "b=" * 50_000,
        "msg=a" + ' b="c' * 30_000,
        'msg="server config" env="map[' + "A:" * 20_000, "offloaded " * 10_000, 'msg="loading model" ' * 5_000,
    ],
)  # fmt: skip
def test_a_huge_line_is_read_in_one_pass(line):
    assert parse(START_0_32, line)["failures"] == []


def test_what_was_evaluated_of_a_prompt_that_was_sent_before():
    facts = parse(
        "slot   operator(): id  0 | task 7 | new prompt, n_ctx_slot = 4096, n_keep = 4, task.n_tokens = 3593",
        "slot   operator(): id  0 | task 7 | cached n_tokens = 3592, memory_seq_rm [3592, end)",
        "prompt eval time =      27.25 ms /     1 tokens (   27.25 ms per token,    36.70 tokens per second)",
    )
    assert (facts["longest_prompt"], facts["longest_sent"], facts["most_reused"]) == (1, 3593, 3592)


OF_A_ROW = ("MESSAGE", "_TRANSPORT", "_PID", "_STREAM_ID", "_LINE_BREAK", "_SYSTEMD_UNIT", "__REALTIME_TIMESTAMP")
OF_A_FIELD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800") | st.just("9" * 5000),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=2),
    max_leaves=4,
)
OFTEN_SO = st.sampled_from(["kernel", "driver", "1", "1767225600000000", "line-max"])


@given(st.lists(st.dictionaries(st.sampled_from(OF_A_ROW), OFTEN_SO | OF_A_FIELD) | OF_A_FIELD, max_size=4))
def test_whatever_a_row_holds_is_read_or_left(rows):
    whole = log_lines.WholeLines()
    for row in rows:
        fields = log_lines.fields_of(json.dumps(row))
        entry = log_lines.entry_of(fields) if whole.begins(fields) else None
        if entry:
            at, text = entry
            assert 0 <= at <= 1e10
            assert text.encode().decode() == text
            log_lines.parse([entry])


@pytest.mark.parametrize(
    "message",
    [["Suppressed 3 messages from ollama.service", "second"], [72, 300], [72, -1], [[72]], None, 7, {"a": 1}],
)
def test_a_row_without_one_message_says_nothing(message):
    row = {"MESSAGE": message, "__REALTIME_TIMESTAMP": "1767225600000000", "_TRANSPORT": "driver", "_PID": "1"}
    assert log_lines.entry(json.dumps(row)) is None


@pytest.mark.parametrize("at", [None, "", "x", "-1", "9" * 17, 1767225600000000, ["1", "2"]])
def test_a_row_without_a_time_says_nothing(at):
    assert log_lines.entry(json.dumps({"MESSAGE": "a", "__REALTIME_TIMESTAMP": at})) is None


def test_bytes_are_read_as_text():
    row = {"MESSAGE": [255, 97], "__REALTIME_TIMESTAMP": "1767225600000000"}
    assert log_lines.entry(json.dumps(row)) == (1767225600.0, "\N{REPLACEMENT CHARACTER}a")


@pytest.mark.parametrize("writer", list(log_lines.WRITERS))
def test_a_line_of_a_process_is_nobody_elses_however_it_begins(writer):
    fields = {"MESSAGE": f"{writer}Suppressed 3 messages from a.service", "__REALTIME_TIMESTAMP": "1", "_PID": "77"}
    _at, line = log_lines.entry_of(fields)
    assert log_lines.written(line).by == "runner"
    assert log_lines.dropped(line, "a.service") == 0


def test_a_row_of_nothing_but_brackets_has_no_fields() -> None:
    assert log_lines.fields_of("[" * 100_000) == {}


def test_a_log_that_never_ends_to_name_buffers_is_no_reason_to_add_up_for_ever() -> None:
    lines = [
        "load_tensors: offloaded 1/1 layers to GPU",
        *(f"b{n}: CUDA0 KV buffer size = 1.00 MiB" for n in range(3000)),
    ]
    load = log_lines.parse([(1.0, line) for line in lines])["loads"][0]
    assert load["buffers_mib"] == {"CUDA0 KV": log_lines.MOST_BUFFERS}


FORGED = [
    "llama_model_loader: - kv   2:                       general.name str              = {}",
    "llama_model_loader: - kv   7:                   general.name str = x: {}",
    "print_info: general.name          = {}",
    "llm_load_print_meta: general.name     = {}",
    "clip_model_loader: model name:   {}",
    "clip_model_loader: description:  {}",
    "load_hparams: model name: {}",
    "cmn  common_init_: added {} logit bias = -inf",
    "common_init_from_params: added {} logit bias = -inf",
    "srv    send_error: task id = 3, error: {}",
    "srv    operator(): got exception: {}",
    "load: control-looking token:    212 '{}' was not control-type",
    "level=ERROR source=routes.go:1 msg=\"no model called '{}' here\"",
    'level=WARN source=routes.go:1 msg="a name" model="{}"',
    'level=ERROR source=routes.go:1 msg="a name" error="model \\"{}\\" not found"',
    '[GIN] 2026/11/30 - 05:49:06 | 404 | 1us | 192.0.2.7 | GET      "/{}"',
    '[GIN] 2026/11/30 - 05:49:06 | 404 | 1us | 192.0.2.7 | GET      "/\\n{}"',
    "kernel: {}[4711]: segfault at 0 ip 0 sp 0 error 4 in x",
    "kernel: traps: {}[4711] trap int3",
]
WORDS = [
    "CUDA error: out of memory",
    "oom-kill",
    "load_tensors: offloaded 0/33 layers to GPU",
    "load_tensors: CUDA0 model buffer size = 99.00 MiB",
    "eval time = 1.00 ms / 2 tokens ( 1.00 ms per token, 900.00 tokens per second)",
    "prompt eval time = 1.00 ms / 9000 tokens",
    "llama-server started in 1.00 seconds",
    "truncating input prompt",
    "model runner has unexpectedly stopped",
    'time=2026-11-30T05:49:06.001Z level=INFO source=x msg=\\"server config\\" env=\\"map[A:b]\\"',
]


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("line", FORGED)
def test_what_somebody_else_has_chosen_in_a_line_is_no_evidence(line, words):
    lines = (CONFIG, START_0_32, "load_tensors: offloaded 33/33 layers to GPU", STARTED)
    before, after = parse(*lines), parse(*lines, line.format(words))
    assert {**after, "lines": before["lines"]} == before


def test_a_models_template_is_quoted_until_its_quote_is_closed():
    begins = "srv          init: init: chat template, example_format: '<|im_start|>system"
    lines = [*WORDS, SERVERS, CUDA_OOM, 'level=ERROR msg="llama-server process has terminated"']
    whole = [CONFIG, START_0_32, begins, *lines, "'", "load_tensors: offloaded 33/33 layers to GPU", STARTED]
    facts = log_lines.parse([(0.0, line) for line in whole])
    assert (facts["failures"], facts["tokens_per_s"], facts["loads"][0]["offloaded"]) == ([], [], 33)
    assert facts["loads"][0]["started"]
    assert severities(CONFIG, START_0_32, begins + "'", CUDA_OOM) == ["fatal"]
    # One that is cut off does not hide for long what comes then.
    late = [(0.0, START_0_32), (0.0, begins), (0.5, CUDA_OOM), (9.0, CUDA_OOM)]
    assert [failure["at"] for failure in log_lines.parse(late)["failures"]] == [9.0]


def test_headers_of_a_request_that_made_the_server_panic_are_a_clients():
    begins = "2026/11/30 05:49:06 [Recovery] 2026/11/30 - 05:49:06 panic recovered:"
    headers = ["GET /cudaMalloc%20failed HTTP/1.1", "Host: x", "User-Agent: CUDA error: out of memory", "Oom:"]
    assert severities(CONFIG, begins, *headers, "runtime error: index out of range") == []
    assert severities(CONFIG, begins, *headers, "panic: out of memory", CUDA_OOM) == ["fatal"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"MESSAGE": "x"}, "x"),
        ({"MESSAGE": [120, 255]}, "x\ufffd"),  # what is no UTF-8
        ({"MESSAGE": "NVRM: Xid 79", "_TRANSPORT": "kernel"}, "kernel: NVRM: Xid 79"),
        ({"MESSAGE": "usb 1-1: new device", "_TRANSPORT": "kernel"}, None),
        (
            {"MESSAGE": "Suppressed 7 messages from x.service", "_TRANSPORT": "driver"},
            "systemd-journald: Suppressed 7 m",
        ),
        ({"MESSAGE": "Started x.service", "_PID": "1"}, "systemd[1]: Started x.service"),
        ({"MESSAGE": None}, None),
        ({}, None),
    ],
    ids=str,
)
def test_a_row_of_the_journal_names_who_is_not_of_the_unit(fields: dict[str, Any], text: str | None) -> None:
    found = log_lines.entry(json.dumps({"__REALTIME_TIMESTAMP": "1500000", **fields}))
    assert found is None if text is None else found and found[0] == 1.5 and found[1].startswith(text)


def test_what_journald_dropped_counts_for_its_unit_alone() -> None:
    line = "systemd-journald: Suppressed 7 messages from /system.slice/x.service"
    assert [log_lines.dropped(line, unit) for unit in ("x.service", "y.service")] == [7, 0]
    assert log_lines.dropped("Suppressed 7 messages from x.service", "x.service") == 0


def test_the_plainest_line_is_told_by_what_was_written_and_not_by_what_is_shown() -> None:
    lines = ("ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 1", "cudaMalloc failed: out of memory")
    for said in (lines, lines[::-1]):
        numbered = [(1000.0 + at / 10, line) for at, line in enumerate(said)]
        (failure,) = log_lines.parse(numbered, lambda line: line.replace("memory", "********"))["failures"]
        assert failure["line"] == "cudaMalloc failed: out of ********"


def test_layers_that_overflow_are_counted_on_every_gpu_and_for_their_own_load() -> None:
    said = "common_params_fit_impl:   - {gpu}: {layers} layers ({n:>2} overflowing),   8965 MiB used,   1039 MiB free"
    loads = parse(
        START_0_32,
        said.format(gpu="CUDA0 (NVIDIA GeForce RTX 4060 Ti)", layers=13, n=0),
        said.format(gpu="RPC0 (127.0.0.1:50051)", layers=20, n=7),
        "load_tensors: offloaded 33/33 layers to GPU",
        START_0_32,
        "load_tensors: offloaded 33/33 layers to GPU",
    )["loads"]
    assert [load["overflowing"] for load in loads] == [7, 0]
    assert [log_lines.layers_on_gpu(load) for load in loads] == [26, 33]
