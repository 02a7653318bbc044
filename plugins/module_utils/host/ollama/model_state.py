# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done to Ollama's models so that one of them has the wanted parameters. Pure: nothing here asks Ollama.

A model is a name for weights, a template, a system prompt and parameters; several names share the same weights. Sources
are server/create.go, server/routes.go, api/types.go and parser/parser.go of Ollama v0.1.14 to v0.32.15.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Union

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name, settings

MIB = 1024 * 1024
KEPT = "-gpu-memory-kept"  # the tag of a model as it was before its parameters were changed in place

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9_.:-]*/){{0,2}}{_PART}(?::{_PART})?")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_DIGEST = re.compile(r"sha256[-:]([0-9a-f]{64})")

Value = Union[bool, int, float, str, "list[str]"]
Parameters = Mapping[str, Value]


class Invalid(Exception):
    """What is asked for cannot be; the text names key, value and what is allowed."""


# --- names ------------------------------------------------------------------------------------------------------------


def full_name(name: str) -> str:
    """`llama3.1` → `llama3.1:latest`, without the parts that stand for Ollama's own library; Invalid for no name."""
    if not _NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of a model; allowed: such as llama3.1:8b, at most 80 characters a part")
    return model_name.full(name)


# --- parameters -------------------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    type: type
    least: float = 0
    most: float = 0


# Those that every release with a Modelfile and every current one reads (`Options` in api/types.go; min_p since 0.3.1).
# A number goes through a float64 inside Ollama, so no whole number beyond 2^53 would come back as it was.
_EXACT = 1 << 53
PARAMETERS: dict[str, _Kind] = {
    "num_gpu": _Kind(int, -1, 100_000),
    "num_ctx": _Kind(int, 1, 1 << 24),
    "num_batch": _Kind(int, 1, 1 << 20),
    "main_gpu": _Kind(int, 0, 1023),
    "num_thread": _Kind(int, 0, 65_535),
    "use_mmap": _Kind(bool),
    "num_keep": _Kind(int, -1, _EXACT),
    "num_predict": _Kind(int, -2, _EXACT),
    "seed": _Kind(int, -_EXACT, _EXACT),
    "temperature": _Kind(float, 0, 1000),
    "top_k": _Kind(int, 0, _EXACT),
    "top_p": _Kind(float, 0, 1),
    "min_p": _Kind(float, 0, 1),
    "typical_p": _Kind(float, 0, 1),
    "repeat_last_n": _Kind(int, -1, _EXACT),
    "repeat_penalty": _Kind(float, 0, 1000),
    "presence_penalty": _Kind(float, -1000, 1000),
    "frequency_penalty": _Kind(float, -1000, 1000),
    "stop": _Kind(list),
}


def typed(given: Mapping[Any, object]) -> dict[str, Value]:
    """`{"num_gpu": "20"}` → `{"num_gpu": 20}`; Invalid with all that is wrong with the parameters.

    Ollama stores text as it is, and refuses to load the model later: `option "num_gpu" must be of type integer`.
    """
    values: dict[str, Value] = {}
    problems = []
    for key, value in given.items():
        try:
            values[str(key)] = _typed_one(str(key), value)
        except Invalid as problem:
            problems.append(f"parameters.{key}: {problem}")
    if problems:
        raise Invalid("; ".join(problems))
    return values


def _typed_one(key: str, value: Any) -> Value:
    if key not in PARAMETERS:
        raise Invalid(f"there is no such parameter; allowed: {', '.join(PARAMETERS)}")
    kind = PARAMETERS[key]
    if kind.type is list:
        return _stops(value)
    if isinstance(value, str):
        value = _value_of(value.strip())
    if kind.type is bool:
        if not isinstance(value, bool):
            raise Invalid(f"{value!r} is neither true nor false")
        return value
    whole = kind.type is int
    allowed = f"allowed: a {'whole ' if whole else ''}number from {kind.least} to {kind.most}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (whole and value != int(value)) or not kind.least <= value <= kind.most:
        raise Invalid(f"{value!r} cannot be; {allowed}")
    return int(value) if whole else float(value)


def _stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not stops or not all(isinstance(each, str) and each for each in stops):
        raise Invalid(f"{value!r} cannot be; allowed: a text, or a list of texts, none of them empty")
    return list(stops)


def parse(text: str) -> dict[str, Value]:
    """The `parameters` of /api/show: a line a value as Go's `%-30s %#v` prints it, several lines for several stops."""
    values: dict[str, Value] = {}
    for line in text.split("\n"):
        key, _unused, raw = line.strip().partition(" ")
        if not key:
            continue
        value = _value_of(raw.strip())
        if key in values or PARAMETERS.get(key, _Kind(str)).type is list:
            earlier = values.get(key, [])
            values[key] = [*(earlier if isinstance(earlier, list) else [str(earlier)]), str(value)]
        else:
            values[key] = value
    return values


def _value_of(raw: str) -> Value:
    """A value as Go prints it; text without quotes (Ollama before 0.1.24 printed it so) stays as it is."""
    if raw in ("true", "false"):
        return raw == "true"
    if _NUMBER.fullmatch(raw):
        # A large whole number is printed as 1.048576e+06.
        number = float(raw)
        return int(raw) if re.fullmatch(r"[+-]?\d+", raw) else int(number) if number == int(number) else number
    if len(raw) > 1 and raw[0] == raw[-1] == '"':
        try:
            return str(ast.literal_eval(raw))  # Go's escapes in what was JSON are Python's
        except (SyntaxError, ValueError):
            return raw
    return raw


def _same_value(one: object, other: object) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        # Ollama's fractions are float32.
        if isinstance(one, (int, float)) and isinstance(other, (int, float)):
            return math.isclose(one, other, rel_tol=1e-6)
        return False
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A model as /api/show shows it. `weights` are the SHA-256 of its files, empty where Ollama does not say."""

    parameters: Parameters
    weights: tuple[str, ...] = ()
    template: str = ""
    system: str = ""

    @classmethod
    def of(cls, answer: object) -> Shown:
        """Reads an answer; Invalid if it is none."""
        texts: dict[str, str] = {}
        for key in ("parameters", "modelfile", "template", "system"):
            text = (answer.get(key) or "") if isinstance(answer, dict) else None
            if not isinstance(text, str):
                raise Invalid(f"the answer of /api/show is not Ollama's: its {key} is no text; correct url")
            texts[key] = text
        files = [line for line in texts["modelfile"].split("\n") if line.startswith(("FROM ", "ADAPTER "))]
        weights = tuple(match[1] for match in map(_DIGEST.search, files) if match)
        return cls(parse(texts["parameters"]), weights, texts["template"], texts["system"])

    def is_made_of(self, other: Shown) -> bool:
        """Whether both are the same but for their parameters."""
        known = self.weights and other.weights
        return (self.template, self.system) == (other.template, other.system) and (
            not known or self.weights == other.weights
        )


NOT_PULLED = Shown({})  # what check mode knows of a model that it would pull

Models = Mapping[str, "Shown | None"]


@dataclass(frozen=True)
class Wanted:
    """What the user asks for. `name` and `base` are full names; `parameters` are typed."""

    name: str
    state: str = "present"
    base: str | None = None
    parameters: Parameters = field(default_factory=dict)
    pull: str = "missing"

    @property
    def in_place(self) -> bool:
        return self.base is not None and model_name.same(self.name, self.base)

    @property
    def kept(self) -> str:
        return self.name + KEPT

    @property
    def names(self) -> list[str]:
        """Every model that has a part in it."""
        base = [] if self.base is None or self.in_place else [self.base]
        return [self.name, *base, self.kept]


def wanted(
    name: str, state: str = "present", base: str | None = None, parameters: Any = None, pull: str = "missing"
) -> Wanted:
    """What the user asks for, or Invalid with all that is wrong with it."""
    problems = []
    values: Parameters = {}
    full: dict[str, str | None] = {"name": "", "from": None}
    for key, given in (("name", name), ("from", base)):
        try:
            full[key] = None if given is None else full_name(given)
        except Invalid as problem:
            problems.append(f"{key}: {problem}")
    try:
        values = typed(parameters or {})
    except Invalid as problem:
        problems.append(str(problem))
    if (base is None) != (not parameters):
        problems.append("from and parameters go together: give both for a model with parameters of its own, or neither")
    found = Wanted(full["name"] or "", state, full["from"], values, pull)
    if found.in_place and pull == "always":
        problems.append("pull=always would undo parameters that are set in place; use pull=missing, or another name")
    if found.in_place and not _NAME.fullmatch(found.kept):
        problems.append(f"name: {found.kept}, which would keep it as it was, is too long a name; use another name")
    if problems:
        raise Invalid("; ".join(problems))
    return found


def as_listed(wanted: Wanted, listed: Iterable[str]) -> Wanted:
    """The same with names spelt as Ollama lists them: it finds `LLAMA3.1:8b`, but 0.32 does not create from it."""
    spelling = {name.lower(): name for name in listed}
    base = wanted.base and spelling.get(wanted.base.lower(), wanted.base)
    return replace(wanted, name=spelling.get(wanted.name.lower(), wanted.name), base=base)


# --- what to do -------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """`create` and `copy` write `model` from `source`."""

    verb: str
    model: str
    source: str = ""

    def __str__(self) -> str:
        if self.verb == "copy":
            return f"copy {self.source} to {self.model}"
        return f"{self.verb} {self.model}" + (f" from {self.source}" if self.source else "")


def model_to_pull(wanted: Wanted, models: Models) -> str | None:
    """The model to pull first of all; what is done then depends on what comes."""
    if wanted.state != "present":
        return None
    model = wanted.name if wanted.in_place else wanted.base or wanted.name
    there = models[model] or (wanted.in_place and models[wanted.kept])
    return model if wanted.pull == "always" or not there else None


def steps(wanted: Wanted, models: Models) -> list[Step]:
    """What makes `models`, where nothing has to be pulled any more, be as wanted.

    In place, the model as it was is kept first, and is what the parameters are added to from then on. A model that is
    no longer made of what is kept has been replaced by somebody: it is the one to keep, and is not to be undone.
    """
    own, kept = models[wanted.name], models[wanted.kept]
    undoes = kept is not None and (own is None or own.is_made_of(kept))
    if wanted.state == "absent":
        return [Step("delete", model) for model in (wanted.name, wanted.kept) if models[model]]
    if wanted.state == "restored":
        back = [Step("copy", wanted.name, wanted.kept)] if undoes else []
        return [*back, Step("delete", wanted.kept)] if kept else []
    if wanted.base is None:
        return []
    source = (wanted.kept if undoes else wanted.name) if wanted.in_place else wanted.base
    base = models[source]
    if base is None or (own and agrees(own, _created(base, wanted), wanted)):
        return []
    if wanted.in_place:
        keep = [] if undoes else [Step("copy", wanted.kept, wanted.name)]
        return [*keep, Step("create", wanted.name, wanted.kept)]
    return [Step("create", wanted.name, wanted.base)]


def after(wanted: Wanted, models: Models, todo: Sequence[Step]) -> dict[str, Shown | None]:
    """The models as they are to be once all is done."""
    found = dict(models)
    for step in todo:
        source = found.get(step.source)
        found[step.model] = _created(source, wanted) if source and step.verb == "create" else source
    return found


def _created(base: Shown, wanted: Wanted) -> Shown:
    return replace(base, parameters={**base.parameters, **wanted.parameters})


def agrees(found: Shown | None, expected: Shown | None, wanted: Wanted) -> bool:
    """Whether a model is as expected. `stop` counts only if given: Ollama adds one by itself for some architectures."""
    if found is None or expected is None:
        return found is expected
    keys = {*found.parameters, *expected.parameters} - ({"stop"} - set(wanted.parameters))
    return found.is_made_of(expected) and all(
        _same_value(found.parameters.get(key), expected.parameters.get(key)) for key in keys
    )


def view(models: Models) -> dict[str, object]:
    """For the diff: the models that are there, with what may change of them."""
    return {
        name: {
            "parameters": dict(sorted(model.parameters.items())),
            "weights": [digest[:12] for digest in model.weights] or "unknown",
        }
        for name, model in models.items()
        if model
    }


def create_body(wanted: Wanted, source: str, version: settings.Version | None) -> dict[str, object]:
    """The body for /api/create in the shape of this release (None: built from source, so a current one).

    Invalid where the old shape cannot carry a value.
    """
    if version is not None and version < settings.PARAMETERS_IN_BODY:
        return {"modelfile": _modelfile(source, wanted.parameters)}
    return {"from": source, "parameters": dict(wanted.parameters)}


def _modelfile(source: str, parameters: Parameters) -> str:
    lines = [f"FROM {source}"]
    for key, value in parameters.items():
        for each in value if isinstance(value, list) else [value]:
            lines.append(f"PARAMETER {key} {_quoted(each) if isinstance(each, str) else str(each).lower()}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text for a Modelfile, which knows quotes but no escapes, and drops what is not printable."""
    if '"""' in text or not text.replace("\n", "").replace("\t", "").isprintable():
        raise Invalid(f"parameters.stop: {text!r} cannot be written for an Ollama before 0.5.5; upgrade Ollama")
    return f'"""{text}"""'


def check_version(text: str) -> settings.Version | None:
    """The release as numbers, None for a build from source; Invalid for one that is too old."""
    version = settings.parse_version(text)
    if version is not None and version < settings.MODELFILE_IN_BODY:
        raise Invalid(f"Ollama {text} is too old to create models through its API; upgrade it to 0.1.14 or later")
    return version


# --- pulling ----------------------------------------------------------------------------------------------------------


class Meter:
    """What has come of a model while it is pulled. Ollama learns the size of a layer when that layer's turn comes."""

    def __init__(self, model: str) -> None:
        self._model, self._began = model, time.monotonic()
        self._status = ""
        self._layers: dict[str, tuple[int, int, int]] = {}  # bytes: found at first, there now, in all

    def add(self, line: Mapping[str, Any]) -> None:
        """A line of /api/pull: {status} or {status, digest, total, completed} in bytes."""
        self._status = str(line.get("status", ""))
        if isinstance(line.get("digest"), str) and isinstance(line.get("total"), int):
            there = line.get("completed")
            there = there if isinstance(there, int) else 0
            first = self._layers.get(line["digest"], (there,))[0]
            self._layers[line["digest"]] = (first, there, line["total"])

    def figures(self) -> dict[str, object]:
        """For a progress file."""
        there, total = (sum(layer[at] for layer in self._layers.values()) for at in (1, 2))
        return {
            "t_s": round(time.monotonic() - self._began, 1),
            "model": self._model,
            "status": self._status,
            "completed_mib": there // MIB,
            "total_mib": total // MIB,
        }

    def result(self) -> dict[str, object]:
        """For the result: what came through the network, how large the model is, and how long it took."""
        layers = self._layers.values()
        return {
            "model": self._model,
            "downloaded_mib": round(sum(now - first for first, now, _unused in layers) / MIB),
            "total_mib": round(sum(total for _unused, _unused, total in layers) / MIB),
            "wall_s": round(time.monotonic() - self._began, 1),
        }
