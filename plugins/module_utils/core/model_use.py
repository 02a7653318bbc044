# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a model is used: chatted with, asked for embeddings, or somewhere else than on this host. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

EMBEDDER_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe"}
CLOUD_SUFFIXES = (":cloud", "-cloud")


def embeds_only(shown: Mapping[str, Any] | None) -> bool:
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


def listed(model: str, models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The model in what /api/tags lists, by its name with or without the tag `latest`."""
    return next((one for one in models if one["name"] in (model, f"{model}:latest")), None)


def is_elsewhere(model: str, models: Sequence[Mapping[str, Any]]) -> bool:
    """Whether requests to a model leave the host: it is listed as remote, or named as Ollama names its cloud models."""
    found = listed(model, models)
    return bool(found.get("remote")) if found else model.endswith(CLOUD_SUFFIXES)


def not_loaded(models: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The models that no answer of /api/ps lists and of whose file no runner was started.

    `before` and `after`: `ollama` of gpu_memory_info; the journal of `after` begins with the load test.
    """
    loaded = [one for read in (before, after) for one in read["api"]["loaded"]]
    commands = [load["command"] for load in after["journal"]["loads"]]
    files = {command[place + 1] for command in commands for place, word in enumerate(command[:-1]) if word == "--model"}
    blobs = {model: (after["api"]["show"].get(model) or {}).get("blob") for model in models}
    # A model whose file is not known may be any of those that were started.
    return [model for model in models if not listed(model, loaded) and blobs[model] and blobs[model] not in files]
