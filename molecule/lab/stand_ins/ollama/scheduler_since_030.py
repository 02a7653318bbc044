"""Loading through llama.cpp's llama-server, as since Ollama 0.30 (llm/llama_server.go, and sched.go's side of it)."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import lab
import lab_models
import scheduler
import settings
import simulated_gpu
from lab import MIB
from releases import Release
from runner import tokens_in
from scheduler import DoesNotFit, Options, Request, blob_path
from settings import human_bytes, log

OUT_OF_MEMORY = ("out of memory", "cudamalloc failed", "failed to allocate", "allocation failed", "not enough memory")
BUFFER = re.compile(r"([A-Za-z_]\w*):\s+(\S+)\s+(model|KV|compute|output|RS)\s+buffer size\s*=\s*([\d.]+)\s*MiB")
OFFLOADED = re.compile(r"offloaded\s+(\d+)/(\d+)\s+layers to GPU")


def is_out_of_memory(message: str) -> bool:
    return any(words in message.lower() for words in OUT_OF_MEMORY)


class Runner(scheduler.Runner):
    """A llama-server."""

    errors_begin = ("fatal error:", "error:", "Error:", "CUDA error", "cudaMalloc failed", "error loading model",
                    "GGML_ASSERT", "llama_init_from_model:")  # fmt: skip

    def __init__(
        self,
        program: Path,
        blob: lab_models.Blob,
        options: Options,
        parallel: int,
        alive_s: float,
        cards: list[int],
        alone: bool,
    ) -> None:
        """`cards`: the driver's numbers of the GPUs that it may use; `alone`: the model is not divided."""
        super().__init__(blob, options, parallel, alive_s)
        self.cards, self._alone = cards, alone
        self._buffers: dict[tuple[str, str, str], float] = {}
        self._layers = (0, 0)
        command = [str(program), *self._arguments()]
        log("INFO", "llama_server.go:433", "starting llama-server", cmd=" ".join(command))
        known = lab.cards() if cards else []
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(known[card].uuid for card in cards)} if cards else {}
        self.start(command, **visible)

    def _arguments(self) -> list[str]:
        o = self.options
        words = ["--model", self.path, "--port", self.port, "--host", "127.0.0.1", "--no-webui", "--offline"]
        words += ["-c", o.num_ctx * self.parallel, "-np", self.parallel]
        words += [
            "--log-verbosity",
            4,
            "--no-log-prefix",
            "--no-log-timestamps",
            "--no-jinja",
            "--chat-template",
            "chatml",
        ]
        kind = settings.text("OLLAMA_KV_CACHE_TYPE").lower()
        words += ["--cache-type-k", kind, "--cache-type-v", kind] if kind else []
        words += ["--flash-attn", settings.flash_attention()]
        batch = min(o.num_batch, o.num_ctx) if self.blob.embedder else o.num_batch
        words += ["--embedding"] if self.blob.embedder else []
        words += ["-b", batch, "-ub", batch] if batch > 0 else []
        words += ["-ngl", o.num_gpu] if o.num_gpu >= 0 else []
        words += ["-t", o.num_thread] if o.num_thread > 0 else []
        words += ["--split-mode", "none", "--main-gpu", 0] if self._alone else []
        return [str(word) for word in [*words, "--context-shift", "--keep", 4]]

    def read(self, line: str) -> None:
        if match := BUFFER.search(line):
            self._buffers[match[1], match[2], match[3]] = float(match[4])
        if match := OFFLOADED.search(line):
            self._layers = (int(match[1]), int(match[2]))
        before = len(self.errors)
        super().read(line)
        if len(self.errors) == before and is_out_of_memory(line):
            self.errors.append(line)

    def size(self) -> tuple[int, int]:
        """Bytes in all and on the GPU, as Ollama adds up the buffers that the runner reports."""
        on_gpu = sum(
            mib for (_, device, _), mib in self._buffers.items() if device.startswith("CUDA") and device != "CUDA_Host"
        )
        everything = sum(self._buffers.values())
        if self._layers[1] and self._layers[0] >= self._layers[1]:
            everything = on_gpu
        return round(everything * MIB), round(on_gpu * MIB)

    def bytes_on(self, card: int) -> int:
        """Of the driver's GPU of this number, by the same account."""
        device = f"CUDA{self.cards.index(card)}" if card in self.cards else ""
        return round(sum(mib for (_, where, _), mib in self._buffers.items() if where == device) * MIB)

    def shortened(self, prompt: str) -> str | list[int]:
        """A prompt that leaves no token of the slot loses its middle: contextShiftPromptLimit leaves about half."""
        tokens, context = tokens_in(prompt), self.num_ctx
        if tokens <= context - 1:
            return prompt
        keep = min(self.blob.kept_tokens, context - 1)
        limit = context - max((context - keep) // 2, 1)
        message = "truncating input prompt"
        log("WARN", "llama_server.go:317", message, limit=limit, prompt=tokens, keep=keep, new=limit)
        return list(range(limit))

    def health(self) -> int:
        status, _ = scheduler.get(self.port, "/health")
        return status

    def wait_until_ready(self, client_gone: Callable[[], bool]) -> None:
        """Return when the model is loaded; RuntimeError says why it is not."""
        log("INFO", "llama_server.go:1295", "waiting for llama-server to start responding")
        deadline = time.monotonic() + (settings.duration("OLLAMA_LOAD_TIMEOUT", 300) or math.inf)
        loading = False
        while True:
            if not self.alive():
                self.reader.join()
                status = self.process.returncode
                exit_status = f"exit status {status}" if status >= 0 else "exit status -1"
                log("ERROR", "llama_server.go:1023", "llama-server terminated", error=exit_status, exit=exit_status)
                raise RuntimeError(": ".join(["llama-server process has terminated", exit_status, *self.message()]))
            if client_gone():
                log(
                    "WARN",
                    "llama_server.go:1305",
                    "client connection closed before llama-server finished loading, aborting load",
                )
                raise RuntimeError("timed out waiting for llama-server to start: context canceled")
            if time.monotonic() > deadline:
                raise RuntimeError("timed out waiting for llama-server to start - " + "".join(self.message()))
            status = self.health()
            if status == 200:
                self.errors.clear()
                took = time.monotonic() - self.started
                for _ in range(2):  # whoever loads waits, and so does whoever asked for the load; both say so
                    log("INFO", "llama_server.go:1362", f"llama-server started in {took:.2f} seconds")
                return
            if status == 503 and not loading:
                loading = True
                text = "llm server loading model"
                log("INFO", "llama_server.go:1350", "waiting for llama-server to become available", status=text)
            time.sleep(0.05)


class Scheduler(scheduler.Scheduler):
    def __init__(self, ollama: Path, release: Release) -> None:
        self.program = ollama.parents[1] / "lib" / "ollama" / "llama-server"
        self.cards: list[int] = []  # the driver's numbers of the GPUs, in CUDA's order
        super().__init__(ollama, release)

    def total_bytes(self) -> int:
        return sum(map(scheduler.card_bytes, self.cards))

    def discover(self) -> bool:
        """Whether llama-server sees a GPU; it is asked with the environment that a runner would have."""
        if settings.text("OLLAMA_LLM_LIBRARY") not in ("", "cuda_v12"):
            scheduler.report_no_gpu()
            return False
        command = [str(self.program), "--list-devices", "--offline", "--verbose"]
        found = subprocess.run(command, capture_output=True, text=True, errors="replace")
        devices = [int(free) for free in re.findall(r"CUDA\d+: .+, (\d+) MiB free\)", found.stdout)]
        self.cards = lab.visible_cards()[: len(devices)]
        for device in sorted(range(len(self.cards)), key=lambda number: -devices[number]):
            scheduler.report_gpu(devices[device] * MIB, device, self.cards[device])
        if self.cards:
            return True
        if found.returncode:
            log(
                "INFO", "runner.go:522", "failure during llama-server GPU discovery",
                OLLAMA_LIBRARY_PATH=f"[{self.program.parent}]", extra_envs="map[]",
                error=f"llama-server --list-devices failed: exit status {found.returncode}",
                detail=found.stderr.strip(),
            )  # fmt: skip
        scheduler.report_no_gpu()
        return False

    def retry(self, request: Request, error: RuntimeError, others: list[scheduler.Runner]) -> bool:
        """After an out-of-memory error, once: a smaller context if Ollama chose it itself, and nobody else around."""
        options, smaller = request.options, 4096
        if options.num_ctx > 32768:
            smaller = 32768
        shrink = options.ctx_is_automatic and options.num_ctx > smaller
        if request.retried or not is_out_of_memory(str(error)) or not (shrink or others):
            return False
        request.retried = True
        model = blob_path(request.blob)
        if shrink:
            log(
                "WARN", "sched.go:652", "llama-server load failed; reducing automatic context and retrying once",
                model=model, old_num_ctx=options.num_ctx, new_num_ctx=smaller, error=error,
            )  # fmt: skip
            options.num_ctx = smaller
        else:
            message = "llama-server load failed; evicting all other models and retrying once"
            log("WARN", "sched.go:667", message, model=model, error=error)
        if others:
            log("INFO", "sched.go:1605", "evicting all other loaded models for OOM retry", count=len(others))
        for other in others:
            self.unload(other)
        return True

    def free_of(self, cards: list[int]) -> int:
        """What these GPUs say, but of each never more than what is left by the runners' own account."""
        return sum(min(simulated_gpu.free_mib(card) * MIB, self._accounted(card)) for card in cards)

    def _accounted(self, card: int) -> int:
        held = sum(runner.bytes_on(card) for runner in self.loaded.values() if isinstance(runner, Runner))
        return scheduler.card_bytes(card) - held

    def placement(self, request: Request) -> list[int]:
        """Which GPUs a model gets: the one with the most free where that should hold it, else all of them."""
        options = request.options
        if options.main_gpu is not None:
            return self.cards[options.main_gpu :][:1] or self.cards
        if len(self.cards) < 2 or options.num_gpu == 0 or settings.boolean("OLLAMA_SCHED_SPREAD", False):
            return self.cards
        best = max(self.cards, key=lambda card: self.free_of([card]))  # of equal ones the first
        return [best] if predicted_bytes(request) <= self.free_of([best]) * 0.80 else self.cards

    def _choose_batch(self, request: Request) -> None:
        options = request.options
        if not options.batch_is_automatic:
            return
        context = min(options.num_ctx, request.blob.context_length) * request.blob.slots(settings.num_parallel())
        if request.blob.embedder:
            options.num_batch = min(context, 2048)
            return
        predicted, free = predicted_bytes(request), self.free_of(self.placement(request))
        for above, batch in self.release.automatic_batch:
            share = 0.60 if batch >= 2048 else 0.75
            fits = not free or predicted <= free * share and predicted + batch_surcharge(batch) <= free * 0.80
            if batch == 512 or context > above and fits and (settings.flash_attention() != "off" or not self.gpu):
                options.num_batch = batch
                return

    def _fits_beside(self, request: Request) -> bool:
        options = request.options
        if not self.gpu or options.num_gpu == 0 or 0 < options.num_gpu < request.blob.offloadable_layers:
            return True
        self._choose_batch(request)
        predicted = predicted_bytes(request) + batch_surcharge(options.num_batch)
        free = self.free_of(self.placement(request))
        fits = predicted <= free * 0.80
        outcome = "fits alongside existing models" if fits else "predicted to exceed available memory, evicting"
        log(
            "INFO", "sched.go:562" if fits else "sched.go:551", f"llama-server model {outcome}",
            predicted=human_bytes(predicted), num_batch=options.num_batch, available=human_bytes(free),
        )  # fmt: skip
        return fits

    def load(self, request: Request, beside: bool) -> Runner:
        blob, options = request.blob, request.options
        if beside and not self._fits_beside(request):
            raise DoesNotFit
        self._choose_batch(request)
        log("INFO", "server.go:109", "using llama-server for model", model=blob_path(blob))
        if options.num_ctx > blob.context_length:
            log(
                "WARN", "server.go:114", "requested context size too large for model",
                num_ctx=options.num_ctx, n_ctx_train=blob.context_length,
            )  # fmt: skip
            options.num_ctx = blob.context_length
        placement = self.placement(request)
        alone = len(placement) == 1 and (len(self.cards) > 1 or options.main_gpu is not None)
        if alone:
            log(
                "INFO", "sched.go:1018", "selecting single GPU for llama-server model", main_gpu=0,
                id=lab.cards()[placement[0]].uuid, library="CUDA", name=f"CUDA{self.cards.index(placement[0])}",
                predicted=human_bytes(predicted_bytes(request)), available=human_bytes(self.free_of(placement)),
            )  # fmt: skip
        for card in placement:
            scheduler.report_free(self.free_of([card]), card)
        slots = blob.slots(settings.num_parallel())
        runner = Runner(self.program, blob, options, slots, settings.keep_alive(), placement, alone)
        log("INFO", "llama_server.go:1048", "loading model via llama-server", model=runner.path)
        try:
            runner.wait_until_ready(request.client_gone)
        except RuntimeError:
            runner.stop()
            raise
        return runner


def predicted_bytes(request: Request) -> int:
    """Ollama's own rough guess, by which it evicts and picks the batch; it is not what the model takes."""
    blob = request.blob
    width = blob.info("embedding_length") // blob.info("attention.head_count")
    context = min(request.options.num_ctx, blob.context_length) * blob.slots(settings.num_parallel())
    return blob.file_bytes + 2 * blob.blocks * blob.heads_kv * width * context * 2


def batch_surcharge(batch: int) -> int:
    return 2048 * MIB if batch >= 2048 else 768 * MIB if batch >= 1024 else 0
