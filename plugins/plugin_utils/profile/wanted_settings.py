# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a host should say: the profile's intent in the words of its Ollama and its backend. Pure."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import gguf, model_shape
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu, Nvml
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts, OllamaRead
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles

FITTED_BY_OLLAMA = "-1"  # as num_gpu: Ollama chooses the layers, and a margin counts (api/types.go)
PROJECTOR_GRAPH_MIB = 1024  # what Ollama adds for a projector's own graph, unless a margin is set (llm/llama_server.go)


def version_text(declared: Declared, read: OllamaRead) -> str | None:
    return declared["ollama"]["version"] or read["ollama"]["api"]["version"]


def version_of(declared: Declared, read: OllamaRead) -> settings.Version | None:
    return settings.parse_version(version_text(declared, read))


def usable_gpus(nvml: Nvml) -> list[Gpu]:
    """GPUs that can be read; others are reported as problems."""
    return [gpu for gpu in nvml.get("gpus") or [] if not gpu.get("error")]


def ollamas_gpus(nvml: Nvml) -> list[Gpu]:
    """The readable GPUs that this Ollama may put a model on, as it counts them; else as NVML does.

    They may be more than those that were named to be judged.
    """
    every = {gpu["uuid"]: gpu for gpu in [*usable_gpus(nvml), *(nvml.get("ignored") or [])] if not gpu.get("error")}
    order = nvml.get("order") or []
    return [every[uuid] for uuid in order if uuid in every] or usable_gpus(nvml)


def ollama_environment(declared: Sized, read: HostFacts) -> tuple[dict[str, str], list[str]]:
    """What our drop-in says, and the intents that this release has no setting for.

    A margin and a cap exclude each other: where the requests of the backend carry layers that cap a model, a margin
    would have no effect on it, and is not written.
    """
    profile = declared["profile"]
    margins = [] if caps(declared, read) and _carrier(declared) else margins_mib(declared, read)
    return settings.ollama_environment(profile["intent"], margins, version_of(declared, read))


def margins_mib(declared: Sized, read: HostFacts) -> list[int]:
    """For each GPU of Ollama's what fitting must leave free, in MiB; empty where the profile has no threshold.

    The first is that of a GPU that gets a model alone, too, whichever it is (llama-server then sees no other): so it is
    the largest.
    Since 0.31.2 Ollama leaves room for a model's projector by itself, but not where a margin is set.
    """
    margins = settings.margins_mib(ollamas_gpus(read["nvml"]), declared["profile"]["max_used_mib"])
    margins[:1] = [max(margins)] if margins else []
    version = version_of(declared, read)
    if version is None or version < settings.PROJECTOR_ADDED:
        return margins
    projectors = [-(-model.projector_bytes // gguf.MIB) for model in served(declared, read) if model is not None]
    room = max((mib + PROJECTOR_GRAPH_MIB for mib in projectors if mib), default=0)
    return [margin + room for margin in margins]


def backend_env(declared: Sized, read: HostFacts) -> dict[str, str]:
    """What the backend's files say: the profile's own keys as written, and intents in the keys that this backend takes.

    Layers that cap nothing are not sent as a number, which would switch Ollama's fitting off, but left to Ollama.
    """
    profile, keys = declared["profile"], declared["backend"]["keys"]
    ours = profiles.carried(profile["env"], profile["intent"], keys)
    if _carrier(declared) in ours and caps(declared, read) is False:
        ours[keys["gpu_layers"]] = FITTED_BY_OLLAMA
    return {**profile["env"], **ours}


def caps(declared: Sized, read: HostFacts) -> bool | None:
    """Whether the profile's `gpu_layers` keeps layers of a served model from the GPU; None where that is not known."""
    layers = declared["profile"]["intent"].get("gpu_layers")
    models = served(declared, read)
    if layers is None or not models:
        return None
    if any(model is not None and layers < model.offloadable for model in models):
        return True
    return None if None in models else False


def _carrier(declared: Sized) -> str | None:
    """The variable whose value the backend sends as num_gpu."""
    variable: str | None = declared["backend"]["keys"].get("gpu_layers")
    return variable


def served(declared: Sized, read: HostFacts) -> list[model_shape.Model | None]:
    """The models that the host serves as far as `/api/show` tells them; None for one that it does not tell."""
    shown = read["ollama"]["api"]["show"]
    models: list[model_shape.Model | None] = []
    for name in declared["models"] or shown:
        try:
            models.append(model_shape.Model.from_show(shown[name]))
        except (KeyError, gguf.ModelUnreadable):
            models.append(None)
    return models
