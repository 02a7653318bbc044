# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a model's own Modelfile sets of memory, against what a profile wants.

A PARAMETER wins over the server's environment, and an option of a request over both (server/routes.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import model_kinds

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Sized
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Show

OPTIONS = {"num_ctx": "num_ctx", "gpu_layers": "num_gpu", "num_batch": "num_batch"}  # by intent


def parameters(declared: Declared, shown: Show | None) -> dict[str, int]:
    """The options that a Modelfile sets, without those that the backend's requests carry."""
    backend = declared["backend"]
    carried = {OPTIONS.get(name, name) for name in (*backend.get("keys", ()), *backend.get("sends", ()))}
    found: Mapping[str, int] = (shown or {}).get("parameters") or {}
    return {option: value for option, value in found.items() if option not in carried}


def set_by_one(declared: Declared, shows: Mapping[str, Show], option: str, value: int | None) -> str | None:
    """Which Modelfile gives an option this value, where no request carries it."""
    for model, shown in shows.items():
        if value is not None and parameters(declared, shown).get(option) == value:
            return f"PARAMETER {option} {value} in the Modelfile of {model}"
    return None


def problems(declared: Sized, shows: Mapping[str, Show]) -> list[str]:
    """Why a profile is refused: a Modelfile takes more context than it lets, or keeps a model from the GPU."""
    intent = declared["profile"]["intent"]
    found = [
        f'PARAMETER {option} of {model} is the text "{value}", so that every load of it fails (option "{option}" '
        f"must be of another type): create the model with PARAMETER {option} {value} in a Modelfile, or by "
        "selo.gpu_memory.ollama_model, which sends numbers"
        for model, shown in shows.items()
        for option, value in (shown.get("as_text") or {}).items()
    ]
    for model, shown in _that_count(declared, shows).items():
        theirs, cure = parameters(declared, shown), "create the model without it, or use a profile with"
        context = _context(shown, theirs.get("num_ctx"))
        if context is not None and context > intent["num_ctx"]:
            found.append(
                f"PARAMETER num_ctx {theirs['num_ctx']} in the Modelfile of {model} wins over the profile's "
                f"{intent['num_ctx']}: {cure} num_ctx: {context} (gpu_memory_overrides.intent)"
            )
        if theirs.get("num_gpu") == 0 and intent.get("gpu_layers") != 0:
            found.append(
                f"PARAMETER num_gpu 0 in the Modelfile of {model} keeps it from the GPU: {cure} gpu_layers: 0 "
                "(gpu_memory_overrides.intent)"
            )
    return found


def notes(declared: Sized, shows: Mapping[str, Show]) -> list[str]:
    """Where a Modelfile takes less than the profile lets: the host is judged by that."""
    intent, found = declared["profile"]["intent"], []
    for model, shown in _that_count(declared, shows).items():
        theirs = parameters(declared, shown)
        context, layers = _context(shown, theirs.get("num_ctx")), theirs.get("num_gpu")
        if context is not None and context < (_context(shown, intent["num_ctx"]) or 0):
            found.append(
                f"PARAMETER num_ctx {theirs['num_ctx']} in the Modelfile of {model} wins over the profile's "
                f"{intent['num_ctx']}: it is less, and {model} is judged by it"
            )
        if layers is not None and layers >= 0:
            found.append(
                f"PARAMETER num_gpu {layers} in the Modelfile of {model} switches Ollama's fitting off for it, and "
                f"{model} is judged by it"
            )
    return found


def _context(shown: Show, num_ctx: int | None) -> int | None:
    trained = model_kinds.trained_context(shown)
    return num_ctx if num_ctx is None or trained is None else min(num_ctx, trained)


def _that_count(declared: Declared, shows: Mapping[str, Show]) -> dict[str, Show]:
    """The models that the profile's settings are about: those that write, or where none does all."""
    known = {name: shows.get(name) or {} for name in declared["models"] or shows}
    return {name: shown for name, shown in known.items() if not model_kinds.embeds_only(shown)} or known
