# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was declared and what was read to what is to be done. Pure: no host, no clock, no Ansible."""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    model_name,
    model_use,
    prompt_texts,
    servers,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    unit_environment,
    unit_states,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import lint, model_kinds, modelfiles, other_servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import ChangingEnv, Decision
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
    Api,
    BackendFacts,
    ListedModel,
    Nvml,
    OllamaFacts,
    WallClock,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import (
    ChangingFile,
    KeysOfFile,
    Proof,
    State,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import LoadRequest, ModelRequest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Predicted
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import BackendService, ServicePlan
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import (
    EnvFile,
    File,
    OwnDropIn,
    Source,
    Unit,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import model_requests, service_notes
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import prediction
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration, sizes, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import (
    backend_run,
    drift,
    start_programs,
)

OLDEST_DRIVER = 510
DAY_S = 86400
REQUEST_S = 300


def renews_tool(decision: Decision, state: State, tool: str) -> bool:
    """Whether the host tool is another release's, or gone; where nothing is kept a host needs none.

    `state`: what is kept there; `tool`: the digest of this collection's.
    """
    return not decision["problems"] and bool(state.get("generations")) and state.get("tool") != tool


def decide(declared: Declared, read: HostFacts, deploys: bool) -> Decision:
    """What to do on one host.

    `declared`: `declaration.declared_of`. `read`: the result of `gpu_memory_info`. `deploys`: false where nothing is
    written (verify), so that only what hinders a proof is a problem.
    """
    as_declared, declared = declared, sizes.sized(declared, read)
    wanted = _wanted(declared, read)
    problems = [
        *declared["problems"],
        *gpu_problems(declared, read["nvml"]),
        *ollama_problems(declared, read["ollama"]),
        *_backend_problems(declared, read["backend"]),
        *lease_problems(read["state"]),
        *(_profile_problems(declared, read, wanted) if deploys and declared["profile"] is not None else []),
        *(_deploy_problems(declared, read) if deploys else []),
        *_load_problems(declared),
    ]
    env_changed = _env_changed(read["backend"]["env_files"], wanted.backend_env)
    restart = [] if problems else _restarts(declared, read, wanted.environment, bool(env_changed))
    notes = [
        *wanted.notes,
        *map(lint.text, lint.lint(declared, read)),
        *(f"{odd['path']}: {odd['problem']}; {odd['cure']}" for odd in read["ollama"]["drop_ins"].get("oddities", [])),
        *(_deploy_notes(declared, read, wanted, restart, refused=bool(problems)) if deploys else []),
        *sizes.note(as_declared, declared),
        *prediction.other_ollamas(read),
        *(read["nvml"].get("notes") or []),
    ]
    notes = [note for note in notes if not any(words in note for words in declared["accepted_notes"])]
    if declared["strict"]:
        problems += notes
    if problems:
        return {"problems": problems, "notes": notes, "acts": False, "load_needed": False}

    drop_in_changed = _drop_in_changes(read, wanted.environment)
    env_changed += _profile_file_changed(declared, read["backend"])
    files = _changing_files(read, wanted.environment if drop_in_changed else None, env_changed)
    drifted = bool(files or restart)
    key = proof_key(declared, wanted.backend_env, wanted.environment, read)
    proof = _holding_proof(declared, read, key)
    load, loads = load_request(declared, read), load_needed(declared["verify"], drifted, proof is not None)
    return {
        "problems": [],
        "notes": [*notes, *([] if drifted or loads else _client_notes(declared, read))],
        "predicted": wanted.predicted,
        "ollama_environment": wanted.environment,
        "files": files,
        "drop_in_changed": drop_in_changed,
        "env_changed": env_changed,
        "max_used_mib": declared["profile"]["max_used_mib"],
        "restart": restart,
        "services": services(declared, restart),
        "acts": deploys and drifted,
        "proof_key": key,
        "proof": None if drifted else proof,
        "load": load,
        "load_timeout_s": load_timeout_s(load),
        "load_needed": loads,
    }


def _client_notes(declared: Sized, read: HostFacts) -> list[str]:
    """What an apply leaves running that is not the profile's: no strictness and no load of ours reaches a client."""
    told, cures = drift.by_clients(declared, read)
    return [f"{text}; give that client {', and '.join(cures)}" for text in told]


class _Wanted(NamedTuple):
    """What the profile wants of this host, with the notes on it; empty without a profile."""

    environment: dict[str, str]  # of Ollama
    backend_env: dict[str, str]
    predicted: Predicted | None
    notes: Sequence[str]


def _wanted(declared: Sized, read: HostFacts) -> _Wanted:
    if declared["profile"] is None:
        return _Wanted({}, {}, None, [])
    version = wanted_settings.version_text(declared, read)
    predicted, notes = prediction.predict(declared, read, version)
    environment, unheard = wanted_settings.ollama_environment(declared, read)
    if wanted_settings.version_of(declared, read) is not None:
        notes += [f"Ollama {version} has no setting for {name}" for name in unheard]
    notes += modelfiles.notes(declared, read["ollama"]["api"]["show"])
    return _Wanted(environment, wanted_settings.backend_env(declared, read), predicted, notes)


def _profile_problems(declared: Sized, read: HostFacts, wanted: _Wanted) -> list[str]:
    """Why the profile cannot be deployed here: what would win over it, or be lost, or does not fit."""
    return [
        *_taken_over(declared, read["ollama"]["drop_ins"]["own"], wanted.environment),
        *_override_problems(wanted.environment, read["ollama"]),
        *_backend_override_problems(wanted.backend_env, read["backend"]),
        *modelfiles.problems(declared, read["ollama"]["api"]["show"]),
        *filter(None, [prediction.cannot_fit(wanted.predicted, declared["profile"]["max_used_mib"])]),
        *filter(None, [prediction.crowded_out(wanted.predicted, declared, read)]),
    ]


def _load_problems(declared: Declared) -> list[str]:
    if declared["verify"] == "never" or declared["backend"]["load"].get("url") or declared["models"]:
        return []
    return ["nothing to load: name the models that this host serves in gpu_memory_models"]


def _deploy_notes(
    declared: Sized, read: HostFacts, wanted: _Wanted, restart: Sequence[str], refused: bool
) -> list[str]:
    """What an apply does besides; where it is `refused`, nothing starts."""
    own = read["ollama"]["drop_ins"]["own"]
    notes = []
    if declared["profile"] is not None and _drop_in_changes(read, wanted.environment):
        found = read["ollama"].get("gpu_containers") or []
        reloads = not compose.is_one(declared["ollama"]["unit"])
        notes += [service_notes.reload_note(found)] if found and reloads else []
    notes += [] if refused else start_notes(declared, read)
    notes += dependent_notes(read, restart)
    notes += [] if refused else _start_program_notes(wanted.environment, read["ollama"])
    notes += [] if _taken_over(declared, own, wanted.environment) else taken_over_notes(own)
    return notes


def _env_changed(env_files: Sequence[EnvFile], backend_env: Mapping[str, str]) -> list[ChangingEnv]:
    """The backend's files that do not say yet what they must."""
    wanted = [(file, wanted_in(file, backend_env)) for file in env_files]
    return [
        {"path": file["path"], "read_by": file["read_by"], "env": env, "owner": None, "group": None}
        for file, env in wanted
        if _differs(file, env)
    ]


def _profile_file_changed(declared: Sized, backend: BackendFacts) -> list[ChangingEnv]:
    """The profile's own file: nothing reads it, so nothing restarts. It belongs to whom the backend's belongs to."""
    found, wanted = backend["profile_file"], declared["profile_file"]
    if not found or not wanted or not _differs(found, wanted["env"]):
        return []
    first = backend["env_files"][0]
    owner, group = first.get("owner"), first.get("group")
    return [{**wanted, "owner": owner, "group": group, "profile": declared["profile"]["name"]}]


def _changing_files(
    read: HostFacts, drop_in: Mapping[str, str] | None, env_changed: Sequence[ChangingEnv]
) -> list[ChangingFile]:
    """`drop_in`: what ours is about to set, if it changes."""
    own, backend = read["ollama"]["drop_ins"]["own"], read["backend"]
    profile_files = [backend["profile_file"]] if backend["profile_file"] else []
    ours: dict[str, KeysOfFile] = {
        file["path"]: {
            "keys": list(file["env"]),
            "values": {key: [value] for key, value in file["env"].items()},
            "readers": file["read_by"] or list(dotenv.DEFAULT_READERS),
            "profile": file.get("profile"),
        }
        for file in env_changed
    }
    changed = [file for file in [*backend["env_files"], *profile_files] if file["path"] in ours]
    files = [_changing(file, ours[file["path"]]) for file in changed]
    return [*([_changing(own, _variables_of(own, drop_in))] if drop_in is not None else []), *files]


def _variables_of(own: OwnDropIn, environment: Mapping[str, str]) -> KeysOfFile:
    """Those of our drop-in that are ours, before and after it is written."""
    before = {} if own.get("writer") else own["environment"]
    names = [*environment, *(name for name in before if name not in {*environment, *(own.get("alone") or [])})]
    return {"keys": names, "readers": []}


def _changing(file: File, keys: KeysOfFile | None) -> ChangingFile:
    changing: ChangingFile = {"path": file["path"], "sha256": file["sha256"]}
    return {**changing, "env": keys} if keys else changing


def _restarts(declared: Sized, read: HostFacts, environment: Mapping[str, str], env_changed: bool) -> list[str]:
    """What has to restart. A backend that systemd restarts along with Ollama is restarted in order, and awaited."""
    ollama, backend = read["ollama"], read["backend"]
    restart = []
    if _drop_in_changes(read, environment) or not _ollama_runs(environment, ollama):
        restart.append("ollama")
    along = {one["unit"] for one in ollama["unit"].get("dependents") or []} if restart else set()
    goes_along = (backend.get("unit") or {}).get("id") in along
    if declared["backend"]["kind"] != "none" and (env_changed or goes_along or not _backend_runs(read)):
        restart.append("backend")
    return restart


def dependent_notes(read: HostFacts, restart: Sequence[str]) -> list[str]:
    """What else runs on the host that systemd restarts along with what is restarted here."""
    units = {"ollama": read["ollama"]["unit"], "backend": read["backend"].get("unit") or {}}
    own = {unit.get("id") for unit in units.values()}
    notes: list[str] = []
    for name in restart:
        others = [one for one in units[name].get("dependents") or [] if one["unit"] not in own]
        notes += filter(None, [service_notes.dependents_note(str(units[name].get("name")), others)])
    return notes


def start_notes(declared: Declared, read: HostFacts) -> list[str]:
    """What an apply would start."""
    notes = [*filter(None, map(service_notes.start_note, _units(read)))]
    if declared["backend"]["kind"] == "command" and not read["backend"]["pids"]:
        notes.append(f"the backend's command does not run: {service_notes.STARTS}")
    return notes


def taken_over_notes(own: OwnDropIn) -> list[str]:
    """Whose drop-in an apply would replace."""
    if not own.get("writer"):
        return []
    return [f"{own['path']} was written by {own['writer']}: an apply replaces it, and remove brings it back"]


def _taken_over(declared: Declared, own: OwnDropIn, environment: Mapping[str, str]) -> list[str]:
    """Why a drop-in is not replaced: it holds what somebody else has written, and nothing else does."""
    lost = [name for name in own.get("alone") or [] if name not in environment]
    if lost and not own.get("writer"):
        return [
            f"{', '.join(lost)} in {own['path']}, which an apply writes anew, would be lost: move it to a drop-in of "
            "another name, such as override.conf beside it"
        ]
    if not own.get("writer") or not lost or declared["ollama"]["take_over"]:
        return []
    cure = "move it to a drop-in of another name"
    if own["writer"] == "the role ollama":
        cure = "give that role another ollama_drop_in and run it once more"
    return [
        f"{own['path']} was written by {own['writer']}, and {', '.join(lost)} in it would be lost: {cure}, or set "
        "gpu_memory_ollama.take_over=true to replace it; remove brings it back"
    ]


def _drop_in_changes(read: HostFacts, environment: Mapping[str, str]) -> bool:
    own = read["ollama"]["drop_ins"]["own"]
    text = unit_text.render_dropin(environment, section=unit_text.section_of(own["path"]))
    return own["sha256"] != _sha256(text)


def wanted_in(file: EnvFile, env: Mapping[str, str]) -> dict[str, str]:
    """What an env file must say: all of `env`, or of a file without `add_keys` the keys that it has already."""
    if file.get("add_keys", True):
        return dict(env)
    return {name: value for name, value in env.items() if _values(file).get(name) is not None}


def _values(file: EnvFile) -> Mapping[str, str | None]:
    return file.get("values") or {}


def _differs(file: EnvFile, wanted: Mapping[str, str]) -> bool:
    return any(_values(file).get(name) != value for name, value in wanted.items())


def services(declared: Declared, restart: list[str]) -> ServicePlan:
    """What gpu_memory_restart, and a restore without a controller, need to know of the two services."""
    ollama, declared_backend = declared["ollama"], declared["backend"]
    names = ("kind", "unit", "directory", "command", "user", "process_match", "health", "timeout_s")
    backend = {name: declared_backend.get(name) for name in names if name in declared_backend}
    files = [*declared_backend["env_files"], *filter(None, [declared["profile_file"]])]
    return {
        "ollama": {"unit": ollama["unit"], "url": ollama["url"], "timeout_s": ollama["timeout_s"]},
        "backend": cast(BackendService, backend),
        "restart": restart,
        "private_files": [file["path"] for file in files],
    }


def load_request(declared: Sized, read: HostFacts) -> LoadRequest:
    """The load test: one chat more than can run at once, through the backend, or without one straight to Ollama.

    Then each other declared model is asked for at Ollama itself, the way it is used, one after another: those that the
    backend has not used, or without one all but the first that writes.

    What a backend gets stays within the profile's context; where its preset does not say where a prompt goes, its own
    bodies are sent.
    """
    intent, url, shown = declared["profile"]["intent"], declared["ollama"]["url"], read["ollama"]["api"]["show"]
    at_once = declared["load_requests"] or intent["num_parallel"] + 1
    version = wanted_settings.version_of(declared, read)
    requests: list[ModelRequest] = [
        {
            **model_requests.request(model, shown.get(model), url, intent["num_ctx"], at_once, version),
            "prompts": declared["load"],
        }
        for model in declared["models"]
    ]
    requests.sort(key=lambda request: model_kinds.embeds_only(shown.get(request["model"] or "")))
    own = declared["backend"]["load"]
    first: ModelRequest
    listed_at: str | None
    if own.get("url") or own.get("bodies"):
        prompts = declared["load"] if own.get("prompt_at") else prompt_texts.GUIDE
        first = {
            "url": url + endpoints.CHAT,
            "requests": at_once,
            "prompts": prompts,
            "context_tokens": intent["num_ctx"],
        }
        others, listed_at = requests, url + endpoints.LOADED
    else:
        first = requests[0] if requests else {"url": url + endpoints.CHAT, "requests": 1}
        others, listed_at = requests[1:], None
    load = {"timeout": REQUEST_S, **first, **own, "others": others, "listed_at": listed_at}
    return cast(LoadRequest, {**load, "concurrency": load["requests"]})


def load_timeout_s(load: LoadRequest) -> int:
    """How long a load test may take in all: every request at its own limit; those of one model go at once."""
    return int((1 + len(load["others"])) * float(load["timeout"])) + declaration.LOAD_EXTRA_S


def load_needed(verify: str, changed: bool, proven: bool) -> bool:
    """`always`, `never`, or (`changed`) where something changed or no valid proof stands."""
    return verify == "always" or (verify == "changed" and (changed or not proven))


def proof_key(
    declared: Sized,
    backend_env: Mapping[str, str],
    environment: Mapping[str, str],
    read: HostFacts,
) -> str:
    """What a proof was made of; a proof with another key proves nothing about now."""
    models = [model_name.full(model).lower() for model in declared["models"]]
    profile_file = read["backend"]["profile_file"]
    made_of = {
        "profile": [backend_env, declared["profile"]["intent"]],
        "ollama_environment": {**drift.others_environment(read["ollama"]), **environment},
        "backend": {name: declared["backend"].get(name) for name in ("kind", "unit", "directory", "command")},
        "load": load_request(declared, read),
        "ollama": wanted_settings.version_text(declared, read),
        # Without a declared model it is not known which one is served, so any may be.
        "models": sorted(
            [str(model["name"]), str(model["digest"])]
            for model in read["ollama"]["api"]["models"]
            if not models or model_name.full(str(model["name"])).lower() in models
        ),
        "driver": read["nvml"]["driver_version"],
        "gpus": sorted(gpu["uuid"] for gpu in wanted_settings.usable_gpus(read["nvml"])),
        # Of a program the number of its device stands first, which the next boot may change. The profile's own file is
        # read by nobody who starts, and not by every read of a host.
        "starts": {
            name: digest.partition(":")[2] or digest
            for name, digest in (read.get("starts") or {}).items()
            if not profile_file or name != profile_file["path"]
        },
    }
    return _sha256(json.dumps(made_of, sort_keys=True, default=str))


def key_of_proven(declared: Sized, decision: Decision, after: HostFacts) -> str:
    """The key of what a load has proven. `after`: read after it, since before an apply Ollama may have been down."""
    backend_env = wanted_settings.backend_env(declared, after)
    return proof_key(declared, backend_env, decision["ollama_environment"], after)


def _holding_proof(declared: Declared, read: HostFacts, key: str) -> Proof | None:
    if refuted(read):
        return None
    return valid_proof(read["state"].get("proof"), key, declared["proof_max_age"] * DAY_S, read["host"]["time"])


def valid_proof(proof: Proof | None, key: str, max_age_s: float, now: float) -> Proof | None:
    """The kept proof, if it was made of the same things, passed, and is neither too old nor from the future."""
    if not proof or proof.get("key") != key or proof.get("verdict") != "pass":
        return None
    age = now - float(proof.get("at") or 0)
    return proof if -DAY_S < age <= max_age_s else None


def refuted(read: HostFacts) -> bool:
    """Whether Ollama ran out of memory, or died, after the kept proof: what has failed since proves nothing."""
    proof, journal = read["state"].get("proof") or Proof(), read["ollama"]["journal"]
    since = float(proof.get("at") or 0) + _set_since(proof.get("clock"), journal.get("clock"))
    return any(failure["severity"] == "fatal" and failure["at"] > since for failure in journal["failures"])


def _set_since(then: WallClock | None, now: WallClock | None) -> float:
    """By how much (s) a clock was set forward; of another boot's it is not known."""
    return now["ahead_s"] - then["ahead_s"] if then and now and then["boot"] == now["boot"] else 0.0


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _ollama_runs(environment: Mapping[str, str], ollama: OllamaFacts) -> bool:
    """Whether a running server was started with what we want; a file that no server has read is not in force."""
    if ollama["unit"]["active_state"] != "active" or ollama["api"]["error"]:
        return False
    # Where even root may not look into the process (a container without CAP_SYS_PTRACE), what systemd would start it
    # with has to do; to restart at every run would be worse.
    source = ollama["process"] or ollama["unit"]
    return all(source["environment"].get(name) == value for name, value in environment.items())


def _backend_runs(read: HostFacts) -> bool:
    """Whether the backend runs, is healthy, and was started with its env files as they are."""
    backend = read["backend"]
    if not backend["pids"] or (backend["health"] is not None and not backend["health"]["ok"]):
        return False
    if backend["started_s"] is None:
        return False
    return all(backend_run.has_read(read, file) for file in backend["env_files"] if file["exists"])


def gpu_problems(declared: Declared, nvml: Nvml) -> list[str]:
    if nvml["status"] != "ok":
        return [f"NVML: {nvml['message']}"]
    problems = [*(nvml.get("problems") or []), *filter(None, [nvml.get("lost")])]
    driver = str(nvml.get("driver_version") or "").split(".", maxsplit=1)[0]
    if driver.isdigit() and int(driver) < OLDEST_DRIVER:
        problems.append(
            f"NVML: driver {nvml['driver_version']} is too old to tell used from reserved memory; "
            f"install {OLDEST_DRIVER} or newer"
        )
    if not nvml["gpus"]:
        problems.append(
            "NVML: the driver is loaded but shows no GPU; see whether lspci lists one, and look for NVRM lines in the "
            "kernel log (journalctl -k): it may have failed to start, or be given to a virtual machine (vfio-pci)"
        )
    profile = declared["profile"]
    threshold = profile["max_used_mib"] if profile else None
    for gpu in nvml["gpus"]:
        name = f"GPU {gpu['index']} ({gpu.get('name') or gpu.get('uuid')})"
        if gpu.get("error"):
            problems.append(f"NVML: {name}: {gpu['error']}")
        elif gpu.get("mig"):
            problems.append(
                f"NVML: {name} is split by MIG, which the memory figures here do not cover; switch MIG off "
                f"(nvidia-smi -i {gpu['index']} -mig 0), or leave this host out"
            )
        elif gpu.get("compute_mode") == "prohibited":
            problems.append(
                f"NVML: {name} is in the compute mode Prohibited, so that no process can use it; "
                f"nvidia-smi -i {gpu['index']} -c DEFAULT"
            )
        elif profile and sizes.is_other(profile, gpu):
            problems.append(sizes.problem(profile, gpu, name))
        elif threshold is not None and gpu["total_mib"] - (gpu.get("reserved_mib") or 0) < threshold:
            problems.append(
                f"max_used_mib = {threshold} is more than {name} has: {gpu['total_mib']} MiB, of which "
                f"{gpu.get('reserved_mib') or 0} are reserved; choose a profile for this size"
            )
    return problems


def ollama_problems(declared: Declared, ollama: OllamaFacts) -> list[str]:
    unit, api = ollama["unit"], ollama["api"]
    name = declared["ollama"]["unit"]
    if unit.get("error"):
        return [f"{name}: {unit['error']}"]
    problems = []
    listens, apart = ollama.get("listens") or [], bool(ollama.get("apart"))
    url = declared["ollama"]["url"]
    stranger = servers.mismatch(
        name,
        url,
        ollama.get("server"),
        [] if apart else listens,
        runs=not unit_states.is_stopped(unit.get("active_state")),
        exists=unit["load_state"] in ("loaded", "masked"),
    )
    masked = unit_states.masked(unit)
    if masked:
        problems.append(f"{masked}, or set gpu_memory_ollama.unit to the unit that runs Ollama")
    elif unit["load_state"] != "loaded" and api["version"]:
        problems.append(
            f"the unit {name} is {unit['load_state']} on this host; "
            + (
                stranger
                or f"an Ollama answers at {declared['ollama']['url']}: set gpu_memory_ollama.unit to its unit, or to "
                "its service of Docker Compose, as compose:PROJECT/SERVICE"
            )
        )
    elif unit["load_state"] != "loaded":
        problems.append(
            f"the unit {name} is {unit['load_state']} on this host; set gpu_memory_ollama.unit, "
            "or run selo.gpu_memory.discover to find it"
        )
    if stranger and unit["load_state"] == "loaded":
        problems.append(stranger)
    elsewhere = other_servers.elsewhere(name, url, listens, apart)
    silent = f". {ollama['why_silent']}" if ollama.get("why_silent") and elsewhere is None else ""
    crashes = service_notes.does_not_come_up(unit, declared["ollama"]["timeout_s"])
    if api["error"] and unit["load_state"] == "loaded" and not elsewhere and crashes:
        problems.append(
            f"{name} does not come up; mend what its log says, and run: {service_notes.restart_command(name)}{silent}"
        )
    elif declared["ollama"]["version"] is None and settings.parse_version(api["version"]) is None:
        reason = api["error"] or f"it calls itself {api['version']!r}, which is no release"
        problems.append(
            f"the version of Ollama at {declared['ollama']['url']} is unknown ({reason}), and with it what it honours; "
            f"{elsewhere or _version_cure(name, unit, api)}{silent}"
        )
    told, found = (settings.parse_version(text) for text in (declared["ollama"]["version"], api["version"]))
    if told and found and told != found:
        problems.append(
            f"gpu_memory_ollama.version = {declared['ollama']['version']} but the server says {api['version']}; "
            "take the variable away"
        )
    return problems + _model_problems(declared, ollama)


def _model_problems(declared: Declared, ollama: OllamaFacts) -> list[str]:
    """Which declared models this host does not have, or does not run itself; a silent server does not tell."""
    api, problems = ollama["api"], []
    present = {str(model["name"]) for model in api["models"]}
    for model in [] if api["error"] else declared["models"]:
        listed = model_use.listed(model, api["models"])
        if model_use.is_elsewhere(model, api["models"], wanted_settings.version_of(declared, {"ollama": ollama})):
            problems.append(_leaves_the_host(model, listed))
        elif listed is None:
            known = ", ".join(sorted(present)) or "none"
            problems.append(
                f"the model {model} is not on this host (it has: {known}); run: ollama pull {model}, or, if it was "
                f"made here, create it again from its Modelfile: ollama create {model} -f MODELFILE"
            )
    return problems


def _version_cure(name: str, unit: Unit, api: Api) -> str:
    """How the version becomes known. Declaring it does not make a silent server answer, but a stopped one startable."""
    if not api["error"]:
        return "set gpu_memory_ollama.version"
    if unit_states.is_stopped(unit.get("active_state")):
        return f"start {name}, or set gpu_memory_ollama.version"
    return f"see why it does not answer, and restart {name}"


def _leaves_the_host(model: str, listed: ListedModel | None) -> str:
    """What is wrong with a model that Ollama asks its cloud for, and how to go on."""
    if listed and not listed.get("remote"):
        return (
            f"{model} is on this host, but this Ollama sends whatever is asked of a tag like that to its cloud; give "
            f"it another name (ollama cp {listed['name']} NAME) and declare that in gpu_memory_models"
        )
    return (
        f"{model} is a cloud model, which runs elsewhere and would be sent the prompts of the load test; take it out "
        "of gpu_memory_models, which names the models that this host's GPU serves"
    )


def _backend_problems(declared: Declared, backend: BackendFacts) -> list[str]:
    problems = []
    unit = backend.get("unit")
    if unit is not None and unit.get("error"):
        problems.append(f"{unit['name']}: {unit['error']}")
    elif unit is not None and unit_states.masked(unit):
        problems.append(str(unit_states.masked(unit)))
    elif unit is not None and unit["load_state"] != "loaded":
        problems.append(
            f"the backend's unit {unit['name']} is {unit['load_state']} on this host; set "
            "gpu_memory_backend.unit, or gpu_memory_backend: none if only Ollama runs here"
        )
    if backend.get("directory_exists") is False:
        problems.append(
            f"the backend's directory {declared['backend']['directory']} is missing on this host; "
            "set gpu_memory_backend.directory"
        )
    return problems


def _deploy_problems(declared: Declared, read: HostFacts) -> list[str]:
    problems = []
    profile = declared["profile"]
    if profile is not None and profile["max_used_mib"] is None and not declared["allow_unsafe"]:
        problems.append(
            f"the profile {profile['name']} has no threshold (max_used_mib), so nothing could prove it; "
            "set gpu_memory_allow_unsafe=true to deploy it all the same"
        )
    profile_file = read["backend"]["profile_file"]
    for file in [*read["backend"]["env_files"], *([profile_file] if profile_file else [])]:
        if file.get("error"):
            problems.append(f"{file['path']} cannot be read: {file['error']}")
        problems += [text for text in file["refusals"] if text not in problems]
    problems += read["ollama"]["drop_ins"].get("refusals") or []
    for unit in _units(read):
        problems += unit_states.would_not_come_back(unit)
        problems += filter(None, [service_notes.stopping_problem(unit)])
    if read["state"].get("error"):
        problems.append(f"what this collection keeps on the host cannot be read: {read['state']['error']}")
    return problems


def _units(read: HostFacts) -> list[Unit]:
    return [unit for unit in (read["ollama"]["unit"], read["backend"].get("unit")) if unit]


def lease_problems(state: State) -> list[str]:
    """A host in the middle of another run, or of its way back, is neither to be changed nor to be judged."""
    lease = state.get("lease")
    if not lease or not lease.get("live"):
        return pending_restore(state)
    return [f"another run holds this host until {lease.get('until')}: {lease.get('holder')}; wait, or see its outcome"]


def pending_restore(state: State) -> list[str]:
    """What of a restore is not in place."""
    restoring = state.get("restoring")
    error = restoring.get("error") if restoring else None
    return [f"this host is going back to generation {restoring['generation']}; {error}"] if restoring and error else []


def _override_problems(environment: Mapping[str, str], ollama: OllamaFacts) -> list[str]:
    """Who would win over our drop-in: later drop-ins, every EnvironmentFile (systemd.exec(5)), and what starts it."""
    problems = []
    later = [drop_in for drop_in in ollama["drop_ins"]["others"] if _is_later(drop_in["path"])]
    kinds = {source["path"]: source["kind"] for source in ollama["unit"].get("sources") or []}
    for kind, sources in (("drop-in", later), ("EnvironmentFile", ollama["unit"].get("environment_files") or [])):
        for source in sources:
            for name, value in source["environment"].items():
                if name in environment and value != environment[name]:
                    who = f"the {kinds.get(source['path'], kind)} {source['path']}"
                    problems.append(
                        f"{who} sets {name}={value} and wins over this collection's "
                        f"{name}={environment[name]}; take the line out there"
                    )
    running = (ollama["process"] or {}).get("environment") or {}
    problems += start_programs.problems(environment, ollama["unit"], drift.merged_environment(ollama["unit"]), running)
    return problems + _taken_back(environment, ollama["unit"].get("sources") or [])


def _start_program_notes(environment: Mapping[str, str], ollama: OllamaFacts) -> list[str]:
    running = (ollama["process"] or {}).get("environment") or {}
    return start_programs.notes(environment, ollama["unit"], drift.merged_environment(ollama["unit"]), running)


def _is_later(path: str) -> bool:
    """Whether systemd reads a drop-in after ours."""
    return posixpath.basename(path) > unit_text.DROP_IN


def _backend_override_problems(env: Mapping[str, str], backend: BackendFacts) -> list[str]:
    """Files of the backend's unit that give it a value which its env file cannot change."""
    unit = backend.get("unit") or {}
    problems = []
    for name, value in env.items():
        setter = unit_environment.last_word(name, unit.get("sources") or [])
        told = drift.given_instead(backend, name, value)
        if told and setter and setter[1] not in (None, value):
            problems.append(f"{told}, so {name}={value} in its env file would have no effect; take the line out there")
    return problems


def _taken_back(environment: Mapping[str, str], sources: Sequence[Source]) -> list[str]:
    """Files of the unit that would take our variables away again, without setting any."""
    problems = []
    for source in sources:
        if source["resets"] and source["kind"] == "drop-in" and _is_later(source["path"]):
            problems.append(f"the drop-in {source['path']} takes every variable back; take its empty Environment= out")
        for word in source["unsets"]:
            name, equals, value = word.partition("=")
            if name in environment and (not equals or value == environment[name]):
                problems.append(f"{source['path']} takes {name} away; take the UnsetEnvironment= out there")
    return problems
