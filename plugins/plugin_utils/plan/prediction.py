# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a profile will use on a host, before it is deployed: the planner asked with what was declared and read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings as ollama_settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import modelfiles, other_servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu, GpuProcess
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import (
    Predicted,
    PredictedGpu,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import calibration, several_gpus
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
    gpus: list[PredictedGpu] = []
    if models and len(wanted_settings.ollamas_gpus(read["nvml"])) > 1:
        try:
            several = SeveralGpus.of(declared, read, models, version)
            found = several.together()
        except planner.ScenarioInvalid as problem:
            return None, [*notes, f"{', '.join(models)} cannot be planned: {problem}"]
        plans, gpus = dict(found.plans), several.shown(found.gpus)
        measured_at = {name: several.measured_at(name, plan) for name, plan in plans.items()}
    else:
        for name, model in models.items():
            try:
                loaded_as = as_loaded(declared, read, name, model, version, others_mib(declared, read))
                plans[name], measured_at[name] = calibration.planned(read, name, model, loaded_as, version)
            except planner.ScenarioInvalid as problem:
                notes.append(f"{name} cannot be planned: {problem}")
    if not plans:
        return None, notes
    loaded = tuple(plans) if gpus else loaded_together(declared, read, plans, version)
    together = planner.combined([plans[name] for name in loaded])
    band = together.band_mib.get("total_mib", [together.total_mib, together.total_mib])
    predicted: Predicted = {
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
    }
    if gpus:
        predicted["gpus"] = gpus
    return predicted, notes


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
    `taken_mib` are not Ollama's.
    """
    asked, fitting = scenario(declared, read, name), told(declared, read, name)
    if asked.num_gpu >= 0 or not fitting.fits:
        return asked
    gpus = [gpu for gpu in read["nvml"]["gpus"] if not gpu.get("error")]
    if len(gpus) != 1:
        return asked
    left_free_mib = _left_free_mib(declared, read, version, fitting.margin_mib)
    free = gpus[0]["total_mib"] - (gpus[0].get("reserved_mib") or 0) - left_free_mib - taken_mib
    counts = not _margin_is_set(declared, read, fitting.margin_mib)
    return planner.fitted(model, asked, free, ollama_version=version, projector_counts=counts)


def _left_free_mib(declared: Sized, read: HostFacts, version: str, theirs_mib: int | None) -> int:
    """What fitting leaves free: the profile's margin where this release has a setting for it, else what others set."""
    release = ollama_settings.parse_version(version)
    if _margin_is_set(declared, read):
        return wanted_settings.margins_mib(declared, read)[0]
    return launch.left_free_mib(theirs_mib, release)


def _margin_is_set(declared: Sized, read: HostFacts, theirs_mib: int | None = None) -> bool:
    environment, _unheard = wanted_settings.ollama_environment(declared, read)
    return theirs_mib is not None or bool(ollama_settings.MARGINS & set(environment))


class SeveralGpus(NamedTuple):
    """Models on a host of several GPUs, under a profile."""

    declared: Sized
    read: HostFacts
    models: Mapping[str, planner.Model]
    version: str
    gpus: list[Gpu]  # as Ollama counts them
    taken_mib: list[int]  # of each, by others than Ollama
    spread: bool
    asked: dict[str, tuple[planner.Scenario, launch.Told]]  # by model, once it was asked for

    @classmethod
    def of(
        cls, declared: Sized, read: HostFacts, models: Mapping[str, planner.Model], version: str, more_mib: int = 0
    ) -> SeveralGpus:
        """`more_mib`: what the backend will take, on whichever GPU."""
        gpus = wanted_settings.ollamas_gpus(read["nvml"])
        taken = [_held_mib(processes_of_others(read, gpu)) + more_mib for gpu in gpus]
        spread = drift.server_environment(declared, read).get("OLLAMA_SCHED_SPREAD", "")
        return cls(declared, read, models, version, gpus, taken, bool(ollama_settings.switch(spread)), {})

    @property
    def room_mib(self) -> list[int]:
        """Of each GPU, with no model on it."""
        return [
            gpu["total_mib"] - (gpu.get("reserved_mib") or 0) - taken for gpu, taken in zip(self.gpus, self.taken_mib)
        ]

    def together(self) -> several_gpus.Together:
        """Raises planner.ScenarioInvalid."""
        at_once = self.declared["profile"]["intent"].get("max_loaded_models")
        most = at_once or ollama_settings.MODELS_A_GPU * len(self.gpus)
        return several_gpus.together(list(self.models), self.plan_of, self.room_mib, most, self.version)

    def plan_of(self, name: str, free_mib: Sequence[float], context_mib: float) -> planner.Plan:
        """What a model takes of each GPU (`several_gpus.PlanOf`). Raises planner.ScenarioInvalid."""
        return self.loaded_as(name, free_mib, context_mib)[1]

    def loaded_as(
        self, name: str, free_mib: Sequence[float], context_mib: float
    ) -> tuple[planner.Scenario, planner.Plan]:
        """The settings with what really goes to the GPUs, and the plan. Raises planner.ScenarioInvalid."""
        asked, fitting = self._asked(name)
        by_cuda = [max(mib - context_mib, 1.0) for mib in free_mib]
        plan = self._plan(name, asked, by_cuda)
        where = several_gpus.used(plan)
        if len(where) > 1 and not self.read["nvml"].get("order") and len({gpu["total_mib"] for gpu in self.gpus}) > 1:
            raise planner.ScenarioInvalid("it is divided over GPUs, and Ollama's log does not tell in which order")
        if asked.num_gpu >= 0 or not fitting.fits or not where:
            return asked, plan
        margins = self._margins_mib(fitting.margin_mib)
        if len(where) == 1:
            left = free_mib[where[0]] - margins[0]
            counts = not _margin_is_set(self.declared, self.read, fitting.margin_mib)
            model = self.models[name]
            fitted = planner.fitted(model, asked, left, ollama_version=self.version, projector_counts=counts)
            return fitted, self._plan(name, fitted, by_cuda)
        if any(several_gpus.on(plan, gpu) > free_mib[gpu] - margins[gpu] for gpu in where):
            raise planner.ScenarioInvalid(
                "it is divided over several GPUs, and as llama.cpp divides it by free memory less is left free than it "
                "must; how its fitting then moves layers is not planned"
            )
        return asked, plan

    def _asked(self, name: str) -> tuple[planner.Scenario, launch.Told]:
        if name not in self.asked:
            self.asked[name] = scenario(self.declared, self.read, name), told(self.declared, self.read, name)
        return self.asked[name]

    def _plan(self, name: str, asked: planner.Scenario, by_cuda: Sequence[float]) -> planner.Plan:
        return calibration.planned(self.read, name, self.models[name], asked, self.version, by_cuda, self.spread)[0]

    def measured_at(self, name: str, plan: planner.Plan) -> float | None:
        """When a plan's compute and runtime were measured; None where they are predicted."""
        return calibration.measured_at(self.read, name, plan, self._asked(name)[0])

    def _margins_mib(self, theirs_mib: int | None) -> list[int]:
        """What fitting leaves free of each GPU; the first holds for whichever one a model has alone."""
        if _margin_is_set(self.declared, self.read):
            return wanted_settings.margins_mib(self.declared, self.read)
        return [_left_free_mib(self.declared, self.read, self.version, theirs_mib)] * len(self.gpus)

    def shown(self, gpus: Sequence[several_gpus.Held]) -> list[PredictedGpu]:
        judged = [gpu["uuid"] for gpu in self.read["nvml"]["gpus"]]
        return [
            {
                "index": gpu["index"],
                "uuid": gpu["uuid"],
                "judged": gpu["uuid"] in judged,
                "total_mib": round(held.total_mib),
                "band_mib": [round(held.least_mib), round(held.most_mib)],
                "others_mib": taken,
                "others": _names(self.read, processes_of_others(self.read, gpu)),
            }
            for gpu, held, taken in zip(self.gpus, gpus, self.taken_mib)
        ]


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
        (_held_mib(processes_of_others(read, gpu)) for gpu in read["nvml"]["gpus"] if not gpu.get("error")),
        default=0,
    )


def _held_mib(processes: Iterable[GpuProcess]) -> int:
    return sum(process["used_mib"] or 0 for process in processes)


def others(read: HostFacts) -> list[str]:
    """Who holds memory besides, the largest first, as `name MIB`."""
    gpus = [gpu for gpu in read["nvml"]["gpus"] if not gpu.get("error")]
    return _names(read, [process for gpu in gpus for process in processes_of_others(read, gpu)])


def _names(read: HostFacts, processes: Sequence[GpuProcess]) -> list[str]:
    found = sorted((one for one in processes if one["used_mib"]), key=lambda process: -(process["used_mib"] or 0))
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
    """Why a profile is refused: even the low end of the prediction, with what others hold, is over the threshold.

    Of several GPUs it is over that of each; those that were not named are not judged.
    """
    if predicted is None or max_used_mib is None:
        return None
    if "gpus" in predicted:
        return next(filter(None, [_over_one(gpu, predicted, max_used_mib) for gpu in predicted["gpus"]]), None)
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


def _over_one(gpu: PredictedGpu, predicted: Predicted, max_used_mib: int) -> str | None:
    if not gpu["judged"] or gpu["band_mib"][0] + gpu["others_mib"] <= max_used_mib:
        return None
    who = f" ({', '.join(gpu['others'][:3])})" if gpu["others"] else ""
    return (
        f"this cannot fit: GPU {gpu['index']} will hold {gpu['total_mib']} MiB of {', '.join(predicted['models'])} (at "
        f"least {gpu['band_mib'][0]}), and others hold {gpu['others_mib']}{who} there, which is more than max_used_mib "
        f"= {max_used_mib}; lower num_ctx or num_parallel, or serve a smaller model"
    )
