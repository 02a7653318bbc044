# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured and read back to a verdict and the record of a host. Pure: no host, no clock, no Ansible."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.gpus import name_of
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    launch,
    log_lines,
    model_name,
    model_use,
    prompt_reuse,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import placement, planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import model_kinds, modelfiles
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
    Api,
    Journal,
    LogLine,
    Show,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures, LoadResult
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Effects, MemorySplit
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import lasting
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift, evidence
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import memory_parts

SCHEMA = 1
PROVING = ("sampled", "bounded")
SETTLE_S = 0.5  # a runner's line may come after the answer
UNIFIED_MEMORY = "GGML_CUDA_ENABLE_UNIFIED_MEMORY"


def judge_load(
    declared: Sized,
    load: LoadResult,
    after: HostFacts,
    before: HostFacts | None = None,
    meanwhile: lasting.Changed = lasting.NOTHING,
) -> tuple[str, list[str]]:
    """`pass`, `fail` or `inconclusive`, with every reason.

    `load`: the result of gpu_memory_assert; `after`: gpu_memory_info read after it, its journal since the load began;
    `before`: the same from when it was decided what to do; `meanwhile`: what was changed since.
    """
    effect = drift.effects(load, after)
    journal = after["ollama"]["journal"]
    failures = [failure for failure in journal["failures"] if failure["severity"] == "fatal"]
    figures = load.get("load") or {}
    reasons = [*_upgrade_reasons(before or after, after), *meanwhile.ours]
    reasons += lasting.down(after)
    if load.get("breached"):
        reasons.append(str(load.get("msg") or "the load test failed"))
        threshold, peak = declared["profile"]["max_used_mib"], load.get("peak_used_mib")
        if threshold is not None and peak is not None and peak > threshold:
            reasons += holders(load, memory_parts.known([before, after], load.get("processes") or []))
    elif figures.get("failed"):
        reasons.append(f"{figures['failed']} of {figures['requests']} requests failed")
    else:
        reasons += _unanswered(figures)
    if failures:
        reasons.append(f"Ollama's journal: {plainest_failure(failures)}")
    lost = after["nvml"].get("lost")
    reasons += [lost] if lost else _layer_reasons(declared, effect, after)
    missed = _missed(declared, figures, journal)
    for row in [] if missed else drift.drift(declared, after, load):  # else of whatever runner was seen
        if row["state"] == drift.INSTEAD and row["name"] != declared["backend"]["keys"].get("gpu_layers"):
            found = [row["effect"], row["source"]] if row["effect"] != drift.NOT_READ_BACK else [row["source"]]
            reasons.append(f"{row['name']}={row['wanted']} is not in force: {'; '.join(filter(None, found))}")
    extra = reloads_beyond_plan(declared, after, figures)
    strangers = _undeclared(declared, after, figures) if extra > 0 else []
    if extra > 0 and not strangers:
        reasons.append(
            f"{extra} reloads of models beyond plan: something asks for other options, or models push each other out"
        )
    if reasons:
        return "fail", reasons + strangers + meanwhile.units
    doubts = [*strangers, *meanwhile.units, *meanwhile.lines.values()]
    if load.get("evidence") not in PROVING:
        doubts.append("NVML gave no evidence")
    started = [after["ollama"]["unit"], after["ollama"]["process"] or {}, *after["ollama"]["runners"]]
    if any(UNIFIED_MEMORY in (one.get("environment") or {}) for one in started):
        who = drift.who_sets(after["ollama"], UNIFIED_MEMORY)
        doubts.append(f"{UNIFIED_MEMORY} is set, so that memory spills where NVML does not count it; {who}")
    doubts += [*_not_sampled(load, after), *_only_on_others(load, after)]
    doubts += _layer_doubts(effect, after, missed)
    doubts += [*missed, *_unloaded(declared, figures), *_unfilled(figures, journal)]
    if declared["profile"]["max_used_mib"] is None:
        doubts.append(f"the profile {declared['profile']['name']} has no threshold to prove")
    return ("inconclusive", doubts) if doubts else ("pass", [])


def _not_sampled(load: LoadResult, after: HostFacts) -> list[str]:
    sampled = {gpu["uuid"] for gpu in load.get("gpus") or []}
    unseen = [name_of(gpu) for gpu in after["nvml"]["gpus"] if sampled and gpu["uuid"] not in sampled]
    return [f"Ollama has since found {', '.join(unseen)}, which was not sampled; apply again"] if unseen else []


def _only_on_others(load: LoadResult, after: HostFacts) -> list[str]:
    """Whether models are on GPUs alone that were not named: then the threshold was held against others' memory."""
    runners = {runner["pid"] for runner in after["ollama"]["runners"]}
    seen = {process["pid"] for process in load.get("processes") or []}
    seen |= {process["pid"] for gpu in after["nvml"]["gpus"] for process in gpu.get("processes") or []}
    if runners & seen:
        return []
    return [
        f"the model is on {name_of(gpu)}, which gpu_memory_gpus does not name, so nothing is proven of it; name that, "
        "or set CUDA_VISIBLE_DEVICES in Ollama's unit to the one that counts"
        for gpu in after["nvml"].get("ignored") or []
        if runners & {process["pid"] for process in gpu.get("processes") or []}
    ]


def _unanswered(figures: Figures) -> list[str]:
    """A load of which not every request was answered well proves nothing, whatever became of the others."""
    return [
        f"{one.get('ok', 0)} requests were answered, and {one.get('wanted') or 'some'} were to be sent"
        for one in [figures, *(figures.get("others") or [])]
        if one and one.get("ok", 0) < (one.get("wanted") or 1)
    ]


def _missed(declared: Sized, figures: Figures, journal: Journal) -> list[str]:
    """Whether a backend's load went past this Ollama, of which the models that were asked for besides tell nothing."""
    end = float(figures.get("finished_epoch") or 0)
    if figures.get("model") or figures.get("used") != [] or any(load["at"] <= end for load in journal["loads"]):
        return []
    url = declared["ollama"]["url"]
    return [
        f"the backend's requests made Ollama at {url} use no model; see where it sends them, and whether it answers"
    ]


def _unloaded(declared: Sized, figures: Figures) -> list[str]:
    """The declared models that were not loaded for a load test, or of which this is not known."""
    models, loaded = declared["models"], figures.get("loaded")
    if not figures or not models:
        return []
    if loaded is None:
        url = declared["ollama"]["url"]
        return [f"Ollama at {url} did not tell which models it had loaded, so nothing is proven of {', '.join(models)}"]
    missing = model_kinds.none_of(models, loaded)
    return [f"{model} was not loaded in the test, so nothing is proven of it" for model in missing]


def _unfilled(figures: Figures, journal: Journal) -> list[str]:
    """What was asked of with prompts that did not fill its context: the load, and each further model.

    The log tells what was evaluated, but not for whom: of the load counts what came before its end. Of a model that was
    asked for itself the answers tell how long the prompts were.
    """
    end = float(figures.get("finished_epoch") or 0) + SETTLE_S
    by_log = [int(tokens) for at, tokens in journal.get("longest_prompts") or [] if at <= end]
    if evidence.incomplete(journal):  # the longest may be in what is missing
        by_log = []
    told = [figures.get("longest_prompt_tokens"), *by_log[-1:]]
    evaluated = min((tokens for tokens in told if tokens), default=None)
    doubts = [prompt_reuse.doubt(figures.get("longest_asked_tokens"), evaluated, journal.get("most_reused"))]
    for one in figures.get("others") or []:
        doubt = prompt_reuse.doubt(one.get("longest_asked_tokens"), one.get("longest_prompt_tokens"), None)
        doubts.append(doubt and f"{one['model']}: {doubt}")
    return [doubt for doubt in doubts if doubt]


def holders(load: LoadResult, owners: memory_parts.Known) -> list[str]:
    """Who held memory during a load, each at its most, by the names of the rows of memory."""
    found = sorted(load.get("processes") or [], key=lambda process: -(process["peak_mib"] or 0))
    shown = [
        f"{memory_parts.name_of(process, owners)} {process['peak_mib']}" for process in found if process["peak_mib"]
    ]
    return [f"who held it, each at its most, in MiB: {', '.join(shown)}"] if shown else []


def _upgrade_reasons(before: HostFacts, after: HostFacts) -> list[str]:
    """What was decided for one release of Ollama says nothing of another."""
    was, is_now = (read["ollama"]["api"]["version"] for read in (before, after))
    if None in (was, is_now) or was == is_now:
        return []
    return [f"Ollama was {was} when this run decided what to do, and is {is_now} now; apply again"]


def _undeclared(declared: Sized, after: HostFacts, figures: Figures) -> list[str]:
    """The models that somebody else had loaded during the test, with the cure; they say nothing against a profile."""
    names: Mapping[str, str] = after["ollama"]["api"].get("names") or {}
    blobs = _files_loaded(after["ollama"]["journal"])
    found = dict.fromkeys(names[blob] for blob in blobs if blob and blob in names)
    theirs = model_kinds.none_of(list(found), [*declared["models"], *(figures.get("used") or [])])
    return [
        f"{model} was loaded during the test, and nobody declared it: some client uses it; keep clients away "
        "(gpu_memory_before_restart), or declare it in gpu_memory_models"
        for model in theirs
        if declared["models"]
    ]


def _layer_reasons(declared: Sized, effect: Effects, after: HostFacts) -> list[str]:
    """A model on the CPU stays under every threshold and proves nothing; this holds for each that was loaded."""
    wanted, ollama = declared["profile"]["intent"].get("gpu_layers"), after["ollama"]
    reasons = []
    for load in [effect, *(load for load in ollama["journal"]["loads"] if load["started"])]:
        if load["offloaded"] is not None:
            all_layers = load["offloadable"] or 0
            planned = all_layers if wanted is None else min(wanted, all_layers)
            by_model = modelfiles.set_by_one(declared, ollama["api"]["show"], "num_gpu", load["offloaded"])
            if load["offloaded"] < planned and not (by_model and load["offloaded"]):
                reasons.append(f"{load['offloaded']} of {all_layers} layers are on the GPU, {planned} were planned")
    if reasons and effect["num_gpu"] is not None:
        reasons.append(_why_so_few(declared, after, effect["num_gpu"]))
    if wanted != 0:
        reasons += [f"{name} runs on the CPU alone, as {endpoints.LOADED} says" for name in _on_cpu(ollama["api"])]
        reasons += _kept_off(after)
        reasons += _overridden(declared, after)
        reasons += _overflowing(declared, after)
    return list(dict.fromkeys(reasons))


def _layer_doubts(effect: Effects, after: HostFacts, missed: Sequence[str]) -> list[str]:
    """What was not read back of where the model is; `missed`: why there need not be one."""
    if not effect["runner"]:
        return [] if missed else ["no runner was seen, so the load did not reach a model of this Ollama"]
    if effect["offloaded"] is None and not fully_on_gpu(after):
        return ["how many layers are on the GPU was not read back"]
    if not _seen_on_gpu(after, effect):
        return ["no buffer on a GPU was read back, and the line of the layers alone proves none"]
    return []


def _on_cpu(api: Api) -> list[str]:
    """The loaded models of which nothing is on a GPU.

    Since 0.30 one without a size is no model that is still being loaded: where all layers count as offloaded, Ollama
    takes the GPU's part for the whole (MemorySize in llm/llama_server.go), and that is nothing.
    """
    version = settings.parse_version(api["version"])
    sized = version is None or version < settings.ENGINE
    return [str(model["name"]) for model in api["loaded"] if model["size_vram"] == 0 and (model["size"] or not sized)]


def _kept_off(after: HostFacts) -> list[str]:
    """What is on the CPU by its buffers, whatever the line of the layers says, of each load that came up."""
    ollama = after["ollama"]
    if evidence.incomplete(ollama["journal"]):  # the GPU's lines may be what is missing
        return []
    blobs = {show.get("blob"): name for name, show in ollama["api"]["show"].items() if show}
    takes = drift.llama_server_takes(after)
    why = [
        f"; {name}={taken}, {drift.who_sets(ollama, name)}"
        for name, taken in takes.items()
        if name in launch.OF_ALL_LAYERS and launch.keeps_off(name, taken)
    ]
    return [
        f"{blobs.get(model_use.blob_of(load['command'])) or 'a model'}: {what} is on the CPU by its buffers, though "
        f"{load['offloaded']} of {load['offloadable']} layers are said to be on the GPU{''.join(why)}"
        for load in ollama["journal"]["loads"]
        if load["started"] and (what := log_lines.kept_off(load))
    ]


def _overflowing(declared: Sized, after: HostFacts) -> list[str]:
    """The loads of which llama-server itself has put parts of layers on the CPU, unless that is accepted."""
    reasons = [
        f"parts of {overflowing} of the {load['offloaded']} layers on the GPU, such as experts, are on the CPU, since "
        "not everything fits"
        for load in after["ollama"]["journal"]["loads"]
        if load["started"] and (overflowing := load.get("overflowing"))
    ]
    return [reason for reason in reasons if not any(words in reason for words in declared["accepted_notes"])]


def _overridden(declared: Sized, after: HostFacts) -> list[str]:
    """What the server's environment keeps on the CPU of layers that count as on the GPU, unless that is accepted."""
    takes, ollama = drift.llama_server_takes(after), after["ollama"]
    reasons = []
    for name in launch.OF_TENSORS:
        expressions = launch.on_cpu({name: takes[name]}) if name in takes else []
        for model, show in ollama["api"]["show"].items() if expressions else ():
            blocks = _blocks_with(show, expressions)
            if blocks:
                reasons.append(
                    f"{model}: {name}={takes[name]} keeps tensors of {blocks} of its layers on the CPU; "
                    f"{drift.who_sets(ollama, name)}"
                )
    return [reason for reason in reasons if not any(words in reason for words in declared["accepted_notes"])]


def _blocks_with(show: Show, expressions: Sequence[str]) -> int:
    """Of how many blocks an expression finds tensors; 0 where that cannot be told."""
    try:
        return len(placement.Kept.of(planner.Model.from_show(show).blocks, expressions).tensors)
    except (planner.ModelUnreadable, placement.NotPlanned):
        return 0


def _seen_on_gpu(after: HostFacts, effect: Effects) -> bool:
    """Whether anything but the line of the layers says that a model is on a GPU."""
    loads = after["ollama"]["journal"]["loads"]
    by_buffers = any(mib for load in loads if load["offloaded"] for mib in load["buffers_mib"].values())
    by_api = any(model["size_vram"] for model in after["ollama"]["api"]["loaded"])
    return by_buffers or by_api or effect["offloaded"] == 0


def _why_so_few(declared: Sized, after: HostFacts, num_gpu: int) -> str:
    """Who asks for these layers, and what to change: the key that the backend sends, with its file."""
    key = declared["backend"]["keys"].get("gpu_layers")
    why = f"requests carry num_gpu={num_gpu}"
    if not key:
        return why
    why += f", which the backend takes from {drift.key_place(declared, after, 'gpu_layers', num_gpu) or key}"
    should_be = wanted_settings.backend_env(declared, after).get(key)
    if should_be in (None, str(num_gpu)):
        return why
    fitted = " (Ollama then fits the layers)" if should_be == wanted_settings.FITTED_BY_OLLAMA else ""
    return f"{why}; it should be {should_be}{fitted}"


def plainest_failure(failures: Sequence[LogLine]) -> str:
    """The line that says most: an allocation that failed before what followed from it."""
    for words in ("out of memory", "allocat", "memory"):
        for failure in failures:
            if words in failure["line"]:
                return failure["line"]
    return failures[0]["line"]


def planned_loads(declared: Sized, turns: int, undeclared: int = 0) -> int:
    """How many loads of models a test of so many turns may need; `undeclared`: others that a backend used.

    One for each model that the host serves, since Ollama itself is asked for them one after another. Where fewer may be
    loaded at a time, those that a backend uses push each other out, and each of its turns loads them anew.
    """
    models = max(1, len(declared["models"]) + undeclared)
    if (declared["profile"]["intent"].get("max_loaded_models") or settings.MODELS_A_GPU) >= models:
        return models
    return turns * models if declared["backend"]["load"].get("url") else models


def reloads_beyond_plan(declared: Sized, after: HostFacts, figures: Figures) -> int:
    """Loads during the test that worked, less those that the plan implies.

    A model that is asked for itself may be of a file that a backend has had loaded already, with options of its own.
    """
    loads = Counter(_files_loaded(after["ollama"]["journal"]))
    undeclared = model_kinds.none_of(figures.get("used") or [], declared["models"]) if declared["models"] else []
    planned = planned_loads(declared, int(figures.get("requests") or 0), len(undeclared))
    if not figures.get("model"):
        shows = after["ollama"]["api"]["show"]
        blobs = Counter((shows.get(one["model"]) or {}).get("blob") for one in figures.get("others") or [])
        planned += sum(min(times, max(loads[blob] - 1, 0)) for blob, times in blobs.items())
    return max(0, sum(loads.values()) - planned)


def reloads(journal: Journal) -> int:
    """Loads that worked of a model that had been loaded before, during the test."""
    loaded = _files_loaded(journal)
    return len(loaded) - len(set(loaded))


def _files_loaded(journal: Journal) -> list[str | None]:
    """The model's file of each load that worked."""
    return [model_use.blob_of(load["command"]) for load in journal["loads"] if load["started"]]


def fully_on_gpu(after: HostFacts) -> bool:
    loaded = after["ollama"]["api"]["loaded"]
    return bool(loaded) and all(model["size"] and model["size"] == model["size_vram"] for model in loaded)


def memory_split(load: LoadResult, after: HostFacts, before: HostFacts | None = None) -> MemorySplit:
    """Who held the memory, each at its most, in MiB: Ollama by terms as its journal gives them, and others by name.

    `loaded`: whether the largest runner came up and any request was answered; else what it held is no size of a model.
    """
    figures = load.get("load") or {}
    answered = any(one["ok"] for one in [figures, *(figures.get("others") or [])] if one)
    processes = load.get("processes") or []
    owners = memory_parts.known([before, after], processes)
    others = [process for process in processes if memory_parts.kind_of(process, owners) != memory_parts.OLLAMA]
    ollama = [process for process in processes if process.get("command") and process not in others]
    largest = max(ollama, key=lambda process: process["peak_mib"] or 0, default=None)
    command = (largest["command"] if largest else None) or []
    # Over the GPUs.
    total = sum(process["peak_mib"] or 0 for process in ollama if largest and process["pid"] == largest["pid"])
    buffers = drift.load_by(command, after["ollama"]["journal"]).get("buffers_mib") or {}
    terms: dict[str, float] = {}
    for name, mib in buffers.items():
        kind = name.rpartition(" ")[2]
        term = {"model": "weights", "KV": "kv", "RS": "kv"}.get(kind, "compute")
        terms[term] = terms.get(term, 0) + mib
    if total > sum(terms.values()) > 0:
        terms["runtime"] = total - sum(terms.values())
    return {
        "ollama_mib": total,
        "runners": len({process["pid"] for process in ollama if process["peak_mib"]}),
        "all_mib": sum(process["peak_mib"] or 0 for process in ollama),
        "loaded": answered and not drift.never_came_up(command, after["ollama"]["journal"]),
        "terms_mib": {name: round(mib) for name, mib in terms.items()},
        "others": [
            {"name": memory_parts.name_of(process, owners), "peak_mib": process["peak_mib"]} for process in others
        ],
    }


def speed_of(figures: Figures, journal: Journal) -> float | None:
    """Tokens per second of a load's answers on average; None where nothing tells.

    As the answers say, else as llama.cpp's own timing lines do until the load's end: after it other models are asked.
    """
    told = figures.get("tokens_per_s")
    if told:
        return round(float(told), 1)
    end = float(figures.get("finished_epoch") or 0) + SETTLE_S
    return _mean([speed for at, speed in journal["tokens_per_s"] if at <= end])


def speed_is_of(figures: Figures, shows: Mapping[str, Show]) -> list[str]:
    """The models whose speed a load's is: the one that was asked for, or those that a backend used and that write."""
    model = figures.get("model")
    if model:
        return [model]
    embedders = [name for name, show in shows.items() if model_kinds.embeds_only(show)]
    return model_kinds.none_of(figures.get("used") or [], embedders)


def _files_of(figures: Figures, after: HostFacts) -> set[str | None]:
    """The files of the models whose speed a load's is; where it is not known which, of those that it made come up."""
    shows = after["ollama"]["api"]["show"]
    names = speed_is_of(figures, shows)
    files = {(show or {}).get("blob") for name, show in shows.items() if model_name.listed(name, names)} - {None}
    end = figures.get("finished_epoch") or math.inf
    return files or {
        model_use.blob_of(load["command"]) for load in after["ollama"]["journal"]["loads"] if load["at"] <= end
    }


def _mean(speeds: Sequence[float]) -> float | None:
    return round(sum(speeds) / len(speeds), 1) if speeds else None


def before_text(read: HostFacts, after: HostFacts | None = None, figures: Figures | None = None) -> str:
    """How the host did before, from the journal since Ollama's last start; its speed with the models of a load.

    `after`: what was read after that load; `figures`: its own, since what came after its end were other models.
    """
    journal = read["ollama"]["journal"]
    if any(failure["severity"] == "fatal" for failure in journal["failures"]):
        return "crashed"
    if evidence.not_read(journal):
        return "not read"
    models = _files_of(figures or {}, after) if after else set()
    same = [load for load in journal["loads"] if model_use.blob_of(load["command"]) in models]
    speeds = [speed for load in same for speed in load["tokens_per_s"]]
    speed = _mean(speeds if models else [speed for _at, speed in journal["tokens_per_s"]])
    others = "not with this model" if journal["tokens_per_s"] else "no requests seen"
    return f"{speed} tok/s" if speed else others
