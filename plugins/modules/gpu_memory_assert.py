#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample GPU memory while a load runs, and fail if it was ever more than allowed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import prompt_texts
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking, urls
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port, sampling
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import load_test

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures, SampledGpu

SETTLE_S = 0.5
OF_MODELS = ("model", "others", "listed_at")

ARGUMENTS: dict[str, Any] = {
    "max_used_mib": {"type": "int"},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "duration": {"type": "float"},
    "interval_ms": {"type": "int", "default": 50},
    "load": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "method": {"type": "str", "choices": ["GET", "POST", "PUT"], "default": "POST"},
            "bodies": {"type": "list", "elements": "raw", "default": []},
            "headers": {"type": "dict", "default": {}, "no_log": True},
            "expect_status": {"type": "int", "default": 200},
            "concurrency": {"type": "int", "default": 3},
            "requests": {"type": "int"},
            "timeout": {"type": "float", "default": 300},
            "prompts": {"type": "str", "choices": list(prompt_texts.KINDS), "default": prompt_texts.GUIDE},
            "prompt_at": {"type": "str"},
            "context_tokens": {"type": "int", "no_log": False},
            "seed": {"type": "int"},
            "model": {"type": "str"},
            "others": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "model": {"type": "str", "required": True},
                    "url": {"type": "str", "required": True},
                    "bodies": {"type": "list", "elements": "dict", "required": True},
                    "prompt_at": {"type": "str", "required": True},
                    "prompts": {
                        "type": "str",
                        "choices": list(prompt_texts.KINDS),
                        "default": prompt_texts.GUIDE,
                    },
                    "context_tokens": {"type": "int", "required": True, "no_log": False},
                    "requests": {"type": "int", "default": 1},
                },
            },
            "listed_at": {"type": "str"},
            "warm_up": {"type": "int", "default": 0},
            "ramp": {"type": "float", "default": 0},
            "duration": {"type": "float"},
            "forget": {"type": "list", "elements": "str", "default": []},
        },
    },
    "progress_path": {"type": "path"},
    "private_files": {"type": "list", "elements": "path", "default": []},
    "private_units": {"type": "list", "elements": "str", "default": []},
    "renew": {"type": "str"},
    "is_waited_for": {"type": "bool", "default": False},
    "headers_path": {"type": "path"},
    "bindings_path": {"type": "path"},
    "show_secrets": {"type": "bool", "default": False, "no_log": False},
}


def problems_of(wanted: dict[str, Any]) -> list[str]:
    """What is wrong with the parameters beyond their types: key, value and what is allowed."""
    load = wanted["load"] or {}
    figures = {
        "max_used_mib": (wanted["max_used_mib"], 1, None),
        "duration": (wanted["duration"], 0.1, None),
        "interval_ms": (wanted["interval_ms"], 10, 100),
        "load.concurrency": (load.get("concurrency"), 1, 1000),
        "load.requests": (load.get("requests"), 1, None),
        "load.timeout": (load.get("timeout"), 0.1, None),
        "load.expect_status": (load.get("expect_status"), 100, 599),
        "load.context_tokens": (load.get("context_tokens"), 1, None),
        "load.warm_up": (load.get("warm_up"), 0, None),
        "load.ramp": (load.get("ramp"), 0, None),
        "load.duration": (load.get("duration"), 0.1, None),
    }
    problems = [
        f"{key} is {value}, it must be at least {least}" + (f" and at most {most}" if most else "")
        for key, (value, least, most) in figures.items()
        if value is not None and (value < least or (most and value > most))
    ]
    if wanted["is_waited_for"] and not wanted["progress_path"]:
        problems.append("is_waited_for is true, so progress_path must be set")
    if load:
        try:
            for request in (load, *load["others"]):
                urls.parse(request["url"])
        except ValueError as problem:
            problems.append(f"load.url is {masking.without_secrets(load['url'])}: {problem}")
        problems += [problem for request in (load, *load["others"]) for problem in template_problems(request)]
    path_problem = progress_file.problem_of(wanted["progress_path"])
    return [*problems, path_problem] if path_problem else problems


def template_problems(load: dict[str, Any]) -> list[str]:
    """What keeps the bodies from being templates, where they are to be some."""
    missing = [key for key in ("bodies", "prompt_at", "context_tokens") if not load[key]]
    if load["prompts"] == prompt_texts.GUIDE and not load["prompt_at"]:
        return []
    if load["prompts"] != prompt_texts.GUIDE and missing:
        return [f"load.prompts is {load['prompts']}, so {', '.join(f'load.{key}' for key in missing)} must be set"]
    try:
        for body in load["bodies"]:
            prompt_texts.with_prompt(body, load["prompt_at"], str)
    except ValueError as problem:
        return [f"load.prompt_at is {load['prompt_at']}: {problem}"]
    return []


def measure(
    wanted: dict[str, Any],
) -> tuple[list[SampledGpu], Figures | None, port.GpuProblem | None]:
    """Sample while the load runs: the figures of each GPU, those of the load, and what kept NVML from being read."""
    load = wanted["load"] or {"others": []}
    names = [model for model in (load.get("model"), *(other["model"] for other in load["others"])) if model]
    declared = masking.secrets_in_headers({name: str(value) for name, value in (load.get("headers") or {}).items()})
    mask = secrets.Masking(
        wanted["private_units"], wanted["private_files"], names, wanted["show_secrets"], declared=declared
    )
    mask.look()
    sampler = sampling.Sampler(wanted["gpus"], wanted["interval_ms"], wanted["bindings_path"])
    run: load_test.LoadOfModels | None = None
    with contextlib.closing(sampler):
        try:
            sampler.start()
            if wanted["load"]:
                load = wanted["load"]
                first, others = load_of(load, mask), others_of(load, mask)
                run = load_test.LoadOfModels(first, load["model"], others, load["listed_at"])
            until = time.monotonic() + (wanted["duration"] or 0)
            renewal = lease_holding.Renewal(wanted["renew"])
            waiting = progress_file.Waiting(wanted["progress_path"]) if wanted["is_waited_for"] else None
            keep_lease(renewal)
            while (run and run.running) or time.monotonic() < until:
                keep_lease(renewal, renews=waiting is None or waiting.has_come())
                figures = sampler.progress(timeout_s=0.1)
                if figures and wanted["progress_path"]:
                    figures["max_used_mib"] = wanted["max_used_mib"]
                    figures["requests_done"], figures["requests"] = (run.done, run.requests) if run else (0, 0)
                    progress_file.write(wanted["progress_path"], figures)
            if run:
                time.sleep(SETTLE_S)
            gpus = sampler.stop()
            # The wave's slower hosts may still take their time.
            is_awaited = waiting is None or waiting.is_recent()
            keep_lease(renewal, at_once=True, renews=is_awaited)
            if not is_awaited:  # as on a host that was suspended: its controller has gone, and would take this away
                progress_file.remove(wanted["progress_path"])
            if not run:
                return gpus, None, None
            return (
                gpus,
                {**run.result(), "not_forgotten": load_test.not_forgotten(load_of(wanted["load"], mask))},
                None,
            )
        except port.GpuProblem as problem:
            return [], run.result() if run else None, problem


def take_headers(path: str) -> dict[str, str]:
    """What the action plugin has sent. The file is gone before it is read."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, encoding="utf-8") as file:
        os.unlink(path)
        return {str(name): str(value) for name, value in json.load(file).items()}


def keep_lease(renewal: lease_holding.Renewal, at_once: bool = False, renews: bool = True) -> None:
    """Put the restore off; NotHeld where that is done already. If it fails, the restore is the answer to it."""
    try:
        renewal(at_once, renews)
    except lease_holding.NotHeld:
        raise
    except (state.StateError, OSError):
        pass


def load_of(options: dict[str, Any], mask: Callable[[str], str]) -> load_test.Load:
    given = {name: value for name, value in options.items() if name not in OF_MODELS}
    headers = {name: str(value) for name, value in options["headers"].items()}
    given.update(headers=headers, requests=options["requests"] or options["concurrency"], mask=mask)
    given["seed"] = prompt_texts.drawn_seed() if options["seed"] is None else options["seed"]
    return load_test.Load(**{**given, "context_tokens": options["context_tokens"] or 0})


def others_of(options: dict[str, Any], mask: Callable[[str], str]) -> list[tuple[str, load_test.Load]]:
    """The loads of further models; names of one model share a runner and its prompt cache, so each has its own seed."""
    place = urlsplit(options["url"]).netloc
    return [
        (
            other["model"],
            load_of(
                {
                    **{name: value for name, value in other.items() if name != "model"},
                    "concurrency": other["requests"],
                    "timeout": options["timeout"],
                    "headers": options["headers"] if urlsplit(other["url"]).netloc == place else {},
                    "seed": None if options["seed"] is None else options["seed"] + number,
                },
                mask,
            ),
        )
        for number, other in enumerate(options["others"], 1)
    ]


def failures_of(
    gpus: list[SampledGpu],
    load: Figures | None,
    gpu_problem: port.GpuProblem | None,
    max_used_mib: int | None,
) -> list[str]:
    failures = [str(gpu_problem)] if gpu_problem else sampling.breaches(gpus, max_used_mib)
    for one in [load, *load["others"]] if load else []:
        if one["failed"]:
            more = f" (and {len(one['errors']) - 1} other errors)" if len(one["errors"]) > 1 else ""
            asked = "" if one is load else f"{one['model']}, asked for at Ollama itself: "
            failures.append(f"{asked}{one['failed']} of {one['requests']} requests failed: {one['errors'][0]}{more}")
        elif one["ok"] < (one["wanted"] or 1) and not gpu_problem:
            asked = "" if one is load else f" for {one['model']}"
            failures.append(f"{one['ok']} requests{asked} were answered, and {one['wanted'] or 'some'} were to be sent")
    if load and load["broken"]:
        failures.append(load["broken"])
    return failures


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("load", "duration")],
        supports_check_mode=True,
    )
    if module.params["headers_path"] and module.params["load"]:
        try:
            headers = take_headers(module.params["headers_path"])
        except (OSError, ValueError) as problem:
            module.fail_json(msg=f"headers_path is {module.params['headers_path']}, which cannot be read: {problem}")
        module.no_log_values.update(headers.values())
        module.params["load"]["headers"] = headers
    problems = problems_of(module.params)
    if problems:
        module.fail_json(msg="; ".join(problems))
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="check mode: no load was sent and nothing was sampled")
    max_used_mib = module.params["max_used_mib"]
    try:
        gpus, load, gpu_problem = measure(module.params)
    except lease_holding.NotHeld as problem:  # nobody waits for what a host is not held for
        if module.params["progress_path"]:
            progress_file.remove(module.params["progress_path"])
        module.fail_json(msg=str(problem))
    result = {
        "max_used_mib": max_used_mib,
        **sampling.summary(gpus, max_used_mib),
        "load": load,
        "nvml": {"status": gpu_problem.status if gpu_problem else "ok"},
    }
    failures = failures_of(gpus, load, gpu_problem, max_used_mib)
    if failures:
        module.fail_json(msg="; ".join(failures), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
