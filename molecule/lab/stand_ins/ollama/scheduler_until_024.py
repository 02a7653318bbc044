"""Loading through `ollama runner`, as from Ollama 0.12.11 to 0.24 (llm/server.go, and sched.go's side of it).

The server works out how many layers fit, and sends them to the runner as JSON; so neither they nor the context are on
its command line. Two engines: llama.cpp inside the runner, for which the server goes by its own estimate, and Ollama's
own, which is asked what it takes. The lab's architectures run on the first, unless OLLAMA_NEW_ENGINE is set.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import lab
import lab_models
import runner_until_024
import scheduler
import settings
from lab import MIB, Json
from scheduler import MINIMUM_BYTES, DoesNotFit, Options, Request
from settings import human_bytes, log

GO_BYTES = {"f16": 2.0, "q8_0": 1.0, "q4_0": 0.5}  # of the cache, as Ollama estimated it (fs/ggml/ggml.go)


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the server expects a model to take, in bytes: each layer with its cache, the output layer last."""

    weights: list[int]
    cache: list[int]
    graph: int
    input_weights: int
    host_graph: int

    def of(self, layer: int) -> int:
        return self.weights[layer] + self.cache[layer]


class Runner(scheduler.Runner):
    """An `ollama runner`."""

    errors_begin = ("panic:", "fatal error:", "error:", "Error:", "CUDA error", "cudaMalloc failed",
                    "error loading model", "GGML_ASSERT", "llama_init_from_model:")  # fmt: skip

    def __init__(self, program: Path, blob: lab_models.Blob, options: Options, parallel: int, alive_s: float) -> None:
        super().__init__(blob, options, parallel, alive_s)
        self.ollama_engine = settings.boolean("OLLAMA_NEW_ENGINE", False)
        if options.num_ctx > blob.context_length:
            log(
                "WARN", "server.go:114", "requested context size too large for model",
                num_ctx=options.num_ctx, n_ctx_train=blob.context_length,
            )  # fmt: skip
        self.batch = min(options.num_batch, self.num_ctx)
        self.flash = self._flash_attention()
        self.cache_type = self._cache_type()
        self.layers: list[int] = []  # those on the GPU
        self.expected: Expected | None = None
        engine = ["--ollama-engine"] if self.ollama_engine else []
        command = [str(program), "runner", *engine, "--model", self.path, "--port", str(self.port)]
        log("INFO", "server.go:433", "starting runner", cmd=" ".join(command))
        self.start(command)

    def _flash_attention(self) -> int:
        """As the runner is told: on 1, off 0, automatic -1. Ollama's own engine has it for chosen models only."""
        wanted = settings.flash_attention()
        return {"on": 1, "off": 0, "auto": 0 if self.ollama_engine else -1}[wanted]

    def _cache_type(self) -> str:
        kind = settings.text("OLLAMA_KV_CACHE_TYPE").lower()
        if kind in ("", "f16"):
            return kind
        if self.ollama_engine and self.flash != 1:
            log("WARN", "server.go:270", "quantized kv cache requested but flash attention disabled", type=kind)
        elif self.flash != 1 and kind not in ("f32", "bf16"):
            message = "OLLAMA_FLASH_ATTENTION must be enabled to use a quantized OLLAMA_KV_CACHE_TYPE"
            log("WARN", "server.go:240", message, type=kind)
        elif kind not in ("q8_0", "q4_0"):
            own = self.ollama_engine
            message = "kv cache type not supported by model" if own else "unsupported OLLAMA_KV_CACHE_TYPE"
            log("WARN", "server.go:267" if own else "server.go:251", message, type=kind)
        else:
            return kind
        return ""

    # What it takes

    def _memory(self, layers: int) -> lab_models.Memory:
        kind, flash = self.cache_type or "f16", self.flash != 0
        return self.blob.memory(layers, self.num_ctx, self.parallel, self.batch, kind, flash, since_030=False)

    def expect(self) -> Expected:
        """The llama engine: Ollama's estimate. Its own engine: what it really takes."""
        blob = self.blob
        weights = [round(blob.block_mib(block) * MIB) for block in range(blob.blocks)] + [round(blob.output_mib * MIB)]
        if self.ollama_engine:
            everything = self._memory(blob.offloadable_layers)
            cache = round(blob.kv_mib(1, self.num_ctx, self.parallel, self.cache_type or "f16") * MIB)
            graph, host_graph = round(everything.compute * MIB), round(everything.host_compute * MIB)
            input_weights = round(everything.host_weights * MIB)
        else:
            bytes_each = GO_BYTES[self.cache_type or "f16"]
            cache = round(blob.kv_mib(1, self.num_ctx, self.parallel, "f16") / 2 * bytes_each * MIB)
            graph, host_graph, input_weights = max(self._graph_sizes()), 0, 0
        return Expected(weights, [cache] * blob.blocks + [0], graph, input_weights, host_graph)

    def _graph_sizes(self) -> tuple[int, int]:
        """Ollama's estimate for some and for all layers on the GPU (fs/ggml/ggml.go, GraphSize)."""
        blob, batch, context = self.blob, self.batch, self.num_ctx * self.parallel
        width, heads, words = blob.info("embedding_length"), blob.info("attention.head_count"), blob.vocabulary
        heads_kv = blob.heads_kv
        copied = 4 * batch * (width + words) + width * words * 105 // 128
        if blob.architecture == "llama":
            every = 4 * batch * (1 + 4 * width + context * (1 + heads))
            scores = 4 * context * (batch * heads + width // heads * heads_kv)
            some = 4 * batch * (1 + width + max(context, width)) + width * width * 9 // 16 + scores
            return 4 * batch * width + max(some, copied), max(every, 4 * batch * (width + words))
        every = 4 * batch * (1 + 2 * width + context * (1 + heads))
        return max(copied, every + 4 * width * (1 + context)), max(every, 4 * batch * (width + words))

    def size(self) -> tuple[int, int]:
        if self.expected is None:
            return 0, 0
        e, everything = self.expected, range(len(self.expected.weights))
        on_gpu = sum(e.of(layer) for layer in self.layers) + (e.graph if self.layers else 0)
        on_host = sum(e.of(layer) for layer in everything if layer not in self.layers)
        on_host += e.input_weights + e.host_graph
        return on_gpu + on_host, on_gpu + on_host if len(self.layers) == len(everything) else on_gpu

    def report(self) -> None:
        """The journal's lines on memory (ml/device.go, BackendMemory.Log)."""
        e = self.expected
        assert e
        everything = range(len(e.weights))
        gpu, host = self.layers, [layer for layer in everything if layer not in self.layers]
        rows = [
            ("model weights", sum(e.weights[n] for n in gpu), e.input_weights + sum(e.weights[n] for n in host)),
            ("kv cache", sum(e.cache[n] for n in gpu), sum(e.cache[n] for n in host)),
            ("compute graph", e.graph if gpu else 0, e.host_graph),
        ]
        for (name, on_gpu, on_host), (gpu_line, host_line) in zip(rows, ((240, 245), (251, 256), (262, 267))):
            if on_gpu:
                log("INFO", f"device.go:{gpu_line}", name, device="CUDA0", size=human_bytes(on_gpu))
            if on_host:
                log("INFO", f"device.go:{host_line}", name, device="CPU", size=human_bytes(on_host))
        log("INFO", "device.go:272", "total memory", size=human_bytes(sum(a + b for _, a, b in rows)))

    # How many layers fit

    def lay_out(self, free: int, graph: int, beside: bool, backoff: float = 0.0) -> list[int]:
        """The layers for the GPU: the last ones that fit, without the output layer unless all do (createLayout)."""
        e = self.expected
        assert e
        free -= round(free * backoff) + MINIMUM_BYTES + settings.gpu_overhead() + graph
        wanted = min(self.options.num_gpu, len(e.weights)) if self.options.num_gpu >= 0 else None
        room = max(free, 0)
        if wanted is not None and not beside:
            room *= 1000  # an explicit num_gpu: "pretend we have almost infinite VRAM"
        chosen: list[int] = []
        for layers in (range(len(e.weights)), range(len(e.weights) - 1)):
            chosen, left = [], room
            for layer in reversed(layers):
                if (wanted is not None and len(chosen) >= wanted) or e.of(layer) > left:
                    break
                chosen.insert(0, layer)
                left -= e.of(layer)
            if len(chosen) == len(e.weights):
                break
        if beside and len(chosen) < len(e.weights) and (wanted is None or len(chosen) < wanted):
            message = "model requires more gpu memory than is currently available, evicting a model to make space"
            log("INFO", "server.go:1064", message, **{"loaded layers": len(chosen)})
            raise DoesNotFit
        return chosen

    def load(self, gpu_free: int, beside: bool, client_gone: Callable[[], bool]) -> None:
        """Choose the layers and load. DoesNotFit beside others; RuntimeError says why it cannot be loaded."""
        asked, every = self.options.num_gpu, self.blob.offloadable_layers
        source = "server.go:792" if self.ollama_engine else "server.go:532"
        log("INFO", source, "loading model", **{"model layers": every, "requested": asked})
        self.expected = self.expect()
        if self.ollama_engine:
            self._load_measured(gpu_free, beside)
        else:
            spare = max(gpu_free - self.expected.of(0), 0)
            self.layers = self.lay_out(spare, 0, beside) if gpu_free else []
            if self.layers:  # a GPU that is used needs its graph as well
                self.layers = self.lay_out(spare, self.expected.graph, beside)
            graph = self._graph_sizes()[len(self.layers) == every]
            self.expected = dataclasses.replace(self.expected, graph=graph)
            self.report()
            self._send("commit")
        self._wait_until_ready(client_gone)

    def _load_measured(self, gpu_free: int, beside: bool) -> None:
        assert self.expected
        backoff = 0.0
        try:
            while True:
                graph = self.expected.graph if gpu_free else 0
                self.layers = self.lay_out(gpu_free, graph, beside, backoff) if gpu_free else []
                self._send("fit")
                if self._send("alloc"):
                    break
                if self.options.num_gpu >= 0:
                    raise RuntimeError(f"memory layout cannot be allocated with num_gpu = {self.options.num_gpu}")
                if backoff > 1:
                    raise RuntimeError("memory layout cannot be allocated")
                backoff += 0.1
                log("INFO", "server.go:914", "model layout did not fit, applying backoff", backoff=f"{backoff:.2f}")
            self._send("commit")
        finally:
            self.report()

    def _send(self, operation: str) -> bool:
        gpu = {"ID": lab.card().uuid, "Library": "CUDA", "Layers": self.layers}
        body = {
            "Operation": operation, "Parallel": self.parallel, "BatchSize": self.batch, "FlashAttention": self.flash,
            "KvSize": self.num_ctx * self.parallel, "KvCacheType": self.cache_type,
            "NumThreads": self.options.num_thread or os.cpu_count(), "GPULayers": [gpu] if self.layers else [],
            "MultiUserCache": settings.boolean("OLLAMA_MULTIUSER_CACHE", False),
            "MainGPU": self.options.main_gpu or 0, "UseMmap": not self.ollama_engine,
        }  # fmt: skip
        while not self.health():
            if not self.alive():
                raise RuntimeError(f"llama runner process no longer running: {self.process.returncode} ")
            time.sleep(0.01)
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request("POST", "/load", json.dumps(body), {"Connection": "close"})
            answer: Json = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return bool(answer["Success"])

    def health(self) -> int:
        status, content = scheduler.get(self.port, "/health")
        return status and (200 if json.loads(content)["status"] == runner_until_024.READY else 503)

    def _wait_until_ready(self, client_gone: Callable[[], bool]) -> None:
        log("INFO", "server.go:1385", "waiting for llama runner to start responding")
        deadline = time.monotonic() + (settings.duration("OLLAMA_LOAD_TIMEOUT", 300) or math.inf)
        loading = False
        while True:
            if not self.alive():
                self.reader.join()
                log("ERROR", "server.go:316", "llama runner terminated", error=f"exit status {self.process.returncode}")
                said = self.message() or [f"exit status {self.process.returncode}"]
                raise RuntimeError(f"llama runner process has terminated: {said[0]}")
            if client_gone():
                message = "client connection closed before server finished loading, aborting load"
                log("WARN", "server.go:1392", message)
                raise RuntimeError("timed out waiting for llama runner to start: context canceled")
            if time.monotonic() > deadline:
                raise RuntimeError("timed out waiting for llama runner to start - progress 0.00 - ")
            status = self.health()
            if status == 200:
                took = time.monotonic() - self.started
                log("INFO", "server.go:1432", f"llama runner started in {took:.2f} seconds")
                return
            if status and not loading:
                loading = True
                text = "llm server loading model"
                log("INFO", "server.go:1428", "waiting for server to become available", status=text)
            time.sleep(0.05)


def devices_of(command: list[str], port: int) -> list[Json]:
    """What a runner that is started for this alone answers to /info."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            status, content = scheduler.get(port, "/info")
            if status == 200:
                found: list[Json] = json.loads(content)
                return found
            time.sleep(0.02)
        return []
    finally:
        process.kill()
        process.wait()


class Scheduler(scheduler.Scheduler):
    _started: Runner | None = None  # and not loaded yet, since others must go first

    def discover(self) -> bool:
        """A runner without a model is asked for the devices that it sees."""
        port = scheduler.free_port()
        command = [str(self.ollama), "runner", "--ollama-engine", "--port", str(port)]
        log("INFO", "runner.go:67", "discovering available GPUs...")
        log("INFO", "server.go:433", "starting runner", cmd=" ".join(command))
        found = devices_of(command, port)
        if found:
            scheduler.report_gpu(found[0]["free_memory"])
        else:
            scheduler.report_no_gpu()
        return bool(found)

    def load(self, request: Request, beside: bool) -> scheduler.Runner:
        options = request.options
        runner, self._started = self._started, None
        if runner is None:
            slots = request.blob.slots(settings.num_parallel())
            runner = Runner(self.ollama, request.blob, options, slots, settings.keep_alive())
        free = self.free_bytes() if options.num_gpu != 0 else 0
        if free:
            scheduler.report_free(free)
        try:
            runner.load(free, beside and self.gpu, request.client_gone)
        except DoesNotFit:
            self._started = runner
            raise
        except RuntimeError:
            runner.stop()
            raise
        return runner

    def stop(self) -> None:
        if self._started:
            self._started.stop()
        super().stop()
