"""The lab's stand-in for the SELO backend as its public source behaves, which is not as the guide has it.

POST /chat {"session_id": ..., "prompt": ...} looks for memories by an embedding, reflects with a small model, and then
answers with the large one. Every request carries `num_gpu` of OLLAMA_NUM_GPU, by default 1: one layer on the GPU; and
`gpu_layers` of OLLAMA_GPU_LAYERS, which Ollama does not know. Nothing here takes GPU memory itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(os.environ.get("LAB_HOME", "/opt/gpu-memory-lab") + "/stand_ins")
import backend

HERE = Path(__file__).resolve().parent


def options() -> dict[str, int]:
    """What goes with each request to a model that writes."""
    numbers = {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_GPU_LAYERS"}
    given = {option: int(os.environ[name]) for option, name in numbers.items() if os.environ.get(name)}
    return {"num_gpu": int(os.environ.get("OLLAMA_NUM_GPU", "1")), **given}


def turn(prompt: str) -> str:
    backend.ask_ollama("/api/embed", {"model": os.environ["EMBEDDING_MODEL"], "input": prompt})
    reflection = backend.chat(os.environ["REFLECTION_LLM"], f"Reflect on: {prompt}", options())
    return backend.chat(os.environ["CONVERSATIONAL_MODEL"], f"{reflection}\n{prompt}", options())


class Handler(backend.Handler):
    def got(self, path: str) -> tuple[int, Mapping[str, Any]] | None:
        if path in ("/health", "/api/health"):
            return 200, {"status": "healthy"}
        if path == "/diagnostics/gpu":
            return 200, {"memory_fraction": os.environ.get("TORCH_CUDA_MEMORY_FRACTION"), "faiss": "cpu"}
        return None

    def posted(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
        if path != "/chat":
            return None
        if not body.get("session_id") or not body.get("prompt"):
            return 422, {"detail": "session_id and prompt are required"}
        return 200, {"session_id": body["session_id"], "response": turn(str(body["prompt"]))}


def main() -> None:
    backend.load_dotenv(HERE / ".env")
    models = ", ".join(os.environ[name] for name in ("CONVERSATIONAL_MODEL", "REFLECTION_LLM", "EMBEDDING_MODEL"))
    port = int(os.environ.get("SELO_AI_PORT", "8000"))
    backend.serve(Handler, port, f"SELO backend (the lab's stand-in): {models}, {options()}")


if __name__ == "__main__":
    main()
