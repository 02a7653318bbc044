# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A tuning run for the terminal, and its profile as YAML for group_vars. Pure.

A host's result is a mapping of plain data (`<report_dir>/<host>.tune.json`): what the module gpu_memory_tune returns,
with `host`, `hosts` (those that it is for), `problems` and `profile`.
"""

from __future__ import annotations

import json

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import Tuned, TunedProbe, TunedSetting
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import side_by_side

PROFILE = "tuned"
DEFAULT_CACHE = "f16"


def setting_text(setting: TunedSetting) -> str:
    return str(tune_search.Setting(**setting))


def block(result: Tuned) -> str:
    """The lines for one host."""
    host = result["host"]
    if result["problems"]:
        return "\n".join([f"{host}  NOT TUNED", *(_line("reason", problem) for problem in result["problems"])])
    if "probes" not in result:
        return "\n".join([f"{host}  not tuned here", *([_line("because", result["because"])])])
    lines = [f"{host}  {result['model']}  {_headline(result)}"]
    for number, probe in enumerate(result["probes"], 1):
        lines.append(_line(f"probe {number}", setting_text(probe["setting"]), _measured(probe, result)))
        lines.append(_line("", probe["why"]))
    lines.append(_line("because", result["why"]))
    walk = result.get("guide_walk")
    if walk:
        end = "nowhere" if walk["ends_at"] is None else f"at {walk['ends_at']}"
        tried = ", ".join(map(str, walk["layers"]))
        text = f"its walk by 5 layers would take {walk['load_tests']} load tests ({tried}) and end {end}"
        lines.append(_line("guide", text))
    if result["mode"] == "profiles":
        lines += [_line("guide", text) for text in speeds(result)]
    lines.append(
        _line("others", f"{result['others_mib']} MiB of the GPU were in use without the model{_beside(result)}")
    )
    lost = [model for model in result["loaded_before"] if model not in result["loaded_again"]]
    if lost:
        lines.append(_line("note", f"{', '.join(lost)} was loaded before, and could not be loaded again"))
    note = result.get("note")
    if note:
        lines.append(_line("note", note))
    if len(result["hosts"]) > 1:
        lines.append(_line("for", f"{', '.join(result['hosts'])}: the same GPU, Ollama and model"))
    lines += [_line("file", path) for path in result.get("files") or []]
    return "\n".join(lines)


def _beside(result: Tuned) -> str:
    names = ", ".join(result.get("beside") or [])
    return f", with {names} loaded beside it" if names else ""


def _headline(result: Tuned) -> str:
    best = result["best"]
    count = f"{len(_loaded(result))} load tests"
    if best is None:
        return f"{'MEASURED' if result['mode'] == 'profiles' else 'NOTHING HOLDS'}   {count}"
    proven = "" if result["proven"] else ", not proven to be the best"
    probe = next(probe for probe in result["probes"] if probe["setting"] == best)
    return f"{setting_text(best)}   {_measured(probe, result)} ({count}{proven})"


def _loaded(result: Tuned) -> list[TunedProbe]:
    """The probes without the steps of a ladder that changed nothing."""
    found: list[TunedProbe] = []
    for probe in result["probes"]:
        if all(probe["setting"] != other["setting"] for other in found):
            found.append(probe)
    return found


def _measured(probe: TunedProbe, result: Tuned) -> str:
    of = f"{probe['peak_mib']} of {result['max_used_mib']} MiB"
    if probe["outcome"] == tune_search.OUT_OF_MEMORY:
        return "out of memory"
    speed = f", {probe['tokens_per_s']:.1f} tok/s" if probe["tokens_per_s"] else ""
    return f"{probe['outcome']}, {of}{speed}"


def speeds(result: Tuned) -> list[str]:
    """Of the mode `profiles`: each one's speed against the first, beside what the guide says of it."""
    first = next((probe["tokens_per_s"] for probe in result["probes"][:1]), None)
    lines = []
    for probe in result["probes"]:
        name = probe["why"]
        says = side_by_side.GUIDE.get(name, {}).get("Performance vs full GPU", "nothing")
        if probe["tokens_per_s"] and first:
            measured = f"{100 * probe['tokens_per_s'] / first:.0f}% ({probe['tokens_per_s']:.1f} tok/s)"
        else:
            measured = "not measured, since it ran out of memory" if not probe["tokens_per_s"] else "not comparable"
        lines.append(f"{name}: {measured}; the guide says {says}")
    return lines


def profile_yaml(result: Tuned) -> str:
    """A file for group_vars: the profile, and what it was made of as comments."""
    gpu, note = result["gpu"], result.get("note")
    probe = next(probe for probe in result["probes"] if probe["setting"] == result["best"])
    profile = result["profile"]
    lines = [
        "---",
        _comment(f"Found by tune.yml on {result['host']}, for {', '.join(result['hosts'])}."),
        _comment(f"{gpu['name']}, {gpu['total_mib']} MiB; Ollama {result['ollama']}; {result['model']}."),
        _comment(
            f"{setting_text(probe['setting'])}: {_measured(probe, result)}; others held {probe['others_mib']} MiB."
        ),
        _comment(f"Why this one: {result['why']}."),
        *([_comment(note)] if note else []),
        f"gpu_memory_profile: {PROFILE}",
        "gpu_memory_profiles:",
        f"  {PROFILE}:",
        f"    extends: {profile['extends']}",
        f"    models: {json.dumps(profile['models'])}",
        "    intent:",
        *(f"      {name}: {value}" for name, value in profile["intent"].items()),
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "# " + " ".join(text.split())


def _line(label: str, *columns: str) -> str:
    first = f"  {label:<10} "
    return (first + (f"{columns[0]:<58} {columns[1]}" if len(columns) > 1 else columns[0])).rstrip()
