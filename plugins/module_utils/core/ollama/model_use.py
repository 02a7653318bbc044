# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model is used: chatted with, asked for embeddings, or somewhere else than on this host. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, model_name, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.architectures import SINGLE_SLOT_FAMILIES

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.facts import ListedModel, Show
    from ansible_collections.selo.gpu_memory.plugins.module_utils.core.contract.load import ModelRequest

TEXTS = ("Tell me a story", "What is AI?", "Explain how a GPU works")
REPLY_TOKENS = 256  # some models never end by themselves
EMBEDDER_BATCH, EMBEDDER_BATCH_UNTIL_029 = (
    2048,
    512,
)  # what an embedder reads at once; of a longer text it reads no more
EMBEDDER_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe"}
CLOUD_TAG = re.compile(r":([^:/]*-)?cloud\Z", re.IGNORECASE)


def embeds_only(shown: Show | None) -> bool:
    """Whether a model, by what /api/show says of it, gives embeddings and no text.

    Ollama names capabilities since 0.6.4; before that an encoder shows by how it pools, or by its family.
    """
    shown = shown or {}
    capabilities = shown.get("capabilities")
    if capabilities:
        return "embedding" in capabilities and "completion" not in capabilities
    if any(str(key).endswith(".pooling_type") for key in shown.get("model_info") or {}):
        return True
    return str((shown.get("details") or {}).get("family")) in EMBEDDER_FAMILIES


def request(
    model: str, shown: Show | None, url: str, num_ctx: int, at_once: int, version: settings.Version | None
) -> ModelRequest:
    """How Ollama itself is asked for a model: `model` and the request of a load for gpu_memory_assert.

    A model that writes gets `at_once` requests, one that only embeds has one slot whatever is declared, and gets one.
    No option that changes memory is sent: the server's own settings must hold for a client that says nothing.
    """
    shown = shown or {}
    own_context = (shown.get("parameters") or {}).get("num_ctx") or num_ctx  # by the Modelfile
    context = min(num_ctx, own_context, trained_context(shown) or num_ctx)
    if embeds_only(shown):
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


def has_one_slot(shown: Show) -> bool:
    """Whether Ollama starts a model with one slot, whatever is asked for (server/sched.go)."""
    details, info = shown.get("details") or {}, shown.get("model_info") or {}
    families = {details.get("family"), *(details.get("families") or ()), info.get("general.architecture")}
    return bool(families & SINGLE_SLOT_FAMILIES) or embeds_only(shown)


def trained_context(shown: Show) -> int | None:
    """The longest context that a model was trained for; no runner gets more."""
    info = shown.get("model_info") or {}
    found = info.get(f"{info.get('general.architecture')}.context_length")
    return found if isinstance(found, int) and found > 0 else None


def listed(model: str, models: Sequence[ListedModel]) -> ListedModel | None:
    """The model in what /api/tags lists, by its name as Ollama reads it."""
    return next((one for one in models if model_name.same(model, str(one["name"]))), None)


def is_elsewhere(model: str, models: Sequence[ListedModel], version: settings.Version | None) -> bool:
    """Whether requests to a model leave the host: it is listed as remote, or its tag is that of Ollama's cloud.

    Since such a tag needs no listing, a model of this host that has one cannot be asked for any more.
    """
    found = listed(model, models)
    if found and found.get("remote"):
        return True
    by_tag = CLOUD_TAG.search(model) is not None
    return by_tag and (found is None or version is None or version >= settings.CLOUD_BY_TAG)


def is_embedders(command: Sequence[str], shows: Mapping[str, Show]) -> bool:
    """Whether a runner was started for a model that only embeds; before 0.30 its command line has the file alone."""
    if "--embedding" in command:
        return True
    blob = blob_of(command)
    return any(blob and show and show.get("blob") == blob and embeds_only(show) for show in shows.values())


def blob_of(command: Sequence[str]) -> str | None:
    """The model's file on a runner's command line."""
    return next((value for name, value in zip(command, command[1:]) if name == "--model"), None)


def none_of(models: Sequence[str], others: Sequence[str]) -> list[str]:
    """The models that are none of the others, by whatever names."""
    return [model for model in models if not model_name.listed(model, others)]
