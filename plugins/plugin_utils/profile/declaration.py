# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator declared, as one checked value, before any host is contacted."""

from __future__ import annotations

import difflib
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import prompt_texts, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv_readers, masking, urls
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import (
    Backend,
    CandidateProfile,
    Declared,
    Hook,
    Ollama,
    Profile,
    ProfileFile,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles as named_profiles
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes

UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.service\Z")
URL = re.compile(r"https?://[^\s/]+(/\S*)?\Z")
GPU = re.compile(r"[0-9]{1,4}\Z|GPU-[0-9A-Fa-f-]{1,64}\Z")
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
BACKEND_KINDS = ("none", "unit", "command")
BACKEND_KEYS = {
    "extends", "kind", "unit", "directory", "command", "user", "process_match", "env_files", "profile_file", "keys",
    "reads", "sends", "health", "timeout_s", "load",
}  # fmt: skip
NO_BACKEND: Backend = {
    "kind": "none", "env_files": [], "keys": {}, "sends": {}, "reads": [], "health": {}, "load": {}
}  # fmt: skip
SHAPES: tuple[tuple[str, Any, str], ...] = (
    ("env_files", list, "a list of mappings with path, read_by and add_keys"),
    ("keys", Mapping, "a mapping of intents to names of variables"),
    ("sends", Mapping, "a mapping of options that the backend sends to Ollama"),
    ("reads", list, "a list of names of variables"),
    ("health", Mapping, "a mapping with url and status"),
    ("load", Mapping, "a mapping with url, method, bodies, headers, expect_status, timeout, prompt_at and forget"),
)
MAPPINGS = tuple(part for part, shape, _form in SHAPES if shape is Mapping)
HEALTH_KEYS = {"url", "status"}
LOAD_KEYS = {"url", "method", "bodies", "headers", "expect_status", "timeout", "prompt_at", "forget"}
METHODS = ("GET", "POST", "PUT")
READERS = tuple(dotenv_readers.READERS)
VERIFY = ("changed", "always", "never")
# Play keywords are templated before any host is known, so Ansible ignores these in an inventory.
RUN_LEVEL = (
    "gpu_memory_batches",
    "gpu_memory_max_fail_percentage",
    "gpu_memory_canary",
    "gpu_memory_bake_minutes",
    "gpu_memory_hosts",
)
# What playbooks take besides that no role does.
OF_PLAYBOOKS = ("gpu_memory_discover_write",)
PREFIX = "gpu_memory_"
ALIKE = 0.82  # difflib's ratio: `model` and `models`, `batch` and `batches` are alike, `mode` and `models` are not
LEAST_RESTORE_AFTER_S = 240
# A host that waits for no other one renews its lease all the while: this is for what lies between two steps.
ALONE_RESTORE_AFTER_S = 120
LOAD_EXTRA_S = 120  # what a load test may take besides its requests
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def boolean(value: object) -> bool | None:
    """A boolean, also where `-e` made it text; None for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A problem for each of the variables `names` that is none of `known`, but nearly named as one of them.

    Any other variable with our prefix is the operator's own business.
    """
    known = {*known, *RUN_LEVEL, *OF_PLAYBOOKS}
    endings = sorted(name[len(PREFIX) :] for name in known if name.startswith(PREFIX))
    problems = []
    for name in sorted(name for name in {*names} - known if name.startswith(PREFIX)):
        for meant in difflib.get_close_matches(name[len(PREFIX) :], endings, n=1, cutoff=ALIKE):
            problems.append(f"{name} is no variable of this collection; did you mean {PREFIX}{meant}?")
    return problems


def resolve_backend(declared: object, presets: Mapping[str, Mapping[str, Any]]) -> tuple[Backend, list[str]]:
    """The backend as one whole mapping: a preset by name, or a mapping over the preset it `extends`.

    Of a mapping in it what is not said stays; an empty one takes it away. Null takes a part of the preset away. Paths
    of env files become absolute. Returns the mapping (kind `none` where it cannot be used) and the problems.
    """
    known = ", ".join(sorted(presets))
    if isinstance(declared, str):
        declared = {"extends": declared}
    if not isinstance(declared, Mapping):
        return NO_BACKEND, [
            f"gpu_memory_backend = {_shown(declared)} must be the name of a preset ({known}) or a mapping"
        ]
    base = declared.get("extends", "none")
    if not isinstance(base, str) or base not in presets:
        return NO_BACKEND, [f"gpu_memory_backend = {base!r} is not a known preset; allowed: {known}"]
    changes: dict[str, Any] = {key: NO_BACKEND.get(key) if value is None else value for key, value in declared.items()}
    for part in MAPPINGS:
        own = changes.get(part)
        if isinstance(own, Mapping) and own:
            gone = {"prompt_at", "forget"} if "bodies" in own else set()  # they are about the preset's bodies
            kept = {key: value for key, value in presets[base].get(part, {}).items() if key not in gone}
            changes[part] = {key: value for key, value in {**kept, **own}.items() if value is not None}
    backend: dict[str, Any] = {**NO_BACKEND, **presets[base], **changes}
    backend.pop("extends", None)
    if backend["kind"] == "none":
        # A backend that is none has no files either: leaving out is how `kind: none` over a preset is meant.
        backend = {**NO_BACKEND, "load": declared.get("load") or {}}
    problems = _unknown("gpu_memory_backend", declared, BACKEND_KEYS) + _backend_problems(backend)
    if problems:
        return NO_BACKEND, problems
    directory = backend.get("directory") or "/"
    backend["env_files"] = [{**file, "path": posixpath.join(directory, file["path"])} for file in backend["env_files"]]
    backend["timeout_s"] = named_profiles.canonical_int(backend.get("timeout_s", 180))
    return cast(Backend, backend), []


def _unknown(where: str, given: Iterable[object], known: set[str]) -> list[str]:
    allowed = ", ".join(sorted(known))
    return [f"{where}.{key} is not known; allowed: {allowed}" for key in sorted(map(str, set(given) - known))]


def _shown(value: object) -> str:
    """A value for a message; of a collection that may hold anything, such as headers, only what it is."""
    inside = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if isinstance(value, Mapping) and value or any(isinstance(item, (Mapping, list)) for item in inside):
        return f"a {type(value).__name__} of {len(inside)}"
    return repr(value)


def _url_problem(where: str, value: object) -> list[str]:
    url = value if isinstance(value, str) and URL.match(value) and value.isprintable() else ""
    try:
        urls.parse(url)
    except ValueError:
        return [f"{where} = {_shown(value)} must be an http address"]
    if "@" in url.split("/")[2]:
        return [f"{where} must have no user and no password, since an address is shown; give the load a header instead"]
    return []


def _one_line(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_variable(value: object) -> bool:
    return isinstance(value, str) and bool(named_profiles.KEY.match(value))


def _backend_problems(backend: Mapping[str, Any]) -> list[str]:
    where = "gpu_memory_backend"
    problems = []
    for key, shape, form in SHAPES:
        if not isinstance(backend[key], shape):
            problems.append(f"{where}.{key} = {_shown(backend[key])} must be {form}")
            backend = {**backend, key: NO_BACKEND.get(key)}
    for key in ("directory", "command", "user", "process_match", "profile_file"):
        if not _one_line(backend.get(key) or ""):
            problems.append(f"{where}.{key} = {_shown(backend[key])} must be one line of text")
            backend = {**backend, key: None}
    if backend["kind"] not in BACKEND_KINDS:
        allowed = ", ".join(BACKEND_KINDS)
        problems.append(f"{where}.kind = {backend['kind']!r} is not allowed; allowed: {allowed}")
    if backend["kind"] == "unit" and not UNIT.match(str(backend.get("unit", ""))):
        problems.append(f"{where}.unit = {backend.get('unit')!r} must be the name of a unit, such as backend.service")
    if backend["kind"] == "command":
        problems += [
            f"{where}.{key} = {backend.get(key)!r} must be set for kind command"
            for key in ("directory", "command", "process_match")
            if not (backend.get(key) or "").strip()
        ]
    try:
        re.compile(backend.get("process_match") or "")
    except (re.error, OverflowError, RecursionError) as problem:
        problems.append(f"{where}.process_match = {backend['process_match']!r} is no regular expression: {problem}")
    try:
        shlex.split(backend.get("command") or "")
    except ValueError as problem:
        problems.append(f"{where}.command = {backend['command']!r} is no command line: {problem}")
    if backend.get("directory") and not backend["directory"].startswith("/"):
        problems.append(f"{where}.directory = {backend['directory']!r} must be an absolute path")
    for file in backend["env_files"]:
        problems += _env_file_problems(f"{where}.env_files", file, backend.get("directory"))
    problems += _file_problems(where, backend)
    for variable in sorted({str(name) for name in backend["keys"].values() if _takes_several(name, backend["keys"])}):
        problems.append(f"{where}.keys: {variable!r} must carry one intent, not several")
    allowed = ", ".join(named_profiles.NUMBERS)
    for intent, variable in backend["keys"].items():
        if intent not in named_profiles.NUMBERS or not _is_variable(variable):
            problems.append(f"{where}.keys: {intent!r}: {variable!r} must name the variable of one of {allowed}")
    for option, value in backend["sends"].items():
        if option not in named_profiles.NUMBERS or named_profiles.NUMBERS[option].read(value) is None:
            problems.append(f"{where}.sends.{option} = {value!r} must be a sensible number for one of {allowed}")
    problems += [
        f"{where}.reads: {name!r} must be the name of a variable" for name in backend["reads"] if not _is_variable(name)
    ]
    return problems + _request_problems(where, backend)


def _takes_several(variable: object, keys: Mapping[str, object]) -> bool:
    return list(keys.values()).count(variable) > 1


def _file_problems(where: str, backend: Mapping[str, Any]) -> list[str]:
    """Which files would be written twice, or elsewhere than it seems."""
    name = backend.get("profile_file") or ""
    if "/" in name or name in (".", ".."):
        return [
            f"{where}.profile_file = {name!r} must be the name of a file beside the backend's, such as .env.{{profile}}"
        ]
    directory = backend.get("directory") or "/"
    paths = [
        posixpath.normpath(posixpath.join(directory, file["path"]))
        for file in backend["env_files"]
        if isinstance(file, Mapping) and isinstance(file.get("path"), str)
    ]
    problems = [
        f"{where}.env_files: path = {path!r} is there twice" for path in dict.fromkeys(paths) if paths.count(path) > 1
    ]
    if name and posixpath.join(directory, name) in paths:
        problems.append(f"{where}.profile_file = {name!r} must be another file than those of env_files")
    return problems


def _env_file_problems(where: str, file: object, directory: object) -> list[str]:
    if not isinstance(file, Mapping) or not isinstance(file.get("path"), str) or not file["path"]:
        return [f"{where}: {file!r} must be a mapping with path and read_by"]
    if not _one_line(file["path"]):
        return [f"{where}: path = {file['path']!r} must be one line of text"]
    problems = _unknown(where, file, {"path", "read_by", "add_keys"})
    readers = file.get("read_by")
    if not isinstance(file.get("add_keys", True), bool):
        problems.append(f"{where}: add_keys = {file['add_keys']!r} must be true or false")
    if readers is not None and not (isinstance(readers, list) and all(reader in READERS for reader in readers)):
        problems.append(f"{where}: read_by = {readers!r} must be a list; allowed: {', '.join(READERS)}")
    if not directory and not file["path"].startswith("/"):
        problems.append(f"{where}: path = {file['path']!r} must be absolute, since there is no directory")
    return problems


def _request_problems(where: str, backend: Mapping[str, Any]) -> list[str]:
    """What is wrong with the requests to the backend: health and load."""
    health, load = backend["health"], backend["load"]
    problems = _unknown(f"{where}.health", health, HEALTH_KEYS) + _unknown(f"{where}.load", load, LOAD_KEYS)
    for part, request in (("health", health), ("load", load)):
        # Without a backend the load goes to Ollama itself, and only how is said.
        if request and not (part == "load" and backend["kind"] == "none" and "url" not in load):
            problems += _url_problem(f"{where}.{part}.url", request.get("url"))
    if not isinstance(load.get("forget", []), list):
        problems.append(f"{where}.load.forget = {_shown(load['forget'])} must be a list of addresses")
    else:
        problems += [problem for url in load.get("forget", []) for problem in _url_problem(f"{where}.load.forget", url)]
    if load.get("method", "POST") not in METHODS:
        problems.append(f"{where}.load.method = {load['method']!r} is not allowed; allowed: {', '.join(METHODS)}")
    if not isinstance(load.get("bodies", []), list):
        problems.append(f"{where}.load.bodies = {_shown(load['bodies'])} must be a list")
    elif load.get("prompt_at") is not None:
        problems += _template_problems(f"{where}.load", load)
    if not isinstance(load.get("headers", {}), Mapping):
        problems.append(f"{where}.load.headers must be a mapping, not {type(load['headers']).__name__}")
    for name, value in load["headers"].items() if isinstance(load.get("headers"), Mapping) else ():
        if not isinstance(name, str) or not HEADER.match(name) or named_profiles.canonical_text(value) is None:
            problems.append(f"{where}.load.headers: {name!r} must be the name of a header, its value one line of text")
    for key, value, least, most, unit in (
        ("health.status", health.get("status", 200), 100, 599, "an HTTP status"),
        ("load.expect_status", load.get("expect_status", 200), 100, 599, "an HTTP status"),
        ("load.timeout", load.get("timeout", 120), 1, 3600, "seconds"),
        ("timeout_s", backend.get("timeout_s", 180), 1, 3600, "seconds"),
    ):
        problems += named_profiles.within(f"{where}.{key}", value, least, most, unit)[1]
    return problems


def _template_problems(where: str, load: Mapping[str, Any]) -> list[str]:
    """Bodies are templates for a prompt, which must have its place in each."""
    at = load["prompt_at"]
    if not isinstance(at, str) or not load.get("bodies"):
        return [f"{where}.prompt_at = {at!r} must name the place of the prompt in each of load.bodies, such as message"]
    try:
        for body in load["bodies"]:
            prompt_texts.with_prompt(body, at, str)
    except ValueError as problem:
        return [f"{where}.prompt_at = {at!r}: {problem}; it must name the place of the prompt in each of load.bodies"]
    return []


def resolve_ollama(declared: object) -> tuple[Ollama, list[str]]:
    """Where Ollama is: {unit, url, timeout_s, version or None, take_over}; with the problems of what was declared."""
    usual: Ollama = {
        "unit": "ollama.service",
        "url": "http://127.0.0.1:11434",
        "timeout_s": 60,
        "version": None,
        "take_over": False,
    }
    if not isinstance(declared, Mapping):
        return usual, [f"gpu_memory_ollama = {declared!r} must be a mapping with unit and url"]
    problems = _unknown("gpu_memory_ollama", declared, set(usual))
    ollama: dict[str, Any] = {**usual, **declared}
    if not UNIT.match(str(ollama["unit"])) and not compose.is_one(str(ollama["unit"])):
        problems.append(
            f"gpu_memory_ollama.unit = {ollama['unit']!r} must be the name of a unit, such as ollama.service, or of a "
            "service of Docker Compose, as compose:PROJECT/SERVICE"
        )
    problems += _url_problem("gpu_memory_ollama.url", ollama["url"])
    ollama["url"] = str(ollama["url"]).rstrip("/")
    ollama["timeout_s"], found = named_profiles.within(
        "gpu_memory_ollama.timeout_s", ollama["timeout_s"], 1, 3600, "seconds"
    )
    problems += found
    if ollama["version"] is not None and settings.parse_version(ollama["version"]) is None:
        problems.append(f"gpu_memory_ollama.version = {ollama['version']!r} must be a release, such as 0.32.15")
    if boolean(ollama["take_over"]) is None:
        problems.append(f"gpu_memory_ollama.take_over = {_shown(ollama['take_over'])} must be true or false")
    ollama["take_over"] = boolean(ollama["take_over"])
    return cast(Ollama, ollama), problems


def resolve_gpus(declared: object) -> tuple[list[str], list[str]]:
    """The GPUs that count, by index or UUID as text; empty for those that Ollama uses. With what is wrong of it."""
    if declared == "used":
        return [], []
    given = declared if isinstance(declared, list) else []
    words = [str(word) for word in given]
    if not words or not all(isinstance(word, (int, str)) and GPU.match(str(word)) for word in given):
        return [], [
            f"gpu_memory_gpus = {_shown(declared)} must be used, or a list of indices or UUIDs of GPUs as nvidia-smi "
            "-L shows them"
        ]
    twice = [word for word in dict.fromkeys(words) if words.count(word) > 1]
    return words, [f"gpu_memory_gpus names {word} twice; take one of the two away" for word in twice]


def resolve_hook(name: str, declared: object) -> tuple[Hook, list[str]]:
    """What an operator wants done at some moment: {tasks: a file on the controller or "", commands: for the host}."""
    hook: Hook = {"tasks": "", "commands": []}
    if not isinstance(declared, Mapping):
        return hook, [f"{name} = {declared!r} must be a mapping with tasks and commands"]
    problems = _unknown(name, declared, set(hook))
    tasks, commands = declared.get("tasks") or "", declared.get("commands") or []
    if not isinstance(tasks, str):
        problems.append(f"{name}.tasks = {tasks!r} must be the path of a tasks file on the controller")
    if not isinstance(commands, list) or not all(isinstance(one, str) and one.strip() for one in commands):
        problems.append(f"{name}.commands = {commands!r} must be a list of commands, each as one text")
    return (hook if problems else {"tasks": tasks, "commands": commands}), problems


def resolve_fallback(
    variables: Mapping[str, Any], profile: named_profiles.Profile | None, known: list[str]
) -> tuple[Declared | None, list[str]]:
    """`resolve` for the profile to try where the wanted one does not hold; None where there is no such profile.

    `known`: problems that are told already.
    """
    name = variables["gpu_memory_fallback_profile"]
    if not name or profile is None or name == profile.name:
        return None, []
    changed = {"gpu_memory_profile": name, "gpu_memory_fallback_profile": ""}
    fallback = declared_of({**variables, **changed}, [])
    problems = [problem for problem in fallback["problems"] if problem not in known]
    if not problems and fallback["profile"] and fallback["profile"]["max_used_mib"] is None:
        problems = [f"{name} has no threshold (max_used_mib), so nothing could prove it"]
    return fallback, [f"gpu_memory_fallback_profile: {problem}" for problem in problems]


NUMBERS = {
    "gpu_memory_restore_after": (30, 3600, "seconds"),
    "gpu_memory_proof_max_age": (0, 3650, "days"),
    "gpu_memory_load_requests": (0, 1000, "requests; 0 for one more than runs at once"),
    "gpu_memory_sample_interval_ms": (10, 100, "milliseconds"),
}
FLAGS = ("gpu_memory_allow_unsafe", "gpu_memory_strict", "gpu_memory_show_secrets", "gpu_memory_fail")
CHOICES = {
    "gpu_memory_other_sizes": sizes.OTHER_SIZES,
    "gpu_memory_verify": VERIFY,
    "gpu_memory_load": prompt_texts.KINDS,
}
HOOKS = ("before_restart", "after_proof")


def _resolve_alone(variables: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The variables that mean the same whatever others say, by name without `gpu_memory_`; with the problems."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, bounds in NUMBERS.items():
        values[name], found = named_profiles.within(name, variables[name], *bounds)
        problems += found
    for name in FLAGS:
        values[name] = boolean(variables[name])
        if values[name] is None:
            problems.append(f"{name} = {variables[name]!r} must be true or false")
    for name, allowed in CHOICES.items():
        values[name] = variables[name]
        if values[name] not in allowed:
            problems.append(f"{name} = {variables[name]!r} is not allowed; allowed: {', '.join(allowed)}")
    values["gpu_memory_gpus"], found = resolve_gpus(variables["gpu_memory_gpus"])
    problems += found
    declared_models = variables["gpu_memory_models"]
    models = named_profiles.canonical_models([] if declared_models is None else declared_models)
    values["gpu_memory_models"] = models
    if models is None:
        problems.append(f"gpu_memory_models = {declared_models!r} must be a list of model names")
    for name in ("gpu_memory_gpu_gb_per_s", "gpu_memory_host_gb_per_s"):
        if named_profiles.canonical_number(variables[name]) is None:
            problems.append(f"{name} = {variables[name]!r} must be GB/s, from 0 to 100000")
    if not _one_line(variables["gpu_memory_report_dir"]) or not variables["gpu_memory_report_dir"].strip():
        problems.append(
            f"gpu_memory_report_dir = {variables['gpu_memory_report_dir']!r} must be a path on the controller, "
            "where the records go; . is where you stand"
        )
    accepted = variables["gpu_memory_accepted_notes"]
    accepted = [accepted] if isinstance(accepted, str) else accepted
    if not isinstance(accepted, list) or not all(isinstance(words, str) and words.strip() for words in accepted):
        problems.append(f"gpu_memory_accepted_notes = {accepted!r} must be a list of words that notes contain")
        accepted = []
    values["gpu_memory_accepted_notes"] = accepted
    for hook in HOOKS:
        name = f"gpu_memory_{hook}"
        values[name], found = resolve_hook(name, variables[name])
        problems += found
    return {name[len(PREFIX) :]: value for name, value in values.items()}, problems


def declared_of(variables: Mapping[str, Any], run_level_in_inventory: list[str]) -> Declared:
    """All of an operator's variables as one plain mapping, with every problem in `problems`.

    `variables`: the `gpu_memory_*` variables of a host by their names, and the built-in profiles and presets.
    """
    problems = [
        f"{name} is set in the inventory, where Ansible cannot use it; give it with -e"
        for name in run_level_in_inventory
    ]
    backend, found = resolve_backend(variables["gpu_memory_backend"], variables["__gpu_memory_backend_presets"])
    problems += found
    ollama, found = resolve_ollama(variables["gpu_memory_ollama"])
    problems += found
    if backend.get("unit") == ollama["unit"]:
        problems.append(
            f"gpu_memory_backend.unit = {backend['unit']!r} must be another unit than gpu_memory_ollama.unit"
        )
    profile, found = named_profiles.resolve(
        variables["gpu_memory_profile"],
        variables["__gpu_memory_built_in_profiles"],
        variables["gpu_memory_profiles"],
        variables["gpu_memory_overrides"],
        backend["keys"],
    )
    problems += found
    goes_by_default = named_profiles.canonical_int(variables["gpu_memory_restore_after"]) == 0
    if goes_by_default:
        variables = {**variables, "gpu_memory_restore_after": _slowest_step_s(ollama, backend)}
    alone, found = _resolve_alone(variables)
    problems = [masking.without_secrets(problem) for problem in [*problems, *found]]
    fallback, found = resolve_fallback(variables, profile, problems)
    env = {**profile.env, **named_profiles.carried(profile.env, profile.intent, backend["keys"])} if profile else {}
    resolved: dict[str, object] = {
        **alone,
        "problems": [*problems, *found],
        "fallback": fallback,
        "restore_after_alone": ALONE_RESTORE_AFTER_S if goes_by_default else alone.get("restore_after"),
        "profile": None if profile is None else _as_mapping(profile),
        "profiles": every_profile(variables, backend),
        "backend": backend,
        "env": env,
        "ollama": ollama,
        "models": alone["models"] or (profile.models if profile else []),
        "env_keys": sorted({*(profile.env if profile else {}), *backend["keys"].values()}),
        "profile_file": _profile_file(backend, profile),
    }
    return cast(Declared, resolved)


def every_profile(variables: Mapping[str, Any], backend: Backend) -> list[CandidateProfile]:
    """All profiles that this host could be given, in the order of their declaration, each with its `problems`.

    Shape as `profile` of `resolve`, with `models`: those that the host or else the profile names.
    """
    built_in, own = variables["__gpu_memory_built_in_profiles"], variables["gpu_memory_profiles"]
    profiles: list[CandidateProfile] = []
    for name in dict.fromkeys([*built_in, *map(str, own if isinstance(own, Mapping) else ())]):
        profile, problems = named_profiles.resolve(
            name, built_in, own, variables["gpu_memory_overrides"], backend["keys"]
        )
        named = named_profiles.canonical_models(variables["gpu_memory_models"] or [])
        profiles.append(
            {"name": name, "label": name, "problems": problems, "models": []}
            if profile is None
            else {**_as_mapping(profile), "problems": [], "models": named or profile.models}
        )
    return profiles


def _as_mapping(profile: named_profiles.Profile) -> Profile:
    return {
        "name": profile.name,
        "label": profile.label,
        "changed": profile.changed,
        "env": profile.env,
        "intent": profile.intent,
        "max_used_mib": profile.max_used_mib,
        "meant_for_mib": None if profile.own_threshold or profile.max_used_mib is None else sizes.BUILT_IN_FOR_MIB,
    }


def _slowest_step_s(ollama: Ollama, backend: Backend) -> int:
    """How long a restart or a load test may take: a restore any earlier would undo what is about to work."""
    restart = (ollama["timeout_s"] or 0) + (backend.get("timeout_s") or 0)
    load = float(backend["load"].get("timeout") or 0) + LOAD_EXTRA_S
    return int(min(max(restart, load, LEAST_RESTORE_AFTER_S), NUMBERS["gpu_memory_restore_after"][1]))


def _profile_file(backend: Backend, profile: named_profiles.Profile | None) -> ProfileFile | None:
    """The profile's own file beside the backend's `.env` (the guide's `.env.stable-16gb`): {path, read_by, env}.

    The guide copies it over `.env`, so it has the same readers.
    """
    pattern = backend.get("profile_file")
    if not pattern or not backend.get("directory") or profile is None or not backend["env_files"]:
        return None
    return {
        "path": posixpath.join(str(backend["directory"]), str(pattern).replace("{profile}", profile.name)),
        "read_by": backend["env_files"][0].get("read_by"),
        "env": profile.env,
    }
