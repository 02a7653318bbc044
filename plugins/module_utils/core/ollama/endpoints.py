# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ollama's HTTP API: where each thing is asked for, to be put after the address, and bodies that are sent to many."""

from __future__ import annotations

VERSION, MODELS, LOADED, SHOW = "/api/version", "/api/tags", "/api/ps", "/api/show"
CHAT, GENERATE, EMBED, EMBED_OLD = "/api/chat", "/api/generate", "/api/embed", "/api/embeddings"
PULL, CREATE, COPY, DELETE = "/api/pull", "/api/create", "/api/copy", "/api/delete"


def named(model: str) -> dict[str, object]:
    """`model` is the key since 0.1.21, `name` the one before; every release takes both."""
    return {"model": model, "name": model}


def unloading(model: str) -> dict[str, object]:
    """For GENERATE: free it after its present requests."""
    return {"model": model, "keep_alive": 0}


def verbose(model: str) -> dict[str, object]:
    """For SHOW: with the values of all arrays, the tokenizer's too."""
    return {**named(model), "verbose": True}
