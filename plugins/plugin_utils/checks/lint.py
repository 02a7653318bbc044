# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings on a host that do not do what whoever copied them thought: no-op, malformed or dangerous. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypedDict

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch, llama_args, settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import forms
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import OllamaFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import profiles, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift

UNIFIED_MEMORY = "GGML_CUDA_ENABLE_UNIFIED_MEMORY"
MARGIN, KV_TYPE, FLASH = "LLAMA_ARG_FIT_TARGET", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_FLASH_ATTENTION"
NUMBERS_IN_A_ROW = (MARGIN, "LLAMA_ARG_TENSOR_SPLIT")
LAYER_WORDS = ("auto", "all")
LLAMA_SERVER = "llama-server"
BREAKS_LOADS = "llama-server cannot read the value and does not start: every load fails, and no GPU is found"
QUANTISED = ("q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


class Finding(TypedDict):
    """A setting, where it stands, what is wrong with it, who reads it, and the cure."""

    name: str
    value: str
    where: list[str]
    read_by: str
    problem: str
    cure: str


def lint(declared: Sized, read: HostFacts) -> list[Finding]:
    """What a host has of variables that nobody reads, that are malformed, or that defeat the profile.

    Looks at the files of Ollama's unit, at what its server was started with, and at the backend's env files. Returns
    for each {name, value, where (paths), read_by (who reads it, or `nobody`), problem, cure}. What the profile itself
    sets is told by the settings' rows, and not here. Without a known release of Ollama only what holds for all.
    """
    version = wanted_settings.version_of(declared, read)
    findings: dict[tuple[str, str, str], Finding] = {}

    def add(name: str, value: str, where: str, told: tuple[str, str, str] | None) -> None:
        if told:
            read_by, problem, cure = told
            finding: Finding = {
                "name": name,
                "value": value,
                "where": [],
                "read_by": read_by,
                "problem": problem,
                "cure": cure,
            }
            findings.setdefault((name, value, problem), finding)["where"].append(where)

    found = _of_server(read["ollama"])
    present = {name: value for name, value, _where in found}
    for name, value, where in found:
        add(name, value, where, _in_server(name, value, present, version))
    for name, value, where in _of_backend(declared, read):
        add(name, value, where, _in_backend(name))
    for name, value, where, told in _few_layers(declared, read):
        add(name, value, where, told)
    return list(findings.values())


def text(finding: Finding) -> str:
    """One line: the setting, where it stands, what is wrong, who reads it, and the cure."""
    where = " and ".join(finding["where"])
    return f"{finding['name']}={finding['value']} in {where}: {finding['problem']}; {finding['cure']}"


def _of_server(ollama: OllamaFacts) -> list[tuple[str, str, str]]:
    """(name, value, where) of every setting that others give the server: files first, then what none of them has."""
    own = ollama["drop_ins"]["own"]["path"]
    sources = ollama["unit"].get("sources") or []
    found = [
        (name, value, source["path"])
        for source in sources
        if source["path"] != own
        for name, value in source["environment"].items()
    ]
    in_files = {name for source in sources for name in source["environment"]}
    in_files |= set(ollama["drop_ins"]["own"]["environment"])
    started = {**(ollama["unit"].get("environment") or {}), **((ollama["process"] or {}).get("environment") or {})}
    found += [
        (name, value, f"what {ollama['unit']['name']} was started with")
        for name, value in started.items()
        if name not in in_files
    ]
    return found


def _of_backend(declared: Sized, read: HostFacts) -> Iterator[tuple[str, str, str]]:
    backend, profile = declared["backend"], declared["profile"] or {"env": {}}
    ours = {*backend["keys"].values(), *backend["reads"], *profile["env"]}
    for file in read["backend"]["env_files"]:
        for name, value in (file.get("values") or {}).items():
            if value is not None and name in settings.SHOWN and name not in ours:
                yield name, value, file["path"]


def _few_layers(declared: Sized, read: HostFacts) -> Iterator[tuple[str, str, str, tuple[str, str, str]]]:
    """A backend's key that keeps a model on the CPU, and is not what the profile wants: memory looks fine with it."""
    key = declared["backend"]["keys"].get("gpu_layers")
    if not key or declared["profile"] is None:
        return
    wanted = wanted_settings.backend_env(declared, read).get(key)
    for file in read["backend"]["env_files"]:
        value = (file.get("values") or {}).get(key)
        layers = profiles.canonical_int(value)
        if layers is None or layers < 0 or value == wanted:
            continue
        models = [
            model.offloadable
            for model in wanted_settings.served(declared, read)
            if model and layers < model.offloadable
        ]
        if models:
            sent = f"the backend sends it as num_gpu, so that {layers} of {models[0]} layers are on the GPU"
            ours = "" if key in declared["profile"]["env"] else " (this collection's cure, not the profile's)"
            yield key, str(value), file["path"], ("backend", sent, f"apply makes it {wanted}{ours}")


def _in_backend(name: str) -> tuple[str, str, str] | None:
    """A setting of Ollama's in a file that only the backend reads."""
    if name in settings.NOBODY_READS:
        return "nobody", settings.NOBODY_READS[name], f"take it out; {settings.CURES[name]}"
    if not name.startswith(("OLLAMA_", "LLAMA_ARG_", "GGML_")):
        return None
    return "nobody", "Ollama's service does not read the backend's file", "set it in a drop-in of Ollama's unit"


def _in_server(
    name: str, value: str, present: Mapping[str, str], version: settings.Version | None
) -> tuple[str, str, str] | None:
    """(who reads it, what is wrong, the cure) of a variable in the server's environment; None where all is well."""
    rows = [row for row in settings.VARIABLES if row.name == name]
    row = settings.known(name, version) if version else None
    if row is None and name in settings.NOBODY_READS:
        return "nobody", settings.NOBODY_READS[name], f"take it out; {settings.CURES[name]}"
    if version is not None and name.startswith(llama_args.PREFIX):
        return _in_llama_server(name, value, present, version)
    if version is None or not rows:
        return None
    if row is None:
        first, last = rows[0].first, rows[-1].last
        since = f"Ollama reads it since {_dotted(first)} only" if version < first else _dead_since(last)
        successor = "; LLAMA_ARG_FIT_TARGET is its successor" if name == "OLLAMA_GPU_OVERHEAD" else ""
        return "nobody", f"{since}, and {_dotted(version)} runs", f"take it out{successor}"
    allowed = forms.malformed(row, value)
    if allowed:
        if row.form == settings.SWITCH and version < settings.SWITCHES_TAKE_ANY_TEXT:
            return "Ollama", "Ollama cannot read the value: it is ignored", f"write {allowed}"
        return "Ollama", f"Ollama cannot read the value: {row.invalid}", f"write {allowed}"
    return _dangerous(name, value, present, version)


def _in_llama_server(
    name: str, value: str, present: Mapping[str, str], version: settings.Version
) -> tuple[str, str, str] | None:
    """The same of a variable of llama-server's: it may end it, be taken for another value, or do harm."""
    plain, arg = llama_args.of(name) or (name, None)
    if version < settings.ENGINE:
        since = f"Ollama reads it since {_dotted(settings.ENGINE)} only, and {_dotted(version)} runs"
        return "nobody", since, "take it out"
    if arg is None:
        return "nobody", f"llama-server has no such setting (build {llama_args.BUILD})", "take it out"
    try:
        taken = llama_args.taken(name, value)
    except llama_args.Ends as allowed:
        meant = forms.size_in_bytes(value) if plain == MARGIN else None
        which = f": {meant // settings.MIB} for {value}" if meant else ""
        return LLAMA_SERVER, BREAKS_LOADS, f"write {allowed}{which}"
    by_ollama = plain in (launch.KEY_TYPE, launch.VALUE_TYPE) and settings.cache_type(present.get(KV_TYPE, ""))
    if arg.effect == llama_args.FLAG_WINS or by_ollama:
        return "nobody", "Ollama's own flag always wins over it", "take it out"
    return _misread(name, value, taken) or _harmful(plain, arg, taken, present)


def _misread(name: str, value: str, taken: llama_args.Value) -> tuple[str, str, str] | None:
    """What is taken for something else than it says: of a number only the beginning is read."""
    if taken is False and value not in llama_args.OFF:
        if llama_args.of(name) != (name, llama_args.ARGS.get(name)):
            return None  # a LLAMA_ARG_NO_*, of which the value says nothing
        return "nobody", "llama-server takes it for off", "write on, or take it out"
    numbers = isinstance(taken, (int, float)) and not isinstance(taken, bool)
    if not numbers and name not in NUMBERS_IN_A_ROW:
        return None
    if name == MARGIN and any(part.startswith("-") for part in str(taken).split(",")):
        return LLAMA_SERVER, f"llama-server takes {taken} MiB, so that fitting leaves nothing free", "write MiB"
    if value in LAYER_WORDS or _same_numbers(value, str(taken)):
        return None
    meant = forms.size_in_bytes(value) if name == MARGIN else None
    cure = f"write {meant // settings.MIB}, which is MiB" if meant else f"write {taken}, or what is meant"
    return LLAMA_SERVER, f"llama-server takes {taken} of it", cure


def _same_numbers(value: str, taken: str) -> bool:
    """Whether a text is the numbers that were taken of it, and nothing else."""
    try:
        said = [float(part) for part in re.split(r"[,/]+", value.rstrip(",/"))]
    except ValueError:
        return False
    return said == [float(part) for part in taken.split(",")] or "nan" in taken


def _harmful(
    name: str, arg: llama_args.Arg, taken: llama_args.Value, present: Mapping[str, str]
) -> tuple[str, str, str] | None:
    """What is well-formed, read, and keeps a model from the GPU, or from what is planned."""
    if name == drift.LAYERS_FOR_ALL and taken != -1:
        return (
            LLAMA_SERVER,
            "it sets the layers of every model and switches Ollama's fitting off: a margin is void",
            "take it out, and cap a model by num_gpu",
        )
    if name == drift.FIT and taken is False:
        problem = "it switches Ollama's fitting off: what does not fit fails, and a margin is void"
        return LLAMA_SERVER, problem, "take it out"
    if name == launch.VALUE_TYPE and str(taken).startswith(("q", "iq")) and _is_off(present.get(FLASH, "")):
        return LLAMA_SERVER, f"with {FLASH} off every load fails", "switch flash attention on, or use f16"
    kept_off = launch.keeps_off(name, taken)
    if kept_off:
        return LLAMA_SERVER, f"{kept_off} stays on the CPU, whatever the line of the layers says", "take it out"
    if name == launch.OVERRIDES and not launch.patterns_are_read(str(taken)):
        return LLAMA_SERVER, "a pattern of it is no regular expression: every load fails", "mend it, or take it out"
    if arg.effect == llama_args.SPOILS and taken not in (False, ""):
        return LLAMA_SERVER, arg.what, "take it out"
    if launch.unplanned({name: taken}, for_linter=True):
        return LLAMA_SERVER, f"{arg.what}, which no plan counts", "take it out"
    return None


def _is_off(flash_attention: str) -> bool:
    return settings.as_ollama_reads(flash_attention).lower() in ("0", "f", "false")


def _dangerous(
    name: str, value: str, present: Mapping[str, str], version: settings.Version
) -> tuple[str, str, str] | None:
    """What is well-formed, read, and defeats the profile all the same."""
    if name == UNIFIED_MEMORY:
        spills = "memory spills where NVML does not count it, so that no load proves anything"
        return LLAMA_SERVER, spills, "take it out"
    if name == KV_TYPE and settings.cache_type(value) in QUANTISED:
        flash = settings.as_ollama_reads(present.get(FLASH, ""))
        if version >= settings.ENGINE and _is_off(flash):
            return "Ollama", f"with {FLASH} off every load fails", "switch flash attention on, or use f16"
        if version < settings.ENGINE and (_is_off(flash) or not flash):
            return "Ollama", f"without {FLASH}=1 f16 is used", f"set {FLASH}=1"
    return None


def _dotted(version: settings.Version) -> str:
    return ".".join(map(str, version))


def _dead_since(last: settings.Version) -> str:
    ended_with_its_engine = last in (settings.LAST_NEW_ENGINE, settings.LAST_OWN_ENGINE)
    after = settings.ENGINE if ended_with_its_engine else (*last[:2], last[2] + 1)
    return f"no Ollama has heeded it since {_dotted(after)}"
