#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's face of the planner."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_plan
short_description: Predict the GPU memory that an Ollama model takes
version_added: "1.0.0"
description:
  - Predicts, term by term, the GPU memory of a GGUF model from the answer of Ollama's C(/api/show) alone.
  - Nothing is loaded and no GPU is read.
  - Every scenario is one set of settings; plans come back in the same order.
  - What a scenario does not set comes from the model's own C(PARAMETER)s, and then from O(environment), as in Ollama.
author: "selo.gpu_memory authors (@selo-ai)"
attributes:
  check_mode:
    description: Can run in check mode without changing anything, because it never does.
    support: full
  diff_mode:
    description: Shows what would change; there is nothing to show.
    support: none
  idempotent:
    description: The same input gives the same plans.
    support: full
options:
  model:
    description:
      - An answer of C(/api/show). One with C(verbose) set is fine but not needed.
      - Exactly one of O(model) and O(models) is needed.
    type: dict
  scenarios:
    description: Settings to plan for.
    type: list
    elements: dict
    default: [{}]
    suboptions: &settings
      num_gpu:
        description: Layers on the GPU. V(-1), or nothing, means all.
        type: int
      num_ctx:
        description:
          - Tokens of context in one slot. If nothing sets it, Ollama's own default, V(4096), or since 0.15.5 by
            O(gpu_totals_mib).
        type: int
      num_parallel:
        description: Slots. V(1) if absent.
        type: int
      num_batch:
        description: Tokens in a batch. Ollama's automatic rule if absent.
        type: int
      kv_cache_type:
        description: The cache's type, as C(OLLAMA_KV_CACHE_TYPE) takes it. V(f16) if absent.
        type: str
      v_cache_type:
        description: The type of the values, where O(scenarios[].kv_cache_type) is only that of the keys.
        type: str
      draft_num_predict:
        description: Further tokens that a model with blocks for it predicts, as the option of the same name.
        type: int
      flash_attention:
        description: V(on), V(off) or V(auto).
        type: str
      calibration:
        description:
          - What a proven load of the same model with the same settings on the same host showed,
            C(compute_mib) and C(runtime_mib). Either replaces the prediction of its term.
        type: dict
  models:
    description:
      - Several models that one server serves.
      - Each scenario is then planned for the set that takes the most memory among those that O(max_loaded_models)
        and the release's eviction rules let stay loaded together.
      - Settings given with a model replace those of the scenario for this model.
    type: list
    elements: dict
    suboptions:
      <<: *settings
      name:
        description: How the plan calls the model.
        type: str
        required: true
      show:
        description: The model's answer of C(/api/show).
        type: dict
        required: true
  ollama_version:
    description: The release of Ollama, such as V(0.32.13).
    type: str
    required: true
  max_used_mib:
    description: The most GPU memory in use that is allowed. Without it nothing is judged.
    type: int
  other_used_mib:
    description: GPU memory that others hold.
    type: int
    default: 0
  max_loaded_models:
    description: As C(OLLAMA_MAX_LOADED_MODELS); V(0) is Ollama's three a GPU. Only with O(models).
    type: int
    default: 0
  gpu_total_mib:
    description:
      - The GPU's memory. With O(models) it decides which models Ollama would keep beside each other.
      - Without it every set within O(max_loaded_models) counts, which is an upper bound.
    type: int
  gpu_totals_mib:
    description: The memory of each GPU. Since 0.15.5 Ollama's default context follows from their sum.
    type: list
    elements: int
    default: []
  gpus_free_mib:
    description:
      - What is free on each GPU before the load, in CUDA's order.
      - With several, a plan says what each one holds, from Ollama 0.30 on.
      - With one, what does not fit stays on the CPU as Ollama or llama-server decide it, unless C(num_gpu) is set.
      - Only with O(model).
    type: list
    elements: int
    default: []
  spread:
    description:
      - As C(OLLAMA_SCHED_SPREAD), a model is divided over all GPUs of O(gpus_free_mib) although one could hold it.
    type: bool
    default: false
  environment:
    description:
      - What the server is started with, variable by variable, C(OLLAMA_*) and C(LLAMA_ARG_*).
      - A plan is refused where llama-server would not start with it, or where it moves memory in a way that is not
        planned.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Ask Ollama about the model
  ansible.builtin.uri:
    url: http://127.0.0.1:11434/api/show
    method: POST
    body_format: json
    body:
      model: llama3.1:8b
  register: shown

- name: Plan two profiles
  selo.gpu_memory.gpu_memory_plan:
    model: "{{ shown.json }}"
    ollama_version: "0.32.13"
    scenarios:
      - {num_ctx: 4096, num_parallel: 2, num_batch: 512}
      - {num_ctx: 2048, num_parallel: 1, num_batch: 512, num_gpu: 24}
    max_used_mib: 12288
    other_used_mib: 800
  register: planned

- name: Show the total of each
  ansible.builtin.debug:
    msg: "{{ planned.plans | map(attribute='total_mib') }}"
"""

RETURN = r"""
plans:
  description:
    - One plan for each scenario, in the same order.
    - All sizes are MiB; the terms add up to RV(plans[].total_mib).
  returned: success
  type: list
  elements: dict
  contains:
    weights_mib:
      description: Weights on the GPU.
      type: int
      sample: 7605
    kv_mib:
      description: Keys, values and recurrent state on the GPU.
      type: int
      sample: 1024
    compute_mib:
      description: The compute buffer.
      type: int
      sample: 120
    op_offload_mib:
      description: What llama.cpp adds to the compute buffer to work on the GPU for layers that stay on the host.
      type: int
      sample: 0
    runtime_mib:
      description: CUDA's own memory in the process.
      type: int
      sample: 305
    total_mib:
      description: All GPU memory of the model.
      type: int
      sample: 9054
    host_mib:
      description: Main memory for the rest.
      type: int
      sample: 569
    offloaded_layers:
      description: Layers on the GPU, the output layer counted.
      type: int
      sample: 33
    offloadable_layers:
      description: Layers that could be there.
      type: int
      sample: 33
    partial_layers:
      description: Layers among those on the GPU of which parts, such as experts, stay on the CPU.
      type: int
      sample: 0
    num_ctx:
      description: Tokens in one slot, as the model and Ollama cut them.
      type: int
      sample: 4096
    num_parallel:
      description: Slots that Ollama really uses.
      type: int
      sample: 2
    num_batch:
      description: Tokens in a batch, given or as Ollama chooses.
      type: int
      sample: 512
    band_mib:
      description: Low and high of every term that is not exact, and of the total.
      type: dict
      sample: {compute_mib: [104, 136], runtime_mib: [135, 457], total_mib: [8868, 9222]}
    fits:
      description:
        - Whether the total and O(other_used_mib) stay within O(max_used_mib), with O(gpus_free_mib) on each GPU.
        - Null where that is not given.
      type: bool
      sample: true
    warnings:
      description: What has no effect, is assumed or is not known.
      type: list
      elements: str
      sample: ["num_gpu 40 caps nothing: the model has 33 layers, all are on the GPU"]
    gpus:
      description: With O(gpus_free_mib), the terms and the C(total_mib) of each GPU, in the same order.
      type: list
      elements: dict
    loaded:
      description: With O(models), the names of the models that the plan adds up.
      type: list
      elements: str
      sample: ["llama3.1:8b", "nomic-embed-text"]
    models:
      description: With O(models), the plan of every model by itself, loaded or not, by name.
      type: dict
max_num_gpu:
  description:
    - The largest C(num_gpu) with which the first scenario's other settings fit, V(0) if none does.
    - Null without O(max_used_mib), and with O(models) or O(gpus_free_mib).
  returned: success
  type: int
  sample: 33
"""

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
                scenario = fitted(model, scenario, room, ollama_version=version, calibration=calibration)
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
