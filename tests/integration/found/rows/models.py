"""Found hosts: models, and how they are loaded."""

from __future__ import annotations

import json

from tests.integration.faults.fault_lab import BACKEND
from tests.integration.found.condition import Found
from tests.integration.found.rows.servers import another

CHAT, EMBEDDER, SMALL, CLOUD = "llama3.1:8b-instruct-q8_0", "nomic-embed-text", "qwen2.5:3b", "gpt-oss:120b-cloud"

PULL_CLOUD = f"""
curl -sf localhost:11434/api/create -d '{{"model": "{CLOUD}", "from": "gpt-oss:120b", "remote_host": "https://ollama.com"}}'
"""
# What the lab's Ollama takes for it: it then answers for its cloud.
SIGN_IN = "touch /usr/share/ollama/.ollama/models/lab-signed-in\n"


def copy_of(model: str, name: str) -> str:
    return f"""
curl -sf localhost:11434/api/copy -d '{{"source": "{model}", "destination": "{name}"}}'
"""


def own_parameters(**parameters: int | str) -> str:
    body = json.dumps({"model": "mychat", "from": CHAT, "parameters": parameters})
    return f"""
curl -sf localhost:11434/api/create -d '{body}'
"""


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
        copy_of(SMALL, "copy"),
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
        "backend_that_asks_another_ollama",
        another("second-ollama", port=11500)
        + f"""
sed -i 's|localhost:11434|localhost:11500|; s|^CHAT_MODEL=.*|CHAT_MODEL={SMALL}|' {BACKEND}/.env
systemctl restart selo-backend
""",
        "rolled_back",
        ("the backend's requests made Ollama at http://127.0.0.1:11434 use no model", "see where it sends them"),
        "run-llama/llama_index#11321",
        backend="guide",
        variables={"gpu_memory_models": [EMBEDDER]},
    ),
    Found(
        "other_names_of_a_model",
        "",
        "pass",
        ("3 chats at once", "one after another: registry.ollama.ai/library/nomic-embed-text (1 of 1"),
        "ollama/ollama#6783",
        variables={
            "gpu_memory_backend": "none",
            "gpu_memory_models": ["Qwen2.5:3B", "registry.ollama.ai/library/nomic-embed-text"],
        },
    ),
    Found(
        "modelfile_with_a_larger_context",
        own_parameters(num_ctx=16384),
        "refused",
        ("PARAMETER num_ctx 16384 in the Modelfile of mychat wins", "create the model without it, or use a profile"),
        "ollama/ollama#12927",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["mychat"]},
    ),
    Found(
        "modelfile_with_a_number_as_text",
        own_parameters(num_ctx="4096"),
        "refused",
        ('PARAMETER num_ctx of mychat is the text "4096"', "PARAMETER num_ctx 4096 in a Modelfile"),
        "https://github.com/ollama/ollama/blob/main/api/types.go",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["mychat"]},
    ),
    Found(
        "modelfile_with_less_than_the_profile",
        own_parameters(num_ctx=2048, num_gpu=10),
        "pass",
        (
            "PARAMETER num_ctx 2048 in the Modelfile of mychat",
            "PARAMETER num_gpu 10 in the Modelfile of mychat",
            "of 2048 tokens",
            "requests carry num_gpu=10",
        ),
        "ollama/ollama#12927",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["mychat"]},
    ),
    Found(
        "modelfile_whose_context_the_backend_overrides",
        own_parameters(num_ctx=16384)
        + f"""
sed -i 's|^CHAT_MODEL=.*|CHAT_MODEL=mychat|' {BACKEND}/.env
systemctl restart selo-backend
""",
        "pass",
        ("of 4096 tokens",),
        "ollama/ollama#12927",
        backend="guide",
        variables={"gpu_memory_models": ["mychat"]},
    ),
    Found(
        "cloud_model_declared",
        "",
        "refused",
        (f"{CLOUD} is a cloud model", "take it out of gpu_memory_models"),
        "SirUli/homeassistant-ollama-addon#219",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [CHAT, CLOUD]},
    ),
    Found(
        "cloud_model_listed_and_signed_in",
        PULL_CLOUD + SIGN_IN,
        "refused",
        (f"{CLOUD} is a cloud model", "take it out of gpu_memory_models"),
        "ollama/ollama#14824",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [CHAT, CLOUD]},
    ),
    Found(
        "cloud_model_listed_under_another_name",
        PULL_CLOUD + SIGN_IN + copy_of(CLOUD, "mine"),
        "refused",
        ("mine is a cloud model", "take it out of gpu_memory_models"),
        "ollama/ollama#14824",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["mine"]},
    ),
    Found(
        "cloud_model_listed_and_not_declared",
        PULL_CLOUD,
        "pass",
        ("3 chats at once", "0 errors"),
        "ollama/ollama#14824",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": [SMALL]},
        hidden=(CLOUD,),
    ),
    Found(
        "cloud_model_found_by_discover",
        PULL_CLOUD + SIGN_IN + copy_of(SMALL, "own:8b-cloud"),
        None,
        (CHAT, EMBEDDER),
        "ollama/ollama#14824",
        playbook="playbooks/discover.yml",
        hidden=(CLOUD, "own:8b-cloud"),
    ),
    Found(
        "model_of_the_host_with_a_tag_of_the_cloud",
        copy_of(SMALL, "own:8b-cloud"),
        "refused",
        ("own:8b-cloud is on this host", "sends whatever is asked of a tag like that to its cloud", "ollama cp"),
        "ollama/ollama#14574",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["own:8b-cloud"]},
    ),
    Found(
        "model_that_is_only_called_cloud",
        copy_of(SMALL, "own-cloud"),
        "pass",
        ("3 chats at once", "0 errors"),
        "ollama/ollama#14574",
        variables={"gpu_memory_backend": "none", "gpu_memory_models": ["own-cloud"]},
    ),
]
