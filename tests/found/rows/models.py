"""Found hosts: models, and how they are loaded."""

from __future__ import annotations

from tests.found.condition import Found

CHAT, EMBEDDER, SMALL, CLOUD = "llama3.1:8b-instruct-q8_0", "nomic-embed-text", "qwen2.5:3b", "gpt-oss:120b-cloud"

ROWS: list[Found] = [
    Found(
        "chat_model_and_embedder",
        "",
        "pass",
        ("4 chats at once", "0 errors"),
        "karakeep-app/karakeep#2060",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [CHAT, EMBEDDER]},
        short=True,
    ),
    Found(
        "more_models_than_run_at_once",
        f"""curl -sf localhost:11434/api/copy -d '{{"source": "{SMALL}", "destination": "copy"}}'""",
        "pass",
        ("5 chats at once", "0 errors"),
        "open-webui/open-webui#2181",
        variables={
            "gpu_memory_backend": "none",
            "gpu_memory_models": [SMALL, "copy", "llama3.2:3b-instruct-q8_0", CHAT, EMBEDDER],
        },
    ),
    Found(
        "cloud_model_declared",
        "",
        "refused",
        (f"{CLOUD} is a cloud model", "take it out of gpu_memory_models"),
        "SirUli/homeassistant-ollama-addon#219",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [CHAT, CLOUD]},
    ),
]
