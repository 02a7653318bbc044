# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wanted against what runs, setting by setting, and who overrides it. Pure: no host, no clock, no Ansible.

A value travels from a file through the unit's merged environment and the process to Ollama's configuration and, with a
load, to the runner. `drift` follows each setting on this way and names whoever turned it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    keep_alive,
    llama_args,
    log_lines,
    model_use,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.architectures import SINGLE_SLOT_FAMILIES
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd.unit_environment import last_word
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import OVERRIDE_NOTHING
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import model_kinds, modelfiles
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
    BackendFacts,
    Journal,
    LoadedModel,
    LogLoad,
    OllamaFacts,
    Show,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures, LoadResult
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Effects, Row
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import EnvFile, OwnDropIn, Unit
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import backend_run, start_programs

IN_FORCE, PARTIAL, NO_EFFECT, INSTEAD, VOID = "in force", "partial", "no effect", "instead", "void"
NOT_READ_BACK = "not read back"
LEFT_OUT = "no env file of the backend has it, and add_keys: false keeps it so"
FIT, LAYERS_FOR_ALL = "LLAMA_ARG_FIT", "LLAMA_ARG_N_GPU_LAYERS"
MODELFILE = "PARAMETER"
CLIENT = "a client's own options"
RUNS_NOW = "what runs now is a client's"
RELEASE = "Ollama"
NOT_SENT = "as Ollama chooses it for requests that carry none"
MIB = 1024 * 1024


def drift(declared: Sized, read: HostFacts, load: LoadResult | None = None) -> list[Row]:
    """Every setting of the profile on a host: what is wanted, what runs, and who overrides it. No load is needed.

    `declared`: `_declare.resolve`, with a profile. `read`: the result of gpu_memory_info; of `load`, the result of a
    load test, the runners that it has seen count besides those that run now.

    A row has `name`, `wanted` (text), `effect` (what runs, or `not read back`), `state` (in force, partial, no effect,
    instead, void), `read_by` (Ollama, backend, nobody), `set_by` (profile, or collection where it is ours alone),
    `seen` (what each place says that was read, in the order of a value's way; None: it says nothing) and `source`
    (who overrides it, with the file; None where nobody does). What `drifted` says of a row is what status shows.
    """
    effect = effects(load, read)
    asked = load is not None
    environment, _unheard = wanted_settings.ollama_environment(declared, read)
    rows = [
        _backend_row(declared, read, effect, name, wanted, asked)
        for name, wanted in wanted_settings.backend_env(declared, read).items()
        if name not in environment
    ]
    rows += [_server_row(declared, read, effect, name, wanted) for name, wanted in environment.items()]
    batch = declared["profile"]["intent"].get("num_batch")
    rows += [] if batch is None else [_batch_row(declared, read, effect, batch, asked)]
    _blame_one_load(rows)
    return rows + ([] if load else _upgrade_rows(read))


def _blame_one_load(rows: Sequence[Row]) -> None:
    """Layers that a client's context left no room for are not on the GPU because of that client."""
    client = next((row["source"] for row in rows if is_clients(row)), None)
    for row in rows:
        if row["state"] == INSTEAD and row["source"] is None and "layers" in row["seen"]:
            row["source"] = client


def drifted(row: Row) -> bool:
    """Whether something else runs than what is wanted, or will from the next restart on."""
    return bool(row["state"] == INSTEAD or (row["state"] == PARTIAL and row["source"]))


def is_clients(row: Row) -> bool:
    """Whether the options of some client's request set it, until the next request with others: no file reaches that."""
    return (row["source"] or "").startswith(CLIENT)


def is_of_another_release(row: Row) -> bool:
    """Whether it says that the proof is of another Ollama, which a new proof mends."""
    return row["name"] == RELEASE


def by_clients(declared: Sized, read: HostFacts) -> tuple[list[str], list[str]]:
    """What runs now by the options of clients' requests, and what these clients should send instead.

    A model that is not loaded any more is nobody's concern: the next request loads it with its own options.
    """
    rows = (
        [row for row in drift(declared, read) if drifted(row) and is_clients(row)] if read["ollama"]["runners"] else []
    )
    if not rows:
        return [], []
    options = dict.fromkeys((row["source"] or "").removeprefix(f"{CLIENT}: ") for row in rows)
    off_gpu = [
        f"{model['size_vram'] // MIB} of {model['size'] // MIB} MiB of {model['name']} are on the GPU"
        for model in read["ollama"]["api"]["loaded"]
        if model["size_vram"] < model["size"]
    ]
    wanted = ", ".join(dict.fromkeys(f"{row['name']}={row['wanted']}" for row in rows))
    told = [f"{RUNS_NOW}: {', '.join(options)}, where {wanted} is wanted", *off_gpu]
    names = dict.fromkeys(option.partition(" ")[0] for option in options)
    return ["; ".join(told)], [_should_send(declared, read, name) for name in names]


def keep_alives(read: HostFacts) -> list[str]:
    """Loaded models that stay longer, or shorter, than the server says, since a request's keep_alive holds."""
    environment, now = (read["ollama"]["process"] or {}).get("environment") or {}, float(read["host"]["time"])
    found = (
        keep_alive.told(model["name"], model.get("expires_at"), now, environment)
        for model in read["ollama"]["api"]["loaded"]
    )
    return [text for text in found if text]


def _should_send(declared: Sized, read: HostFacts, option: str) -> str:
    """What of an option keeps a client's requests within the profile."""
    if option == "num_gpu" and not wanted_settings.caps(declared, read):
        return "no num_gpu"
    intent = declared["profile"]["intent"]
    wanted = intent.get(next((name for name, one in modelfiles.OPTIONS.items() if one == option), option))
    environment, _unheard = wanted_settings.ollama_environment(declared, read)
    needs_it = option == "num_gpu" or option == "num_ctx" and "OLLAMA_CONTEXT_LENGTH" not in environment
    return f"{option} {wanted}" + ("" if needs_it else ", or none")


# What runs -----------------------------------------------------------------------------------------------------------


def effects(load: LoadResult | None, after: HostFacts) -> Effects:
    """What the running system does: settings of the largest runner seen that counts, and its layers.

    Returns num_ctx_total, num_parallel, num_gpu, num_batch, kv_cache_type (None where neither the command line nor the
    journal has them), `num_ctx` of a slot, `sent` (what is not on the command line), offloaded, offloadable, `runner`
    (whether one was seen at all), and of its model `embedder`, `one_slot` (whatever is asked for) and `trained_ctx`.
    """
    journal = after["ollama"]["journal"]
    last = journal["last_load"] or {}
    seen = [command for _pid, command in runners_seen(load, after)]
    if last.get("command") and last["started"]:
        seen.append(last["command"])
    shows = after["ollama"]["api"]["show"]
    commands = _that_count(seen, (load or {}).get("load") or {}, journal, shows)
    command = next(iter(commands), [])
    its_load = load_by(command, journal) if commands or not last.get("command") else {}
    sent = its_load.get("sent") or {}
    runner = log_lines.runner_settings(command, sent)
    return {
        **runner,
        "kv_cache_type": its_load.get("cache_type") or log_lines.runner_cache_type(command),
        "num_ctx": log_lines.context_per_slot(runner)
        or (_listed_context(after["ollama"]["api"]["loaded"]) if commands or not seen else None),
        "sent": sent,
        "runner": bool(commands),
        "offloaded": its_load.get("offloaded"),
        "offloadable": its_load.get("offloadable"),
        "embedder": is_embedders(command, shows),
        **_limits(command, shows),
    }


def runners_seen(load: LoadResult | None, after: HostFacts) -> list[tuple[int, list[str]]]:
    """Process and command line of this Ollama's runners: those of a load that came up, the largest first, and now's."""
    journal, running = after["ollama"]["journal"], after["ollama"]["runners"]
    commands = [runner["command"] for runner in running]
    strangers = {other["pid"] for other in after["ollama"].get("others") or []}
    seen = [
        (process["pid"], command)
        for process in (load or {}).get("processes") or []
        if (command := process.get("command")) and process["pid"] not in strangers
    ]
    return [
        *((pid, command) for pid, command in seen if command in commands or not never_came_up(command, journal)),
        *((runner["pid"], runner["command"]) for runner in running),
    ]


def _that_count(
    commands: list[list[str]], figures: Figures, journal: Journal, shows: Mapping[str, Show]
) -> list[list[str]]:
    """Those runners that the profile's settings are about.

    Never those that began after a backend's load, since Ollama itself was asked for them. Unless there are no others,
    not of models that the backend did not use, and not of those that only embed.
    """
    besides = [] if figures.get("model") else [one["model"] for one in figures.get("others") or []]
    if besides:
        earlier = [load["command"] for load in journal["loads"] if load["at"] <= figures["finished_epoch"]]
        later = [load["command"] for load in journal["loads"] if load["command"] not in earlier]
        commands = [command for command in commands if command not in later]
    blobs = {(shows.get(model) or {}).get("blob") for model in besides} - {None}
    commands = [command for command in commands if model_use.blob_of(command) not in blobs] or commands
    return [command for command in commands if not is_embedders(command, shows)] or commands


def _limits(command: Sequence[str], shows: Mapping[str, Show]) -> Effects:
    """What the model of a runner cannot have, whatever is asked for."""
    blob = model_use.blob_of(command)
    known = [show for show in shows.values() if blob and show and show.get("blob") == blob]
    show: Show = known[0] if known else {}
    one_slot = has_one_slot(show) or is_embedders(command, shows)
    return {"one_slot": one_slot, "trained_ctx": model_kinds.trained_context(show)}


def has_one_slot(shown: Show) -> bool:
    """Whether Ollama starts a model with one slot, whatever is asked for (server/sched.go)."""
    details, info = shown.get("details") or {}, shown.get("model_info") or {}
    families = {details.get("family"), *(details.get("families") or ()), info.get("general.architecture")}
    return bool(families & SINGLE_SLOT_FAMILIES) or model_kinds.embeds_only(shown)


def is_embedders(command: Sequence[str], shows: Mapping[str, Show]) -> bool:
    """Whether a runner was started for a model that only embeds; before 0.30 its command line has the file alone."""
    if "--embedding" in command:
        return True
    blob = model_use.blob_of(command)
    return any(blob and show and show.get("blob") == blob and model_kinds.embeds_only(show) for show in shows.values())


def load_by(command: list[str], journal: Journal) -> LogLoad:
    """The load that started a runner, of the server that runs now; a smaller model may have come after it.

    Servers and logs that do not announce loads have no command: there the last load counts.
    """
    since = journal.get("server_at") or 0
    loads = [load for load in [*journal["loads"], *filter(None, [journal["last_load"]])] if load["at"] >= since]
    nothing: LogLoad = {}
    return next((load for load in reversed(loads) if load["command"] in (command, [])), nothing)


def never_came_up(command: list[str], journal: Journal) -> bool:
    """Whether each load by this command failed, as far as the log tells."""
    loads = [load for load in journal["loads"] if load["command"] == command]
    return bool(loads) and not any(load["started"] for load in loads)


def _listed_context(loaded: Sequence[LoadedModel]) -> int | None:
    """What `/api/ps` says of the largest model, since Ollama 0.10; it is that of a slot."""
    largest = max(loaded, key=lambda model: model["size"] or 0, default=None)
    return largest.get("context_length") if largest else None


def _layers_seen(effect: Effects) -> str | None:
    return None if effect["offloaded"] is None else f"{effect['offloaded']}/{effect['offloadable']}"


# Settings of the backend ---------------------------------------------------------------------------------------------


def _backend_row(declared: Sized, read: HostFacts, effect: Effects, name: str, wanted: str, asked: bool) -> Row:
    backend = declared["backend"]
    intent = next((intent for intent, variable in backend["keys"].items() if variable == name), None)
    set_by = "profile" if name in declared["profile"]["env"] else "collection"
    reads = name in backend["reads"] or intent is not None
    source = backend_override(read, name, wanted) if reads else None
    seen: dict[str, Any] = {file["path"]: (file.get("values") or {}).get(name) for file in read["backend"]["env_files"]}
    if intent == "num_ctx":
        state, found = _context_state(wanted, effect)
        seen["runner"] = effect["num_ctx_total"]
        seen[endpoints.LOADED] = _listed_context(read["ollama"]["api"]["loaded"])
        if state == INSTEAD and not source:
            source = _requests_source(read, effect, "num_ctx", effect["num_ctx"])
            state, found = (state, found) if source else _not_sent(found, asked)
    elif intent == "gpu_layers":
        state, found = _layers_state(wanted, effect, is_cap=set_by == "profile")
        seen.update({"runner": effect["num_gpu"], "layers": _layers_seen(effect)})
        expected = profiles.canonical_int(wanted)
        if effect["runner"] and effect["num_gpu"] is not None and effect["num_gpu"] != expected:
            source = source or _requests_source(read, effect, "num_gpu", effect["num_gpu"])
        elif effect["num_gpu"] is None and layers_for_all(read):
            state, source = INSTEAD, source or layers_for_all(read)
    elif reads and _is_left_out(read["backend"], name):
        return _row(name, wanted, NO_EFFECT, LEFT_OUT, "backend", set_by, seen)
    elif reads:
        state, found = PARTIAL, NOT_READ_BACK
    else:
        why = settings.NOBODY_READS.get(name, "neither Ollama nor the backend reads it")
        return _row(name, wanted, NO_EFFECT, why, "nobody", set_by, seen)
    if source and state == PARTIAL:
        state = INSTEAD if backend["kind"] != "none" else state
    elif source and state == IN_FORCE:
        state = PARTIAL  # until the next restart
    return _row(name, wanted, state, found, "backend", set_by, seen, source)


def _is_left_out(backend: BackendFacts, name: str) -> bool:
    """Whether no env file has a key and none may get it, and nothing else starts the backend with it."""
    files = backend["env_files"]
    no_file_gets_it = bool(files) and not any(file.get("add_keys", True) for file in files)
    return no_file_gets_it and _winning(backend, name) is None and not _started_with(backend, name)


def backend_override(read: HostFacts, name: str, wanted: str) -> str | None:
    """Who keeps the backend from taking `wanted` out of its env files; None where it has it, as far as can be seen."""
    backend = read["backend"]
    given, winning = given_instead(backend, name, wanted), _winning(backend, name)
    if given:
        return given
    if winning is None:
        files = backend["env_files"]
        where = " or ".join(file["path"] for file in files)
        return f"{name} is not in {where}" if where else None
    value = winning["values"][name]
    if value != wanted:
        return f"{winning['path']} says {name}={value}"
    if backend["pids"] and not backend_run.has_read(read, winning):
        return f"the backend was started before {winning['path']} was written; restart it"
    return None


def given_instead(backend: BackendFacts, name: str, wanted: str) -> str | None:
    """Who starts the backend with another value that its env file does not change; None where nobody does, or it does.

    load_dotenv() and its like leave what the process was started with, the other readers set it anew. Where nobody says
    who reads the file (`dotenv.DEFAULT_READERS`), it may be load_dotenv().
    """
    gets_it = (file for file in backend["env_files"] if file.get("add_keys", True))
    file = _winning(backend, name) or next(gets_it, None)
    read_by = file.get("read_by") if file else None
    given = _started_with(backend, name)
    if not given or given[0] == wanted or not OVERRIDE_NOTHING.issuperset(read_by or ()):
        return None
    reader = ", ".join(read_by) if read_by and read_by != ["python-dotenv"] else "load_dotenv()"
    told = f"{given[1]} sets {name}={given[0]}, and {reader} overrides nothing"
    return told if read_by or not file else f"{told} (if {file['path']} is read otherwise, say so in its read_by)"


def _winning(backend: BackendFacts, name: str) -> EnvFile | None:
    return next((file for file in backend["env_files"] if (file.get("values") or {}).get(name) is not None), None)


def _started_with(backend: BackendFacts, name: str) -> tuple[str, str] | None:
    """A variable that the backend has from its unit or from whoever started it: (value, who sets it)."""
    setter = last_word(name, (backend.get("unit") or {}).get("sources") or [])
    if setter and setter[1] is not None:
        return setter[1], f"the {setter[0]['kind']} {setter[0]['path']}"
    for process in backend.get("processes") or []:
        if name in process["environment"]:
            return process["environment"][name], "whoever started the backend"
    return None


def _context_state(wanted: str, effect: Effects) -> tuple[str, str]:
    slot, total = effect["num_ctx"], effect["num_ctx_total"]
    if slot is None:
        return PARTIAL, NOT_READ_BACK
    if total is None:
        found = f"{endpoints.LOADED} has context_length {slot}"
    else:
        how = f"was sent KvSize:{total}" if "num_ctx_total" in effect["sent"] else f"has -c {total}"
        found = f"runner {how} (= {slot} x {effect['num_parallel']})"
    if slot == effect["trained_ctx"] and slot < int(wanted):
        return IN_FORCE, f"{found}, all that the model was trained for"
    return (IN_FORCE if slot == int(wanted) else INSTEAD), found


def _layers_state(wanted: str, effect: Effects, is_cap: bool) -> tuple[str, str]:
    """`is_cap`: whether it is meant to keep layers from the GPU, rather than to bring them there."""
    if effect["offloaded"] is None:
        return PARTIAL, NOT_READ_BACK
    offloadable = effect["offloadable"] or 0
    on_gpu = f"{effect['offloaded']} of {offloadable} layers are on the GPU"
    if wanted == wanted_settings.FITTED_BY_OLLAMA:
        return (IN_FORCE, f"{on_gpu}, as Ollama fits them") if effect["num_gpu"] is None else (INSTEAD, on_gpu)
    if effect["num_gpu"] is None:
        return NO_EFFECT, f"no request carries it to Ollama; {on_gpu}"
    if is_cap and int(wanted) >= offloadable == effect["offloaded"]:
        return NO_EFFECT, f"{wanted} caps nothing, since the model has {offloadable} layers; {on_gpu}"
    return (IN_FORCE if effect["offloaded"] == min(int(wanted), offloadable) else INSTEAD), on_gpu


def _not_sent(found: str, asked: bool) -> tuple[str, str]:
    """What requests without the option get is nobody's doing; once the backend has `asked`, it is not in force."""
    return (INSTEAD if asked else PARTIAL), f"{found}, {NOT_SENT}"


def _requests_source(read: HostFacts, effect: Effects, option: str, value: object) -> str | None:
    """Who makes a runner differ from what the backend sends: a model's own parameters, or some client's options.

    None where a request without the option gets the same value.
    """
    for model, show in read["ollama"]["api"]["show"].items():
        if ((show or {}).get("parameters") or {}).get(option) == value:
            return f"{MODELFILE} {option} {value} in the Modelfile of {model}"
    ollama = read["ollama"]
    version = settings.parse_version(ollama["api"]["version"])
    unasked: list[int] = []
    if option == "num_ctx":
        environment = (ollama["process"] or {}).get("environment") or {}
        unasked = settings.contexts_unasked(environment, wanted_settings.ollamas_gpus(read["nvml"]), version)
    elif option == "num_batch":
        unasked = planner.batches_unasked(effect["num_ctx_total"] or 0, version)
    return None if value in unasked else f"{CLIENT}: {option} {value}"


def _batch_row(declared: Sized, read: HostFacts, effect: Effects, batch: int, asked: bool) -> Row:
    """Only requests and Modelfiles can pin the batch; LLAMA_ARG_BATCH is overridden by Ollama's own flags."""
    sends = declared["backend"]["sends"].get("num_batch")
    found = effect["num_batch"]
    seen = {"runner": found}
    if found is None:
        reader = "nobody" if sends is None else "backend"
        return _row("num_batch", str(batch), PARTIAL, NOT_READ_BACK, reader, "profile", seen)
    how = f"runner {'was sent BatchSize:' if 'num_batch' in effect['sent'] else 'has -b '}{found}"
    if effect["embedder"]:
        why = f"{how}, which Ollama chooses for a model that only embeds"
        return _row("num_batch", str(batch), NO_EFFECT, why, "nobody", "profile", seen)
    if found == batch:
        pinned = "" if sends == batch else ", by Ollama's own choice"
        return _row("num_batch", str(batch), IN_FORCE, how + pinned, "Ollama" if pinned else "backend", "profile", seen)
    if sends is None:
        return _row("num_batch", str(batch), NO_EFFECT, f"no request carries it; {how}", "nobody", "profile", seen)
    source = _requests_source(read, effect, "num_batch", found)
    state, how = (INSTEAD, how) if source else _not_sent(how, asked)
    return _row("num_batch", str(batch), state, how, "backend", "profile", seen, source)


# Settings of the server ----------------------------------------------------------------------------------------------


def _server_row(declared: Sized, read: HostFacts, effect: Effects, name: str, wanted: str) -> Row:
    ollama = read["ollama"]
    config = ollama["journal"]["server_config"] or {}
    process = ollama["process"]
    seen: dict[str, Any] = {
        "drop-in": own_environment(ollama).get(name),
        "unit": merged_environment(ollama["unit"]).get(name),
    }
    seen.update({"process": process["environment"].get(name)} if process else {})
    seen.update({"server config": config[name]} if name in config else {})
    if name == "OLLAMA_NUM_PARALLEL":
        seen["runner"] = effect["num_parallel"]
    elif name == "OLLAMA_CONTEXT_LENGTH":
        seen["runner"] = effect["num_ctx"]
    elif name == "OLLAMA_KV_CACHE_TYPE":
        seen["runner"] = effect["kv_cache_type"]
    elif name in settings.MARGINS:
        seen["layers"] = _layers_seen(effect)
    state, found, source = _server_state(declared, read, effect, name, wanted)
    override = server_override(ollama, name, wanted)
    if override and state == IN_FORCE:
        state = PARTIAL  # until the next restart
    elif override and process is None:
        state = INSTEAD
    set_by = "profile" if name in declared["profile"]["env"] else "collection"
    return _row(name, wanted, state, found, "Ollama", set_by, seen, override or source)


def _server_state(
    declared: Sized, read: HostFacts, effect: Effects, name: str, wanted: str
) -> tuple[str, str, str | None]:
    """(state, effect, who turned it after the server was started as wanted)."""
    ollama = read["ollama"]
    if ollama["process"] is None:
        return PARTIAL, NOT_READ_BACK, None
    started_with = ollama["process"]["environment"].get(name)
    config = ollama["journal"]["server_config"] or {}
    slot = effect["num_ctx"]
    if name == "OLLAMA_CONTEXT_LENGTH" and started_with is None and str(slot) == wanted:
        return PARTIAL, f"the server lacks it; requests carry num_ctx={slot} themselves", None
    if started_with != wanted:
        found = f"the server was started with {name}={started_with}" if started_with else "the server lacks it"
        return INSTEAD, found, None
    if name in settings.MARGINS:
        void = _margin_is_void(declared, read, effect)
        if void:
            return VOID, *void
    if name in config and config[name] != wanted:
        return INSTEAD, f"the server config says {config[name] or 'nothing'}", "Ollama cannot read the value"
    if name == "OLLAMA_NUM_PARALLEL" and effect["num_parallel"] is not None:
        slots = effect["num_parallel"]
        how = f"was sent Parallel:{slots}" if "num_parallel" in effect["sent"] else f"has -np {slots}"
        if slots == 1 and effect["one_slot"]:
            return IN_FORCE, f"runner {how}, as any of this kind of model", None
        return (IN_FORCE if str(slots) == wanted else INSTEAD), f"runner {how}", None
    if name == "OLLAMA_KV_CACHE_TYPE" and effect["kv_cache_type"] is not None:
        return (
            (IN_FORCE if effect["kv_cache_type"] == wanted else INSTEAD),
            f"the cache is {effect['kv_cache_type']}",
            None,
        )
    if name == "OLLAMA_CONTEXT_LENGTH" and slot is not None and slot == effect["trained_ctx"] and slot < int(wanted):
        return IN_FORCE, f"the context is {slot}, all that the model was trained for", None
    by_model = modelfiles.set_by_one(declared, ollama["api"]["show"], "num_ctx", slot)
    if name == "OLLAMA_CONTEXT_LENGTH" and by_model and slot is not None and slot < int(wanted):
        return PARTIAL, f"the context is {slot}, by {by_model}", None
    if name == "OLLAMA_CONTEXT_LENGTH" and slot is not None and str(slot) != wanted:
        return INSTEAD, f"requests carry their own num_ctx: {slot}", _sender(declared, read, effect, "num_ctx", slot)
    if name in config:
        return IN_FORCE, f"the server config says {config[name]}", None
    runner = next(iter(ollama["runners"]), None)
    if runner and runner["environment"].get(name) == wanted:
        return IN_FORCE, "the runner was started with it", None
    return PARTIAL, "the server was started with it; its effect is not read back", None


def _margin_is_void(declared: Sized, read: HostFacts, effect: Effects) -> tuple[str, str | None] | None:
    """Why Ollama's fitting is switched off, and by whom; None where it is on."""
    if effect["num_gpu"] is not None:
        found = f"requests carry num_gpu={effect['num_gpu']}, which switches Ollama's fitting off"
        return found, _sender(declared, read, effect, "num_gpu", effect["num_gpu"])
    environment = (read["ollama"]["process"] or {}).get("environment") or {}
    if llama_server_takes(read).get(FIT) is False:
        name = next(name for name in (FIT.replace(llama_args.PREFIX, llama_args.NEGATED), FIT) if name in environment)
        return f"{name}={environment[name]} switches Ollama's fitting off", who_sets(read["ollama"], name)
    for_all = layers_for_all(read)
    if for_all:
        layers = environment[LAYERS_FOR_ALL]
        return f"{LAYERS_FOR_ALL}={layers} sets the layers of every model, which switches fitting off", for_all
    return None


def llama_server_takes(read: HostFacts) -> dict[str, llama_args.Value]:
    """What llama-server takes from the server's environment; nothing before 0.30, or where it does not start."""
    version = settings.parse_version(read["ollama"]["api"]["version"])
    if version is not None and version < settings.ENGINE:
        return {}
    try:
        return llama_args.read((read["ollama"]["process"] or {}).get("environment") or {})
    except llama_args.Ends:
        return {}


def layers_for_all(read: HostFacts) -> str | None:
    """Who caps the layers of every model, since 0.30, by a variable that llama-server reads; None where nobody does."""
    layers = llama_server_takes(read).get(LAYERS_FOR_ALL, -1)
    return None if layers == -1 else who_sets(read["ollama"], LAYERS_FOR_ALL)


def _sender(declared: Sized, read: HostFacts, effect: Effects, option: str, value: object) -> str | None:
    """Whose requests carry an option with this value: the backend's, by a key in a file, a model's or a client's."""
    intent = {"num_gpu": "gpu_layers"}.get(option, option)
    where = key_place(declared, read, intent, value)
    return where or _requests_source(read, effect, option, value)


def key_place(declared: Sized, read: HostFacts, intent: str, value: object) -> str | None:
    """Where the backend has this value of an option from: its key and the env file; None where it says another."""
    key = declared["backend"]["keys"].get(intent, "")
    for file in read["backend"]["env_files"] if key else []:
        found = (file.get("values") or {}).get(key)
        if found is not None:
            return f"{key} in {file['path']}" if profiles.canonical_int(found) == value else None
    return None


def own_environment(ollama: OllamaFacts) -> dict[str, str]:
    """What our drop-in sets, as it lies on the disk."""
    return dict(ollama["drop_ins"]["own"]["environment"])


def others_environment(ollama: OllamaFacts) -> dict[str, str]:
    """What the files of others give the server: its environment as if our drop-in were not there."""
    own = ollama["drop_ins"]["own"]["path"]
    sources = [source for source in ollama["unit"].get("sources") or [] if source["path"] != own]
    words = {name: last_word(name, sources) for source in sources for name in source["environment"]}
    return {name: word[1] for name, word in words.items() if word and word[1] is not None}


def server_environment(declared: Sized, read: HostFacts) -> dict[str, str]:
    """What the server will run with under the profile: as now, but for what our drop-in says, and will say."""
    ollama = read["ollama"]
    ours = own_environment(ollama)
    now = (ollama["process"] or {}).get("environment") or {}
    wanted, _unheard = wanted_settings.ollama_environment(declared, read)
    kept = {name: value for name, value in now.items() if name not in ours}
    return {**others_environment(ollama), **kept, **wanted}


def merged_environment(unit: Unit) -> dict[str, str]:
    """A unit's environment as systemd starts it: what it has merged, then the EnvironmentFiles, less what is unset."""
    merged = dict(unit.get("environment") or {})
    for file in unit.get("environment_files") or []:
        merged.update(file["environment"])
    for source in unit.get("sources") or []:
        for word in source["unsets"]:
            name, equals, value = word.partition("=")
            if not equals or merged.get(name) == value:
                merged.pop(name, None)
    return merged


def who_sets(ollama: OllamaFacts, name: str) -> str:
    """Where the server has a variable from."""
    unit = ollama["unit"]
    if name in (unit.get("exec_environment") or {}):
        return f"ExecStart of {unit['name']} sets it"
    setter = last_word(name, unit.get("sources") or [])
    return f"the {setter[0]['kind']} {setter[0]['path']} sets it" if setter else "whoever started the server set it"


def server_override(ollama: OllamaFacts, name: str, wanted: str) -> str | None:
    """Who keeps a variable of our drop-in from reaching the server; None where nobody does."""
    unit, own, process = ollama["unit"], ollama["drop_ins"]["own"], ollama["process"]
    of_unit = merged_environment(unit).get(name)
    ours = _not_as_we_wrote_it(own, own_environment(ollama), name, wanted)
    setter = last_word(name, unit.get("sources") or [])
    if setter and setter[0]["path"] != own["path"] and setter[1] != wanted:
        source, _value, does = setter
        return f"the {source['kind']} {source['path']} {does}" + (f"; {ours}" if ours else ", and has the last word")
    if ours:
        return ours
    if own["path"] not in (unit.get("drop_in_paths") or [own["path"]]) or of_unit != wanted:
        if unit.get("compose_env_file"):
            return f"Docker Compose does not give {unit['name']} what {own['path']} says; see: docker compose config"
        return f"systemd has not read {own['path']} as it is now: systemctl daemon-reload, then restart {unit['name']}"
    if process is None or process["environment"].get(name) == wanted:
        return None
    by_exec = (unit.get("exec_environment") or {}).get(name)
    if by_exec is not None and by_exec != wanted:
        return f"ExecStart of {unit['name']} sets {name}={by_exec}"
    written, started = own.get("modified_s"), process.get("started_s")
    if written is not None and started is not None and written > started:
        return f"the server was started before {own['path']} was written; restart {unit['name']}"
    scripts = [script["path"] for script in unit.get("start_scripts") or [] if name in script["environment"]]
    if scripts:
        return f"{' or '.join(scripts)} sets it, by which ExecStart of {unit['name']} starts the server"
    program = start_programs.by(unit)
    if program:
        return (
            f"systemd has it so in memory for {unit['name']}, but {program}, by which its ExecStart starts the server, "
            "changes it; take that out there"
        )
    return f"the server was not started with what {unit['name']} says; was it started by hand?"


def _not_as_we_wrote_it(own: OwnDropIn, environment: Mapping[str, str], name: str, wanted: str) -> str | None:
    if not own["exists"]:
        return f"{own['path']} is missing"
    found = environment.get(name)
    if found == wanted:
        return None
    if found is not None:
        return f"{own['path']} says {name}={found}"
    older = next((other for other in settings.MARGINS if name in settings.MARGINS and other in environment), None)
    if older:
        return (
            f"{own['path']} was written for another Ollama: it says {older}, which this one does not heed; apply again"
        )
    return f"{own['path']} does not set it"


# The rest ------------------------------------------------------------------------------------------------------------


def _upgrade_rows(read: HostFacts) -> list[Row]:
    """An Ollama whose proof is of another era: 0.30 changed the engine, and what limits its memory."""
    record = (read["state"].get("proof") or {}).get("record")
    versions = record.get("versions") if record else None
    proven = versions.get("ollama") if versions else None
    then, now = settings.parse_version(proven), settings.parse_version(read["ollama"]["api"]["version"])
    if then is None or now is None or (then >= settings.ENGINE) == (now >= settings.ENGINE):
        return []
    found = f"{read['ollama']['api']['version']} runs, which has another engine and another setting for the margin"
    source = f"Ollama was {'up' if now > then else 'down'}graded after the proof; apply again"
    return [_row(RELEASE, str(proven), INSTEAD, found, "Ollama", "collection", {}, source)]


def _row(
    name: str,
    wanted: str,
    state: str,
    effect: str,
    read_by: str,
    set_by: str,
    seen: Mapping[str, object],
    source: str | None = None,
) -> Row:
    return {
        "name": name,
        "wanted": wanted,
        "effect": effect,
        "state": state,
        "read_by": read_by,
        "set_by": set_by,
        "seen": dict(seen),
        "source": source,
    }
