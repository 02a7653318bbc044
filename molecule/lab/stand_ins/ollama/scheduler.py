"""Which model is loaded, and for how long: Ollama's scheduler (sched.go), and its side of a runner.

How a runner is started, and whether it fits, changed with 0.30: that is in scheduler_since_030.py and
scheduler_until_024.py.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import math
import os
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

TOO_LONG = "the input length exceeds the context length"
LONGEST_S = 292 * 365.25 * 86400  # what Go's durations hold; for ever is as long
MINIMUM_BYTES = 457 * MIB  # what Ollama leaves of a CUDA device, for the context


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

    name: str
    blob: lab_models.Blob
    options: Options
    alive_s: float | None
    client_gone: Callable[[], bool]
    retried: bool = False  # after an out-of-memory error; once is enough


class DoesNotFit(Exception):
    """Not beside what is loaded."""


class Runner:
    """A process with a model, and what Ollama reads from its output."""

    name = ""  # of the model that was asked for when it was loaded
    errors_begin: tuple[str, ...] = ()  # what makes a line of the runner's output an error message

    def __init__(self, blob: lab_models.Blob, options: Options, parallel: int, alive_s: float) -> None:
        self.blob, self.options, self.parallel, self.alive_s = blob, options, parallel, alive_s
        self.path = blob_path(blob)
        self.requests = 0
        self.expires_at = math.inf
        self.turn = threading.BoundedSemaphore(parallel)
        self.errors: list[str] = []
        self.started = time.monotonic()
        self.port = free_port()

    def start(self, command: list[str], **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip()
            settings.write_of_runner(line)
            self.read(line)

    def read(self, line: str) -> None:
        """Remember the line if it is an error, from where the error begins."""
        found = [(line.index(prefix), prefix) for prefix in self.errors_begin if prefix in line]
        if found:
            self.errors.append(line[min(found)[0] :])

    @property
    def num_ctx(self) -> int:
        """Of a slot, as it is in force."""
        return min(self.options.num_ctx, self.blob.context_length)

    def size(self) -> tuple[int, int]:
        """Bytes in all and on the GPU, as Ollama counts them."""
        raise NotImplementedError

    def health(self) -> int:
        """200 ready, 503 loading, 0 no answer."""
        raise NotImplementedError

    def alive(self) -> bool:
        return self.process.poll() is None

    def message(self) -> list[str]:
        return ["\n".join(self.errors)] if self.errors else []

    def complete(self, prompt: str, limit: int) -> Iterator[Json]:
        """The runner's events for this prompt, once it is this request's turn. RuntimeError if the runner dies."""
        with self.turn:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            try:
                body = {"prompt": self.shortened(prompt), "n_predict": limit, "stream": True}
                connection.request("POST", "/completion", json.dumps(body))
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
            raise RuntimeError(": ".join([message + ", check ollama server logs for details", *self.message()]))

    def embed(self, text: str) -> tuple[list[float], int]:
        """The vector of a text, and its tokens. Refused with 400 where it does not fit into a batch."""
        with self.turn:
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            try:
                connection.request("POST", "/v1/embeddings", json.dumps({"input": text}), {"Connection": "close"})
                response = connection.getresponse()
                answer: Json = json.loads(response.read())
            finally:
                connection.close()
        if response.status != 200:
            said = answer["error"]["message"]
            too_long = "too large" in said
            raise Refused(400 if too_long else response.status, TOO_LONG if too_long else said)
        return answer["data"][0]["embedding"], answer["usage"]["prompt_tokens"]

    def shortened(self, prompt: str) -> str | list[int]:
        """What the runner is sent of a prompt."""
        return prompt

    def stop(self) -> None:
        if self.alive():
            self.process.kill()
        self.process.wait()


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and content of what a runner answers; status 0 if it does not."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def blob_path(blob: lab_models.Blob) -> str:
    return os.path.join(settings.models_directory(), "blobs", f"sha256-{blob.digest}")


class Scheduler:
    """What is the same in every release. A subclass finds the GPU, and loads."""

    def __init__(self, ollama: Path, release: Release) -> None:
        self.ollama, self.release = ollama, release
        self.loaded: dict[str, Runner] = {}
        self.changed = threading.Condition()
        self._one_load = threading.Lock()
        self._queued = 0
        self._max_loaded = settings.max_loaded_models()
        self._max_queue = settings.unsigned("OLLAMA_MAX_QUEUE", 512)
        self.gpu = self.discover()
        total = self.total_bytes() - settings.gpu_overhead() if self.gpu else 0
        # An overhead larger than the card wraps around in Ollama, and so lands in the highest tier.
        tiers = release.default_context
        self.default_context = next(context for least, context in tiers if total < 0 or total >= least)
        log(
            "INFO", "routes.go:2058", "vram-based default context",
            total_vram=human_bytes(total), default_num_ctx=self.default_context,
        )  # fmt: skip
        threading.Thread(target=self._expire, daemon=True).start()

    # Getting a runner

    def acquire(self, request: Request) -> Runner:
        """A runner as requested, loaded if need be; to be given back. Refused says why there is none."""
        request.options.num_ctx = max(request.options.num_ctx, 4)
        with self.changed:
            if runner := self._usable(request):
                return self.use(runner, request)
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

    def discover(self) -> bool:
        """Whether there is a GPU that a runner can use; the journal says what was found."""
        raise NotImplementedError

    def total_bytes(self) -> int:
        """Of the GPUs that were found."""
        return card_bytes()

    def load(self, request: Request, beside: bool) -> Runner:
        """A runner with the model, or DoesNotFit beside others. RuntimeError says why it cannot be loaded."""
        raise NotImplementedError

    def retry(self, request: Request, error: RuntimeError, others: list[Runner]) -> bool:
        """Whether a load that failed is to be tried again, having changed something."""
        return False

    @staticmethod
    def _needs_reload(runner: Runner, options: Options) -> bool:
        have, want = dataclasses.replace(runner.options), dataclasses.replace(options)
        have.num_ctx = min(have.num_ctx, runner.blob.context_length)
        want.num_ctx = min(want.num_ctx, runner.blob.context_length)
        if have.ctx_is_automatic and want.ctx_is_automatic:
            want.num_ctx = have.num_ctx
        if have.batch_is_automatic and want.batch_is_automatic:
            want.num_batch = have.num_batch
        if want.num_gpu < 0:
            want.num_gpu = have.num_gpu
        return have != want or runner.health() != 200

    @staticmethod
    def use(runner: Runner, request: Request) -> Runner:
        runner.requests += 1
        runner.expires_at = math.inf
        if request.alive_s is not None:
            runner.alive_s = request.alive_s
        return runner

    def give_back(self, runner: Runner) -> None:
        with self.changed:
            runner.requests -= 1
            if runner.requests <= 0:
                runner.expires_at = time.time() + min(runner.alive_s, LONGEST_S)
            self.changed.notify_all()

    def _schedule(self, request: Request) -> Runner:
        """Make room until the model can be loaded, and load it. One request at a time gets here."""
        while True:
            with self.changed:
                if runner := self._usable(request):
                    return self.use(runner, request)
                outdated = self.loaded.get(request.blob.digest)
                others = [each for each in self.loaded.values() if each is not outdated]
            if outdated:
                self.unload(outdated)
            elif len(others) >= (self._max_loaded or 3):
                self.unload(least_wanted(others))
            else:
                try:
                    with settings.loading():
                        runner = self.load(request, bool(others))
                except DoesNotFit:
                    self.unload(least_wanted(others))
                except RuntimeError as error:
                    log("INFO", "sched.go:641", "Load failed", model=blob_path(request.blob), error=error)
                    if not self.retry(request, error, others):
                        raise Refused(500, str(error)) from None
                else:
                    with self.changed:
                        runner.name = request.name
                        self.loaded[request.blob.digest] = runner
                        log("INFO", "sched.go:728", "loaded runners", count=len(self.loaded))
                        return self.use(runner, request)

    def free_bytes(self) -> int:
        """What the GPU says, but never more than what is left by the runners' own account; 0 without a GPU."""
        if not self.gpu:
            return 0
        accounted = card_bytes() - sum(each.size()[1] for each in self.loaded.values())
        return min(simulated_gpu.free_mib() * MIB, accounted)

    # Getting rid of one

    def unload(self, runner: Runner) -> None:
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


def report_gpu(card_free_bytes: int, device: int = 0, number: int = 0) -> None:
    """What Ollama says of a GPU that it found: the driver's `number`, CUDA's `device`."""
    card, cuda = lab.cards()[number], lab.driver().cuda
    log(
        "INFO", "types.go:32", "inference compute", id=card.uuid, filter_id="", library="CUDA",
        compute=card.capability, name=f"CUDA{device}", description=card.name, libdirs="ollama,cuda_v12",
        driver=f"{cuda // 1000}.{cuda % 1000 // 10}", pci_id=card.pci.lower().removeprefix("0000"),
        type="discrete", total=human_bytes(card_bytes(number)), available=human_bytes(card_free_bytes),
    )  # fmt: skip


def report_no_gpu() -> None:
    log(
        "INFO", "types.go:50", "inference compute", id="cpu", library="cpu", compute="", name="cpu",
        description="cpu", libdirs="ollama", driver="", pci_id="", type="", total="unknown", available="unknown",
    )  # fmt: skip


def report_free(free: int, number: int = 0) -> None:
    """What Ollama says of a GPU before each load."""
    overhead = settings.gpu_overhead()
    log(
        "INFO", "sched.go:620", "gpu memory", id=lab.cards()[number].uuid, library="CUDA",
        available=human_bytes(max(free - overhead - MINIMUM_BYTES, 0)), free=human_bytes(free),
        minimum="457.0 MiB", overhead=human_bytes(overhead),
    )  # fmt: skip


def card_bytes(number: int = 0) -> int:
    return lab.cards()[number].total * MIB
