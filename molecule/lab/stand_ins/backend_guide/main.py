"""The lab's stand-in for the backend that the guide was written for. Started as the guide says: python main.py

POST /api/chat {"message": ..., "conversation_id": ...} asks Ollama with the memory options of the .env beside this
file; GET /health says that it runs. Before each chat it runs an encoder, which is simulated: its allocator takes GPU
memory in this process, and keeps it.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

sys.path.append(os.environ.get("LAB_HOME", "/opt/gpu-memory-lab") + "/simulated_gpu")
import simulated_gpu

HERE = Path(__file__).resolve().parent
LINE = re.compile(
    r"""(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(?:'((?:\\'|[^'])*)'|"((?:\\"|[^"])*)"|([^\r\n]*?))\s*(?:\s#.*)?$"""
)


def load_dotenv(path: Path) -> None:
    """Put what the file sets into the environment, as python-dotenv does: what is already there stays."""
    for line in path.read_text().splitlines():
        match = LINE.match(line.strip())
        if match and not line.lstrip().startswith("#"):
            single, double, bare = match.group(2, 3, 4)
            value = single if single is not None else double.replace('\\"', '"') if double is not None else bare
            os.environ.setdefault(match[1], re.split(r"\s+#", value)[0].rstrip() if value is bare else value)


def encoder_mib(num_ctx: int) -> int:
    """What the simulated encoder's allocator keeps: a fixed part, and one that grows with the square of the context."""
    return round(300 + 6144 * (num_ctx / 8192) ** 2)


def ask_ollama(message: str) -> str:
    """The model's reply. The options are what this backend makes of its settings."""
    options = {"num_ctx": int(os.environ["CHAT_NUM_CTX"]), "num_batch": 512}
    if os.environ.get("OLLAMA_GPU_LAYERS"):
        options["num_gpu"] = int(os.environ["OLLAMA_GPU_LAYERS"])
    body = {
        "model": os.environ["CHAT_MODEL"], "messages": [{"role": "user", "content": message}],
        "options": options, "stream": False,
    }  # fmt: skip
    url = os.environ.get("OLLAMA_BASE_URL", "http://localhost:11434") + "/api/chat"
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return str(json.load(answer)["message"]["content"])


class Handler(http.server.BaseHTTPRequestHandler):
    encoder = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, {"status": "healthy"})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        if self.path != "/api/chat":
            self.answer(404, {"detail": "Not Found"})
            return
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
            message, conversation = str(body["message"]), body.get("conversation_id")
        except (ValueError, KeyError, TypeError):
            self.answer(422, {"detail": "message is required"})
            return
        try:
            with self.encoder:
                simulated_gpu.reserve(encoder_mib(int(os.environ["CHAT_NUM_CTX"])))
            self.answer(200, {"response": ask_ollama(message), "conversation_id": conversation})
        except simulated_gpu.OutOfMemory as error:
            self.answer(500, {"detail": f"torch.cuda.OutOfMemoryError: CUDA out of memory. {error}"})
        except urllib.error.HTTPError as error:
            self.answer(502, {"detail": f"Ollama: {json.load(error).get('error')}"})
        except (OSError, KeyError) as error:
            self.answer(502, {"detail": f"Ollama: {error}"})

    def answer(self, status: int, body: dict[str, str | None]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main() -> None:
    load_dotenv(HERE / ".env")
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8000"))), Handler)
    print(
        f"SELO backend (the lab's stand-in): {os.environ['CHAT_MODEL']}, num_ctx {os.environ['CHAT_NUM_CTX']}",
        flush=True,
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
