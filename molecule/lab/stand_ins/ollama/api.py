"""The lab's Ollama: its HTTP API (server/routes.go), in the words of the release it stands in for."""

from __future__ import annotations

import copy
import datetime
import hashlib
import http.server
import json
import math
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lab
import lab_models
import runner_until_024
import scheduler
import scheduler_since_030
import scheduler_until_024
import settings
from lab import Json
from releases import Release, release_of
from runner import tokens_in
from scheduler import Options, Refused, Request
from settings import log

SCHEDULERS: dict[str, type[scheduler.Scheduler]] = {
    "runner": scheduler_until_024.Scheduler,
    "llama-server": scheduler_since_030.Scheduler,
}

CLOUD = "https://ollama.com:443"
OPTION_KINDS = {
    **dict.fromkeys(("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "draft_num_predict"), "integer"),
    **dict.fromkeys(("num_keep", "seed", "num_predict", "top_k", "repeat_last_n"), "integer"),
    **dict.fromkeys(("top_p", "min_p", "typical_p", "temperature"), "float32"),
    **dict.fromkeys(("repeat_penalty", "presence_penalty", "frequency_penalty"), "float32"),
    "use_mmap": "boolean",
    "stop": "array",
}
KIND_IN_JSON = {"integer": "number", "float32": "number", "boolean": "boolean", "array": "array"}


class Model:
    """A name that Ollama serves: a blob and what a Modelfile adds to it."""

    def __init__(
        self, name: str, blob: lab_models.Blob, parameters: Json, modified: str, parent: str = "", remote: str = ""
    ) -> None:
        self.name, self.blob, self.parameters, self.modified, self.parent = name, blob, parameters, modified, parent
        self.remote = remote  # the model of Ollama's cloud that it stands for; its blob then counts for nothing

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.blob.digest, self.parameters], sort_keys=True).encode()).hexdigest()

    @property
    def capabilities(self) -> list[str]:
        return ["embedding"] if self.blob.embedder else ["completion", "tools"]

    def details(self) -> Json:
        if self.remote:
            words = ("parent_model", "format", "family", "parameter_size", "quantization_level")
            return {**dict.fromkeys(words, ""), "families": None}
        family = self.blob.show["details"]["family"]
        return {
            "parent_model": self.parent, "format": "gguf", "family": family, "families": [family],
            "parameter_size": self.blob.parameter_size,
            "quantization_level": self.blob.show["details"]["quantization_level"],
        }  # fmt: skip


class Library:
    """The models on this machine: the lab's own and those made from them, which outlive a restart."""

    def __init__(self) -> None:
        self._file = Path(settings.models_directory()) / "lab-models.json"
        self._lock = threading.Lock()
        made = "2026-01-01T00:00:00Z"
        self._models = {blob.name: Model(blob.name, blob, {}, made) for blob in lab_models.blobs().values()}
        if self._file.exists():
            stored = json.loads(self._file.read_text())
            self._models = {
                name: Model(name, lab_models.blobs()[digest], parameters, modified, parent, remote)
                for name, digest, parameters, modified, parent, remote in stored
                if digest in lab_models.blobs()
            }

    def all(self) -> list[Model]:
        return list(self._models.values())

    def find(self, name: str) -> Model | None:
        full = full_name(name).lower()
        return next((model for model in self.all() if model.name.lower() == full), None)

    def put(self, name: str, blob: lab_models.Blob, parameters: Json, parent: str = "", remote: str = "") -> None:
        with self._lock:
            self._models[full_name(name)] = Model(full_name(name), blob, parameters, now(), parent, remote)
            self._save()

    def delete(self, name: str) -> None:
        with self._lock:
            del self._models[full_name(name)]
            self._save()

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        stored = [[m.name, m.blob.digest, m.parameters, m.modified, m.parent, m.remote] for m in self._models.values()]
        self._file.write_text(json.dumps(stored))


def full_name(name: str) -> str:
    """As it is listed (types/model/name.go), without what says where it runs (internal/modelref)."""
    parts = re.sub("(?i):local$", "", name).split("/")
    if len(parts) == 3 and parts[0].lower() == "registry.ollama.ai":
        del parts[0]
    if len(parts) == 2 and parts[0].lower() == "library":
        del parts[0]
    return "/".join(parts) + ("" if ":" in parts[-1] else ":latest")


def of_the_cloud(name: str) -> bool:
    """Whether a name says that the cloud is meant, whatever is here (internal/modelref)."""
    _, colon, tag = name.rpartition(":")
    return bool(colon) and "/" not in tag and (tag.lower() == "cloud" or tag.lower().endswith("-cloud"))


def now() -> str:
    return rfc3339(time.time())


def rfc3339(epoch: float) -> str:
    """As Go writes it."""
    moment = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def openai_error(status: int, message: str) -> Json:
    """As middleware/openai.go wraps what the routes say."""
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"message": message, "type": kind, "param": None, "code": None}


def nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else "array" if isinstance(value, list) else type(value).__name__


def read_options(model: Model, request: Json, default_context: int) -> tuple[Options, Json]:
    """Defaults, then the model's parameters, then the request's options; ValueError for a wrong type."""
    merged: Json = {}
    for given in (model.parameters, request):
        for key, value in given.items():
            kind = OPTION_KINDS.get(key)
            if kind is None:
                log("WARN", "types.go:1007", "invalid option provided", option=key)
            elif value is not None:
                if json_kind(value) != KIND_IN_JSON[kind]:
                    raise ValueError(f'option "{key}" must be of type {kind}')
                merged[key] = int(value) if kind == "integer" else value
    own_context = settings.context_length()
    options = Options(
        num_ctx=merged.get("num_ctx", own_context or default_context),
        ctx_is_automatic="num_ctx" not in merged and not own_context,
        batch_is_automatic="num_batch" not in merged,
    )
    for key in ("num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread"):
        if key in merged:
            setattr(options, key, merged[key])
    return options, merged


def cut(text: str, tokens: int) -> str:
    """A text of so many tokens at most."""
    return text if tokens_in(text) <= tokens else text[: max(tokens - tokens_in(""), 0) * 4]


def keep_alive(value: object) -> float | None:
    """Seconds, for ever if negative, None if the request does not say; ValueError for nonsense."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"Unsupported type: '{value}'")
    seconds = settings.seconds(value) if isinstance(value, str) else float(value)
    return math.inf if seconds < 0 else seconds


def shown(model: Model, verbose: bool) -> Json:
    """The answer to /api/show; long lists are shown to those who ask for them."""
    info = copy.deepcopy(model.blob.show["model_info"])
    if not verbose:
        info = {key: None if isinstance(value, list) else value for key, value in info.items()}
    lines = [
        (key, each)
        for key, value in sorted(model.parameters.items())
        for each in (value if isinstance(value, list) else [value])
    ]
    parameters = "\n".join(f"{key:<30} {json.dumps(each)}" for key, each in lines)
    modelfile = '# Modelfile generated by "ollama show"\n# To build a new Modelfile based on this, replace FROM with:\n'
    modelfile += f"# FROM {model.name}\n\nFROM {scheduler.blob_path(model.blob)}\n"
    modelfile += "".join(f"PARAMETER {key} {each}\n" for key, each in lines)
    answer = {
        "modelfile": modelfile, "parameters": parameters, "template": "{{ .Prompt }}", "details": model.details(),
        "model_info": info, "tensors": model.blob.show["tensors"], "capabilities": model.capabilities,
        "modified_at": model.modified,
    }  # fmt: skip
    return {key: value for key, value in answer.items() if value != ""}


class AnswersElsewhere(Exception):
    """Ollama passes a request on to its cloud, which answers those who have signed in. Here a file says who has."""

    @property
    def signed_in(self) -> bool:
        return (Path(settings.models_directory()) / "lab-signed-in").exists()


class Ollama:
    """The service behind the handler."""

    def __init__(self, version: str, release: Release, program: Path) -> None:
        self.version, self.release = version, release
        self.library = Library()
        self.scheduler = SCHEDULERS[release.engine](program, release)

    def model(self, body: Json, missing: str = "model '{}' not found") -> Model:
        name = body.get("model") or body.get("name") or ""
        if of_the_cloud(name):
            raise AnswersElsewhere(name)
        model = self.library.find(name) if name else None
        if model is None:
            raise Refused(404, missing.format(name))
        return model

    def running(self) -> list[Json]:
        found = []
        for runner in list(self.scheduler.loaded.values()):
            model = self.library.find(runner.name)
            if model is None:
                continue
            size, on_gpu = runner.size()
            in_use = time.time() + min(runner.alive_s, scheduler.LONGEST_S)
            expires = in_use if runner.expires_at == math.inf else runner.expires_at
            found.append({
                "name": model.name, "model": model.name, "size": size, "digest": model.digest,
                "details": model.details(), "expires_at": rfc3339(expires), "size_vram": on_gpu,
                "context_length": runner.num_ctx,
            })  # fmt: skip
        return found

    def _acquire(self, model: Model, body: Json, client_gone: Callable[[], bool]) -> tuple[scheduler.Runner, Json]:
        """A runner with the options of a request, and those."""
        if model.remote:
            raise AnswersElsewhere(model.name)
        try:
            options, merged = read_options(model, body.get("options") or {}, self.scheduler.default_context)
            alive_s = keep_alive(body.get("keep_alive"))
        except ValueError as error:
            raise Refused(500 if "option" in str(error) else 400, str(error)) from None
        return self.scheduler.acquire(Request(model.name, model.blob, options, alive_s, client_gone)), merged

    def embed(self, model: Model, body: Json, texts: list[str], client_gone: Callable[[], bool]) -> Json:
        """What /api/embed answers. A text is cut to the context, and where it is longer than a batch, to that."""
        start = time.monotonic()
        runner, _ = self._acquire(model, body, client_gone)
        loaded = time.monotonic()
        try:
            found = [self._embed_one(runner, cut(text, runner.num_ctx)) for text in texts]
        finally:
            self.scheduler.give_back(runner)
        return {
            "model": body["model"],
            "embeddings": [vector for vector, _ in found],
            "total_duration": nanoseconds((time.monotonic() - start) * lab.speedup()),
            "load_duration": nanoseconds((loaded - start) * lab.speedup()),
            "prompt_eval_count": sum(tokens for _, tokens in found),
        }

    @staticmethod
    def _embed_one(runner: scheduler.Runner, text: str) -> tuple[list[float], int]:
        try:
            return runner.embed(text)
        except Refused as refused:
            if refused.status != 400:
                raise
            return runner.embed(cut(text, runner.options.num_batch))

    def write(
        self, model: Model, body: Json, prompt: str, client_gone: Callable[[], bool]
    ) -> Iterator[tuple[str, Json]]:
        """Pieces of the reply, then an empty one with the figures. Refused if it comes to nothing."""
        start = time.monotonic()
        runner, merged = self._acquire(model, body, client_gone)
        loaded = time.monotonic()
        try:
            if not prompt:
                yield "", {"done_reason": "load"}
                return
            for event in runner.complete(prompt, merged.get("num_predict", -1)):
                if client_gone():
                    return
                if not event["stop"]:
                    yield event["content"], {}
                    continue
                timings = event["timings"]
                yield (
                    "",
                    {
                        "done_reason": "length" if event["stop_type"] == "limit" else "stop",
                        "total_duration": nanoseconds((time.monotonic() - start) * lab.speedup()),
                        "load_duration": nanoseconds((loaded - start) * lab.speedup()),
                        "prompt_eval_count": timings["prompt_n"],
                        "prompt_eval_duration": nanoseconds(timings["prompt_ms"] / 1000),
                        "eval_count": timings["predicted_n"],
                        "eval_duration": nanoseconds(timings["predicted_ms"] / 1000),
                    },
                )
        except RuntimeError as error:
            raise Refused(500, str(error)) from None
        finally:
            self.scheduler.give_back(runner)


class Handler(http.server.BaseHTTPRequestHandler):
    ollama: Ollama
    protocol_version = "HTTP/1.1"
    server_version = "Ollama-stand-in"

    # Routes: what each answers, given the parsed body

    def version(self, _: Json) -> None:
        self.answer({"version": self.ollama.version})

    def tags(self, _: Json) -> None:
        self.answer({"models": [self.listed(model) for model in self.ollama.library.all()]})

    def listed(self, model: Model) -> Json:
        found: Json = {
            "name": model.name, "model": model.name, "modified_at": model.modified, "size": model.blob.file_bytes,
            "digest": model.digest, "details": model.details(),
        }  # fmt: skip
        if model.remote:
            return {**found, "remote_model": model.remote, "remote_host": CLOUD, "size": 198}
        if self.ollama.release.tags_tell_more:
            lengths = {key: model.blob.info(key) for key in ("context_length", "embedding_length")}
            found.update(details={**found["details"], **lengths}, capabilities=model.capabilities)
        return found

    def ps(self, _: Json) -> None:
        self.answer({"models": self.ollama.running()})

    def show(self, body: Json) -> None:
        name = body.get("model") or body.get("name")
        if not name:
            raise Refused(400, "model is required")
        missing = full_name(name) if self.ollama.release.tags_tell_more else name
        self.answer(shown(self.ollama.model(body, f"model '{missing}' not found"), bool(body.get("verbose"))))

    def generate(self, body: Json) -> None:
        model, prompt = self.ollama.model(body), body.get("prompt") or ""

        def piece(text: str) -> Json:
            return {"response": text}

        self.converse(model, body, prompt, piece)

    def chat(self, body: Json) -> None:
        model = self.ollama.model(body)
        prompt = "\n".join(f"{each.get('role', '')}: {each.get('content', '')}" for each in body.get("messages") or [])

        def piece(text: str) -> Json:
            return {"message": {"role": "assistant", "content": text}}

        self.converse(model, body, prompt, piece)

    def converse(self, model: Model, body: Json, prompt: str, piece: Callable[[str], Json]) -> None:
        name = body.get("model") or body.get("name")
        if model.blob.embedder:
            raise Refused(400, f'"{name}" does not support {self.path.rpartition("/")[2]}')
        if body.get("think"):
            raise Refused(400, f'"{name}" does not support thinking')
        if body.get("suffix"):
            raise Refused(400, f"registry.ollama.ai/library/{full_name(name)} does not support insert")
        if not prompt and body.get("keep_alive") in (0, "0", "0s"):
            self.ollama.scheduler.expire_now(model.blob)
            self.answer({"model": name, "created_at": now(), **piece(""), "done": True, "done_reason": "unload"})
            return
        text: list[str] = []
        streaming = body.get("stream", True)
        for content, figures in self.ollama.write(model, body, prompt, self.client_gone):
            text.append(content)
            line = {"model": name, "created_at": now(), **piece(content), "done": bool(figures), **figures}
            if streaming:
                self.stream_line(line)
            elif figures:
                self.answer({**line, **piece("".join(text))})
        if streaming:
            self.end_stream()

    def completions(self, body: Json) -> None:
        """OpenAI's chat completions, without streaming: no options, so no num_gpu and no num_ctx."""
        model = self.ollama.model(body, "model '{}' not found")
        prompt = "\n".join(f"{each.get('role', '')}: {each.get('content', '')}" for each in body.get("messages") or [])
        if not prompt:
            raise Refused(400, "[] is too short - 'messages'")
        limit = body.get("max_tokens") or -1
        request = {"options": {"num_predict": limit}}
        pieces = list(self.ollama.write(model, request, prompt, self.client_gone))
        figures = pieces[-1][1]
        asked, written = figures["prompt_eval_count"], figures["eval_count"]
        message = {"role": "assistant", "content": "".join(text for text, _ in pieces)}
        self.answer({
            "id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time()), "model": body["model"],
            "system_fingerprint": "fp_ollama",
            "choices": [{"index": 0, "message": message, "finish_reason": figures["done_reason"]}],
            "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
        })  # fmt: skip

    def embed(self, body: Json) -> None:
        model = self.ollama.model(body, 'model "{}" not found, try pulling it first')
        inputs = body.get("input")
        if not isinstance(inputs, (str, list)):
            raise Refused(400, "invalid input type")
        texts = [text for text in ([inputs] if isinstance(inputs, str) else inputs) if text]
        self.answer(self.ollama.embed(model, body, texts, self.client_gone))

    def copy(self, body: Json) -> None:
        source = self.ollama.library.find(body.get("source") or "")
        if source is None:
            raise Refused(404, f'model "{body.get("source")}" not found')
        self.ollama.library.put(body["destination"], source.blob, source.parameters, source.parent, source.remote)
        self.answer(None)

    def create(self, body: Json) -> None:
        name = body.get("model") or body.get("name")
        if not name:
            raise Refused(400, "invalid model name")
        if not body.get("from"):
            raise Refused(400, "neither 'from' or 'files' was specified")
        if body.get("remote_host"):
            self.ollama.library.put(name, next(iter(lab_models.blobs().values())), {}, remote=body["from"])
            self.answer({"status": "success"})
            return
        base = self.ollama.library.find(body["from"])
        if base is None:
            raise Refused(500, "pull model manifest: file does not exist")
        parameters = {**base.parameters, **(body.get("parameters") or {})}
        # Where 0.24 says whom a model was made of it names the file, and only in /api/show.
        self.ollama.library.put(name, base.blob, parameters, base.name if self.ollama.release.tags_tell_more else "")
        made = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
        steps = [f"using existing layer sha256:{base.blob.digest}"]
        steps += [f"creating new layer sha256:{made}"] if parameters else []
        steps += ["writing manifest", "success"]
        if body.get("stream", True):
            for step in steps:
                self.stream_line({"status": step})
            self.end_stream()
        else:
            self.answer({"status": "success"})

    def delete(self, body: Json) -> None:
        name = body.get("model") or body.get("name") or ""
        model = self.ollama.library.find(name)
        if model is None:
            raise Refused(404, f"model '{name}' not found")
        self.ollama.library.delete(model.name)
        self.answer(None)

    ROUTES = {
        ("GET", "/api/version"): version, ("GET", "/api/tags"): tags, ("GET", "/api/ps"): ps,
        ("POST", "/api/show"): show, ("POST", "/api/generate"): generate, ("POST", "/api/chat"): chat,
        ("POST", "/api/embed"): embed, ("POST", "/api/copy"): copy, ("POST", "/api/create"): create,
        ("DELETE", "/api/delete"): delete, ("POST", "/v1/chat/completions"): completions,
    }  # fmt: skip

    # HTTP

    def serve(self) -> None:
        start = time.monotonic()
        self.status, self.streaming = 200, False
        path = self.path.partition("?")[0]
        route = self.ROUTES.get((self.command, path))
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if path == "/" and self.command in ("GET", "HEAD"):
                self.send(b"Ollama is running", "text/plain; charset=utf-8")
            elif route is None:
                self.status = 404
                self.send(b"404 page not found", "text/plain")
            elif self.command == "POST" and not content:
                raise Refused(400, "missing request body")
            else:
                body = json.loads(content or b"{}")
                if not isinstance(body, dict):
                    raise Refused(400, "json: cannot unmarshal value into Go value")
                route(self, body)
        except json.JSONDecodeError as error:
            self.refuse(400, f"invalid character: {error.msg}")
        except Refused as refused:
            self.refuse(refused.status, str(refused))
        except AnswersElsewhere as elsewhere:
            if elsewhere.signed_in:
                text = {"message": {"role": "assistant", "content": "from the cloud"}, "response": "from the cloud"}
                self.answer({"model": str(elsewhere), **text, "done": True, "done_reason": "stop"})
            else:
                self.refuse(401, "unauthorized")
        except OSError:
            self.close_connection = True
        took = time.monotonic() - start
        stamp = time.strftime("%Y/%m/%d - %H:%M:%S", time.gmtime())
        settings.write_access(
            f'[GIN] {stamp} | {self.status} | {took:12.6f}s | {self.client_address[0]:>15} | {self.command:<8} "{path}"'
        )

    do_GET = do_POST = do_DELETE = do_HEAD = serve

    def refuse(self, status: int, message: str) -> None:
        if self.streaming:
            self.stream_line({"error": message})
            self.end_stream()
        else:
            self.status = status
            self.answer({"error": openai_error(status, message) if self.path.startswith("/v1/") else message})

    def answer(self, body: Json | None) -> None:
        self.send(b"" if body is None else json.dumps(body).encode(), "application/json; charset=utf-8")

    def send(self, content: bytes, kind: str) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def stream_line(self, body: Json) -> None:
        if not self.streaming:
            self.streaming = True
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
        line = json.dumps(body).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def client_gone(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int) -> None:
        """Every address is one of IPv6, and takes IPv4 as well, as Go's net.Listen has it."""
        if host in ("", "0.0.0.0", "::") and socket.has_dualstack_ipv6():
            self.address_family, host = socket.AF_INET6, "::"
        elif ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def serve() -> int:
    version = lab.option("LAB_OLLAMA_VERSION", "0.32.15")
    release = release_of(version)
    settings.sources.update(release.sources)
    config = settings.server_config(release.more_settings, release.more_switches)
    log("INFO", "routes.go:1951", "server config", env=config)
    log("INFO", "routes.go:1953", "Ollama cloud disabled: false")
    _scheme, host, port = settings.address()
    server = Server(host, port)
    host, port = server.server_address[:2]
    log(
        "INFO", "routes.go:2008",
        f"Listening on {f'[{host}]' if ':' in host else host}:{port} (version {version})",
    )  # fmt: skip
    Handler.ollama = Ollama(version, release, Path(sys.argv[0]))

    def stop(*_: object) -> None:
        Handler.ollama.scheduler.stop()
        os._exit(0)

    # The handler runs in the main thread, between two bytecodes of it; there the scheduler's lock may be taken.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop).start())
    signal.signal(signal.SIGINT, lambda *_: threading.Thread(target=stop).start())
    server.serve_forever()
    return 0


def main(arguments: list[str]) -> int:
    version = lab.option("LAB_OLLAMA_VERSION", "0.32.15")
    if arguments in (["serve"], ["start"]):
        return serve()
    if arguments[:1] == ["runner"] and release_of(version).engine == "runner":
        return runner_until_024.main(arguments[1:])
    if arguments in (["--version"], ["-v"]):
        print(f"ollama version is {version}")
        return 0
    print("The lab's Ollama knows `serve` and `--version`; for the rest there is its API.", file=sys.stderr)
    return 1
