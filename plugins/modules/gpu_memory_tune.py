#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the best setting of a model whose peak under load stays within a threshold."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_tune
short_description: Find the best setting of an Ollama model that stays within a threshold
version_added: "1.0.0"
description:
  - The planner proposes a setting, a load test through Ollama's API measures it, and what was measured tells which
    setting to try next, until none is left that might be better.
  - A probe unloads what is loaded, loads the model with the setting, sends one chat more than run at once with prompts
    that fill the context, samples the GPU meanwhile, and unloads. A load that runs out of memory is an answer.
  - Nothing is written. What was loaded before is loaded again at the end. What only a server's environment sets
    (C(num_parallel), C(kv_cache_type)) is probed on a second server, a transient unit that ends by itself.
  - Works under C(async), with O(progress_path) to look at meanwhile.
options:
  ollama:
    description: The deployed server, as C(unit) and C(url).
    type: dict
    required: true
  gpu:
    description:
      - The GPU, with C(uuid), C(name), C(total_mib) and C(reserved_mib).
      - Where Ollama has more, C(index), and their UUIDs as C(further). The run ends where the model, or a part of it,
        goes to one of these.
    type: dict
    required: true
  model:
    description: The model, as Ollama names it.
    type: str
    required: true
  beside:
    description:
      - Models that stay loaded while O(model) is probed, as an embedder does; what they hold counts as used by others.
        Each has the options that it has now if it is loaded, else Ollama's own. A setting for which Ollama unloads one
        of them does not hold.
    type: list
    elements: str
    default: []
  mode:
    description:
      - V(search) finds the best setting in bounds. V(still_crashing) and V(too_slow) are the guide's two ladders, step
        by step. V(profiles) measures every profile of O(profiles), with the same prompts.
    type: str
    choices: [search, still_crashing, too_slow, profiles]
    default: search
  max_used_mib:
    description: The most that the GPU may use, in MiB, with all that others use.
    type: int
    required: true
  base:
    description: What is not searched over, C(num_ctx), C(num_parallel) and C(num_batch).
    type: dict
    required: true
  over:
    description: Values to search over, a list by setting. C(num_gpu) is always searched, by default over all layers.
    type: dict
    default: {}
  at_least:
    description: The least that a setting must have, by name.
    type: dict
    default: {}
  objective:
    description: What to make as large as can be, the first before the second.
    type: list
    elements: str
    default: [tokens_per_s]
  profiles:
    description: Intents of profiles by name, for the ladders.
    type: dict
    default: {}
  max_probes:
    description: How many load tests a search may take.
    type: int
    default: 8
  load_timeout:
    description: How many seconds a load of the model, or a chat, may take.
    type: float
    default: 600
  gpu_gb_per_s:
    description: Bandwidth of the GPU's memory in GB/s; V(0) for what its name tells.
    type: float
    default: 0
  host_gb_per_s:
    description: Bandwidth of the host's memory in GB/s; V(0) for 60.
    type: float
    default: 0
  progress_path:
    description: A file on the host that is replaced with the figures of the moment, as JSON.
    type: path
  private_files:
    description: Env files on the host whose values are masked in errors.
    type: list
    elements: path
    default: []
  private_units:
    description: Units on the host, besides Ollama's, whose environment is masked in errors.
    type: list
    elements: str
    default: []
  renew:
    description:
      - The run whose lease on this host is renewed all the while, see M(selo.gpu_memory.gpu_memory_generation). Probing
        ends where it is lost.
    type: str
  bindings_path:
    description:
      - A directory on the host with C(pynvml.py), for hosts that have no good nvidia-ml-py of their own.
      - Set by the action plugin, which sends the controller's copy.
    type: path
attributes:
  check_mode:
    description: In check mode nothing is loaded; RV(proposed) tells what would be probed first.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Changes nothing itself.
    support: full
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: As many layers as fit into 9000 MiB, at 4096 tokens for each of two
  selo.gpu_memory.gpu_memory_tune:
    ollama: {unit: ollama.service, url: "http://127.0.0.1:11434"}
    gpu: "{{ host.nvml.gpus[0] }}"
    model: llama3.1:8b-instruct-q8_0
    max_used_mib: 9000
    base: {num_ctx: 4096, num_parallel: 2, num_batch: 512}
  become: true
"""

RETURN = r"""
best:
  description: The setting that was found; V(null) if none holds.
  returned: success
  type: dict
  sample: {num_gpu: 29, num_ctx: 4096, num_parallel: 2, num_batch: 512, kv_cache_type: f16}
proven:
  description: Whether every setting that would be better was ruled out by a measurement.
  returned: success
  type: bool
why:
  description: Why the search ended.
  returned: success
  type: str
probes:
  description:
    - Each load test in order, with C(setting), C(outcome) (V(held), V(over), V(out of memory)), C(why) it was made,
      C(peak_mib), C(others_mib), C(use_mib), C(tokens_per_s) and the load's figures in C(detail).
  returned: success
  type: list
  elements: dict
curve:
  description: Peak and speed over C(num_gpu) beside the best setting, from the planner and the measurements together.
  returned: success
  type: list
  elements: dict
guide_walk:
  description: How many load tests the guide's walk by five layers would take on that curve, and where it would end.
  returned: success
  type: dict
loaded_again:
  description: The models that were loaded before, and are again.
  returned: success
  type: list
  elements: str
proposed:
  description: What would be probed first.
  returned: in check mode
  type: dict
nvml:
  description: Whether NVML could be read.
  returned: always
  type: dict
  sample: {status: ok}
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.port import GpuProblem
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file, root
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import tune_run


def wanted_of(given: dict[str, Any]) -> tune_run.Wanted:
    names = ("model", "mode", "max_used_mib", "base", "over", "at_least", "objective", "profiles", "max_probes",
             "load_timeout", "gpu_gb_per_s", "host_gb_per_s", "bindings_path", "beside")  # fmt: skip
    ollama = given["ollama"]
    return tune_run.Wanted(unit=ollama["unit"], url=ollama["url"], **{name: given[name] for name in names})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ollama": {"type": "dict", "required": True},
            "gpu": {"type": "dict", "required": True},
            "model": {"type": "str", "required": True},
            "beside": {"type": "list", "elements": "str", "default": []},
            "mode": {
                "type": "str",
                "choices": ["search", "still_crashing", "too_slow", "profiles"],
                "default": "search",
            },
            "max_used_mib": {"type": "int", "required": True},
            "base": {"type": "dict", "required": True},
            "over": {"type": "dict", "default": {}},
            "at_least": {"type": "dict", "default": {}},
            "objective": {"type": "list", "elements": "str", "default": ["tokens_per_s"]},
            "profiles": {"type": "dict", "default": {}},
            "max_probes": {"type": "int", "default": 8},
            "load_timeout": {"type": "float", "default": 600},
            "gpu_gb_per_s": {"type": "float", "default": 0},
            "host_gb_per_s": {"type": "float", "default": 0},
            "progress_path": {"type": "path"},
            "private_files": {"type": "list", "elements": "path", "default": []},
            "private_units": {"type": "list", "elements": "str", "default": []},
            "renew": {"type": "str"},
            "bindings_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    root.required(module)
    given = module.params
    problems = tune_search.bounds(given["over"], given["at_least"], given["objective"])
    problems += [problem for problem in [progress_file.problem_of(given["progress_path"])] if problem]
    if problems:
        module.fail_json(msg="; ".join(problems))

    renewal = lease_holding.Renewal(given["renew"])

    def progress(figures: Mapping[str, object]) -> None:
        renewal()
        if given["progress_path"]:
            progress_file.write(given["progress_path"], figures)

    mask = secrets.Masking(
        [given["ollama"]["unit"], *given["private_units"]], given["private_files"], [given["model"], *given["beside"]]
    )
    mask.look()
    try:
        if module.check_mode:
            proposed = tune_run.propose(wanted_of(given), given["gpu"], mask)
            module.exit_json(changed=False, proposed=proposed, nvml={"status": "ok"})
        result = tune_run.tune(wanted_of(given), given["gpu"], mask, progress)
    except GpuProblem as problem:
        module.fail_json(msg=str(problem), nvml={"status": problem.status})
    except (tune_run.CannotTune, tune_search.Invalid, state.StateError) as problem:
        module.fail_json(msg=mask(str(problem)), nvml={"status": "ok"})
    module.exit_json(changed=False, **result, nvml={"status": "ok"})


if __name__ == "__main__":
    main()
