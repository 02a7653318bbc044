# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Profiles: from what an operator declares to one canonical, checked value.

Whatever is wrong is collected as text, so that an operator sees every problem of a declaration at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent

KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mib|gib)?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Bound:
    """A number: the smallest and largest that makes sense, and whether a whole profile must name it."""

    least: int
    most: int
    required: bool = False
    size: bool = False

    @property
    def form(self) -> str:
        what = "MiB, as 12288 or 12GiB" if self.size else "a whole number"
        return f"{what}, from {self.least} to {self.most}"

    def read(self, value: object) -> int | None:
        """The canonical value; None for what is not of the form."""
        number = canonical_mib(value) if self.size else canonical_int(value)
        return number if number is not None and self.least <= number <= self.most else None


@dataclass(frozen=True)
class Choice:
    """A word."""

    allowed: tuple[str, ...]
    required: bool = False

    @property
    def form(self) -> str:
        return f"one of {', '.join(self.allowed)}"

    def read(self, value: object) -> str | None:
        """The canonical value; None for what is not of the form."""
        word = value.strip().lower() if isinstance(value, str) else None
        return word if word in self.allowed else None


INTENTS: dict[str, Bound | Choice] = {
    "num_ctx": Bound(256, 4_194_304, required=True),
    "num_parallel": Bound(1, 128, required=True),
    "num_batch": Bound(32, 16384),
    "gpu_layers": Bound(0, 9999),
    "max_loaded_models": Bound(1, 64),
    "kv_cache_type": Choice(settings.CACHE_TYPES),
    "max_used_mib": Bound(256, 1_048_576, size=True),
}

# What a backend's requests may carry, too.
NUMBERS = {name: bound for name, bound in INTENTS.items() if isinstance(bound, Bound)}


@dataclass(frozen=True)
class Profile:
    """A whole profile.

    `env`: text by key, what the backend's file gets. `intent`: canonical values by name (see `INTENTS`), what it means.
    `own_threshold`: whether the operator says how much GPU memory may be used, and no built-in profile does.
    `label`: the name, with `*` where it differs from the built-in of that name. `changed`: what differs.
    """

    name: str
    env: dict[str, str]
    intent: Intent
    models: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    own_threshold: bool = False

    @property
    def label(self) -> str:
        return self.name + ("*" if self.changed else "")

    @property
    def max_used_mib(self) -> int | None:
        return self.intent.get("max_used_mib")


class Layer(TypedDict):
    """One declared layer, canonical; `said` tells where each part of `env` and `intent` was said."""

    env: dict[str, str]
    intent: dict[str, int | str]
    models: list[str] | None
    extends: object
    said: dict[str, str]


# Ollama's own variables that carry an intent; a backend preset adds those of the backend.
OLLAMA_KEYS = {
    "num_parallel": "OLLAMA_NUM_PARALLEL",
    "max_loaded_models": "OLLAMA_MAX_LOADED_MODELS",
    "kv_cache_type": "OLLAMA_KV_CACHE_TYPE",
}
# One that this collection sets from the intent, so that a profile that names it too must not say something else.
OLLAMA_ALSO = {"num_ctx": "OLLAMA_CONTEXT_LENGTH"}


def carried(env: Mapping[str, str], intent: Mapping[str, object], keys: Mapping[str, str]) -> dict[str, str]:
    """What a backend needs besides a profile's `env`: an intent in the variable where this backend takes it."""
    return {variable: str(intent[name]) for name, variable in keys.items() if name in intent and variable not in env}


def canonical_int(value: object) -> int | None:
    """A whole number, also where `-e` made it text; None for anything else. Booleans are not numbers here."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,12}\s*", value):
        return int(value)
    return None


def within(name: str, value: object, least: int, most: int, unit: str) -> tuple[int | None, list[str]]:
    """A whole number, None for what is none, and the problem where it is not within its bounds."""
    number = canonical_int(value)
    good = number is not None and least <= number <= most
    return number, [] if good else [f"{name} = {value!r} must be {unit}, from {least} to {most}"]


def canonical_number(value: object, most: float = 100_000) -> float | None:
    """A number from 0 to `most`, also where `-e` made it text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number <= most else None


def canonical_mib(value: object) -> int | None:
    """MiB from a whole number or from text such as `12GiB`; None for anything else, `12 GB` included."""
    whole = canonical_int(value)
    if whole is not None:
        return whole
    match = SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        return None
    mib = float(match.group(1)) * (1024 if (match.group(2) or "mib").lower() == "gib" else 1)
    return int(mib) if mib.is_integer() else None


def canonical_models(value: object) -> list[str] | None:
    """Names of models without the space around them, also from `-e` with commas between; None for anything else."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list) and all(isinstance(model, str) and model.strip() for model in value):
        return [model.strip() for model in value]
    return None


def canonical_text(value: object) -> str | None:
    """One line of printable text, also from a number; None for anything else, booleans included."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value)
    return text if text.isprintable() else None


NOTHING: Layer = {"env": {}, "intent": {}, "models": [], "extends": None, "said": {}}


def _read_layer(layer: object, where: str, problems: list[str]) -> Layer:
    """One declared layer: a profile, or the overrides."""
    result: Layer = {"env": {}, "intent": {}, "models": None, "extends": None, "said": {}}
    if not isinstance(layer, Mapping):
        problems.append(f"{where} must be a mapping with env and intent, not {type(layer).__name__}")
        return result
    for key in layer:
        if key not in ("env", "intent", "models", "extends"):
            problems.append(f"{where}.{key} is not known; a profile has env, intent, models and extends")
    for part in ("env", "intent"):
        if layer.get(part) is None:
            layer = {**layer, part: {}}
        elif not isinstance(layer[part], Mapping):
            problems.append(f"{where}.{part} = {layer[part]!r} must be a mapping, not {type(layer[part]).__name__}")
            layer = {**layer, part: {}}
    for key, value in layer["env"].items():
        text = canonical_text(value)
        if not isinstance(key, str) or not KEY.match(key):
            problems.append(f"{where}.env: {key!r} is not a variable name (letters, digits, _; no digit first)")
        elif text is None:
            problems.append(
                f"{where}.env.{key} = {value!r} must be one line of text or a number; "
                "quote words such as true or no, since readers disagree about booleans"
            )
        else:
            result["env"][key] = text
    for key, value in layer["intent"].items():
        if key == "models":
            layer = {**layer, "models": value}
            continue
        bound = INTENTS.get(key)
        if bound is None:
            problems.append(f"{where}.intent.{key} is not known; allowed: {', '.join(INTENTS)}, models")
            continue
        canonical = bound.read(value)
        if canonical is None:
            problems.append(f"{where}.intent.{key} = {value!r} must be {bound.form}")
        else:
            result["intent"][key] = canonical
    if layer.get("models") is not None:
        result["models"] = canonical_models(layer["models"])
        if result["models"] is None:
            problems.append(f"{where}.models = {layer['models']!r} must be a list of model names")
    result["extends"] = layer.get("extends")
    said = [*(f"env.{key}" for key in result["env"]), *(f"intent.{key}" for key in result["intent"])]
    result["said"] = {part: f"{where}.{part}" for part in said}
    return result


def _merge(base: Layer, layer: Layer, keys: Mapping[str, str]) -> Layer:
    """`layer` over `base`. A changed intent also changes the variable that carries it, unless the layer names both."""
    carried = {keys[name]: str(value) for name, value in layer["intent"].items() if name in keys}
    carried = {key: value for key, value in carried.items() if key in base["env"]}
    return {
        "env": {**base["env"], **carried, **layer["env"]},
        "intent": {**base["intent"], **layer["intent"]},
        "models": base["models"] if layer["models"] is None else layer["models"],
        "extends": None,
        "said": {**base["said"], **layer["said"]},
    }


@dataclass(frozen=True)
class _Declared:
    """The profiles that one may extend. Reading them collects the problems, and the layers that the operator wrote."""

    built_in: Mapping[str, Any]
    own: Mapping[str, Any]
    keys: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    own_layers: list[Layer] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return sorted({*self.built_in, *self.own})

    def whole(self, wanted: str, chain: tuple[str, ...] = ()) -> Layer:
        """A profile with all that it extends; `stable` inside a redefined `stable` is the built-in one."""
        use_own = wanted in self.own and wanted not in chain
        if not use_own and wanted not in self.built_in:
            reason = "extends itself" if wanted in chain else "is not known"
            self.problems.append(
                f"gpu_memory_profiles.{chain[-1]}.extends = {wanted!r}: that profile {reason}; "
                f"allowed: {', '.join(self.names)}"
            )
            return NOTHING
        found: list[str] = []
        layer = _read_layer((self.own if use_own else self.built_in)[wanted], f"gpu_memory_profiles.{wanted}", found)
        self.own_layers.extend([layer] if use_own else [])
        through = f" ({' extends '.join((*chain, wanted))})" if chain else ""
        self.problems.extend(problem + through for problem in found)
        if layer["extends"] is None:
            return {**layer, "models": layer["models"] or []}
        return _merge(self.whole(str(layer["extends"]), (*chain, wanted)), layer, self.keys)


def resolve(
    name: object,
    built_in: Mapping[str, Any],
    own: object,
    overrides: object,
    keys: Mapping[str, str],
) -> tuple[Profile | None, list[str]]:
    """The profile `name` out of the built-in ones, the operator's `own` and this host's `overrides`.

    `keys` names the backend's variable that carries an intent, as {intent: variable}. Returns the profile, or None
    with the problems that stand in its way.
    """
    keys = {**OLLAMA_KEYS, **keys}
    own = {} if own is None else own
    if not isinstance(own, Mapping):
        return None, [f"gpu_memory_profiles = {own!r} must be a mapping of profiles, not {type(own).__name__}"]
    declared = _Declared(built_in, {str(key): layer for key, layer in own.items()}, keys)
    if not isinstance(name, str) or not NAME.match(name) or name not in declared.names:
        return None, [f"gpu_memory_profile = {name!r} is not known; allowed: {', '.join(declared.names)}"]
    merged, problems = declared.whole(name), declared.problems
    if overrides is not None:
        layer = _read_layer(overrides, "gpu_memory_overrides", problems)
        if layer["extends"] is not None:
            problems.append(
                f"gpu_memory_overrides.extends = {layer['extends']!r} is not allowed; "
                "overrides change the chosen profile with env, intent and models"
            )
        declared.own_layers.append(layer)
        merged = _merge(merged, layer, keys)
    problems.extend(_cross_checks(name, merged, keys, complete=not problems))
    if problems:
        return None, problems
    base_profile = built_in.get(name)
    changed = _differences(merged, base_profile) if base_profile else (["overrides"] if overrides else [])
    own_threshold = any("max_used_mib" in layer["intent"] for layer in declared.own_layers)
    intent = cast(Intent, merged["intent"])
    return Profile(name, merged["env"], intent, merged["models"] or [], changed, own_threshold), []


def _cross_checks(name: str, merged: Layer, keys: Mapping[str, str], complete: bool) -> list[str]:
    problems = []
    where = f"gpu_memory_profiles.{name}"
    missing = [key for key, bound in INTENTS.items() if bound.required and key not in merged["intent"]]
    if missing and complete:
        problems.append(f"{where}.intent lacks {', '.join(missing)}; a profile is whole, or says extends: stable")
    for intent, variable in [*keys.items(), *OLLAMA_ALSO.items()]:
        wanted, written = merged["intent"].get(intent), merged["env"].get(variable)
        said = merged["said"].get(f"env.{variable}", where)
        if written is not None and wanted is None:
            problems.append(f"{said} = {written} lacks an intent.{intent}; say in {where}.intent what it means")
        elif written is not None and INTENTS[intent].read(written) != wanted:
            other = merged["said"].get(f"intent.{intent}", where)
            problems.append(f"{said} = {written} contradicts {other} = {wanted}; make them equal")
    return problems


def _differences(merged: Layer, base: Mapping[str, Any]) -> list[str]:
    changed = []
    for part in ("env", "intent"):
        theirs = base.get(part, {})
        changed += [f"{part}.{key}" for key in {**theirs, **merged[part]} if theirs.get(key) != merged[part].get(key)]
    if merged["models"] != base.get("models", []):
        changed.append("models")
    return changed
