"""The lab's stand-in for the backend that the guide was written for. Started as the guide says: python main.py

POST /api/chat {"message": ..., "conversation_id": ...} asks Ollama with the memory options of the .env beside this
file; GET /health says that it runs. Before each chat it runs an encoder, which is simulated: its allocator takes GPU
memory in this process, and keeps it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(os.environ.get("LAB_HOME", "/opt/gpu-memory-lab") + "/stand_ins")
sys.path.append(os.environ.get("LAB_HOME", "/opt/gpu-memory-lab") + "/simulated_gpu")
import backend
import simulated_gpu

HERE = Path(__file__).resolve().parent


def encoder_mib(num_ctx: int) -> int:
    """What the simulated encoder's allocator keeps: a fixed part, and one that grows with the square of the context."""
    return round(300 + 6144 * (num_ctx / 8192) ** 2)


def reply(message: str) -> str:
    """The model's reply. The options are what this backend makes of its settings."""
    options = {"num_ctx": int(os.environ["CHAT_NUM_CTX"]), "num_batch": 512}
    if os.environ.get("OLLAMA_GPU_LAYERS"):
        options["num_gpu"] = int(os.environ["OLLAMA_GPU_LAYERS"])
    return backend.chat(os.environ["CHAT_MODEL"], message, options)


class Handler(backend.Handler):
    encoder = threading.Lock()

    def got(self, path: str) -> tuple[int, Mapping[str, Any]] | None:
        return (200, {"status": "healthy"}) if path == "/health" else None

    def posted(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
        if path != "/api/chat":
            return None
        if "message" not in body:
            return 422, {"detail": "message is required"}
        try:
            with self.encoder:
                simulated_gpu.reserve(encoder_mib(int(os.environ["CHAT_NUM_CTX"])))
        except simulated_gpu.OutOfMemory as error:
            return 500, {"detail": f"torch.cuda.OutOfMemoryError: CUDA out of memory. {error}"}
        return 200, {"response": reply(str(body["message"])), "conversation_id": body.get("conversation_id")}


def main() -> None:
    backend.load_dotenv(HERE / ".env")
    settings = f"{os.environ['CHAT_MODEL']}, num_ctx {os.environ['CHAT_NUM_CTX']}"
    backend.serve(Handler, int(os.environ.get("PORT", "8000")), f"SELO backend (the lab's stand-in): {settings}")


if __name__ == "__main__":
    main()
