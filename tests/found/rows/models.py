"""Found hosts: models, and how they are loaded."""

from __future__ import annotations

from tests.found.condition import Found

CHAT, EMBEDDER, SMALL, CLOUD = "llama3.1:8b-instruct-q8_0", "nomic-embed-text", "qwen2.5:3b", "gpt-oss:120b-cloud"

ROWS: list[Found] = [
    Found(
        "chat_model_and_embedder",
        "",
        "pass",
        ("3 chats at once", "0 errors", f"then, one after another: {EMBEDDER} (1 of 1 of up to"),
        "karakeep-app/karakeep#2060",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [CHAT, EMBEDDER]},
        short=True,
    ),
    Found(
        "more_models_than_run_at_once",
        f"""curl -sf localhost:11434/api/copy -d '{{"source": "{SMALL}", "destination": "copy"}}'""",
        "pass",
        (
            "3 chats at once",
            "0 errors",
            "0 reloads beyond plan",
            "one after another: copy (3 of 3 of up to",
            "llama3.2:3b-instruct-q8_0 (3 of 3 of up to",
            f"{CHAT} (3 of 3 of up to",
            f"{EMBEDDER} (1 of 1 of up to",
        ),
        "open-webui/open-webui#2181",
        variables={
            "gpu_memory_backend": "none",
            "gpu_memory_models": [SMALL, "copy", "llama3.2:3b-instruct-q8_0", CHAT, EMBEDDER],
        },
    ),
    Found(
        "embedder_alone",
        "",
        "pass",
        ("embeddings of up to", "0 errors", "all that the model was trained for", "as any of this kind of model"),
        "ollama/ollama#8778",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [EMBEDDER]},
        short=True,
    ),
    Found(
        "models_that_the_backend_does_not_use",
        "",
        "pass",
        (
            "3 chats at once",
            f"then, one after another: {SMALL} (3 of 3 of up to",
            f"{EMBEDDER} (1 of 1 of up to",
            "runner has -c 8192 (= 4096 x 2)",
        ),
        "Tencent/WeKnora#3480",
        backend="guide",
        variables={"gpu_memory_models": [CHAT, SMALL, EMBEDDER]},
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
