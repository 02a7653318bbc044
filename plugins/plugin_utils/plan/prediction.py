# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a profile will use on a host, before it is deployed: the planner asked with what was declared and read. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings as ollama_settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import modelfiles, other_servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu, GpuProcess
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Predicted
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import calibration
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import memory_parts

OPTIONS_OF_MEMORY = ("num_ctx", "num_batch", "draft_num_predict")


def predict(declared: Sized, read: HostFacts, version: str | None) -> tuple[Predicted | None, list[str]]:
    """GPU memory of the models that a profile lets load together, in MiB by term, and notes on what is not known.

    None where no model was declared, or none of them can be planned. `band_mib` is the range of the total.
    `others_mib` is what neither Ollama nor the backend holds now, so what will be there besides; `others` says who.
    """
    if not version:
        return None, []
    models, notes = readable_models(read)
    plans: dict[str, planner.Plan] = {}
    measured_at: dict[str, float | None] = {}
    for name, model in models.items():
        try:
            loaded_as = as_loaded(declared, read, name, model, version, others_mib(declared, read))
            plans[name], measured_at[name] = calibration.planned(read, name, model, loaded_as, version)
        except planner.ScenarioInvalid as problem:
            notes.append(f"{name} cannot be planned: {problem}")
    if not plans:
        return None, notes
    loaded = loaded_together(declared, read, plans, version)
    together = planner.combined([plans[name] for name in loaded])
    band = together.band_mib.get("total_mib", [together.total_mib, together.total_mib])
    return {
        "models": list(loaded),
        "weights_mib": round(together.weights_mib),
        "kv_mib": round(together.kv_mib),
        "compute_mib": round(together.compute_mib),
        "op_offload_mib": round(together.op_offload_mib),
        "runtime_mib": round(together.runtime_mib),
        "total_mib": round(together.total_mib),
        "host_mib": round(together.host_mib),
        "band_mib": [round(band[0]), round(band[1])],
        "offloaded_layers": together.offloaded_layers,
        "offloadable_layers": together.offloadable_layers,
        "partial_layers": together.partial_layers,
        "others_mib": others_mib(declared, read),
        "others": others(read),
        # When compute and runtime of each were measured here, Unix time; None: they are predicted.
        "measured_at": {name: measured_at[name] for name in loaded},
        "warnings": _warnings({name: plans[name] for name in loaded}, of_several=len(plans) > 1),
    }, notes


def _warnings(plans: Mapping[str, planner.Plan], of_several: bool) -> list[str]:
    """Each warning once; of one model among several it says of which."""
    texts = list(dict.fromkeys(text for plan in plans.values() for text in plan.warnings))
    if not of_several:
        return texts
    return [f"{', '.join(name for name, plan in plans.items() if text in plan.warnings)}: {text}" for text in texts]


def readable_models(read: HostFacts) -> tuple[dict[str, planner.Model], list[str]]:
    """The models that `/api/show` described well enough, by name, and what is wrong with the others."""
    models: dict[str, planner.Model] = {}
    problems = []
    for name, show in read["ollama"]["api"]["show"].items():
        try:
            models[name] = planner.Model.from_show(show)
        except planner.ModelUnreadable as problem:
            problems.append(f"{name} cannot be planned: {problem}")
    return models, problems


def told(declared: Sized, read: HostFacts, name: str) -> launch.Told:
    """What llama-server will be told of a model under the profile."""
    intent, backend = declared["profile"]["intent"], declared["backend"]
    environment = {
        **drift.server_environment(declared, read),
        # By whichever way this release has it: the server's variable, or what requests carry.
        "OLLAMA_CONTEXT_LENGTH": str(intent["num_ctx"]),
        "OLLAMA_NUM_PARALLEL": str(intent["num_parallel"]),
    }
    of_model = modelfiles.parameters(declared, read["ollama"]["api"]["show"].get(name))
    # Nothing on the server pins the batch, so only what the backend is known to send and the Modelfile count.
    options = {
        **{option: value for option, value in backend.get("sends", {}).items() if option in OPTIONS_OF_MEMORY},
        "num_gpu": asked_layers(declared, read, name),
    }
    return launch.told(environment, of_model, options, wanted_settings.version_of(declared, read))


def scenario(declared: Sized, read: HostFacts, name: str) -> planner.Scenario:
    """The settings that Ollama will load a model with under the profile. Raises ScenarioInvalid."""
    found = told(declared, read, name)
    if found.refused:
        raise planner.ScenarioInvalid(found.refused)
    return planner.Scenario.from_dict(found.scenario)


def asked_layers(declared: Sized, read: HostFacts, name: str) -> int | None:
    """The num_gpu that the backend's requests will carry under the profile, or else the model's Modelfile; or None.

    What the profile does not set stays as the backend's files have it, the first of them winning.
    """
    variable = declared["backend"]["keys"].get("gpu_layers")
    if variable is None:
        return modelfiles.parameters(declared, read["ollama"]["api"]["show"].get(name)).get("num_gpu")
    files: list[Mapping[str, str | None]] = [
        wanted_settings.backend_env(declared, read),
        *((file.get("values") or {}) for file in read["backend"]["env_files"]),
    ]
    return profiles.canonical_int(next((values[variable] for values in files if values.get(variable)), None))


def as_loaded(
    declared: Sized,
    read: HostFacts,
    name: str,
    model: planner.Model,
    version: str,
    taken_mib: float,
) -> planner.Scenario:
    """The settings with the layers that really go to the GPU. Raises ScenarioInvalid.

    As many as requests ask for; where they ask for none, as many as Ollama's fitting leaves on the only GPU, of which
    `taken_mib` are not Ollama's. On several GPUs a model may spread, so that there all are expected to fit.
    """
    asked, fitting = scenario(declared, read, name), told(declared, read, name)
    if asked.num_gpu >= 0 or not fitting.fits:
        return asked
    gpus = [gpu for gpu in read["nvml"]["gpus"] if not gpu.get("error")]
    if len(gpus) != 1:
        return asked
    left_free_mib = _left_free_mib(declared, read, version, fitting.margin_mib)
    free = gpus[0]["total_mib"] - (gpus[0].get("reserved_mib") or 0) - left_free_mib - taken_mib
    return planner.fitted(model, asked, free, ollama_version=version)


def _left_free_mib(declared: Sized, read: HostFacts, version: str, theirs_mib: int | None) -> int:
    """What fitting leaves free: the profile's margin where this release has a setting for it, else what others set."""
    release = ollama_settings.parse_version(version)
    environment, _unheard = wanted_settings.ollama_environment(declared, read)
    if ollama_settings.MARGINS & set(environment):
        return wanted_settings.margins_mib(declared, read)[0]
    return launch.left_free_mib(theirs_mib, release)


def loaded_together(
    declared: Sized, read: HostFacts, plans: Mapping[str, planner.Plan], version: str
) -> tuple[str, ...]:
    """The models that take the most while they are loaded together, as Ollama's release and the profile let them.

    On several GPUs they may lie apart, so that only `max_loaded_models` limits them there.
    """
    gpus = [gpu for gpu in read["nvml"]["gpus"] if not gpu.get("error")]
    return planner.largest_set(
        plans,
        declared["profile"]["intent"].get("max_loaded_models", 0),
        ollama_version=version,
        gpu_total_mib=gpus[0]["total_mib"] - (gpus[0].get("reserved_mib") or 0) if len(gpus) == 1 else None,
        other_used_mib=others_mib(declared, read),
    )


def others_mib(declared: Sized, read: HostFacts) -> int:
    """The largest share, over the GPUs, of processes that are neither Ollama's nor the backend's."""
    return max(
        (
            sum(process["used_mib"] or 0 for process in processes_of_others(read, gpu))
            for gpu in read["nvml"]["gpus"]
            if not gpu.get("error")
        ),
        default=0,
    )


def others(read: HostFacts) -> list[str]:
    """Who holds memory besides, the largest first, as `name MIB`."""
    gpus = [gpu for gpu in read["nvml"]["gpus"] if not gpu.get("error")]
    found = [process for gpu in gpus for process in processes_of_others(read, gpu) if process["used_mib"]]
    found.sort(key=lambda process: -(process["used_mib"] or 0))
    owners = memory_parts.known([read])
    return [f"{memory_parts.name_of(process, owners)} {process['used_mib']}" for process in found]


def crowded_out(predicted: Predicted | None, declared: Sized, read: HostFacts) -> str | None:
    """Why a profile is refused: what other Ollamas hold keeps planned layers from the GPU, so no proof could pass."""
    strangers, gpu_layers = other_ollamas(read), declared["profile"]["intent"].get("gpu_layers")
    if predicted is None or not strangers:
        return None
    if all((asked_layers(declared, read, name) or 0) > 0 for name in predicted["models"]):
        return None  # not fitted into what is free
    layers, all_layers = predicted["offloaded_layers"], predicted["offloadable_layers"]
    planned = all_layers if gpu_layers is None else min(gpu_layers, all_layers)
    whole = layers - predicted.get("partial_layers", 0)
    if whole >= planned:
        return None
    return (
        f"beside other Ollamas only {whole} of {planned} planned layers of {', '.join(predicted['models'])} go to the "
        f"GPU: {'; '.join(strangers)}"
    )


def other_ollamas(read: HostFacts) -> list[str]:
    """A note on each process of another Ollama, or of one that is gone, that holds GPU memory."""
    held: dict[int, int] = {}
    for gpu in read["nvml"].get("gpus") or []:
        for process in gpu.get("processes") or []:
            held[process["pid"]] = held.get(process["pid"], 0) + (process["used_mib"] or 0)
    return [other_servers.other_note(one, held.get(one["pid"], 0)) for one in read["ollama"].get("others") or []]


def processes_of_others(read: HostFacts, gpu: Gpu) -> list[GpuProcess]:
    """Those processes on a GPU that are neither Ollama's nor the backend's.

    Where this Ollama's own cannot be told from those that the host does not see, neither are these.
    """
    owners, hidden = memory_parts.known([read]), hides_runners(read)
    return [
        process
        for process in gpu["processes"]
        if memory_parts.kind_of(process, owners) == memory_parts.OTHERS and not (hidden and process["name"] is None)
    ]


def hides_runners(read: HostFacts) -> bool:
    """Whether the driver lists processes of another pid namespace: runners are here, and it names none of them."""
    runners = {runner["pid"] for runner in read["ollama"]["runners"]}
    listed = {process["pid"] for gpu in read["nvml"]["gpus"] for process in gpu["processes"]}
    return bool(runners) and runners.isdisjoint(listed)


def cannot_fit(predicted: Predicted | None, max_used_mib: int | None) -> str | None:
    """Why a profile is refused: even the low end of the prediction, with what others hold, is over the threshold."""
    if predicted is None or max_used_mib is None:
        return None
    least = predicted["band_mib"][0] + predicted["others_mib"]
    if least <= max_used_mib:
        return None
    who = f" ({', '.join(predicted['others'][:3])})" if predicted["others"] else ""
    return (
        f"this cannot fit: {', '.join(predicted['models'])} will use {predicted['total_mib']} MiB (weights "
        f"{predicted['weights_mib']}, KV {predicted['kv_mib']}, compute {predicted['compute_mib']}, runtime "
        f"{predicted['runtime_mib']}; at least {predicted['band_mib'][0]}), and others hold {predicted['others_mib']}"
        f"{who}, which is more than max_used_mib = {max_used_mib}; lower num_ctx or num_parallel, or serve a smaller "
        "model"
    )
