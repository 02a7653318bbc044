# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ollama itself is asked for a model in a load test: as it is used, and with a prompt as long as it reads."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import model_kinds
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Show
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import ModelRequest

TEXTS = ("Tell me a story", "What is AI?", "Explain how a GPU works")
REPLY_TOKENS = 256  # some models never end by themselves
# What an embedder reads at once; of a longer text it reads no more.
EMBEDDER_BATCH, EMBEDDER_BATCH_UNTIL_029 = 2048, 512


def request(
    model: str, shown: Show | None, url: str, num_ctx: int, at_once: int, version: settings.Version | None
) -> ModelRequest:
    """How Ollama itself is asked for a model: `model` and the request of a load for gpu_memory_assert.

    A model that writes gets `at_once` requests, one that only embeds has one slot whatever is declared, and gets one.
    No option that changes memory is sent: the server's own settings must hold for a client that says nothing.
    """
    shown = shown or {}
    own_context = (shown.get("parameters") or {}).get("num_ctx") or num_ctx  # by the Modelfile
    context = min(num_ctx, own_context, model_kinds.trained_context(shown) or num_ctx)
    if model_kinds.embeds_only(shown):
        old = version is not None and version < settings.EMBED_ROUTE
        engine = version is None or version >= settings.ENGINE
        path, prompt_at = (endpoints.EMBED_OLD, "prompt") if old else (endpoints.EMBED, "input")
        return {
            "model": model,
            "url": url + path,
            "bodies": [{"model": model, prompt_at: TEXTS[0]}],
            "prompt_at": prompt_at,
            "context_tokens": min(context, EMBEDDER_BATCH if engine else EMBEDDER_BATCH_UNTIL_029),
            "requests": 1,
        }
    chats = "completion" in (shown.get("capabilities") or ["completion"])
    common = {"model": model, "options": {"num_predict": REPLY_TOKENS}}
    return {
        "model": model,
        "url": url + (endpoints.CHAT if chats else endpoints.GENERATE),
        "bodies": [
            {**common, **({"messages": [{"role": "user", "content": text}]} if chats else {"prompt": text})}
            for text in TEXTS
        ],
        "prompt_at": "messages.0.content" if chats else "prompt",
        "context_tokens": context,
        "requests": at_once,
    }
