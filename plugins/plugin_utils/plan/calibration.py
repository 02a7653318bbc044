# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a proven load taught of a host: the two terms that no file tells, for a model with its settings. Pure.

compute = what Ollama says it allocated - weights - KV; runtime = what NVML gives the process - what Ollama allocated.
A figure holds for exactly what it was measured with: host, model, release of Ollama, driver, and settings of the load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines, model_name, model_use
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings as ollama_settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
    LoadedModel,
    LogLoad,
    OllamaFacts,
    RunnerSettings,
    Show,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import LoadResult
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Calibration
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift, evidence

MIB = 1024 * 1024
ON_ONE_GPU = "on one of them"
FLASH_ATTENTION: dict[str | None, str] = {"on": "1", "off": "0"}


def measure(load: LoadResult, after: HostFacts) -> list[Calibration]:
    """One entry for each model that a load test has loaded and whose figures all were read back.

    That may be one that has made room for the next since; then the log tells what it had.
    An entry has `key` (see `key_of`), `model`, `compute_mib`, `runtime_mib` and `at` (the host's time).
    """
    entries: list[Calibration] = []
    ollama = after["ollama"]
    listed = {str(model["name"]): model for model in ollama["api"]["loaded"]}
    names = [*listed, *((load.get("load") or {}).get("loaded") or [])]
    shows = {name: _show_of(ollama["api"]["show"], name) or {} for name in names}
    running = [runner["pid"] for runner in ollama["runners"]]
    for pid, command in drift.runners_seen(load, after):
        blob = model_use.blob_of(command)
        name = next((name for name in names if blob and shows[name].get("blob") == blob), None)
        its_load = drift.load_by(command, ollama["journal"])
        if name is None or (pid not in running and its_load.get("command") != command):
            continue
        show, loaded = shows[name], listed.get(name) if pid in running else None
        settings = log_lines.runner_settings(command, its_load.get("sent"))
        size = _allocated_mib(loaded, its_load, ollama)
        process = _process_mib(pid, command, load)
        scenario = _as_loaded(command, settings, its_load, after)
        plan = None if scenario is None else _planned(show, scenario, ollama["api"]["version"])
        if size is None or process is None or scenario is None or plan is None or not plan.offloaded_layers:
            continue
        compute, runtime = size - plan.weights_mib - plan.kv_mib, process - size
        if compute < 0 or runtime < 0:  # figures that contradict each other teach nothing
            continue
        entry: Calibration = {
            "key": key_of(after, name, plan, scenario),
            "model": name,
            "compute_mib": round(compute, 1),
            "runtime_mib": round(runtime, 1),
            "at": after["host"]["time"],
        }
        if entry["key"] not in [known["key"] for known in entries]:
            entries.append(entry)
    return entries


def key_of(read: HostFacts, model: str, plan: planner.Plan, scenario: planner.Scenario) -> list[object]:
    """What a figure was measured with, and must be planned with again to count."""
    api, nvml = read["ollama"]["api"], read["nvml"]
    digest = next((one["digest"] for one in api["models"] if model_name.same(model, one["name"])), None)
    gpus = sorted(gpu["uuid"] for gpu in nvml["gpus"] if not gpu.get("error"))
    return [
        digest,
        api["version"],
        nvml["driver_version"],
        # 1.0.0 knew no model on one GPU of several from one that was divided.
        gpus if len(gpus) < 2 else [*gpus, ON_ONE_GPU],
        [plan.num_ctx, plan.num_parallel, plan.num_batch, plan.offloaded_layers],
        [scenario.kv_cache_type, scenario.flash_attention],
    ]


def known(read: HostFacts, model: str, plan: planner.Plan, scenario: planner.Scenario) -> Calibration | None:
    """The entry for a model that is planned so on this host; None where nothing was measured.

    What was measured counts for a model on one GPU alone: of what several have of it no load tells the parts.
    """
    if sum(1 for gpu in plan.gpus if gpu["total_mib"]) > 1:
        return None
    entries: Sequence[Calibration] = read["state"].get("calibration") or []
    key = key_of(read, model, plan, scenario)
    return next((entry for entry in reversed(entries) if key[0] and entry["key"] == key), None)


def planned(
    read: HostFacts,
    name: str,
    model: planner.Model,
    scenario: planner.Scenario,
    version: str,
    gpus_free_mib: Sequence[float] = (),
    spread: bool = False,
) -> tuple[planner.Plan, float | None]:
    """A model's plan with what was measured here, and when that was; None where it was not. Raises ScenarioInvalid."""

    def plan_with(measured: planner.Calibration | None) -> planner.Plan:
        return planner.plan(
            model,
            scenario,
            ollama_version=version,
            calibration=measured,
            gpus_free_mib=gpus_free_mib,
            spread=spread,
        )

    plan = plan_with(None)
    entry = known(read, name, plan, scenario)
    if entry is None:
        return plan, None
    return plan_with(planner.Calibration(entry["compute_mib"], entry["runtime_mib"])), float(entry["at"])


def measured_at(read: HostFacts, name: str, plan: planner.Plan, scenario: planner.Scenario) -> float | None:
    """When what a plan was made with was measured; None where nothing was."""
    entry = known(read, name, plan, scenario)
    return float(entry["at"]) if entry else None


def _show_of(shows: Mapping[str, Show], name: str) -> Show | None:
    return next((show for model, show in shows.items() if show and model_name.same(model, name)), None)


def _allocated_mib(loaded: LoadedModel | None, its_load: LogLoad, ollama: OllamaFacts) -> float | None:
    """`size_vram` is the sum of llama.cpp's buffers since 0.30; before it is an estimate, and their lines count.

    They count as well for a model that is loaded no more, and of one with sliding windows, where `size_vram` lacks one
    of the two caches; not out of a log that lacks lines.
    """
    release = ollama_settings.parse_version(ollama["api"]["version"])
    if loaded and release is not None and release >= ollama_settings.ENGINE and not its_load.get("windows"):
        return loaded["size_vram"] / MIB if loaded["size_vram"] else None
    buffers = {} if evidence.incomplete(ollama["journal"]) else its_load.get("buffers_mib") or {}
    return sum(buffers.values()) or None


def _process_mib(pid: int, command: list[str], load: LoadResult) -> float | None:
    """What NVML gives a process that is on one GPU; with several each has a runtime, and their shares are not told."""
    processes = [
        process
        for process in load.get("processes") or []
        if process["pid"] == pid and process.get("command") == command
    ]
    peaks = [process["peak_mib"] for process in processes]
    known = [peak for peak in peaks if peak is not None]
    if len({process.get("gpu") for process in processes}) != 1:
        return None
    return float(sum(known)) if len(known) == len(peaks) else None


def _as_loaded(
    command: list[str], settings: RunnerSettings, its_load: LogLoad, after: HostFacts
) -> planner.Scenario | None:
    """The settings of a load as it was, with the layers on the GPU; None if not all is known."""
    slot, layers = log_lines.context_per_slot(settings), its_load.get("offloaded")
    if slot is None or layers is None or settings["num_batch"] is None:
        return None
    environment = (after["ollama"]["process"] or {}).get("environment") or {}
    try:
        return planner.Scenario.from_dict(
            {
                "num_gpu": layers,
                "num_ctx": slot,
                "num_parallel": settings["num_parallel"],
                "num_batch": settings["num_batch"],
                "kv_cache_type": environment.get("OLLAMA_KV_CACHE_TYPE"),
                "flash_attention": FLASH_ATTENTION.get(
                    log_lines.runner_flash_attention(command), environment.get("OLLAMA_FLASH_ATTENTION")
                ),
            }
        )
    except planner.ScenarioInvalid:
        return None


def _planned(show: Show, scenario: planner.Scenario, version: str | None) -> planner.Plan | None:
    try:
        return planner.plan(planner.Model.from_show(show), scenario, ollama_version=version or "")
    except (planner.ModelUnreadable, planner.ScenarioInvalid):
        return None
