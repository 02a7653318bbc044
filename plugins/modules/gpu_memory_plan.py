#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's face of the planner."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import launch, modelfile, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama.launch import Told
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.planner import (
    Calibration,
    Model,
    ModelUnreadable,
    Plan,
    Scenario,
    ScenarioInvalid,
    combined,
    fitted,
    largest_set,
    max_num_gpu,
    plan,
)

COUNTS = ("offloaded_layers", "offloadable_layers", "partial_layers", "num_ctx", "num_parallel", "num_batch")
TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")
SETTINGS: dict[str, dict[str, object]] = {
    "num_gpu": {"type": "int"},
    "num_ctx": {"type": "int"},
    "num_parallel": {"type": "int"},
    "num_batch": {"type": "int"},
    "kv_cache_type": {"type": "str"},
    "v_cache_type": {"type": "str"},
    "draft_num_predict": {"type": "int"},
    "flash_attention": {"type": "str"},
    "calibration": {"type": "dict"},
}
NAMED: dict[str, dict[str, object]] = {
    "name": {"type": "str", "required": True},
    "show": {"type": "dict", "required": True},
}
ARGUMENTS: dict[str, dict[str, object]] = {
    "model": {"type": "dict"},
    "scenarios": {"type": "list", "elements": "dict", "default": [{}], "options": SETTINGS},
    "models": {"type": "list", "elements": "dict", "options": {**SETTINGS, **NAMED}},
    "ollama_version": {"type": "str", "required": True},
    "max_used_mib": {"type": "int"},
    "other_used_mib": {"type": "int", "default": 0},
    "max_loaded_models": {"type": "int", "default": 0},
    "gpu_total_mib": {"type": "int"},
    "gpu_totals_mib": {"type": "list", "elements": "int", "default": []},
    "gpus_free_mib": {"type": "list", "elements": "int", "default": []},
    "spread": {"type": "bool", "default": False},
    "environment": {"type": "dict", "default": {}},
}
OPTIONS = ("num_gpu", "num_ctx", "num_batch", "draft_num_predict")  # of a request


def settings_of(values: dict[str, Any], show: Any, params: dict[str, Any]) -> tuple[Scenario, Calibration, Told]:
    """A scenario over the model's own parameters, and these over the server's environment; and what it was told."""
    given = {key: value for key, value in values.items() if key in SETTINGS and value is not None}
    calibration = Calibration.from_dict(given.pop("calibration", None))
    version = settings.parse_version(params["ollama_version"])
    written = show.get("parameters") if isinstance(show, dict) else None
    told = launch.told(
        {name: str(value) for name, value in params["environment"].items()},
        modelfile.memory_options(written) if isinstance(written, str) else {},
        {key: given[key] for key in OPTIONS if key in given},
        version,
    )
    if told.refused:
        raise ScenarioInvalid(told.refused)
    context = settings.default_num_ctx([{"total_mib": mib} for mib in params["gpu_totals_mib"]], version)
    of_values = {} if "kv_cache_type" not in given else {"v_cache_type": given.get("v_cache_type")}
    return Scenario.from_dict({"num_ctx": context, **told.scenario, **of_values, **given}), calibration, told


def shown(prediction: Plan, params: dict[str, Any]) -> dict[str, Any]:
    """A plan in whole MiB that add up, judged."""
    terms = {name: round(getattr(prediction, name)) for name in TERMS}
    total = sum(terms.values())
    gpus = [{name: round(gpu[name]) for name in TERMS} for gpu in prediction.gpus]
    gpus = [{**gpu, "total_mib": sum(gpu.values())} for gpu in gpus]
    limit, most = params["max_used_mib"], max([gpu["total_mib"] for gpu in gpus] or [total])
    fits = None if limit is None else most + params["other_used_mib"] <= limit
    warnings = list(prediction.warnings)
    high = prediction.band_mib.get("total_mib", [total, total])[1]
    high_of_most = high * most / total if gpus and total else high
    if fits and high_of_most + params["other_used_mib"] > limit:
        warnings.append(f"fits, but with the upper end of its band ({round(high_of_most)} MiB) it would not")
    return {
        **terms,
        "total_mib": total,
        "host_mib": round(prediction.host_mib),
        **{name: getattr(prediction, name) for name in COUNTS},
        "band_mib": {name: [round(low), round(high)] for name, (low, high) in prediction.band_mib.items()},
        "fits": fits,
        "warnings": warnings,
        **({"gpus": gpus} if gpus else {}),
    }


def for_one(params: dict[str, Any]) -> dict[str, Any]:
    model, version = Model.from_show(params["model"]), params["ollama_version"]
    free_mib = params["gpus_free_mib"]
    plans = []
    most = None
    for number, values in enumerate(params["scenarios"]):
        try:
            scenario, calibration, told = settings_of(values, params["model"], params)
            asked = scenario
            if told.fits and len(free_mib) == 1:
                room = free_mib[0] - launch.left_free_mib(told.margin_mib, settings.parse_version(version))
                scenario = fitted(
                    model,
                    scenario,
                    room,
                    ollama_version=version,
                    calibration=calibration,
                    projector_counts=told.margin_mib is None,
                )
            prediction = plan(
                model,
                scenario,
                ollama_version=version,
                calibration=calibration,
                gpus_free_mib=free_mib,
                spread=params["spread"],
            )
            plans.append(shown(prediction, params))
            if number == 0 and params["max_used_mib"] is not None and len(free_mib) < 2:
                budget = params["max_used_mib"] - params["other_used_mib"]
                most = max_num_gpu(model, asked, budget, ollama_version=version, calibration=calibration)
        except ScenarioInvalid as error:
            raise ScenarioInvalid(f"scenarios[{number}]: {error}") from error
    return {"plans": plans, "max_num_gpu": most}


def for_several(params: dict[str, Any]) -> dict[str, Any]:
    version = params["ollama_version"]
    models: dict[str, Model] = {}
    for entry in params["models"]:
        if entry["name"] in models:
            raise ScenarioInvalid(f"models names {entry['name']!r} twice")
        try:
            models[entry["name"]] = Model.from_show(entry["show"])
        except ModelUnreadable as error:
            raise ModelUnreadable(f"models {entry['name']!r}: {error}") from error
    plans = []
    for number, values in enumerate(params["scenarios"]):
        predictions = {}
        for entry in params["models"]:
            own = {key: value for key, value in entry.items() if value is not None}
            try:
                scenario, calibration, _told = settings_of({**values, **own}, entry["show"], params)
                predictions[entry["name"]] = plan(
                    models[entry["name"]], scenario, ollama_version=version, calibration=calibration
                )
            except ScenarioInvalid as error:
                raise ScenarioInvalid(f"scenarios[{number}] for {entry['name']!r}: {error}") from error
        loaded = largest_set(
            predictions,
            params["max_loaded_models"],
            ollama_version=version,
            gpu_total_mib=params["gpu_total_mib"],
            other_used_mib=params["other_used_mib"],
        )
        plans.append(
            {
                **shown(combined([predictions[name] for name in loaded]), params),
                "loaded": list(loaded),
                "models": {name: shown(prediction, params) for name, prediction in predictions.items()},
            }
        )
    return {"plans": plans, "max_num_gpu": None}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("model", "models")],
        mutually_exclusive=[("model", "models"), ("models", "gpus_free_mib")],
        supports_check_mode=True,
    )
    try:
        answer = for_several(module.params) if module.params["models"] else for_one(module.params)
    except (ModelUnreadable, ScenarioInvalid) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
