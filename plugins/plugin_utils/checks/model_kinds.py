# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model is for and was trained for, by what Ollama shows of it, and which are none of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Show


EMBEDDER_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe"}


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


def trained_context(shown: Show) -> int | None:
    """The longest context that a model was trained for; no runner gets more."""
    info = shown.get("model_info") or {}
    found = info.get(f"{info.get('general.architecture')}.context_length")
    return found if isinstance(found, int) and found > 0 else None


def none_of(models: Sequence[str], others: Sequence[str]) -> list[str]:
    """The models that are none of the others, by whatever names."""
    return [model for model in models if not model_name.listed(model, others)]
