"""What the lab's backends share: their settings, a client for Ollama, an HTTP server."""

from __future__ import annotations

import http.server
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LINE = re.compile(
    r"""(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'((?:\\'|[^'])*)'|"((?:\\"|[^"])*)"|([^\r\n]*?))\s*(?:\s#.*)?$"""
)


def load_dotenv(path: Path) -> None:
    """Put what the file sets into the environment, as python-dotenv does.

    The last line of a key counts, and what is in the environment already stays.
    """
    values: dict[str, str] = {}
    for line in path.read_text().splitlines():
        match = LINE.match(line.strip())
        if match and not line.lstrip().startswith("#"):
            single, double, bare = match.group(2, 3, 4)
            value = single if single is not None else double.replace('\\"', '"') if double is not None else bare
            values[match[1]] = re.split(r"\s+#", value)[0].rstrip() if value is bare else value
    for name, value in values.items():
        os.environ.setdefault(name, value)


class OllamaRefused(Exception):
    """Ollama did not do what it was asked; the text says why."""


def ask_ollama(path: str, body: Mapping[str, Any]) -> Any:
    url = os.environ.get("OLLAMA_BASE_URL", "http://localhost:11434") + path
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise OllamaRefused(json.load(error).get("error")) from None
    except OSError as error:
        raise OllamaRefused(str(error)) from None


def chat(model: str, message: str, options: Mapping[str, int]) -> str:
    """The model's reply."""
    messages = [{"role": "user", "content": message}]
    answer = ask_ollama("/api/chat", {"model": model, "messages": messages, "options": options, "stream": False})
    return str(answer["message"]["content"])


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers in JSON. A backend says what it answers to a GET, and to the JSON object of a POST, or None: no route."""

    def got(self, path: str) -> tuple[int, Mapping[str, Any]] | None:
        raise NotImplementedError

    def posted(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer(self.got(self.path))

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            self.answer(self.posted(self.path, body if isinstance(body, dict) else {}))
        except ValueError:
            self.answer((422, {"detail": "the body is no JSON"}))
        except OllamaRefused as refused:
            self.answer((502, {"detail": f"Ollama: {refused}"}))

    def answer(self, result: tuple[int, Mapping[str, Any]] | None) -> None:
        status, body = result or (404, {"detail": "Not Found"})
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(handler: type[Handler], port: int, greeting: str) -> None:
    server = Server(("0.0.0.0", port), handler)
    print(greeting, flush=True)
    server.serve_forever()
