#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sample GPU memory while a load runs, and fail if it was ever more than allowed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_assert
short_description: Fail if GPU memory exceeds a threshold while a load runs
version_added: "1.0.0"
description:
  - Samples the used memory of the GPUs through NVML, in a process of its own, while it sends concurrent HTTP requests
    or merely waits.
  - Fails if a GPU used more than O(max_used_mib), if a request of the load failed, or if NVML gave no evidence. The
    figures are returned in either case.
  - Used memory is what NVML calls used, without what the driver reserves for itself. It is rounded up to MiB.
  - A sampled peak is a lower bound. Whatever lasted longer than RV(max_gap_ms) was seen. RV(evidence) says what the
    figures prove.
  - Where NVML's accounting mode is on, the exact peaks of processes are read as well. It is never switched on here.
  - Works under C(async), with O(progress_path) to look at meanwhile.
options:
  max_used_mib:
    description: The most that each GPU may use, in MiB. Without it, the module only measures.
    type: int
  gpus:
    description: The GPUs to sample, by index or UUID. By default all of them.
    type: list
    elements: str
    default: []
  duration:
    description:
      - For how many seconds to sample. With O(load), at least that long, and always until the load has ended.
      - Required without O(load).
    type: float
  interval_ms:
    description: The time from one sample to the next, V(10) to V(100) ms.
    type: int
    default: 50
  load:
    description: The HTTP requests to send while sampling. Any failed request fails the module.
    type: dict
    suboptions:
      url:
        description: Where to send them, as seen from the host. Proxies of the environment are not used.
        type: str
        required: true
      method:
        description: The HTTP method.
        type: str
        choices: [GET, POST, PUT]
        default: POST
      bodies:
        description: Bodies, used in turn. A string is sent as it is, anything else as JSON.
        type: list
        elements: raw
        default: []
      headers:
        description:
          - Headers of each request. Their values are treated as secrets, and are masked wherever they appear.
          - They reach the host apart from the other arguments, see O(headers_path).
        type: dict
        default: {}
      expect_status:
        description:
          - The status of a good answer.
          - An answer of this status that has a true C(error) in its JSON, or in a line of its stream, is a failed one.
        type: int
        default: 200
      concurrency:
        description: How many requests are under way at once.
        type: int
        default: 3
      requests:
        description: How many requests are sent in all. By default as many as O(load.concurrency).
        type: int
      forget:
        description:
          - Addresses that make the server forget the chats of this load. Each is asked with DELETE and O(load.headers),
            once the load has ended. What does not work stands in C(load.not_forgotten), and fails nothing.
        type: list
        elements: str
        default: []
      timeout:
        description: How many seconds a request may take in all.
        type: float
        default: 300
      prompts:
        description:
          - V(guide) sends O(load.bodies) as they are, with a few words of its own before the text at O(load.prompt_at),
            where that is given. Otherwise they are templates, and a prompt of a known length replaces their text there.
          - V(fill) fills seven eighths of O(load.context_tokens) each time, V(mixed) at the first and at every fourth
            request, with any length down to a 64th between.
        type: str
        choices: [guide, mixed, fill]
        default: guide
      prompt_at:
        description: Where in a body the prompt goes, such as V(message) or V(messages.0.content).
        type: str
      context_tokens:
        description: The context of one slot in tokens (C(num_ctx)).
        type: int
      seed:
        description:
          - The same seed sends the same prompts of the same lengths in the same order.
          - Without one each run draws its own, since a server need not read again what it has in its prompt cache.
        type: int
      model:
        description:
          - The model of Ollama's that the bodies ask for, where O(load.url) is Ollama's own.
          - Where a good answer came, the model is among C(load.loaded).
        type: str
      others:
        description:
          - Further models, for which Ollama itself is asked when the other requests have ended, one after another and
            each with so many requests at once. They have figures of their own.
          - Those at the address of O(load.url) get O(load.headers) too.
        type: list
        elements: dict
        default: []
        suboptions:
          model:
            description: Its name.
            type: str
            required: true
          url:
            description: Where to send the requests.
            type: str
            required: true
          bodies:
            description: Bodies, used in turn, with O(load.prompts) as for the others.
            type: list
            elements: dict
            required: true
          prompt_at:
            description: Where in a body the prompt goes, such as V(input).
            type: str
            required: true
          prompts:
            description: As O(load.prompts).
            type: str
            choices: [guide, mixed, fill]
            default: guide
          context_tokens:
            description: The context of one slot in tokens.
            type: int
            required: true
          requests:
            description: How many requests are sent at once.
            type: int
            default: 1
      listed_at:
        description:
          - Where Ollama lists what it has loaded (C(/api/ps)), which is looked at once a second during the load. One of
            O(load.others) that was used meanwhile is not asked for again.
        type: str
      warm_up:
        description:
          - How many requests go first, one by one. Memory is sampled, but they are in no figure of O(load) unless they
            fail.
        type: int
        default: 0
      ramp:
        description: Over how many seconds the senders join, instead of all at once.
        type: float
        default: 0
      duration:
        description:
          - For how many seconds to go on sending, instead of O(load.requests). A soak of hours is a load with this.
        type: float
  private_files:
    description: Env files on the host whose values are masked in the errors of answers.
    type: list
    elements: path
    default: []
  private_units:
    description: Units on the host whose environment is masked in the errors of answers.
    type: list
    elements: str
    default: []
  progress_path:
    description:
      - A file on the host that is replaced twice a second with the figures of that moment as JSON, that is C(t_s),
        C(used_mib), C(peak_used_mib), C(max_used_mib), C(requests_done) and C(requests).
      - Its mode is 0600, its directory must exist. It stays when the module ends.
    type: path
  renew:
    description:
      - The run whose lease on this host is renewed all the while, see M(selo.gpu_memory.gpu_memory_generation).
      - The host does so itself, since a controller with many hosts in a wave cannot be everywhere.
    type: str
  is_waited_for:
    description:
      - Whether M(selo.gpu_memory.gpu_memory_wait) follows O(progress_path) from the start. The lease is then renewed
        only as long as it does, so that it ends soon after a controller that died.
    type: bool
    default: false
  headers_path:
    description:
      - A file on the host with O(load.headers) as JSON. It is gone once it is read, so that a job that is killed leaves
        none of them behind.
      - Set by the action plugin, which sends it.
    type: path
  bindings_path:
    description:
      - A directory on the host with C(pynvml.py), for hosts that have no good nvidia-ml-py of their own.
      - Set by the action plugin, which sends the controller's copy.
    type: path
extends_documentation_fragment:
  - selo.gpu_memory.secrets
attributes:
  check_mode:
    description: In check mode no load is sent and nothing is sampled; the result is marked C(skipped).
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Changes nothing itself; what the load changes is up to the server that gets it.
    support: full
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Three chats at once must stay within 12 GB
  selo.gpu_memory.gpu_memory_assert:
    max_used_mib: 12288
    load:
      url: http://127.0.0.1:8000/api/chat
      bodies:
        - {message: Tell me a story, conversation_id: test1}
        - {message: "What is AI?", conversation_id: test2}
      concurrency: 3
      requests: 6
  become: true

- name: Watch the first GPU for a minute at 100 Hz
  selo.gpu_memory.gpu_memory_assert:
    gpus: ["0"]
    duration: 60
    interval_ms: 10
  register: measured
"""

RETURN = r"""
peak_used_mib:
  description: The highest sampled use of a GPU, a lower bound; V(null) if nothing was sampled.
  returned: always, except in check mode
  type: int
  sample: 11690
max_used_mib:
  description: The threshold.
  returned: always, except in check mode
  type: int
  sample: 12288
evidence:
  description:
    - What the figures prove, for the weakest GPU.
    - V(bounded) means that use cannot have exceeded the threshold, because the accounted peaks of all processes and the
      most that was seen in no process's name together stay below it.
    - V(sampled) means that no sample exceeded it.
    - V(none) means that nothing is proven, because NVML or a GPU could not be read at all, or in the end, or for more
      than 2 seconds on end. It is always a failure.
  returned: always, except in check mode
  type: str
  sample: sampled
samples:
  description: How many samples were taken of the GPU with the fewest.
  returned: always, except in check mode
  type: int
  sample: 842
interval_ms:
  description: The time from one sample to the next as achieved, on average.
  returned: always, except in check mode
  type: float
  sample: 50.01
max_gap_ms:
  description: The longest time in which something can have gone unseen, including the begin and the end.
  returned: always, except in check mode
  type: float
  sample: 61.2
timeline:
  description:
    - Of the GPU with the highest peak, at most 500 pairs of seconds since the begin and MiB used. Peaks are kept.
  returned: always, except in check mode
  type: list
  elements: list
  sample: [[0.0, 800], [0.05, 3102], [0.1, 11690]]
processes:
  description:
    - The processes that were seen on the GPUs, the largest first.
    - C(peak_mib) is sampled when the lists are read, which is at most once a second. C(accounting_peak_mib) is exact,
      and V(null) where accounting does not cover the process; C(accounting_grew) says that it was reached meanwhile.
    - C(command) is the command line of Ollama's own runners, and V(null) for all others.
  returned: always, except in check mode
  type: list
  elements: dict
  sample:
    - gpu: 0
      pid: 4711
      name: llama-server
      kind: compute
      peak_mib: 9054
      command: [/usr/lib/ollama/llama-server, --port, "40001", -c, "8192", -np, "2"]
      accounting_peak_mib: null
      accounting_grew: false
gpus:
  description:
    - The same figures for each GPU, with what it is. C(baseline_mib) is the first sample, C(errors) counts NVML's
      errors by name, C(error) is what keeps it from being read, C(bound_mib) is the most it can have used as far as
      accounting tells, C(memory_api) is V(v1) on drivers that cannot tell used from reserved.
    - C(at_most) is the list of processes with the most memory used beside it, in bytes, and when that was.
  returned: always, except in check mode
  type: list
  elements: dict
  sample:
    - index: 0
      uuid: GPU-38079876-a1c8-5fa0-92ea-8efc513d7869
      total_mib: 16380
      reserved_mib: 0
      memory_api: v2
      baseline_mib: 800
      peak_used_mib: 11690
      peak_at_s: 4.2
      at_most:
        at_s: 4.1
        memory: {total: 17175674880, used: 12257853440, free: 4917821440, reserved: 0}
        processes: [{pid: 4711, name: llama-server, used_bytes: 9493807104}]
      bound_mib: null
      samples: 842
      interval_ms: 50.01
      max_gap_ms: 61.2
      errors: {}
      error: null
      timeline: [[0.0, 800], [0.05, 3102], [0.1, 11690]]
      evidence: sampled
nvml:
  description: Whether NVML could be read, in the words of M(selo.gpu_memory.gpu_memory_info).
  returned: always, except in check mode
  type: dict
  sample: {status: ok}
load:
  description:
    - What became of the requests. Latencies are those of the good ones. C(errors) are the distinct ones, of an answer
      its own words in brief.
    - C(first_token_p50_s) and C(first_token_p95_s) are there where answers come line by line; C(reply_tokens),
      C(longest_prompt_tokens) and C(tokens_per_s) (of an answer, on average) where Ollama's own answers tell them.
    - C(wanted) is how many requests were to be sent, V(null) of a load that goes by time; where fewer were answered,
      the module fails. C(broken) is what ended the whole load too early, V(null) where nothing did.
    - C(seed) is what the prompts were made of, C(longest_asked_tokens) is how long the longest was.
    - C(others) are the same figures of each further model that was asked for, with its C(model). C(used) names the
      models that the load made Ollama use, as O(load.listed_at) tells, and C(loaded) those and the ones that answered
      for themselves; V(null) where Ollama did not tell. After a load of which requests failed there are no C(others).
    - V(null) without O(load), or if NVML could not be read, because no load is sent then.
  returned: always, except in check mode
  type: dict
  sample:
    wanted: 3
    broken: null
    requests: 3
    ok: 3
    failed: 0
    by_status: {"200": 3}
    errors: []
    p50_s: 5.1
    p95_s: 6.2
    max_s: 6.2
    first_token_p50_s: null
    first_token_p95_s: null
    reply_tokens: null
    longest_prompt_tokens: null
    tokens_per_s: null
    wall_s: 6.3
    started: "2026-01-31T20:15:00.000Z"
    finished: "2026-01-31T20:15:06.300Z"
    started_epoch: 1769890500.0
    finished_epoch: 1769890506.3
    seed: 1804289383
    longest_asked_tokens: 3584
    model: null
    others: []
    used: ["llama3.1:8b-instruct-q8_0"]
    loaded: ["llama3.1:8b-instruct-q8_0"]
"""

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
            keep_lease(renewal, at_once=True, renews=waiting is None or waiting.is_recent())
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
        with contextlib.suppress(OSError, TypeError):
            os.unlink(module.params["progress_path"])
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
