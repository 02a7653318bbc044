# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator declared, as one checked value, before any host is contacted."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils import _profile, _settings

UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,240}\.service\Z")
URL = re.compile(r"https?://[^\s/]+(/\S*)?\Z")
BACKEND_KINDS = ("none", "unit", "command")
BACKEND_KEYS = {
    "extends", "kind", "unit", "directory", "command", "user", "process_match", "env_files", "profile_file", "keys",
    "reads", "health", "timeout_s", "load",
}  # fmt: skip
READERS = ("python-dotenv", "bash", "systemd", "docker")
VERIFY = ("changed", "always", "never")
# Play keywords are templated before any host is known, so Ansible ignores these in an inventory.
RUN_LEVEL = ("gpu_memory_batches", "gpu_memory_max_fail_percentage")
TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def boolean(value: Any) -> bool | None:
    """A boolean, also where `-e` made it text; None for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    return True if word in TRUE else False if word in FALSE else None


def resolve_backend(declared: Any, presets: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The backend as one whole mapping: a preset by name, or a mapping over the preset it `extends`.

    Paths of env files become absolute. Returns the mapping (kind `none` where it cannot be used) and the problems.
    """
    nothing = {"kind": "none", "env_files": [], "keys": {}, "reads": [], "health": {}, "load": {}}
    known = ", ".join(sorted(presets))
    if isinstance(declared, str):
        declared = {"extends": declared}
    if not isinstance(declared, Mapping):
        return nothing, [f"gpu_memory_backend = {declared!r} must be the name of a preset ({known}) or a mapping"]
    base = declared.get("extends", "none")
    if base not in presets:
        return nothing, [f"gpu_memory_backend = {base!r} is not a known preset; allowed: {known}"]
    backend = {**nothing, **presets[base], **declared}
    backend.pop("extends", None)
    problems = [f"gpu_memory_backend.{key} is not known" for key in sorted(set(declared) - BACKEND_KEYS)]
    if backend["kind"] not in BACKEND_KINDS:
        problems.append(
            f"gpu_memory_backend.kind = {backend['kind']!r} is not allowed; allowed: {', '.join(BACKEND_KINDS)}"
        )
    if backend["kind"] == "none":
        # A backend that is none has no files either: leaving out is how `kind: none` over a preset is meant.
        return {**nothing, "load": backend["load"] if "load" in declared else {}}, problems
    problems += _backend_problems(backend)
    if not problems:
        directory = backend.get("directory") or "/"
        backend["env_files"] = [
            {**file, "path": posixpath.join(directory, file["path"])} for file in backend["env_files"]
        ]
        backend["timeout_s"] = _profile.canonical_int(backend.get("timeout_s", 180))
    return (nothing if problems else backend), problems


def _backend_problems(backend: Mapping[str, Any]) -> list[str]:
    where = "gpu_memory_backend"
    problems = []
    if backend["kind"] == "unit" and not UNIT.match(str(backend.get("unit", ""))):
        problems.append(f"{where}.unit = {backend.get('unit')!r} must be the name of a unit, such as backend.service")
    if backend["kind"] == "command":
        for key in ("directory", "command", "process_match"):
            if not isinstance(backend.get(key), str) or not backend[key].strip():
                problems.append(f"{where}.{key} must be set for kind command")
        try:
            re.compile(str(backend.get("process_match", "")))
        except re.error as problem:
            problems.append(f"{where}.process_match = {backend['process_match']!r} is no regular expression: {problem}")
    if backend.get("directory") and not str(backend["directory"]).startswith("/"):
        problems.append(f"{where}.directory = {backend['directory']!r} must be an absolute path")
    files = backend.get("env_files")
    if not isinstance(files, list) or not all(isinstance(file, Mapping) and file.get("path") for file in files):
        problems.append(f"{where}.env_files must be a list of mappings with path and read_by")
    else:
        for file in files:
            unknown = [reader for reader in file.get("read_by") or [] if reader not in READERS]
            if unknown:
                problems.append(f"{where}.env_files: read_by {unknown} is not known; allowed: {', '.join(READERS)}")
    for part in ("health", "load"):
        address = (backend.get(part) or {}).get("url")
        if address is not None and not URL.match(str(address)):
            problems.append(f"{where}.{part}.url = {address!r} must be an http address")
    timeout = _profile.canonical_int(backend.get("timeout_s", 180))
    if timeout is None or not 1 <= timeout <= 3600:
        problems.append(f"{where}.timeout_s = {backend.get('timeout_s')!r} must be seconds, from 1 to 3600")
    return problems


def resolve_ollama(declared: Any) -> tuple[dict[str, Any], list[str]]:
    """Where Ollama is: {unit, url, timeout_s, version or None}; with the problems of what was declared."""
    ollama = {"unit": "ollama.service", "url": "http://127.0.0.1:11434", "timeout_s": 60, "version": None}
    if not isinstance(declared, Mapping):
        return ollama, [f"gpu_memory_ollama = {declared!r} must be a mapping with unit and url"]
    problems = [
        f"gpu_memory_ollama.{key} is not known; allowed: {', '.join(ollama)}" for key in set(declared) - set(ollama)
    ]
    ollama = {**ollama, **declared}
    if not UNIT.match(str(ollama["unit"])):
        problems.append(
            f"gpu_memory_ollama.unit = {ollama['unit']!r} must be the name of a unit, such as ollama.service"
        )
    if not URL.match(str(ollama["url"])):
        problems.append(f"gpu_memory_ollama.url = {ollama['url']!r} must be an http address")
    ollama["url"] = str(ollama["url"]).rstrip("/")
    seconds = _profile.canonical_int(ollama["timeout_s"])
    if seconds is None or not 1 <= seconds <= 3600:
        problems.append(f"gpu_memory_ollama.timeout_s = {ollama['timeout_s']!r} must be seconds, from 1 to 3600")
    ollama["timeout_s"] = seconds
    if ollama["version"] is not None and _settings.parse_version(ollama["version"]) is None:
        problems.append(f"gpu_memory_ollama.version = {ollama['version']!r} must be a release, such as 0.32.15")
    return ollama, problems


NUMBERS = {
    "gpu_memory_restore_after": (30, 3600, "seconds"),
    "gpu_memory_proof_max_age": (0, 3650, "days"),
    "gpu_memory_load_requests": (0, 10000, "requests; 0 for one more than runs at once"),
    "gpu_memory_sample_interval_ms": (10, 100, "milliseconds"),
}


def resolve(variables: Mapping[str, Any], run_level_in_inventory: list[str]) -> dict[str, Any]:
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
    profile, found = _profile.resolve(
        variables["gpu_memory_profile"],
        variables["__gpu_memory_built_in_profiles"],
        variables["gpu_memory_profiles"],
        variables["gpu_memory_overrides"],
        backend["keys"],
    )
    problems += found
    numbers = {}
    for name, (least, most, unit) in NUMBERS.items():
        number = _profile.canonical_int(variables[name])
        if number is None or not least <= number <= most:
            problems.append(f"{name} = {variables[name]!r} must be {unit}, from {least} to {most}")
        numbers[name] = number
    flags = {}
    for name in ("gpu_memory_allow_unsafe", "gpu_memory_strict"):
        flags[name] = boolean(variables[name])
        if flags[name] is None:
            problems.append(f"{name} = {variables[name]!r} must be true or false")
    if variables["gpu_memory_verify"] not in VERIFY:
        problems.append(
            f"gpu_memory_verify = {variables['gpu_memory_verify']!r} is not allowed; allowed: {', '.join(VERIFY)}"
        )
    models = variables["gpu_memory_models"] or (profile.models if profile else [])
    if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
        problems.append(f"gpu_memory_models = {models!r} must be a list of model names")
        models = []
    return {
        "problems": problems,
        "profile": None
        if profile is None
        else {
            "name": profile.name,
            "label": profile.label,
            "changed": profile.changed,
            "env": profile.env,
            "intent": profile.intent,
            "max_used_mib": profile.max_used_mib,
        },
        "backend": backend,
        "ollama": ollama,
        "models": models,
        "verify": variables["gpu_memory_verify"],
        "env_keys": sorted({*(profile.env if profile else {}), *backend["keys"].values()}),
        "profile_file": _profile_file(backend, profile),
        **{name[len("gpu_memory_") :]: value for name, value in {**numbers, **flags}.items()},
    }


def _profile_file(backend: Mapping[str, Any], profile: _profile.Profile | None) -> str | None:
    """Where the profile's own file goes, beside the backend's `.env` (the guide's `.env.stable-16gb`)."""
    pattern = backend.get("profile_file")
    if not pattern or not backend.get("directory") or profile is None or not backend["env_files"]:
        return None
    return posixpath.join(backend["directory"], pattern.replace("{profile}", profile.name))
