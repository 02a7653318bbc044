# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an operator's `gpu_memory_tune_*` and what was read of a host to what its tuning run is told. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.gpus import name_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner, tune_search
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Intent
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import prediction, several_gpus, side_by_side
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration, sizes, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles as named_profiles

MODES = ("search", *tune_search.LADDERS)
FOR_THE_GUIDES_LADDERS = ("stable", "conservative")
ONE_GPU = "set CUDA_VISIBLE_DEVICES in Ollama's unit to the UUID of the one to tune for, and restart it"
NUMBERS = {"max_probes": (1, 50, "probes"), "timeout": (60, 86400, "seconds")}


def tuning_of(declared: Declared, read: HostFacts, given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`: the operator's variables without `gpu_memory_tune_`, and the two bandwidths.

    Returns `problems`, and without any: `run` (the arguments of the module gpu_memory_tune), `key` (hosts of the same
    key have the same hardware, Ollama and model), `services` (for a lease), `base_profile`, `adopt`, `timeout`, and
    `threshold_mib`, of which the run gets what is not left for the backend, as the `note` says.
    """
    problems = list(declared["problems"])
    if "nvml" not in read:
        return {"problems": [*problems, str(read.get("msg") or "the host could not be read")]}
    problems += decisions.gpu_problems({**declared, "profile": None}, read["nvml"])
    problems += decisions.ollama_problems(declared, read["ollama"])
    problems += decisions.lease_problems(read["state"])
    alone, found = _resolve_alone(given)
    problems += found
    model, found = _model(declared, given["model"])
    problems += found + _beside_problems(declared, model, given["beside"])
    threshold, found = _threshold(declared, given["mode"], given["max_used_mib"])
    problems += found
    profiles = {profile["name"]: profile["intent"] for profile in declared["profiles"] if not profile["problems"]}
    problems += _ladder_problems(given["mode"], profiles)
    if problems or declared["profile"] is None:
        return {"problems": problems}
    gpu, found = _gpu_of(declared, read, model, list(map(str, given["beside"])))
    if gpu is None:
        return {"problems": found}
    leave_mib, note = _left_for_the_backend(declared, read, gpu, given["leave_mib"])
    if threshold - leave_mib < 1:
        return {"problems": [f"{leave_mib} MiB are left for the backend, which is all of the threshold {threshold}"]}
    intent = declared["profile"]["intent"]
    base = {name: intent[name] for name in ("num_ctx", "num_parallel", "num_batch", "kv_cache_type") if name in intent}
    services = decisions.services(declared, [])
    return {
        "problems": [],
        "key": _key(declared, read, model),
        "adopt": alone["adopt"],
        "timeout": alone["timeout"],
        "services": services,
        "threshold_mib": threshold,
        "note": note,
        "base_profile": declared["profile"]["name"],
        "run": {
            "ollama": {"unit": declared["ollama"]["unit"], "url": declared["ollama"]["url"]},
            "gpu": _tuned_gpu(read, gpu),
            "model": model,
            "beside": list(map(str, given["beside"])),
            "mode": given["mode"],
            "max_used_mib": threshold - leave_mib,
            "base": base,
            "at_least": dict(given["at_least"]),
            "over": dict(given["over"]),
            "objective": list(given["objective"]),
            "profiles": profiles,
            "max_probes": alone["max_probes"],
            "gpu_gb_per_s": float(given["gpu_gb_per_s"]),
            "host_gb_per_s": float(given["host_gb_per_s"]),
            "private_files": services["private_files"],
            "private_units": [unit for unit in [declared["backend"].get("unit")] if unit],
        },
    }


def _gpu_of(declared: Declared, read: HostFacts, model: str, beside: Sequence[str]) -> tuple[Gpu | None, list[str]]:
    """The GPU that a model will have alone, or why it is not tuned: of several each part would have to be judged."""
    gpus = wanted_settings.ollamas_gpus(read["nvml"])
    if len(gpus) == 1:
        return gpus[0], []
    unnamed = [gpu for gpu in gpus if gpu["uuid"] not in [one["uuid"] for one in read["nvml"]["gpus"]]]
    if unnamed:
        names = ", ".join(map(name_of, unnamed))
        return None, [f"Ollama may put the model on {names}, which gpu_memory_gpus does not name; {ONE_GPU}"]
    models, problems = prediction.readable_models(read)
    sized = sizes.sized(declared, read)
    version = wanted_settings.version_text(declared, read) or ""
    several = prediction.SeveralGpus.of(sized, read, models, version)
    free: Sequence[float] = several.room_mib
    where: list[int] = []
    for name in [*beside, model]:
        known = model_name.listed(name, models)
        if known is None:
            return None, problems or [f"{name} cannot be planned, so that it is not known on which GPU it will be"]
        try:
            plan = several.plan_of(known, free, planner.RUNTIME_MIB)
        except planner.ScenarioInvalid as problem:
            return None, [f"on which of {len(gpus)} GPUs {name} will be is not known: {problem}; {ONE_GPU}"]
        where = several_gpus.used(plan)
        free = [mib - several_gpus.on(plan, number) for number, mib in enumerate(free)]
    if len(where) != 1:
        return None, [
            f"Ollama divides {model} over {len(where)} of {len(gpus)} GPUs here: tuning is for one; {ONE_GPU}"
        ]
    return gpus[where[0]], []


def _tuned_gpu(read: HostFacts, gpu: Gpu) -> dict[str, object]:
    further = [each["uuid"] for each in wanted_settings.ollamas_gpus(read["nvml"]) if each is not gpu]
    return {
        **{name: gpu.get(name) for name in ("index", "uuid", "name", "total_mib", "reserved_mib")},
        "further": further,
    }


def _resolve_alone(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The variables that mean the same on every host: {max_probes, timeout, adopt}; with the problems of all such."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, bounds in NUMBERS.items():
        values[name], found = named_profiles.within(f"gpu_memory_tune_{name}", given[name], *bounds)
        problems += found
    if given["mode"] not in MODES:
        problems.append(f"gpu_memory_tune_mode = {given['mode']!r} is not allowed; allowed: {', '.join(MODES)}")
    values["adopt"] = declaration.boolean(given["adopt"])
    if values["adopt"] is None:
        problems.append(f"gpu_memory_tune_adopt = {given['adopt']!r} must be true or false")
    over, at_least, objective = given["over"], given["at_least"], given["objective"]
    if not isinstance(over, Mapping) or not isinstance(at_least, Mapping) or not isinstance(objective, list):
        problems.append("gpu_memory_tune_over and _at_least must be mappings, and gpu_memory_tune_objective a list")
    else:
        problems += tune_search.bounds(over, at_least, objective)
    return values, problems


def _ladder_problems(mode: object, profiles: Mapping[str, Intent]) -> list[str]:
    return [
        f"the ladder {mode} begins with the profile {name}, which has no gpu_layers here"
        for name in (FOR_THE_GUIDES_LADDERS if mode in tune_search.LADDERS[:2] else ())
        if "gpu_layers" not in profiles.get(name, {})
    ]


def _key(declared: Declared, read: HostFacts, model: str) -> str:
    digests = {str(each["name"]): each["digest"] for each in read["ollama"]["api"]["models"]}
    version = wanted_settings.version_text(declared, read)
    digest = next((digest for name, digest in digests.items() if model_name.same(model, name)), None)
    return json.dumps(
        [
            [[gpu.get("name"), gpu.get("total_mib")] for gpu in wanted_settings.ollamas_gpus(read["nvml"])],
            version,
            digest,
        ]
    )


def group_of(host: str, keys: Mapping[str, str | None]) -> list[str]:
    """The hosts of the same key, in the play's order; the first of them is tuned for all."""
    mine = keys.get(host)
    return [name for name, key in keys.items() if key is not None and key == mine]


def _left_for_the_backend(declared: Declared, read: HostFacts, gpu: Gpu, given: object) -> tuple[int, str | None]:
    """MiB that the backend will take under load besides what it holds now, which no probe sees; and a note on it."""
    number = named_profiles.canonical_int(given)
    backend = side_by_side.backend_use(declared, read, gpu)
    if number is not None and number >= 0:
        return number, f"{number} MiB of the threshold are left for the backend" if number else None
    if backend is None:
        return 0, None
    if backend["measured_mib"] is None:
        return 0, (
            "what the backend itself takes on the GPU has not been measured, and is not in this: apply a profile "
            "first, or say it in gpu_memory_tune_leave_mib"
        )
    more = max(0, int(backend["measured_mib"]) - int(backend["now_mib"]))
    if not more:
        return 0, None
    of = f"measured with {backend['profile']} on {backend['day']}"
    return more, f"{more} MiB of the threshold are left for the backend, which takes that much more under load, as {of}"


def _model(declared: Declared, named: object) -> tuple[str, list[str]]:
    models: Sequence[str] = declared["models"]
    if named:
        return str(named), [] if named in models or not models else [
            f"gpu_memory_tune_model = {named!r} is none of gpu_memory_models: {', '.join(models)}"
        ]
    if len(models) == 1:
        return models[0], []
    served = ", ".join(models) or "none is named in gpu_memory_models"
    return "", [f"gpu_memory_tune_model must name the model to tune; this host serves: {served}"]


def _beside_problems(declared: Declared, model: str, named: object) -> list[str]:
    if not isinstance(named, list):
        return ["gpu_memory_tune_beside must be a list of models"]
    names = list(map(str, named))
    unknown = [name for name in names if declared["models"] and not model_name.listed(name, declared["models"])]
    problems = [f"gpu_memory_tune_beside has {name!r}, which is none of gpu_memory_models" for name in unknown]
    if model_name.listed(model, names) or len(set(map(model_name.full, names))) < len(names):
        problems.append(f"gpu_memory_tune_beside must have each other model once, and not the one to tune: {model}")
    return problems


def _threshold(declared: Declared, mode: object, named: object) -> tuple[int, list[str]]:
    """The operator's own threshold, or the guide's of its ladder "Too slow?", or the profile's."""
    bound = named_profiles.NUMBERS["max_used_mib"]
    number = 0 if named_profiles.canonical_mib(named) == 0 else bound.read(named)
    if number is None:
        return 0, [f"gpu_memory_tune_max_used_mib = {named!r} must be {bound.form}; 0 for the profile's"]
    own = (declared["profile"] or {}).get("max_used_mib")
    chosen = number or (tune_search.TOO_SLOW_MAX_USED_MIB if mode == "too_slow" else own)
    if not chosen:
        return 0, ["gpu_memory_tune_max_used_mib must be set, since the profile has no threshold (max_used_mib)"]
    return int(chosen), []
