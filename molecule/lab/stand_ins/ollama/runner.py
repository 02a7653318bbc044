"""The lab's llama-server: loads a model that is not there, takes its memory on the simulated GPU, writes at its speed.

`ollama runner`, which did this up to Ollama 0.24, loads and writes with the same code (runner_until_024.py).

Its messages are llama.cpp's. On several GPUs layers are divided by free memory; where they do not fit so, layers are
left away, and none is moved from one GPU to another as the engine's fitting may. Speed is the bytes that a token needs
read, over bandwidth; slots that write at the same time share each reading of the weights.
"""

from __future__ import annotations

import collections
import dataclasses
import http.server
import json
import os
import queue
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import lab_models
import llama_log
import simulated_gpu
from lab import MIB, Json

GPU_BYTES_PER_S = 288e9
HOST_BYTES_PER_S = 60e9
LOAD_BYTES_PER_S = 3e9
FIT_TARGET_MIB = 1024
REPLY_TOKENS = 48
WORDS = (
    "a",
    "model",
    "reads",
    "its",
    "weights",
    "once",
    "for",
    "every",
    "token",
    "so",
    "bandwidth",
    "sets",
    "the",
    "pace",
)


def say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)


# --- arguments and environment ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Parameters:
    model: str = ""
    port: int = 8080
    context: int = 4096
    slots: int = 1
    batch: int = 512
    gpu_layers: int = -1  # -1: whatever fits
    cache_type: str = "f16"
    flash: bool = True
    fit: bool = True
    fit_targets_mib: tuple[int, ...] = (FIT_TARGET_MIB,)  # of each device; a single one is that of all
    split: str = "layer"
    main_gpu: int = 0
    list_devices: bool = False
    since_030: bool = True  # how layers count, and whether logits are kept for the slots only


def number(value: str, function: str) -> int:
    """As C++'s std::stoi and std::stoul: the digits in front count, what follows does not; none is an error."""
    match = re.match(r"\s*[+-]?\d+", value)
    if not match:
        raise ValueError(function)
    return int(match[0])


def truth(value: str) -> bool:
    if value in ("on", "enabled", "true", "1"):
        return True
    if value in ("off", "disabled", "false", "0"):
        return False
    raise ValueError(f"error: unknown value for --fit: '{value}'\n")


def layer_count(value: str) -> int:
    return -1 if value == "auto" else 1 << 30 if value == "all" else number(value, "stoi")


ENVIRONMENT: dict[str, tuple[str, Callable[[str], object]]] = {
    "LLAMA_ARG_N_GPU_LAYERS": ("gpu_layers", layer_count),
    "LLAMA_ARG_FIT": ("fit", truth),
    "LLAMA_ARG_FIT_TARGET": (
        "fit_targets_mib",
        lambda value: tuple(number(word, "stoul") for word in re.split("[,/]+", value)),
    ),
    # Always overridden by Ollama's arguments, but parsed.
    "LLAMA_ARG_CTX_SIZE": ("context", lambda value: number(value, "stoi")),
    "LLAMA_ARG_N_PARALLEL": ("slots", lambda value: number(value, "stoi")),
    "LLAMA_ARG_BATCH": ("batch", lambda value: number(value, "stoi")),
    "LLAMA_ARG_UBATCH": ("batch", lambda value: number(value, "stoi")),
}


def cache_type(value: str) -> str:
    if value not in lab_models.CACHE_TYPES:
        raise ValueError(f"Unsupported cache type: {value}")
    return value


ARGUMENTS: dict[str, tuple[str, Callable[[str], object]]] = {
    "--model": ("model", str),
    "--port": ("port", int),
    "-c": ("context", int),
    "-np": ("slots", int),
    "-b": ("batch", int),
    "-ub": ("batch", int),
    "-ngl": ("gpu_layers", layer_count),
    "--cache-type-k": ("cache_type", cache_type),
    "--cache-type-v": ("cache_type", cache_type),
    "--flash-attn": ("flash", lambda value: value != "off"),
    "--split-mode": ("split", str),
    "--main-gpu": ("main_gpu", int),
}
WITHOUT_EFFECT_HERE = {"--host": 1, "--log-verbosity": 1, "--chat-template": 1, "--keep": 1, "-t": 1, "--load-mode": 1,
                       "--no-webui": 0, "--offline": 0, "--no-log-prefix": 0,
                       "--no-log-timestamps": 0, "--no-jinja": 0, "--context-shift": 0, "--embedding": 0,
                       "--verbose": 0}  # fmt: skip


def parse(arguments: list[str]) -> Parameters:
    """The environment first, then the command line over it. ValueError carries llama.cpp's message."""
    parameters = Parameters()
    for variable, (field, convert) in ENVIRONMENT.items():
        if variable in os.environ:
            try:
                setattr(parameters, field, convert(os.environ[variable]))
            except ValueError as error:
                raise ValueError(f'error while handling environment variable "{variable}": {error}\n') from None
    words = collections.deque(arguments)
    while words:
        argument = words.popleft()
        if argument == "--list-devices":
            parameters.list_devices = True
        elif argument in ARGUMENTS:
            field, convert = ARGUMENTS[argument]
            try:
                setattr(parameters, field, convert(words.popleft()))
            except ValueError as error:
                raise ValueError(f'error while handling argument "{argument}": {error}\n') from None
        elif argument in WITHOUT_EFFECT_HERE:
            for _ in range(WITHOUT_EFFECT_HERE[argument]):
                words.popleft()
        else:
            raise ValueError(f"error: invalid argument: {argument}")
    return parameters


# --- the GPU ----------------------------------------------------------------------------------------------------------


def gpu_visible() -> bool:
    """Whether CUDA lets this process have the host's first GPU, the only one up to Ollama 0.24 here."""
    return 0 in lab.visible_cards()


def list_devices() -> None:
    sys.stdout.reconfigure(errors="surrogateescape")  # a name is bytes
    print("Available devices:")
    cards = lab.cards() if lab.visible_cards() else []
    for device, number in enumerate(lab.visible_cards()):
        card = cards[number]
        print(f"  CUDA{device}: {card.name} ({card.total} MiB, {simulated_gpu.free_mib(number)} MiB free)")


def cards_of(parameters: Parameters) -> list[int]:
    """NVML's numbers of the GPUs that a model is loaded on, in the order of llama.cpp's devices."""
    if not parameters.since_030:
        return [0] if gpu_visible() else []
    numbers = lab.visible_cards()
    return numbers[parameters.main_gpu :][:1] if parameters.split == "none" else numbers


class LoadFailed(Exception):
    """The model cannot be loaded; what llama.cpp says of it has been said. The text is what its caller says."""


class Model:
    """A model's memory: on the GPU through the simulation, on the host as a number."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        digest = Path(parameters.model).name.removeprefix("sha256-")
        if digest not in lab_models.blobs():
            say(f"llama_model_load: error loading model: failed to open {parameters.model}")
            raise LoadFailed(f"unable to load model: {parameters.model}")
        self.blob = lab_models.blobs()[digest]
        self.numbers = cards_of(parameters)
        self.held_mib = dict.fromkeys(self.numbers, 0)
        self.free_mib: list[int] = []  # of each, before anything is loaded
        self.memory = self._memory(0)

    def _memory(self, layers: int) -> lab_models.Memory:
        p, free = self.parameters, self.free_mib
        return self.blob.memory(
            layers, p.context // p.slots, p.slots, p.batch, p.cache_type, p.flash, p.since_030, free
        )

    def _fit(self) -> int:
        """How many layers go to the GPU: as many as were asked for, or as many as leave the target free."""
        every, asked = self.blob.offloadable_layers, self.parameters.gpu_layers
        wanted = every if asked < 0 else asked
        if not self.parameters.fit:
            return wanted
        targets = self.parameters.fit_targets_mib
        targets = targets * len(self.numbers) if len(targets) == 1 else targets
        free, projected = sum(self.free_mib), self._memory(wanted).projected

        def short(layers: int) -> int:
            """MiB that lack on the card where the most do."""
            left = zip(targets, self.free_mib, self._memory(layers).cards)
            return max(target - (mib - card.projected) for target, mib, card in left)

        fit = "common_params_fit_impl:"
        cards = lab.cards()
        shown = [cards[number] for number in self.numbers]
        say(*llama_log.before_the_fit(), *llama_log.breakdown(self._memory(wanted), shown, self.free_mib))
        say(f"{fit} projected to use {projected} MiB of device memory vs. {free} MiB of free device memory")
        if short(wanted) <= 0:
            if len(self.numbers) > 1:
                say(f"{fit} targets for free memory can be met on all devices, no changes needed")
                return wanted
            say(f"{fit} will leave {free - projected} >= {targets[0]} MiB of free device memory, no changes needed")
            return wanted
        say(
            f"{fit} cannot meet free memory target of {targets[0]} MiB, "
            f"need to reduce device memory by {short(wanted)} MiB"
        )
        say(f"{fit} context size set by user to {self.parameters.context} -> no change")
        if asked >= 0:
            failed = "common_fit_params: failed to fit params to free device memory:"
            say(f"{failed} n_gpu_layers already set by user to {asked}, abort")
            return wanted
        say("common_fit_params: successfully fit params to free device memory")
        return max((n for n in range(every + 1) if short(n) <= 0), default=0)

    def load(self) -> None:
        """Allocate as llama.cpp does: CUDA context, weights, KV cache, compute buffer. LoadFailed if that fails."""
        parameters = self.parameters
        if parameters.cache_type not in ("f32", "f16", "bf16") and not parameters.flash:
            say("llama_init_from_model: V cache quantization requires flash_attn")
            raise LoadFailed("unable to create llama context")
        if self.numbers and parameters.gpu_layers != 0:
            for device, number in enumerate(self.numbers):
                self._allocate(device, lab_models.CUDA_CONTEXT_MIB, lab_models.CUDA_CONTEXT_MIB)
                card = lab.cards()[number]
                shown = f"CUDA{device} ({card.name}) ({card.pci.lower().removeprefix('0000')})"
                self.free_mib.append(simulated_gpu.free_mib(number))
                say(f"llama_model_load_from_file_impl: using device {shown} - {self.free_mib[-1]} MiB free")
            self.memory = self._memory(self._fit())
        say(*llama_log.model_file(self.blob, parameters.model))
        m = self.memory
        cards = m.cards if m.layers else ()
        for device, on_card in enumerate(cards):
            unable = f"llama_model_load: error loading model: unable to allocate CUDA{device} buffer"
            self._allocate(device, round(on_card.weights), on_card.weights, unable)
        if m.layers:
            self._say_offloading(m.layers)
        say(f"load_tensors: offloaded {m.layers}/{self.blob.offloadable_layers} layers to GPU")
        self._report("load_tensors", "model", [card.weights for card in cards], CPU_Mapped=m.host_weights)
        self._read_weights()
        trained = self.blob.context_length
        say(*llama_log.context(parameters.context, parameters.slots, parameters.batch, trained, parameters.flash))
        no_context = "llama_init_from_model: failed to initialize the context:"
        for device, on_card in enumerate(cards):
            if on_card.kv:
                failed = f"{no_context} failed to allocate buffer for kv cache"
                self._allocate(device, round(on_card.kv), on_card.kv, failed)
        self._report("llama_kv_cache", "KV", [card.kv for card in cards], CPU=m.host_kv)
        for device, on_card in enumerate(cards):
            # What is left of the projection, so that rounding does not add up.
            rest = lab_models.CUDA_CONTEXT_MIB + on_card.projected - self.held_mib[self.numbers[device]]
            self._allocate(device, rest, on_card.compute, f"{no_context} failed to allocate compute pp buffers")
        component = "sched_reserve" if parameters.since_030 else "llama_context"
        self._report(component, "compute", [card.compute for card in cards], CUDA_Host=m.host_compute)
        if parameters.since_030:
            say(*llama_log.ready(parameters.context, parameters.slots))

    def load_held(self) -> None:
        """Load into memory that this process has already got, in silence."""
        self.memory = self.planned()
        self._read_weights()

    def planned(self) -> lab_models.Memory:
        """What it takes if it gets the layers that it was asked for."""
        return self._memory(self.parameters.gpu_layers)

    def _read_weights(self) -> None:
        time.sleep((self.memory.weights + self.memory.host_weights) * MIB / LOAD_BYTES_PER_S / lab.speedup())

    def _say_offloading(self, layers: int) -> None:
        if self.parameters.since_030:
            say("load_tensors: offloading output layer to GPU")
            say(f"load_tensors: offloading {layers - 1} repeating layers to GPU")
            return
        say(f"load_tensors: offloading {min(layers, self.blob.blocks)} repeating layers to GPU")
        if layers > self.blob.blocks:
            say("load_tensors: offloading output layer to GPU")

    @staticmethod
    def _report(component: str, kind: str, on_gpus: list[float], **on_host: float) -> None:
        """The lines that Ollama reads to know what a model takes."""
        devices = {f"CUDA{number}": mib for number, mib in enumerate(on_gpus)}
        for device, mib in (*on_host.items(), *devices.items()):
            if mib:
                say(f"{component}: {device:>12} {kind} buffer size = {mib:8.2f} MiB")

    def _allocate(
        self, device: int, more_mib: int, exact_mib: float, message: str = "CUDA error: out of memory"
    ) -> None:
        """Hold so much more on a GPU; if it is not to be had, say what llama.cpp says."""
        number = self.numbers[device]
        try:
            simulated_gpu.reserve(self.held_mib[number] + more_mib, gpu=number)
        except simulated_gpu.OutOfMemory:
            cuda = "ggml_backend_cuda_buffer_type_alloc_buffer:"
            say(f"{cuda} allocating {exact_mib:.2f} MiB on device {device}: cudaMalloc failed: out of memory")
            say(f"alloc_tensor_range: failed to allocate CUDA{device} buffer of size {round(exact_mib * MIB)}")
            say(message)
            loading = "error loading model" in message
            what = f"load model: {self.parameters.model}" if loading else "create llama context"
            raise LoadFailed(f"unable to {what}") from None
        self.held_mib[number] += more_mib

    def seconds_per_step(self, tokens_in_context: int) -> float:
        """One step of all busy slots: the weights once, and the KV cache of each."""
        m, p = self.memory, self.parameters
        used = tokens_in_context / p.context
        on_gpu = (m.weights + m.kv * used) / GPU_BYTES_PER_S
        on_host = (m.host_weights_read + m.host_kv * used) / HOST_BYTES_PER_S
        return (on_gpu + on_host) * MIB


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Task:
    """A request in a slot. Durations are in simulated seconds."""

    prompt_tokens: int
    reply: list[str]
    limited: bool
    prompt: str = ""
    number: int = 0
    cached: int = 0  # tokens of the prompt that were not evaluated again
    pieces: queue.SimpleQueue[str | None] = dataclasses.field(default_factory=queue.SimpleQueue)
    written: int = 0
    prompt_s: float = 0.0
    reply_s: float = 0.0
    cancelled: bool = False

    def timings(self) -> dict[str, float]:
        return {"prompt_n": self.prompt_tokens, "prompt_ms": self.prompt_s * 1000,
                "predicted_n": self.written, "predicted_ms": self.reply_s * 1000}  # fmt: skip


class Slots:
    """The slots of a runner. More requests than slots wait their turn."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.waiting: collections.deque[Task] = collections.deque()
        self.busy: list[Task] = []
        self.changed = threading.Condition()
        self.numbers = 0
        self.known: collections.deque[str] = collections.deque(maxlen=64)  # prompts; the real one keeps 8 GiB of them
        threading.Thread(target=self._run, daemon=True).start()

    def put(self, task: Task) -> None:
        with self.changed:
            self.waiting.append(task)
            self.changed.notify()

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self.waiting and not self.busy:
                    self.changed.wait()
                began = [self.waiting.popleft() for _ in range(min(len(self.waiting), self._free()))]
            for task in began:
                self._look_up(task)
                batches = -(-(task.prompt_tokens - task.cached) // self.model.parameters.batch)
                task.prompt_s = self._spend(batches * self.model.seconds_per_step(task.prompt_tokens))
                if task.reply:
                    self.busy.append(task)
                else:
                    task.pieces.put(None)
            if not self.busy:
                continue
            context = sum(task.prompt_tokens + task.written for task in self.busy)
            spent = self._spend(self.model.seconds_per_step(context))
            for task in list(self.busy):
                task.pieces.put(task.reply[task.written])
                task.written += 1
                task.reply_s += spent
                if task.written == len(task.reply) or task.cancelled:
                    self.busy.remove(task)
                    task.pieces.put(None)
                    if self.model.parameters.since_030:
                        self._print_timing(task)

    def _look_up(self, task: Task) -> None:
        """What of a prompt is known from another with the same beginning; the last token is always evaluated."""
        self.numbers += 1
        task.number = self.numbers
        same = max((len(os.path.commonprefix([task.prompt, known])) for known in self.known), default=0)
        task.cached = min(tokens_in(task.prompt[:same]) if same else 0, task.prompt_tokens - 1)
        self.known.append(task.prompt)
        if self.model.parameters.since_030:
            about = f"slot   operator(): id  0 | task {task.number} |"
            room = self.model.parameters.context // self.model.parameters.slots
            say(*llama_log.begun(task.number))
            say(f"{about} new prompt, n_ctx_slot = {room}, n_keep = 4, task.n_tokens = {task.prompt_tokens}")
            for done in range(task.cached, task.prompt_tokens, self.model.parameters.batch):  # of each batch
                say(f"{about} cached n_tokens = {done}, memory_seq_rm [{done}, end)")

    def _free(self) -> int:
        return self.model.parameters.slots - len(self.busy)

    @staticmethod
    def _spend(seconds: float) -> float:
        """Let simulated time pass; return how much really did."""
        start = time.monotonic()
        time.sleep(seconds / lab.speedup())
        return (time.monotonic() - start) * lab.speedup()

    def _print_timing(self, task: Task) -> None:
        evaluated = task.prompt_tokens - task.cached
        say(f"slot print_timing: id  0 | task {task.number} |")
        for name, tokens, seconds in (
            ("prompt eval time", evaluated, task.prompt_s), ("       eval time", task.written, task.reply_s),
        ):  # fmt: skip
            each = seconds * 1000 / max(tokens, 1)
            rate = tokens / seconds if seconds else 0.0
            speed = f"{each:8.2f} ms per token, {rate:8.2f} tokens per second"
            say(f"{name} = {seconds * 1000:10.2f} ms / {tokens:5d} tokens ({speed})")
        total = task.prompt_s + task.reply_s
        say(f"      total time = {total * 1000:10.2f} ms / {evaluated + task.written:5d} tokens")
        say(*llama_log.ended(task.number, task.prompt_tokens + task.written))


def reply_to(prompt: str, limit: int) -> list[str]:
    """The same words for the same prompt, always."""
    chosen = random.Random(prompt)
    return [chosen.choice(WORDS) + " " for _ in range(limit if limit > 0 else REPLY_TOKENS)]


def tokens_in(text: str) -> int:
    return 8 + len(text) // 4


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    slots: Slots | None = None  # until the model is loaded

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: Json) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        if self.path != "/health":
            self._answer(404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}})
        elif self.server.slots is None:
            self._answer(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
        else:
            self._answer(200, {"status": "ok"})

    def do_POST(self) -> None:
        body = self._body()
        if self.server.slots is None:
            self._answer(503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})
        elif self.path == "/v1/embeddings":
            self._embed(body["input"])
        else:
            self._complete(body)

    def _body(self) -> Json:
        body: Json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _complete(self, body: Json) -> None:
        limit = body.get("n_predict", -1)
        parameters = self.server.slots.model.parameters
        prompt, room = body["prompt"], parameters.context // parameters.slots
        # A prompt comes as text, or as a list of tokens where Ollama has shortened it. A reply that reaches the end of
        # the context shifts it.
        tokens = len(prompt) if isinstance(prompt, list) else tokens_in(prompt)
        task = Task(self._within(tokens, room), reply_to(str(prompt), limit), limit > 0, str(prompt))
        self.server.slots.put(task)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while (piece := task.pieces.get()) is not None:
                self._event({"content": piece, "stop": False})
            stop_type = "limit" if task.limited else "eos"
            self._event({"content": "", "stop": True, "stop_type": stop_type, "timings": task.timings()})
        except OSError:
            task.cancelled = True
        self.close_connection = True

    def _embed(self, text: str) -> None:
        """An embedder reads a text at once, and so refuses one that is larger than its batch."""
        model = self.server.slots.model
        tokens, batch = tokens_in(text), model.parameters.batch
        if model.parameters.since_030 and not model.blob.embedder:
            message = "This server does not support embeddings. Start it with `--embeddings`"
            self._answer(501, {"error": {"code": 501, "message": message, "type": "not_supported_error"}})
            return
        if tokens > batch and model.blob.embedder:
            message = f"input ({tokens} tokens) is too large to process. increase the physical batch size "
            message += f"(current batch size: {batch})"
            self._answer(500, {"error": {"code": 500, "message": message, "type": "server_error"}})
            return
        task = Task(tokens, [], limited=False, prompt=text)
        self.server.slots.put(task)
        task.pieces.get()
        vector = [random.Random(f"{text}/{i}").uniform(-1, 1) for i in range(16)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self._answer(200, {"data": [{"embedding": vector, "index": 0, "object": "embedding"}], "usage": usage})

    def _within(self, tokens: int, room: int) -> int:
        """How many tokens of a prompt go into a slot of so many. Since 0.30 Ollama has seen to it already."""
        return min(tokens, room - 1)

    def _event(self, event: Json) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()


def main(arguments: list[str]) -> int:
    try:
        parameters = parse(arguments)
    except ValueError as error:
        say(str(error))
        return 1
    if parameters.list_devices:
        list_devices()
        return 0
    server = Server(("127.0.0.1", parameters.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(*llama_log.beginning([lab.cards()[number] for number in lab.visible_cards()]))
    say(f"srv    load_model: loading model '{parameters.model}'")
    try:
        model = Model(parameters)
        model.load()
    except LoadFailed:
        say(f"common_init_from_params: failed to load model '{parameters.model}'")
        say("main: exiting due to model loading error")
        return 1
    server.slots = Slots(model)
    say("srv  llama_server: model loaded")
    say(f"srv  llama_server: server is listening on http://127.0.0.1:{parameters.port}")
    threading.Event().wait()
    return 0
