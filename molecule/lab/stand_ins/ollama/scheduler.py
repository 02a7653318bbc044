"""Which model is loaded, and how: Ollama's scheduler (sched.go) and its side of a runner (llama_server.go)."""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lab
import lab_models
import settings
import simulated_gpu
from lab import MIB, Json
from releases import Release
from settings import human_bytes, log

OUT_OF_MEMORY = ("out of memory", "cudamalloc failed", "failed to allocate", "allocation failed", "not enough memory")
ERROR_PREFIXES = ("fatal error:", "error:", "Error:", "CUDA error", "cudaMalloc failed", "error loading model",
                  "GGML_ASSERT", "llama_init_from_model:")  # fmt: skip
BUFFER = re.compile(r"([A-Za-z_]\w*):\s+(\S+)\s+(model|KV|compute|output|RS)\s+buffer size\s*=\s*([\d.]+)\s*MiB")
OFFLOADED = re.compile(r"offloaded\s+(\d+)/(\d+)\s+layers to GPU")


class Refused(Exception):
    """A request that cannot be served: HTTP status and Ollama's words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class Options:
    """What a runner is started with; a request that wants it otherwise gets another runner."""

    num_ctx: int
    num_batch: int = 512
    num_gpu: int = -1
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int = 0
    # Set by Ollama itself, not by the request, the model or the environment.
    ctx_is_automatic: bool = dataclasses.field(default=False, compare=False)
    batch_is_automatic: bool = dataclasses.field(default=False, compare=False)


@dataclasses.dataclass
class Request:
    """Somebody wants a model, with these options, to stay for so long (None: the default) after its last use."""

    blob: lab_models.Blob
    options: Options
    alive_s: float | None
    client_gone: Callable[[], bool]
    retried: bool = False  # after an out-of-memory error; once is enough


class Runner:
    """A llama-server process with a model, and what Ollama reads from its output."""

    def __init__(self, program: Path, blob: lab_models.Blob, options: Options, parallel: int, alive_s: float) -> None:
        self.blob, self.options, self.parallel, self.alive_s = blob, options, parallel, alive_s
        self.path = blob_path(blob)
        self.requests = 0
        self.expires_at = math.inf
        self.turn = threading.BoundedSemaphore(parallel)
        self._errors: list[str] = []
        self._buffers: dict[tuple[str, str, str], float] = {}
        self._layers = (0, 0)
        self._ready = False
        self.started = time.monotonic()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [str(program), *self._arguments()]
        log("INFO", "llama_server.go:433", "starting llama-server", cmd=" ".join(command))
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

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
        words += ["-b", o.num_batch, "-ub", o.num_batch] if o.num_batch > 0 else []
        words += ["-ngl", o.num_gpu] if o.num_gpu >= 0 else []
        words += ["-t", o.num_thread] if o.num_thread > 0 else []
        words += ["--split-mode", "none", "--main-gpu", o.main_gpu] if o.main_gpu is not None else []
        return [str(word) for word in [*words, "--context-shift", "--keep", 4]]

    def _read(self) -> None:
        assert self.process.stdout
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            settings.write(line)
            if match := BUFFER.search(line):
                self._buffers[match[1], match[2], match[3]] = float(match[4])
            if match := OFFLOADED.search(line):
                self._layers = (int(match[1]), int(match[2]))
            found = [(line.index(prefix), prefix) for prefix in ERROR_PREFIXES if prefix in line]
            if found:
                self._errors.append(line[min(found)[0] :])
            elif is_out_of_memory(line):
                self._errors.append(line)

    def size(self) -> tuple[int, int]:
        """Bytes in all and on the GPU, as Ollama adds up the buffers that the runner reports."""
        on_gpu = sum(
            mib for (_, device, _), mib in self._buffers.items() if device.startswith("CUDA") and device != "CUDA_Host"
        )
        everything = sum(self._buffers.values())
        if self._layers[1] and self._layers[0] >= self._layers[1]:
            everything = on_gpu
        return round(everything * MIB), round(on_gpu * MIB)

    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self, client_gone: Callable[[], bool]) -> None:
        """Return when the model is loaded; RuntimeError says why it is not."""
        log("INFO", "llama_server.go:1295", "waiting for llama-server to start responding")
        deadline = time.monotonic() + (settings.duration("OLLAMA_LOAD_TIMEOUT", 300) or math.inf)
        loading = False
        while True:
            if not self.alive():
                self._reader.join()
                status = self.process.returncode
                exit_status = f"exit status {status}" if status >= 0 else "exit status -1"
                log("ERROR", "llama_server.go:1023", "llama-server terminated", error=exit_status, exit=exit_status)
                raise RuntimeError(": ".join(["llama-server process has terminated", exit_status, *self._message()]))
            if client_gone():
                log(
                    "WARN",
                    "llama_server.go:1305",
                    "client connection closed before llama-server finished loading, aborting load",
                )
                raise RuntimeError("timed out waiting for llama-server to start: context canceled")
            if time.monotonic() > deadline:
                raise RuntimeError("timed out waiting for llama-server to start - " + "".join(self._message()))
            status = self.health()
            if status == 200:
                self._errors.clear()
                self._ready = True
                took = time.monotonic() - self.started
                log("INFO", "llama_server.go:1362", f"llama-server started in {took:.2f} seconds")
                return
            if status == 503 and not loading:
                loading = True
                text = "llm server loading model"
                log("INFO", "llama_server.go:1350", "waiting for llama-server to become available", status=text)
            time.sleep(0.05)

    def _message(self) -> list[str]:
        return ["\n".join(self._errors)] if self._errors else []

    def health(self) -> int:
        """The status that the runner answers: 200 ready, 503 loading, 0 nothing."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health", headers={"Connection": "close"})
            response = connection.getresponse()
            response.read()
            return response.status
        except OSError:
            return 0
        finally:
            connection.close()

    def complete(self, prompt: str, limit: int) -> Iterator[Json]:
        """llama-server's events for this prompt, once it is this request's turn. RuntimeError if the runner dies."""
        with self.turn:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            try:
                connection.request(
                    "POST", "/completion", json.dumps({"prompt": prompt, "n_predict": limit, "stream": True})
                )
                for line in connection.getresponse():
                    if line.startswith(b"data: "):
                        event = json.loads(line[6:])
                        yield event
                        if event["stop"]:
                            return
            except OSError:
                pass
            finally:
                connection.close()
            message = (
                "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error"
            )
            raise RuntimeError(": ".join([message + ", check ollama server logs for details", *self._message()]))

    def stop(self) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait()


def is_out_of_memory(message: str) -> bool:
    return any(words in message.lower() for words in OUT_OF_MEMORY)


def blob_path(blob: lab_models.Blob) -> str:
    return os.path.join(settings.models_directory(), "blobs", f"sha256-{blob.digest}")


class Scheduler:
    def __init__(self, program: Path, release: Release) -> None:
        self.program, self.release = program, release
        self.loaded: dict[str, Runner] = {}
        self.changed = threading.Condition()
        self._one_load = threading.Lock()
        self._queued = 0
        self._max_loaded = settings.max_loaded_models()
        self._max_queue = settings.unsigned("OLLAMA_MAX_QUEUE", 512)
        self.gpu = self._discover()
        total = card_bytes() - settings.gpu_overhead() if self.gpu else 0
        # An overhead larger than the card wraps around in Ollama, and so lands in the highest tier.
        tiers = release.default_context
        self.default_context = next(context for least, context in tiers if total < 0 or total >= least)
        log(
            "INFO", "routes.go:2058", "vram-based default context",
            total_vram=human_bytes(total), default_num_ctx=self.default_context,
        )  # fmt: skip
        threading.Thread(target=self._expire, daemon=True).start()

    def _discover(self) -> bool:
        """Whether llama-server sees a GPU; it is asked with the environment that a runner would have."""
        command = [str(self.program), "--list-devices", "--offline", "--verbose"]
        found = subprocess.run(command, capture_output=True, text=True)
        free = re.search(r"CUDA0: .+, (\d+) MiB free\)", found.stdout)
        if free:
            card, cuda = lab.card(), lab.driver().cuda
            log(
                "INFO", "types.go:32", "inference compute", id=card.uuid, filter_id="", library="CUDA",
                compute=card.capability, name="CUDA0", description=card.name, libdirs="ollama,cuda_v12",
                driver=f"{cuda // 1000}.{cuda % 1000 // 10}", pci_id=card.pci.lower().removeprefix("0000"),
                type="discrete", total=human_bytes(card_bytes()), available=human_bytes(int(free[1]) * MIB),
            )  # fmt: skip
            return True
        if found.returncode:
            log(
                "INFO", "runner.go:522", "failure during llama-server GPU discovery",
                OLLAMA_LIBRARY_PATH=f"[{self.program.parent}]", extra_envs="map[]",
                error=f"llama-server --list-devices failed: exit status {found.returncode}",
                detail=found.stderr.strip(),
            )  # fmt: skip
        log(
            "INFO", "types.go:50", "inference compute", id="cpu", library="cpu", compute="", name="cpu",
            description="cpu", libdirs="ollama", driver="", pci_id="", type="", total="unknown", available="unknown",
        )  # fmt: skip
        return False

    # Getting a runner

    def acquire(self, request: Request) -> Runner:
        """A runner as requested, loaded if need be; to be given back. Refused says why there is none."""
        request.options.num_ctx = max(request.options.num_ctx, 4)
        with self.changed:
            if runner := self._usable(request):
                return self._use(runner, request)
            if self._queued >= self._max_queue:
                raise Refused(503, "server busy, please try again.  maximum pending requests exceeded")
            self._queued += 1
        try:
            with self._one_load:
                return self._schedule(request)
        finally:
            with self.changed:
                self._queued -= 1

    def _usable(self, request: Request) -> Runner | None:
        runner = self.loaded.get(request.blob.digest)
        return runner if runner and not self._needs_reload(runner, request.options) else None

    @staticmethod
    def _needs_reload(runner: Runner, options: Options) -> bool:
        have, want = dataclasses.replace(runner.options), dataclasses.replace(options)
        want.num_ctx = min(want.num_ctx, runner.blob.context_length)
        if have.ctx_is_automatic and want.ctx_is_automatic:
            want.num_ctx = have.num_ctx
        if have.batch_is_automatic and want.batch_is_automatic:
            want.num_batch = have.num_batch
        if want.num_gpu < 0:
            want.num_gpu = have.num_gpu
        return have != want or runner.health() != 200

    @staticmethod
    def _use(runner: Runner, request: Request) -> Runner:
        runner.requests += 1
        runner.expires_at = math.inf
        if request.alive_s is not None:
            runner.alive_s = request.alive_s
        return runner

    def give_back(self, runner: Runner) -> None:
        with self.changed:
            runner.requests -= 1
            if runner.requests <= 0:
                runner.expires_at = time.time() + runner.alive_s
            self.changed.notify_all()

    def _schedule(self, request: Request) -> Runner:
        """Make room until the model can be loaded, and load it. One request at a time gets here."""
        while True:
            with self.changed:
                if runner := self._usable(request):
                    return self._use(runner, request)
                outdated = self.loaded.get(request.blob.digest)
                others = [each for each in self.loaded.values() if each is not outdated]
            if outdated:
                self._unload(outdated)
            elif len(others) >= (self._max_loaded or 3) or others and not self._fits_beside(request):
                self._unload(least_wanted(others))
            else:
                try:
                    return self._load(request)
                except RuntimeError as error:
                    log("INFO", "sched.go:641", "Load failed", model=blob_path(request.blob), error=error)
                    if not self._retry(request, error, others):
                        raise Refused(500, str(error)) from None

    def _retry(self, request: Request, error: RuntimeError, others: list[Runner]) -> bool:
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
            self._unload(other)
        return True

    def _free_bytes(self) -> int:
        """What the GPU says, but never more than what is left by the runners' own account."""
        if not self.gpu:
            return 0
        accounted = card_bytes() - sum(each.size()[1] for each in self.loaded.values())
        return min(simulated_gpu.free_mib() * MIB, accounted)

    def _choose_batch(self, request: Request) -> None:
        options = request.options
        if not options.batch_is_automatic:
            return
        context = min(options.num_ctx, request.blob.context_length) * settings.num_parallel()
        predicted, free = predicted_bytes(request), self._free_bytes()
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
        predicted, free = predicted_bytes(request) + batch_surcharge(options.num_batch), self._free_bytes()
        fits = predicted <= free * 0.80
        outcome = "fits alongside existing models" if fits else "predicted to exceed available memory, evicting"
        log(
            "INFO", "sched.go:562" if fits else "sched.go:551", f"llama-server model {outcome}",
            predicted=human_bytes(predicted), num_batch=options.num_batch, available=human_bytes(free),
        )  # fmt: skip
        return fits

    def _load(self, request: Request) -> Runner:
        blob, options = request.blob, request.options
        self._choose_batch(request)
        log("INFO", "server.go:109", "using llama-server for model", model=blob_path(blob))
        if options.num_ctx > blob.context_length:
            log(
                "WARN", "server.go:114", "requested context size too large for model",
                num_ctx=options.num_ctx, n_ctx_train=blob.context_length,
            )  # fmt: skip
            options.num_ctx = blob.context_length
        if self.gpu:
            free, overhead = self._free_bytes(), settings.gpu_overhead()
            log(
                "INFO", "sched.go:620", "gpu memory", id=lab.card().uuid, library="CUDA",
                available=human_bytes(max(free - overhead - 457 * MIB, 0)), free=human_bytes(free),
                minimum="457.0 MiB", overhead=human_bytes(overhead),
            )  # fmt: skip
        runner = Runner(self.program, blob, options, settings.num_parallel(), settings.keep_alive())
        log("INFO", "llama_server.go:1048", "loading model via llama-server", model=runner.path)
        try:
            runner.wait_until_ready(request.client_gone)
        except RuntimeError:
            runner.stop()
            raise
        with self.changed:
            self.loaded[blob.digest] = runner
            log("INFO", "sched.go:728", "loaded runners", count=len(self.loaded))
            return self._use(runner, request)

    # Getting rid of one

    def _unload(self, runner: Runner) -> None:
        """Wait until nobody uses the runner, then end it."""
        with self.changed:
            runner.alive_s = 0
            while runner.requests > 0 and runner.alive():
                self.changed.wait(0.1)
            self._remove(runner)

    def _remove(self, runner: Runner) -> None:
        runner.stop()
        if self.loaded.get(runner.blob.digest) is runner:
            del self.loaded[runner.blob.digest]

    def expire_now(self, blob: lab_models.Blob) -> None:
        with self.changed:
            runner = self.loaded.get(blob.digest)
            if runner:
                runner.alive_s = 0
                runner.expires_at = 0 if runner.requests <= 0 else math.inf
                self.changed.notify_all()

    def _expire(self) -> None:
        with self.changed:
            while True:
                for runner in list(self.loaded.values()):
                    if runner.requests <= 0 and runner.expires_at <= time.time():
                        self._remove(runner)
                left = min((runner.expires_at for runner in self.loaded.values()), default=math.inf) - time.time()
                self.changed.wait(min(max(left, 0.01), 60.0))

    def stop(self) -> None:
        with self.changed:
            for runner in list(self.loaded.values()):
                self._remove(runner)


def least_wanted(runners: list[Runner]) -> Runner:
    """The one that would go first, preferably an idle one."""
    ordered = sorted(runners, key=lambda each: (each.alive_s, each.path))
    return next((each for each in ordered if each.requests == 0), ordered[0])


def predicted_bytes(request: Request) -> int:
    """Ollama's own rough guess, by which it evicts and picks the batch; it is not what the model takes."""
    blob = request.blob
    width = blob.info("embedding_length") // blob.info("attention.head_count")
    context = min(request.options.num_ctx, blob.context_length) * settings.num_parallel()
    return blob.file_bytes + 2 * blob.blocks * blob.info("attention.head_count_kv") * width * context * 2


def batch_surcharge(batch: int) -> int:
    return 2048 * MIB if batch >= 2048 else 768 * MIB if batch >= 1024 else 0


def card_bytes() -> int:
    return lab.card().total * MIB
