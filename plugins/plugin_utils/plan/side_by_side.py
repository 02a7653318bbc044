# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All profiles of a host side by side, before any is deployed: what plan.yml shows. Pure; nothing here is measured.

A host's plan is plain data (`<report_dir>/<host>.plan.json`); contract/plan.py has its keys. MiB everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import ceil
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner, throughput
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import lint, modelfiles
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import (
    CandidateProfile,
    Declared,
    Profile,
    Sized,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Api, Gpu, GpuSize
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import (
    BackendUse,
    Column,
    ComparisonRow,
    GpuBudget,
    HostPlan,
    LayerRow,
    PlannedGpu,
    PlannedModel,
    UsedBy,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import calibration, prediction, several_gpus
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import memory_parts

SCHEMA = 1
TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")
EVERYTHING = 999  # the guide's word for all layers
CELLS = 256  # a context grows in steps of this
LONGEST_CTX = 1 << 22  # where the model does not say
NOTHING_FOR_BACKEND = "with nothing left for the backend, which is not measured yet"

# The guide's comparison table in its own words, row by row.
GUIDE_ROWS = (
    "GPU layers", "Context window", "Concurrent requests", "GPU memory reserved", "Expected GPU usage", "Safety buffer",
    "Performance vs full GPU", "Stability", "Reflection support",
)  # fmt: skip
GUIDE = {
    name: dict(zip(GUIDE_ROWS, words))
    for name, words in {
        "baseline": ("999 (all)", "8192", "2", "0%", "~15-16GB", "0-1GB", "100%", "crashes", "concurrent"),
        "stable": ("40", "4096", "2", "25%", "~12GB", "4GB", "~95%", "stable", "concurrent"),
        "conservative": ("35", "2048", "1", "30%", "~9GB", "7GB", "~85-90%", "very stable", "sequential"),
    }.items()
}
# The guide's table of layers for its model, by the share of the layers that it calls so.
GUIDE_MODEL = "llama3.1:8b"
GUIDE_LAYERS = {
    0.0: "0, CPU ~8.5GB, ~30-40%",
    0.25: "~4GB, CPU ~4.5GB, ~70%",
    0.4375: "~6.5GB, CPU ~2GB, ~90%",
    0.5: "~7GB, CPU ~1.5GB, ~95%",
    1.0: "~8.5GB, CPU 0, 100%",
}


@dataclass(frozen=True)
class _Host:
    """What holds for every profile of a host."""

    declared: Declared
    read: HostFacts
    version: str
    models: Mapping[str, planner.Model]
    gpu: PlannedGpu
    card_mib: int
    others_mib: int  # what neither Ollama nor the backend holds now
    gpu_gb: float
    host_gb: float
    gpus: Sequence[Gpu]  # those that Ollama uses, as it counts them


class _Room(NamedTuple):
    """What is there for a model on each GPU, by the threshold, and where there are several by CUDA."""

    free_mib: Sequence[float]
    allowed_mib: Sequence[float]
    spread: bool

    def plan(self, model: planner.Model, at: planner.Scenario, ollama_version: str) -> tuple[planner.Plan, bool]:
        """A model's plan, and whether it fits."""
        plan = planner.plan(model, at, ollama_version=ollama_version, gpus_free_mib=self.free_mib, spread=self.spread)
        if not self.free_mib:
            return plan, plan.total_mib <= self.allowed_mib[0]
        return plan, all(several_gpus.on(plan, gpu) <= allowed for gpu, allowed in enumerate(self.allowed_mib))


class _Load(NamedTuple):
    """One model as a profile has it loaded; `measured_at`: when its plan was calibrated, if it was."""

    scenario: planner.Scenario
    plan: planner.Plan
    measured_at: float | None


class _Loads(NamedTuple):
    """The models of a profile, and which stay loaded together; `several`, `held`: where there are several GPUs."""

    of: dict[str, _Load]
    together: tuple[str, ...]
    several: prediction.SeveralGpus | None
    held: Sequence[several_gpus.Held]

    @property
    def plans(self) -> dict[str, planner.Plan]:
        return {name: load.plan for name, load in self.of.items()}


def compare(declared: Declared, read: HostFacts, gpu_gb_per_s: float = 0, host_gb_per_s: float = 0) -> HostPlan:
    """The plan of a host.

    `declared`: `_declare.resolve`; `read`: the result of `gpu_memory_info`, with the models to plan. Bandwidths are
    GB/s, 0 for the GPU's own by its name and for `throughput.HOST_GB_PER_S`. What stands in the way is in `problems`.
    """
    plan: HostPlan = {**unread(*declared["problems"]), "ollama": read["ollama"]["api"]["version"]}
    if plan["problems"]:
        return plan
    plan["problems"] += decisions.gpu_problems({**declared, "profile": None}, read["nvml"])
    plan["problems"] += decisions.ollama_problems(declared, read["ollama"])
    models, unreadable = prediction.readable_models(read)
    plan["problems"] += unreadable
    plan["models"] = list(models)
    if not models and not plan["problems"]:
        plan["problems"].append(_no_models(read["ollama"]["api"]))
    version = wanted_settings.version_text(declared, read)
    gpus = [gpu for gpu in wanted_settings.usable_gpus(read["nvml"]) if not gpu.get("mig")]
    if not models or not gpus or version is None or settings.parse_version(version) is None:
        return plan

    gpu = max(gpus, key=lambda each: sum(process["used_mib"] for process in held_by_others(read, each)))
    by_name, known = throughput.gpu_gb_per_s(gpu.get("name"))
    planned = _planned_gpu(read, gpu)
    plan["gpu"] = planned
    ollamas = wanted_settings.ollamas_gpus(read["nvml"])
    if len(ollamas) > 1:
        plan["gpus"] = [_planned_gpu(read, each) for each in ollamas]
    plan["others"] = held_by_others(read, gpu)
    plan["backend"] = backend_use(declared, read, gpu)
    plan["bandwidth_gb_per_s"] = {"gpu": gpu_gb_per_s or by_name, "host": host_gb_per_s or throughput.HOST_GB_PER_S}
    host = _Host(
        declared,
        read,
        version,
        models,
        planned,
        _card_mib(gpu),
        sum(process["used_mib"] for process in plan["others"]),
        plan["bandwidth_gb_per_s"]["gpu"],
        plan["bandwidth_gb_per_s"]["host"],
        ollamas,
    )
    plan["profiles"] = [_column(host, plan, profile) for profile in declared["profiles"]]
    plan["notes"] = _host_notes(host, plan, known or bool(gpu_gb_per_s))
    return plan


def _card_mib(gpu: GpuSize) -> int:
    return gpu["total_mib"] - (gpu.get("reserved_mib") or 0)


def _planned_gpu(read: HostFacts, gpu: Gpu) -> PlannedGpu:
    return {
        "index": gpu["index"],
        "uuid": gpu["uuid"],
        "name": gpu.get("name"),
        "total_mib": gpu["total_mib"],
        "reserved_mib": gpu.get("reserved_mib"),
        "used_mib": gpu["used_mib"],
        "parts": memory_parts.split(gpu["memory"], gpu["processes"], memory_parts.known([read])),
    }


def unread(*problems: str) -> HostPlan:
    """The plan of a host of which nothing more is known than why."""
    return {
        "schema": SCHEMA,
        "problems": list(problems),
        "notes": [],
        "ollama": None,
        "models": [],
        "gpu": None,
        "others": [],
        "backend": None,
        "profiles": [],
    }


def held_by_others(read: HostFacts, gpu: Gpu) -> list[UsedBy]:
    """Who but Ollama and the backend holds memory of a GPU now, by name, the largest first: [{name, used_mib}].

    What cannot be attributed counts as theirs, unless the driver keeps back what this Ollama holds.
    """
    kept_back = any(process["used_bytes"] is None for process in gpu["processes"]) or prediction.hides_runners(read)
    theirs = (memory_parts.OTHERS,) if kept_back else (memory_parts.OTHERS, memory_parts.UNKNOWN)
    split = memory_parts.split(gpu["memory"], gpu["processes"], memory_parts.known([read]))
    rows: list[UsedBy] = [{"name": part["name"], "used_mib": part["mib"]} for part in split if part["what"] in theirs]
    return sorted(rows, key=lambda row: -int(row["used_mib"]))


def backend_use(declared: Declared, read: HostFacts, gpu: Gpu) -> BackendUse | None:
    """What the backend itself takes on the GPU: {now_mib, measured_mib, profile, day, env}; None without a backend.

    The last proof has measured it with the settings `env`, and nobody knows it with others before a load.
    """
    if declared["backend"]["kind"] == "none":
        return None
    proof = read["state"].get("proof") or {}
    record = proof.get("record")
    memory = record.get("memory") if record else None
    others = memory["others"] if memory else []
    day = _day(float(proof.get("at") or 0))
    return {
        "now_mib": sum(
            process["used_mib"] or 0 for process in gpu["processes"] if process["pid"] in read["backend"]["pids"]
        ),
        "measured_mib": max((other["peak_mib"] or 0 for other in others if other["name"] == "backend"), default=None),
        "profile": record.get("profile") if record else None,
        "day": day if proof else None,
        "env": {row["name"]: row["wanted"] for row in (record.get("settings") if record else None) or []},
    }


def _day(unix_time: float) -> str:
    return datetime.fromtimestamp(unix_time, timezone.utc).strftime("%Y-%m-%d")


def _backend_mib(backend: BackendUse | None, profile: Profile) -> int | None:
    """What the backend takes under a profile: 0 without one, None where it was not measured with these settings."""
    if backend is None:
        return 0
    same = all(backend["env"].get(name) == value for name, value in profile["env"].items())
    return backend["measured_mib"] if same else None


def _no_models(api: Api) -> str:
    if api["error"]:
        return f"Ollama does not answer: {api['error']}; start it, or set gpu_memory_ollama.url"
    present = ", ".join(str(model["name"]) for model in api["models"])
    return (
        "no model to plan: none is loaded now, and none is named; set gpu_memory_models to what this host serves "
        + (f"(it has: {present})" if present else "(it has none yet; run: ollama pull MODEL)")
    )


# One profile ---------------------------------------------------------------------------------------------------------


def _column(host: _Host, plan: HostPlan, profile: CandidateProfile) -> Column:
    as_declared: Declared = {**host.declared, "profile": profile}
    column: Column = {
        "name": profile["name"],
        "label": profile["label"],
        "chosen": profile["name"] == (host.declared["profile"] or {}).get("name"),
        "problems": list(profile["problems"]),
    }
    named = [name for name in profile["models"] or host.models if name in host.models]
    if not named:
        column["problems"].append(f"none of its models can be planned: {', '.join(profile['models'])}")
    if column["problems"]:
        return column
    declared = sizes.sized(as_declared, host.read)
    sized = declared["profile"]
    beforehand = sizes.note(as_declared, declared)
    judged = wanted_settings.usable_gpus(host.read["nvml"])
    other_size = next((gpu for gpu in judged if sizes.is_other(sized, gpu)), None)
    if other_size:
        beforehand.append(sizes.problem(sized, other_size, f"GPU {other_size['index']}"))
    of_models: Sized = {**declared, "models": named}
    shows = host.read["ollama"]["api"]["show"]
    of_modelfiles = modelfiles.problems(of_models, shows)
    environment, unheard = wanted_settings.ollama_environment(declared, host.read)
    asked = {name: prediction.asked_layers(declared, host.read, name) for name in named}
    limit = _limit_mib(sized, host.card_mib)
    column.update(
        {
            "changed": sized["changed"],
            "intent": sized["intent"],
            "max_used_mib": sized["max_used_mib"],
            "limit_mib": limit,
        }
    )
    column.update(_margin(host.gpus or [host.gpu], sized["max_used_mib"], environment, asked.values()))
    backend = _backend_mib(plan["backend"], sized)
    try:
        loads = _loads(host, declared, named, backend or 0)
    except planner.ScenarioInvalid as problem:
        return {**column, "problems": [str(problem)]}
    column["loaded_together"] = list(loads.together)
    column.update(_budget(host, planner.combined([loads.plans[name] for name in loads.together]), limit, backend))
    if loads.several:
        column.update(_budget_of_several(host, loads, sized, backend))
    column["refused"] = bool(other_size or of_modelfiles) or _cannot_fit(host, column, loads, backend or 0)
    if loads.several:
        host = _at_the_tightest(host, column["tightest"])
    column["models"] = [
        _model(host, name, load, asked[name], _room(host, sized, loads, name, backend or 0))
        for name, load in loads.of.items()
    ]
    column["measured"] = {
        name: _day(load.measured_at) for name, load in loads.of.items() if load.measured_at is not None
    }
    column["comparison"] = _comparison(host, plan, column)
    beforehand += [*of_modelfiles, *modelfiles.notes(of_models, shows)]
    column["warnings"] = beforehand + _warnings(host, column, loads.plans, environment, unheard)
    return column


def _loads(host: _Host, declared: Sized, named: Sequence[str], backend_mib: int) -> _Loads:
    """The models of a profile as it has them loaded. Raises ScenarioInvalid for settings that Ollama refuses."""
    if len(host.gpus) > 1:
        models = {name: host.models[name] for name in named}
        several = prediction.SeveralGpus.of(declared, host.read, models, host.version, backend_mib)
        found = several.together()
        of = {name: _load_on_several(several, name, found) for name in named}
        return _Loads(of, tuple(found.plans), several, found.gpus)
    of = {name: _load(host, declared, name, host.others_mib + backend_mib) for name in named}
    plans = {name: load.plan for name, load in of.items()}
    return _Loads(of, prediction.loaded_together(declared, host.read, plans, host.version), None, [])


def _cannot_fit(host: _Host, column: Column, loads: _Loads, backend_mib: int) -> bool:
    """As apply judges before it writes: what the backend takes is for the load to show."""
    least = [column["ollama_band_mib"][0] + host.others_mib]
    if loads.several:
        gpus = [gpu for gpu in loads.several.shown(loads.held) if gpu["judged"]]
        least = [gpu["band_mib"][0] + gpu["others_mib"] - backend_mib for gpu in gpus]
    return column["max_used_mib"] is None or max(least, default=0) > column["max_used_mib"]


def _limit_mib(profile: Profile, card_mib: int) -> int:
    return min(profile["max_used_mib"] or card_mib, card_mib)


def _margin(
    gpus: Sequence[GpuSize], max_used_mib: int | None, environment: Mapping[str, str], asked: Iterable[int | None]
) -> Column:
    """What Ollama is to keep free: none, given, or void where a number of layers is asked for."""
    margins = settings.margins_mib(gpus, max_used_mib)
    carried = any(row.variable in environment for row in settings.OLLAMA_READS if row.intent == "margin_mib")
    void = any(layers is not None and layers >= 0 for layers in asked)
    return {
        "margin_mib": max(margins, default=None),
        "margin": "none" if not (margins and carried) else "void" if void else "given",
    }


def _load(host: _Host, declared: Sized, name: str, taken_mib: int) -> _Load:
    """Raises ScenarioInvalid for settings that Ollama refuses."""
    model = host.models[name]
    loaded = prediction.as_loaded(declared, host.read, name, model, host.version, taken_mib)
    scenario = _all_by_name(loaded, model)
    return _Load(scenario, *calibration.planned(host.read, name, model, scenario, host.version))


def _load_on_several(several: prediction.SeveralGpus, name: str, found: several_gpus.Together) -> _Load:
    """Raises ScenarioInvalid."""
    others = [plan for other, plan in found.plans.items() if other != name] if name in found.plans else []
    free = [room - sum(several_gpus.on(plan, gpu) for plan in others) for gpu, room in enumerate(several.room_mib)]
    loaded, plan = several.loaded_as(name, free, planner.RUNTIME_MIB)
    plan = found.plans.get(name, plan)
    return _Load(_all_by_name(loaded, several.models[name]), plan, several.measured_at(name, plan))


def _room(host: _Host, profile: Profile, loads: _Loads, name: str, backend_mib: int) -> _Room:
    """What is there for a model while the others stay loaded."""
    others = [loads.plans[each] for each in loads.together if each != name] if name in loads.together else []
    several = loads.several
    if several is None:
        beside_mib = sum(plan.total_mib for plan in others)
        return _Room([], [_limit_mib(profile, host.card_mib) - host.others_mib - backend_mib - beside_mib], False)
    beside = [sum(several_gpus.on(plan, gpu) for plan in others) for gpu in range(len(several.gpus))]
    free = [room - mib - planner.RUNTIME_MIB for room, mib in zip(several.room_mib, beside)]
    allowed = [
        _limit_mib(profile, _card_mib(gpu)) - taken - mib
        for gpu, taken, mib in zip(several.gpus, several.taken_mib, beside)
    ]
    return _Room([max(mib, 1.0) for mib in free], allowed, several.spread)


def _budget_of_several(host: _Host, loads: _Loads, profile: Profile, backend_mib: int | None) -> Column:
    """Of each GPU, and what the tightest makes of the whole."""
    budgets: list[GpuBudget] = []
    surely, taken_mib = backend_mib is not None, loads.several.taken_mib if loads.several else []
    for gpu, taken, held in zip(host.gpus, taken_mib, loads.held):
        limit, total = _limit_mib(profile, _card_mib(gpu)), round(held.total_mib)
        surely = surely and round(held.most_mib) + taken <= limit
        budgets.append(
            {
                "index": gpu["index"],
                "card_mib": _card_mib(gpu),
                "terms": {term: round(mib) for term, mib in held.terms.items()},
                "ollama_mib": total,
                "ollama_band_mib": [round(held.least_mib), round(held.most_mib)],
                "others": held_by_others(host.read, gpu),
                "sum_mib": total + taken,
                "limit_mib": limit,
                "headroom_mib": limit - total - taken,
            }
        )
    tightest = min(budgets, key=lambda budget: budget["headroom_mib"])
    return {
        "gpus": budgets,
        "tightest": tightest,
        "limit_mib": tightest["limit_mib"],
        "sum_mib": tightest["sum_mib"],
        "headroom_mib": tightest["headroom_mib"],
        "fits": tightest["headroom_mib"] >= 0,
        "fits_surely": surely,
    }


def _at_the_tightest(host: _Host, tightest: GpuBudget) -> _Host:
    gpu = next(gpu for gpu in host.gpus if gpu["index"] == tightest["index"])
    others = sum(other["used_mib"] for other in tightest["others"])
    return replace(host, gpu=_planned_gpu(host.read, gpu), card_mib=tightest["card_mib"], others_mib=others)


def _budget(host: _Host, together: planner.Plan, limit_mib: int, backend_mib: int | None) -> Column:
    """The memory of all that is loaded at once, against the limit."""
    taken = host.others_mib + (backend_mib or 0)
    total = round(together.total_mib)
    low, high = (round(end) for end in together.band_mib.get("total_mib", [total, total]))
    return {
        "terms": {term: round(getattr(together, term)) for term in TERMS},
        "terms_band": {term: [round(end) for end in ends] for term, ends in together.band_mib.items() if term in TERMS},
        "ollama_mib": total,
        "ollama_band_mib": [low, high],
        "host_mib": round(together.host_mib),
        "backend_mib": backend_mib,
        "sum_mib": total + taken,
        "headroom_mib": limit_mib - total - taken,
        "fits": total + taken <= limit_mib,
        "fits_surely": high + taken <= limit_mib and backend_mib is not None,
    }


def _all_by_name(scenario: planner.Scenario, model: planner.Model) -> planner.Scenario:
    """All layers said as such: the planner's warnings about a cap that caps nothing have no cure, ours have."""
    return replace(scenario, num_gpu=planner.ALL_LAYERS) if scenario.num_gpu >= model.offloadable else scenario


def _model(host: _Host, name: str, load: _Load, asked: int | None, room: _Room) -> PlannedModel:
    """One model under one profile, with every number of layers and the largest settings that its room allows."""
    model, scenario, plan = host.models[name], load.scenario, load.plan
    table = layer_table(model, scenario, room, ollama_version=host.version, gpu_gb=host.gpu_gb, host_gb=host.host_gb)
    return {
        "name": name,
        "asked_layers": None if asked is None or asked < 0 else asked,
        "layers": plan.offloaded_layers,
        "offloadable_layers": plan.offloadable_layers,
        "num_ctx": plan.num_ctx,
        "num_parallel": plan.num_parallel,
        "num_batch": plan.num_batch,
        "gpu_mib": round(plan.total_mib),
        "host_mib": round(plan.host_mib),
        "speed_percent": table[plan.offloaded_layers]["speed_percent"],
        "tokens_per_s": table[plan.offloaded_layers]["tokens_per_s"],
        "room_mib": round(min(room.allowed_mib)),
        "largest_num_gpu": max((row["layers"] for row in table if row["fits"]), default=0),
        "largest_num_ctx": largest_num_ctx(model, scenario, room, ollama_version=host.version),
        "layer_table": table,
    }


def layer_table(
    model: planner.Model,
    scenario: planner.Scenario,
    room: _Room,
    *,
    ollama_version: str,
    gpu_gb: float,
    host_gb: float,
) -> list[LayerRow]:
    """A row for each number of layers from 0 to all: layers, gpu_mib, host_mib, fits, tokens_per_s, speed_percent.

    Speeds are predictions (see `throughput`), in percent of all layers on the GPU; None for a model that only embeds.
    """
    rows = []
    for layers in range(model.offloadable + 1):
        at = replace(scenario, num_gpu=layers)
        plan, fits = room.plan(model, at, ollama_version)
        gpu_mib, host_mib = planner.mib_read_per_token(model, at, ollama_version=ollama_version)
        speed = None if model.embedder else throughput.tokens_per_s(gpu_mib, host_mib, gpu_gb, host_gb)
        rows.append((layers, plan, fits, speed))
    fastest = rows[-1][3]
    return [
        {
            "layers": layers,
            "gpu_mib": round(plan.total_mib),
            "host_mib": round(plan.host_mib),
            "fits": fits,
            "tokens_per_s": None if speed is None else round(speed, 1),
            "speed_percent": None if speed is None or not fastest else round(100 * speed / fastest),
        }
        for layers, plan, fits, speed in rows
    ]


def largest_num_ctx(
    model: planner.Model, scenario: planner.Scenario, room: _Room, *, ollama_version: str
) -> int | None:
    """The largest context of one request that fits into the room, in steps of 256; None where none does.

    Memory never falls as the context grows, so that bisection finds it. Of several GPUs the fullest's may fall, where a
    model no longer has one alone: what is found then fits, and need not be the largest.
    """

    def fits(tokens: int) -> bool:
        return room.plan(model, replace(scenario, num_ctx=tokens), ollama_version)[1]

    longest = model.context_length or LONGEST_CTX
    if fits(longest):
        return longest
    fitting, too_long = 0, ceil(longest / CELLS)
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        fitting, too_long = (middle, too_long) if fits(middle * CELLS) else (fitting, middle)
    return fitting * CELLS or None


# The guide's table with real numbers ---------------------------------------------------------------------------------


def _comparison(host: _Host, plan: HostPlan, column: Column) -> list[ComparisonRow]:
    """The guide's rows: setting, guide (its words or None), really (text, or a text by model)."""
    words = {} if column["changed"] else GUIDE.get(column["name"], {})
    unknown = column["backend_mib"] is None
    models = column["models"]
    slots = max(model["num_parallel"] for model in models)
    turns = len(column["loaded_together"]) < len(models)

    def by_model(text: Callable[[PlannedModel], str]) -> dict[str, str]:
        return {model["name"]: text(model) for model in models}

    really: dict[str, dict[str, str] | str] = {
        "GPU layers": by_model(_layers_text),
        "Context window": by_model(_context_text),
        "Concurrent requests": by_model(lambda model: str(model["num_parallel"])),
        "GPU memory reserved": _reserved_text(column, host.card_mib),
        "Expected GPU usage": f"{column['sum_mib']} MiB" + (" + backend" if unknown else ""),
        "Safety buffer": f"{host.card_mib - column['sum_mib']} MiB" + (" - backend" if unknown else ""),
        "Performance vs full GPU": by_model(_speed_text),
        "Stability": _stability_text(column, unknown),
        "Reflection support": "models take turns, reloading" if turns else "concurrent" if slots > 1 else "sequential",
    }
    return [{"setting": row, "guide": words.get(row), "really": really[row]} for row in GUIDE_ROWS]


def _layers_text(model: PlannedModel) -> str:
    asked, layers, count = model["asked_layers"], model["layers"], model["offloadable_layers"]
    if asked is None:
        return f"{layers} of {count}, fitted by Ollama"
    if asked >= count:
        return f"all {count}" + ("" if asked == EVERYTHING else f": {asked} caps nothing")
    return f"{layers} of {count}"


def _context_text(model: PlannedModel) -> str:
    slots = model["num_parallel"]
    return f"{model['num_ctx']}" + (f" each, {model['num_ctx'] * slots} in all" if slots > 1 else "")


def _reserved_text(column: Column, card_mib: int) -> str:
    if column["margin"] == "given":
        return f"{column['margin_mib']} MiB ({100 * (column['margin_mib'] or 0) / card_mib:.0f} %)"
    return "nothing, the margin is void" if column["margin"] == "void" else "nothing"


def _speed_text(model: PlannedModel) -> str:
    if model["speed_percent"] is None:
        return "not predicted"
    return f"{model['speed_percent']} %, at most {model['tokens_per_s']:.0f} tok/s"


def _stability_text(column: Column, backend_unknown: bool) -> str:
    left = column["headroom_mib"]
    if left < 0:
        return f"{-left} MiB too much"
    if backend_unknown:
        return f"fits with backend <= {left}"
    return f"{'fits' if column['fits_surely'] else 'fits perhaps'}, {left} MiB left"


# Warnings with their cures -------------------------------------------------------------------------------------------


def _warnings(
    host: _Host,
    column: Column,
    plans: Mapping[str, planner.Plan],
    environment: Mapping[str, str],
    unheard: Sequence[str],
) -> list[str]:
    profile = next(each for each in host.declared["profiles"] if each["name"] == column["name"])
    threshold, card = column["max_used_mib"], host.card_mib
    warnings = []
    if threshold is not None and threshold > card:
        warnings.append(f"max_used_mib {threshold} is more than the card's {card} MiB: apply refuses this profile here")
    if threshold is None:
        warnings.append("no threshold (max_used_mib): judged by the whole card, and apply refuses it by default")
    warnings += _fit_warnings(column)
    for model in column["models"]:
        name = f"{model['name']}: " if len(column["models"]) > 1 else ""
        warnings += [name + text for text in [*_cap_warnings(host, column, model), *plans[model["name"]].warnings]]
    key = host.declared["backend"]["keys"].get("gpu_layers")
    if column["margin"] == "void" and key:
        warnings.append(
            f"the backend sends {key} as num_gpu, which switches Ollama's fitting off: the margin is void, and what "
            "does not fit fails instead of moving to the CPU; stop the backend from sending it, or set a gpu_layers "
            "that fits"
        )
    if len(column["loaded_together"]) < len(column["models"]):
        warnings.append(
            f"not all {len(column['models'])} models stay loaded together (the most is "
            f"{', '.join(column['loaded_together'])}): each turn of another model reloads; "
            "raise max_loaded_models where memory allows, or serve fewer or smaller models"
        )
    warnings += [f"Ollama {host.version} has no setting for {name}" for name in unheard]
    heard = {*environment, *host.declared["backend"]["keys"].values(), *host.declared["backend"]["reads"]}
    warnings += [
        f"{name}={value} does nothing: {settings.NOBODY_READS[name]}"
        for name, value in profile["env"].items()
        if name in settings.NOBODY_READS and name not in heard
    ]
    return list(dict.fromkeys(warnings))


def _fit_warnings(column: Column) -> list[str]:
    limit = column["limit_mib"]
    of = f"max_used_mib {limit}" if column["max_used_mib"] == limit else f"the card's {limit} MiB"
    of += f" on GPU {column['tightest']['index']}" if "tightest" in column else ""
    if not column["fits"]:
        cures = []
        for model in column["models"] if len(column["models"]) == 1 else []:
            row = model["layer_table"][model["largest_num_gpu"]]
            if 0 < row["layers"] < model["layers"]:
                cures.append(f"gpu_layers {row['layers']}{_slower_text(model, row)}")
            if model["largest_num_ctx"]:
                cures.append(f"num_ctx {model['largest_num_ctx']}")
        cures = cures or ["lower num_ctx, num_parallel or max_loaded_models, serve less, or free what others hold"]
        refused = ", so apply refuses it" if column["refused"] and column["max_used_mib"] is not None else ""
        backend = f" {NOTHING_FOR_BACKEND}" if column["backend_mib"] is None else ""
        return [f"{-column['headroom_mib']} MiB more than {of}{refused}; would fit{backend}: {' or '.join(cures)}"]
    low, high, planned = column["ollama_band_mib"][0], column["ollama_band_mib"][1], column["ollama_mib"]
    if "tightest" in column:
        (low, high), planned = column["tightest"]["ollama_band_mib"], column["tightest"]["ollama_mib"]
    if high - planned > column["headroom_mib"]:
        return [
            f"the headroom of {column['headroom_mib']} MiB is within what the prediction leaves open "
            f"({low} to {high}): only a load can tell, which apply does"
        ]
    return []


def _cap_warnings(host: _Host, column: Column, model: PlannedModel) -> list[str]:
    wanted, asked, count = column["intent"].get("gpu_layers"), model["asked_layers"], model["offloadable_layers"]
    key = host.declared["backend"]["keys"].get("gpu_layers")
    if asked is None:
        if wanted is None or wanted == EVERYTHING:
            return []
        less = model["layers"] < min(wanted, count)
        if key and not less:
            return []
        how = (
            f"caps nothing, so that {key}={wanted_settings.FITTED_BY_OLLAMA} leaves the layers to Ollama"
            if key
            else "reaches nobody: the backend does not send it; Ollama fits the layers by itself"
        )
        return [
            f"gpu_layers {wanted} {how}"
            + (f", and only {model['layers']} of {count} fit: apply fails unless gpu_layers is no more" if less else "")
        ]
    if key is None:  # the Modelfile's, of which there is a warning already
        return []
    if 2 * asked < model["largest_num_gpu"]:
        slower = _slower_text(model, model["layer_table"][model["layers"]], ": ", "")
        setting, found = "gpu_layers", ""
        if asked != wanted:
            setting, found = f"env.{key}", f", as {key}={asked} on this host says, which the profile does not set"
        return [
            f"only {asked} of {count} layers are on the GPU{found}{slower}; "
            f"{setting} {model['largest_num_gpu']} fits as well"
            + (f", {NOTHING_FOR_BACKEND}" if column["backend_mib"] is None else "")
        ]
    if asked < count or asked == EVERYTHING:
        return []
    quarter = model["layer_table"][count - ceil(count / 4)]
    saved = model["layer_table"][count]["gpu_mib"] - quarter["gpu_mib"]
    return [
        f"{asked} ≥ {count} layers: nothing is offloaded; gpu_layers {quarter['layers']} would offload a quarter: "
        f"{saved} MiB less on the GPU{_slower_text(model, quarter, ', ', '')}"
    ]


def _slower_text(model: PlannedModel, row: LayerRow, before: str = " (", after: str = ")") -> str:
    if row["speed_percent"] is None:
        return ""
    return f"{before}about {100 - row['speed_percent']} % slower{after}"


def _host_notes(host: _Host, plan: HostPlan, bandwidth_known: bool) -> list[str]:
    notes = []
    if not host.declared["models"] and not any(profile["models"] for profile in host.declared["profiles"]):
        notes.append("gpu_memory_models names no model: planned for what is loaded now")
    backend = plan["backend"]
    if backend and any(profile.get("backend_mib") is None for profile in plan["profiles"]):
        known = (
            f" but for the settings that the load of {backend['day']} had"
            if backend["measured_mib"] is not None
            else f"; it holds {backend['now_mib']} MiB now"
            if backend["now_mib"]
            else ""
        )
        notes.append(
            f"what the backend itself takes on the GPU is not known before a load{known}: apply and verify measure it, "
            "and the next plan counts it"
        )
    if len(host.gpus) > 1:
        notes.append(
            f"{len(host.gpus)} GPUs: each is planned by Ollama's own rule, and the sum, the headroom and what fits are "
            "the tightest one's; with several models a GPU's figure is the most by any order in which they are loaded"
        )
    figures = [process["used_mib"] for gpu in host.read["nvml"]["gpus"] for process in gpu["processes"]]
    if None in figures or prediction.hides_runners(host.read):
        notes.append("the driver does not say how much each process holds: what others hold may be more")
    if not bandwidth_known:
        notes.append(
            f"the memory bandwidth of {host.gpu['name']} is not known here: {host.gpu_gb:g} GB/s assumed; "
            "set gpu_memory_gpu_gb_per_s"
        )
    notes += [
        f"{profile['label']}: compute and runtime of {name} are calibrated, as measured here on {day}"
        for profile in plan["profiles"]
        for name, day in profile.get("measured", {}).items()
    ]
    notes += [lint.text(finding) for finding in lint.lint(sizes.sized(host.declared, host.read), host.read)]
    notes += host.read["nvml"].get("notes") or []
    notes += decisions.start_notes(host.declared, host.read)
    notes += decisions.dependent_notes(host.read, ["ollama", "backend"])
    return notes + decisions.taken_over_notes(host.read["ollama"]["drop_ins"]["own"])
