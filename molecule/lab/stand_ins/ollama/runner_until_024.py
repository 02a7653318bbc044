"""The lab's `ollama runner`: what ran models up to Ollama 0.24 (runner/llamarunner and runner/ollamarunner).

It starts without a model's settings; the server sends them as JSON to /load. The llama engine loads with llama.cpp's
code and in its words. The Ollama engine first tries whether a layout can be allocated, and says so.
"""

from __future__ import annotations

import os
import threading

import lab
import lab_models
import runner
import simulated_gpu
from lab import Json
from settings import log

# llm/server.go
READY, LAUNCHED, LOADING = 0, 2, 3


class Server(runner.Server):
    """`slots` is None until the model is loaded."""

    def __init__(self, port: int, model: str, ollama_engine: bool) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.path, self.ollama_engine = model, ollama_engine
        self.status = LAUNCHED

    def load(self, request: Json) -> bool:
        """One step of loading: fit, alloc or commit. False if the GPU does not have the memory."""
        log("INFO", "runner.go:1297" if self.ollama_engine else "runner.go:895", "load", request=described(request))
        parameters = runner.Parameters(
            model=self.path,
            context=request["KvSize"],
            slots=request["Parallel"],
            batch=request["BatchSize"],
            gpu_layers=sum(len(each["Layers"]) for each in request["GPULayers"]),
            cache_type=request["KvCacheType"] or "f16",
            flash=request["FlashAttention"] != 0,  # auto, which is -1, finds a card that can do it
            fit=False,
            since_030=False,
        )
        if self.ollama_engine and request["Operation"] != "fit" and parameters.gpu_layers:
            memory = runner.Model(parameters).planned()
            try:
                simulated_gpu.reserve(lab_models.CUDA_CONTEXT_MIB + memory.projected)
            except simulated_gpu.OutOfMemory:
                cuda = "ggml_backend_cuda_buffer_type_alloc_buffer:"
                runner.say(f"{cuda} allocating {memory.weights:.2f} MiB on device 0: cudaMalloc failed: out of memory")
                return False
        if request["Operation"] == "commit":
            self.status = LOADING
            threading.Thread(target=self._commit, args=(parameters,), daemon=True).start()
        return True

    def _commit(self, parameters: runner.Parameters) -> None:
        try:
            model = runner.Model(parameters)
            if self.ollama_engine:
                model.load_held()
                layers, every = model.memory.layers, model.blob.offloadable_layers
                on_gpu = min(layers, every - 1)
                log("INFO", "ggml.go:490", f"offloading {on_gpu} repeating layers to GPU")
                log("INFO", "ggml.go:494", f"offloading output layer to {'GPU' if layers == every else 'CPU'}")
                log("INFO", "ggml.go:502", f"offloaded {layers}/{every} layers to GPU")
            else:
                model.load()
        except runner.LoadFailed as failed:
            runner.say(f"panic: {failed}\n\ngoroutine 1 [running]:\nmain.main()")
            os._exit(2)
        self.slots = runner.Slots(model)
        self.status = READY


def described(request: Json) -> str:
    """The request as Go's %+v shows it."""
    layers = " ".join(
        f"ID:{each['ID']} Layers:{len(each['Layers'])}({each['Layers'][0]}..{each['Layers'][-1]})"
        for each in request["GPULayers"]
    )
    count = sum(len(each["Layers"]) for each in request["GPULayers"]) or ""
    flash = {-1: "Auto", 0: "Disabled", 1: "Enabled"}[request["FlashAttention"]]
    switches = {key: str(request[key]).lower() for key in ("MultiUserCache", "UseMmap")}
    return (
        f"{{Operation:{request['Operation']} LoraPath:[] Parallel:{request['Parallel']} "
        f"BatchSize:{request['BatchSize']} FlashAttention:{flash} KvSize:{request['KvSize']} "
        f"KvCacheType:{request['KvCacheType']} NumThreads:{request['NumThreads']} GPULayers:{count}[{layers}] "
        f"MultiUserCache:{switches['MultiUserCache']} ProjectorPath: MainGPU:{request['MainGPU']} "
        f"UseMmap:{switches['UseMmap']}}}"
    )


class Handler(runner.Handler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, {"status": self.server.status, "progress": 0})
        elif self.path == "/info":
            self._answer(200, devices())  # type: ignore[arg-type]
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/load":
            self._answer(200, {"Success": self.server.load(body)})
        elif self.path == "/v1/embeddings":  # there it is /embedding
            self._embed(body["input"])
        else:
            self._complete(body)

    def _within(self, tokens: int, room: int) -> int:
        """Up to 0.24 the runner itself shortens a prompt, to the whole slot (runner/llamarunner/runner.go)."""
        if tokens > room:
            keep = min(self.server.slots.model.blob.kept_tokens, room - 1)
            log("WARN", "runner.go:153", "truncating input prompt", limit=room, prompt=tokens, keep=keep, new=room)
        return min(tokens, room)


def devices() -> list[Json]:
    if not runner.gpu_visible():
        return []
    free = simulated_gpu.free_mib() * lab.MIB
    return [{"id": lab.card().uuid, "name": "CUDA0", "Library": "CUDA", "free_memory": free}]


def main(arguments: list[str]) -> int:
    def given(name: str, default: str) -> str:
        return arguments[arguments.index(name) + 1] if name in arguments else default

    ollama_engine = "--ollama-engine" in arguments
    model, port = given("--model", ""), int(given("--port", "8080"))
    if model:
        if ollama_engine:
            log("INFO", "runner.go:1450", "starting ollama engine")
        else:
            log("INFO", "runner.go:965", "starting go runner")
    Server(port, model, ollama_engine).serve_forever()
    return 0
