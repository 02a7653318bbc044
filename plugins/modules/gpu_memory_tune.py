#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the best setting of a model whose peak under load stays within a threshold."""

from __future__ import annotations

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
