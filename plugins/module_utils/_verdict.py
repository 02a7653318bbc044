# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was measured and read back to a verdict and the record of a host. Pure: no host, no clock, no Ansible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils import _journal, _settings

SCHEMA = 1
IN_FORCE, PARTIAL, NO_EFFECT, INSTEAD, VOID = "in force", "partial", "no effect", "instead", "void"
NOT_READ_BACK = "not read back"
MODELS_A_GPU = 3  # what Ollama keeps loaded where nothing is said (server/sched.go)
PROVING = ("sampled", "bounded")
UNIFIED_MEMORY = "GGML_CUDA_ENABLE_UNIFIED_MEMORY"


def effects(load: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, Any]:
    """What the running system does: settings of the largest runner seen, and its layers.

    Returns num_ctx_total, num_parallel, num_gpu, num_batch (None where neither the command line nor the journal has
    them), `num_ctx` of a slot, `sent` (what is not on the command line), offloaded, offloadable, `runner` (whether one
    was seen at all).
    """
    last = after["ollama"]["journal"]["last_load"] or {}
    seen: list[list[str]] = [
        process["command"] for process in (load or {}).get("processes") or [] if process.get("command")
    ]
    seen += [runner["command"] for runner in after["ollama"]["runners"]]
    seen += [last["command"]] if last.get("command") else []
    command = seen[0] if seen else []
    its_load = _load_by(command, after["ollama"]["journal"])
    sent = its_load.get("sent") or {}
    runner = _journal.runner_settings(command, sent)
    return {
        **runner,
        "num_ctx": context_per_slot(runner) or _listed_context(after["ollama"]["api"]["loaded"]),
        "sent": sent,
        "runner": bool(seen),
        "offloaded": its_load.get("offloaded"),
        "offloadable": its_load.get("offloadable"),
    }


def _load_by(command: list[str], journal: Mapping[str, Any]) -> Mapping[str, Any]:
    """The load that started a runner, since a smaller model may have come after it; else the last load there was."""
    loads: list[Mapping[str, Any]] = [*journal["loads"], *filter(None, [journal["last_load"]])]
    return next((load for load in reversed(loads) if load["command"] == command), loads[-1] if loads else {})


def context_per_slot(runner: Mapping[str, int | None]) -> int | None:
    """A runner has one context for all slots together."""
    total, slots = runner["num_ctx_total"], runner["num_parallel"]
    return total // slots if total and slots else None


def _listed_context(loaded: Sequence[Mapping[str, Any]]) -> int | None:
    """What `/api/ps` says of the largest model, since Ollama 0.10; it is that of a slot."""
    largest = max(loaded, key=lambda model: model["size"] or 0, default={})
    return largest.get("context_length")


def settings(
    declared: Mapping[str, Any], environment: Mapping[str, str], after: Mapping[str, Any], effect: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Every setting as name, wanted, effect, state, read_by, and set_by: the profile, or this collection for it."""
    backend = declared["backend"]
    keys = {variable: intent for intent, variable in backend["keys"].items()}
    rows = []
    for name, wanted in declared["env"].items():
        if name in environment:
            continue
        intent = keys.get(name)
        set_by = "profile" if name in declared["profile"]["env"] else "collection"
        if intent == "num_ctx":
            state, found, read_by = *_context_state(wanted, effect), "backend"
        elif intent == "gpu_layers":
            state, found, read_by = *_layers_state(wanted, effect, is_cap=set_by == "profile"), "backend"
        elif name in backend["reads"] or intent:
            state, found, read_by = PARTIAL, NOT_READ_BACK, "backend"
        elif name in _settings.NOBODY_READS:
            state, found, read_by = NO_EFFECT, _settings.NOBODY_READS[name], "nobody"
        else:
            state, found, read_by = NO_EFFECT, "neither Ollama nor the backend reads it", "nobody"
        rows.append(_row(name, wanted, state, found, read_by, set_by))
    config = after["ollama"]["journal"]["server_config"] or {}
    for name, wanted in environment.items():
        set_by = "profile" if name in declared["profile"]["env"] else "collection"
        state, found = _server_state(name, wanted, config, after["ollama"], effect)
        rows.append(_row(name, wanted, state, found, "Ollama", set_by))
    return rows


def _row(name: str, wanted: str, state: str, effect: str, read_by: str, set_by: str) -> dict[str, str]:
    return {"name": name, "wanted": wanted, "effect": effect, "state": state, "read_by": read_by, "set_by": set_by}


def _context_state(wanted: str, effect: Mapping[str, Any]) -> tuple[str, str]:
    slot, total = effect["num_ctx"], effect["num_ctx_total"]
    if slot is None:
        return PARTIAL, NOT_READ_BACK
    if total is None:
        found = f"/api/ps has context_length {slot}"
    else:
        how = f"was sent KvSize:{total}" if "num_ctx_total" in effect["sent"] else f"has -c {total}"
        found = f"runner {how} (= {slot} x {effect['num_parallel']})"
    return (IN_FORCE if slot == int(wanted) else INSTEAD), found


def _layers_state(wanted: str, effect: Mapping[str, Any], is_cap: bool) -> tuple[str, str]:
    """`is_cap`: whether it is meant to keep layers from the GPU, rather than to bring them there."""
    if effect["offloaded"] is None:
        return PARTIAL, NOT_READ_BACK
    on_gpu = f"{effect['offloaded']} of {effect['offloadable']} layers are on the GPU"
    if effect["num_gpu"] is None:
        return NO_EFFECT, f"no request carries it to Ollama; {on_gpu}"
    if is_cap and int(wanted) >= effect["offloadable"] == effect["offloaded"]:
        return NO_EFFECT, f"{wanted} caps nothing, since the model has {effect['offloadable']} layers; {on_gpu}"
    return (IN_FORCE if effect["offloaded"] == min(int(wanted), effect["offloadable"]) else INSTEAD), on_gpu


def _server_state(
    name: str, wanted: str, config: Mapping[str, str], ollama: Mapping[str, Any], effect: Mapping[str, Any]
) -> tuple[str, str]:
    if ollama["process"] is None:
        return PARTIAL, NOT_READ_BACK
    started_with = ollama["process"]["environment"].get(name)
    slot = effect["num_ctx"]
    if name == "OLLAMA_CONTEXT_LENGTH" and started_with is None and str(slot) == wanted:
        return PARTIAL, f"the server lacks it; requests carry num_ctx={slot} themselves"
    if started_with != wanted:
        return INSTEAD, f"the server was started with {name}={started_with}" if started_with else "the server lacks it"
    if name in _settings.MARGINS and effect["num_gpu"] is not None:
        return VOID, f"requests carry num_gpu={effect['num_gpu']}, which switches Ollama's fitting off"
    if name in config and config[name] != wanted:
        return INSTEAD, f"the server config says {config[name] or 'nothing'}"
    if name == "OLLAMA_NUM_PARALLEL" and effect["num_parallel"] is not None:
        slots = effect["num_parallel"]
        how = f"was sent Parallel:{slots}" if "num_parallel" in effect["sent"] else f"has -np {slots}"
        return (IN_FORCE if str(slots) == wanted else INSTEAD), f"runner {how}"
    if name == "OLLAMA_CONTEXT_LENGTH" and slot is not None and str(slot) != wanted:
        return INSTEAD, f"requests carry their own num_ctx: {slot}"
    if name in config:
        return IN_FORCE, f"the server config says {config[name]}"
    runner = next(iter(ollama["runners"]), None)
    if runner and runner["environment"].get(name) == wanted:
        return IN_FORCE, "the runner was started with it"
    return PARTIAL, "the server was started with it; its effect is not read back"


def judge_load(
    declared: Mapping[str, Any],
    environment: Mapping[str, str],
    load: Mapping[str, Any],
    after: Mapping[str, Any],
) -> tuple[str, list[str]]:
    """`pass`, `fail` or `inconclusive`, with every reason.

    `load`: the result of gpu_memory_assert; `after`: gpu_memory_info read after it, its journal since the load began.
    """
    effect = effects(load, after)
    journal = after["ollama"]["journal"]
    failures = [failure for failure in journal["failures"] if failure["severity"] == "fatal"]
    reasons = []
    figures = load.get("load") or {}
    if load.get("breached"):
        reasons.append(str(load.get("msg") or "the load test failed"))
    elif figures.get("failed"):
        reasons.append(f"{figures['failed']} of {figures['requests']} requests failed")
    if failures:
        reasons.append(f"Ollama's journal: {plainest_failure(failures)}")
    reasons += _layer_reasons(declared, effect, after["ollama"])
    for row in settings(declared, environment, after, effect):
        if row["state"] == INSTEAD and row["name"] != declared["backend"]["keys"].get("gpu_layers"):
            reasons.append(f"{row['name']}={row['wanted']} is not in force: {row['effect']}")
    extra = reloads_beyond_plan(declared, journal, int(figures.get("requests") or 0))
    if extra > 0:
        reasons.append(
            f"{extra} reloads of models beyond plan: something asks for other options, or models push each other out"
        )
    if reasons:
        return "fail", reasons
    doubts = []
    if load.get("evidence") not in PROVING:
        doubts.append("NVML gave no evidence")
    started = [after["ollama"]["unit"], after["ollama"]["process"] or {}, *after["ollama"]["runners"]]
    if any(UNIFIED_MEMORY in (one.get("environment") or {}) for one in started):
        doubts.append(f"{UNIFIED_MEMORY} is set, so that memory spills where NVML does not count it")
    if not effect["runner"]:
        doubts.append("no runner was seen, so the load did not reach a model of this Ollama")
    elif effect["offloaded"] is None and not fully_on_gpu(after):
        doubts.append("how many layers are on the GPU was not read back")
    if declared["profile"]["max_used_mib"] is None:
        doubts.append(f"the profile {declared['profile']['name']} has no threshold to prove")
    return ("inconclusive", doubts) if doubts else ("pass", [])


def _layer_reasons(declared: Mapping[str, Any], effect: Mapping[str, Any], ollama: Mapping[str, Any]) -> list[str]:
    """A model on the CPU stays under every threshold and proves nothing; this holds for each that was loaded."""
    wanted = declared["profile"]["intent"].get("gpu_layers")
    sent = "" if effect["num_gpu"] is None else f"; requests carry num_gpu={effect['num_gpu']}"
    key = declared["backend"]["keys"].get("gpu_layers")
    should_be = declared["env"].get(key)
    if sent and key:
        sent += f", which the backend takes from {key}"
        sent += f"; it should be {should_be}" if should_be not in (None, str(effect["num_gpu"])) else ""
    reasons = []
    for load in [effect, *(load for load in ollama["journal"]["loads"] if load["started"])]:
        if load["offloaded"] is not None:
            planned = load["offloadable"] if wanted is None else min(wanted, load["offloadable"])
            if load["offloaded"] < planned:
                on_gpu = f"{load['offloaded']} of {load['offloadable']} layers are on the GPU"
                reasons.append(f"{on_gpu}, {planned} were planned{sent}")
    if wanted != 0:
        on_cpu = [str(model["name"]) for model in ollama["api"]["loaded"] if model["size"] and model["size_vram"] == 0]
        reasons += [f"{name} runs on the CPU alone, as /api/ps says" for name in on_cpu]
    return list(dict.fromkeys(reasons))


def plainest_failure(failures: Sequence[Mapping[str, Any]]) -> str:
    """The line that says most: an allocation that failed before what followed from it."""
    for words in ("out of memory", "allocat", "memory"):
        for failure in failures:
            if words in failure["line"]:
                return failure["line"]
    return failures[0]["line"]


def planned_loads(declared: Mapping[str, Any], turns: int) -> int:
    """How many loads of models a test of so many turns may need.

    One for each model that the host serves. Where fewer may be loaded at a time, they push each other out: a turn
    through a backend then loads every model anew, and a chat straight with Ollama its own.
    """
    models = max(1, len(declared["models"]))
    if (declared["profile"]["intent"].get("max_loaded_models") or MODELS_A_GPU) >= models:
        return models
    return turns * (models if declared["backend"]["load"] else 1)


def reloads_beyond_plan(declared: Mapping[str, Any], journal: Mapping[str, Any], turns: int) -> int:
    """Loads during the test that worked, less those that the plan implies."""
    return max(0, sum(load["started"] for load in journal["loads"]) - planned_loads(declared, turns))


def reloads(journal: Mapping[str, Any]) -> int:
    """Loads that worked of a model that had been loaded before, during the test."""
    loaded = [_model_of(load["command"]) for load in journal["loads"] if load["started"]]
    return len(loaded) - len(set(loaded))


def _model_of(command: Sequence[str]) -> str | None:
    """The model's file on a runner's command line."""
    return next((value for name, value in zip(command, command[1:]) if name == "--model"), None)


def fully_on_gpu(after: Mapping[str, Any]) -> bool:
    loaded = after["ollama"]["api"]["loaded"]
    return bool(loaded) and all(model["size"] and model["size"] == model["size_vram"] for model in loaded)


def memory_split(load: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Who held the memory at its most, in MiB: Ollama by terms as its journal gives them, and the others by name."""
    ollama = [process for process in load.get("processes") or [] if process.get("command")]
    others = [process for process in load.get("processes") or [] if not process.get("command")]
    nobody: Mapping[str, Any] = {"pid": None, "command": []}
    largest = max(ollama, key=lambda process: process["peak_mib"] or 0, default=nobody)
    total = sum(process["peak_mib"] or 0 for process in ollama if process["pid"] == largest["pid"])  # over the GPUs
    buffers = _load_by(largest["command"], after["ollama"]["journal"]).get("buffers_mib") or {}
    terms: dict[str, float] = {}
    for name, mib in buffers.items():
        kind = name.rpartition(" ")[2]
        term = {"model": "weights", "KV": "kv", "RS": "kv"}.get(kind, "compute")
        terms[term] = terms.get(term, 0) + mib
    if total > sum(terms.values()) > 0:
        terms["runtime"] = total - sum(terms.values())
    backend = after["backend"]["pids"]
    return {
        "ollama_mib": total,
        "terms_mib": {name: round(mib) for name, mib in terms.items()},
        "others": [
            {
                "name": "backend" if process["pid"] in backend else process["name"] or f"process {process['pid']}",
                "peak_mib": process["peak_mib"],
            }
            for process in others
        ],
    }


def speed_of(journal: Mapping[str, Any]) -> float | None:
    """Tokens per second of an answer on average, as llama.cpp's own timing lines say; None without such lines."""
    speeds = journal["tokens_per_s"]
    return round(sum(speeds) / len(speeds), 1) if speeds else None


def before_text(read: Mapping[str, Any]) -> str:
    """How the host did before, from the journal since Ollama's last start."""
    journal = read["ollama"]["journal"]
    if any(failure["severity"] == "fatal" for failure in journal["failures"]):
        return "crashed"
    speed = speed_of(journal)
    return f"{speed} tok/s" if speed else "no requests seen"


def conclude(
    declared: Mapping[str, Any],
    gate: Mapping[str, Any],
    decision: Mapping[str, Any] | None,
    judged: Mapping[str, Any] | None,
    failure: Mapping[str, Any] | None,
    restored: Mapping[str, Any] | None,
    kept: bool,
    check_mode: bool = False,
) -> tuple[str, list[str], bool]:
    """The verdict at the end of a host's run, its reasons, and whether it is `ok` for the exit status and the gate.

    `failure`: the task that failed and its message; `restored`: the result of putting the kept generation back;
    `kept`: whether a generation was kept, that is whether writing may have begun.
    """
    if not gate["open"]:
        return "untouched", [gate["reason"]], True
    if decision and decision.get("problems"):
        return "refused", list(decision["problems"]), False
    if judged and "verdict" not in judged:  # the judging itself failed
        judged = None
    if failure:
        return _conclude_failure(judged, failure, restored, kept)
    if judged:
        return judged["verdict"], list(judged["reasons"]), judged["verdict"] == "pass"
    if decision and decision.get("proof"):
        return "pass", [], True
    if check_mode:
        return "untouched", [_would(decision or {})], True
    return "inconclusive", ["not loaded, because gpu_memory_verify is " + str(declared.get("verify"))], True


def _would(decision: Mapping[str, Any]) -> str:
    """What a run without check mode would do."""
    acts = decision.get("acts")
    would = [f"write {file['path']}" for file in (decision.get("files") or []) if acts]
    would += [f"restart {service}" for service in (decision.get("restart") or []) if acts]
    would += ["load the host"] if decision.get("load_needed") else []
    return "check mode; a run would " + (", ".join(would) or "do nothing")


def _conclude_failure(
    judged: Mapping[str, Any] | None,
    failure: Mapping[str, Any],
    restored: Mapping[str, Any] | None,
    kept: bool,
) -> tuple[str, list[str], bool]:
    what = list(judged["reasons"]) if judged and judged["verdict"] != "pass" else [failure["message"]]
    if not kept:
        if judged and judged["verdict"] != "pass":
            return judged["verdict"], what, False
        return ("untouched" if failure.get("lost_connection") else "fail"), what, False
    if restored and not restored.get("failed"):
        return "rolled_back", [*what, f"generation {restored.get('generation')} is back and its services answer"], False
    if restored and restored.get("lost_connection"):
        return "fail", [*what, "the host cannot be reached and puts its kept generation back by itself"], False
    why = str((restored or {}).get("msg") or "no restore was tried")
    return "fail", [*what, f"putting the kept generation back failed as well: {why}"], False
