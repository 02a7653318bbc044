#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a model in Ollama, or not, with parameters of its own if need be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ollama_model
short_description: Pull, derive, restore and delete models of Ollama
version_added: "1.0.0"
description:
  - Pulls a model if it is missing, and gives it parameters of its own, such as C(num_gpu), that hold for every client
    that does not send its own.
  - With O(from) another model than O(name), O(name) becomes a derived model. It shares the files of the other one and
    needs no disk. It helps only if the clients use its name.
  - With O(from) the same model as O(name), the parameters are set in place, so no client has to change. The model as
    it was is first kept under its tag with C(-gpu-memory-kept) added. O(state=restored) puts it back.
  - The parameters of O(from) stay, those of O(parameters) are added and win. A parameter that is taken out of
    O(parameters) is taken out of the model, as a rebuilt model starts from O(from), or from what was kept.
  - Two names of the same files with different C(num_gpu), C(num_ctx), C(num_batch), C(main_gpu), C(num_thread) or
    C(use_mmap) cannot be loaded at the same time. A request to one makes Ollama unload the other and load the files
    anew, so each change between them costs a load. A parameter C(num_gpu) that a name does not set makes no difference.
  - A model that is loaded keeps running as it is. New parameters hold from its next request on, which loads it again.
    Only the lack of C(num_gpu) is no reason for Ollama to load it again; a cap that is taken away is gone once the
    model has been unloaded, as by a restart.
  - Works with Ollama 0.1.14 and later. The shape of the request is chosen by the version that Ollama reports.
attributes:
  check_mode:
    description: Predicts what it would do and changes nothing.
    details:
      - Of a model that is not there yet it does not know the parameters, and with O(pull=always) it takes it for
        granted that the registry has a newer one.
    support: partial
  diff_mode:
    description: Shows the parameters and the digests of the files of every model that is involved.
    support: full
  idempotent:
    description:
      - A second run with the same options changes nothing. What counts is what Ollama shows of the models. C(stop) is
        compared only if it is in O(parameters), because Ollama adds one to some models by itself.
    support: full
options:
  name:
    description: The model, such as C(llama3.1:8b). Without a tag it is C(latest).
    type: str
    required: true
  state:
    description:
      - V(present) pulls, derives or changes the model.
      - V(restored) puts back the model that was kept before its parameters were changed in place, and removes the copy.
        If the model has been replaced by another one since, it stays, and only the copy is removed. Without a copy
        there is nothing to do.
      - V(absent) deletes the model and what was kept of it. Models that share its files keep them.
    type: str
    choices: [present, absent, restored]
    default: present
  from:
    description:
      - The model that the parameters are added to. It is pulled if it is missing. Required with O(parameters).
      - Used with O(state=present) only.
    type: str
  parameters:
    description:
      - The parameters. Whole numbers are C(num_gpu) (V(-1) leaves it to Ollama), C(num_ctx), C(num_batch), C(main_gpu),
        C(num_thread), C(num_keep), C(num_predict), C(seed), C(top_k) and C(repeat_last_n). Numbers are C(temperature),
        C(top_p), C(min_p), C(typical_p), C(repeat_penalty), C(presence_penalty) and C(frequency_penalty). C(use_mmap)
        is a boolean, C(stop) a text or a list of texts.
      - A number may be given as text. Everything else is refused.
      - Used with O(state=present) only.
    type: dict
    default: {}
  pull:
    description:
      - Whether a model is pulled only if it is missing, or always, so that it is the registry's current one. It is
        O(from) that is pulled, or O(name) without it.
    type: str
    choices: [missing, always]
    default: missing
  url:
    description: The address of Ollama's API as seen from the host. Proxies of the environment are not used.
    type: str
    default: http://127.0.0.1:11434
  timeout:
    description:
      - For how many seconds Ollama may be silent while it pulls or creates a model. A pull may take as long as it needs
        while it makes progress; checking a large file takes minutes without a word. Everything else has 30 seconds.
    type: float
    default: 600
  progress_path:
    description:
      - A file on the host that is replaced at most twice a second during a pull with the figures of that moment as
        JSON, that is C(t_s), C(model), C(status), C(completed_mib) and C(total_mib). The total grows, as Ollama learns
        the size of a file when its turn comes.
      - Its mode is 0600, its directory must exist. It stays when the module ends.
    type: path
author: "selo.gpu_memory authors (@selo-ai)"
"""

EXAMPLES = r"""
- name: Have the model
  selo.gpu_memory.ollama_model:
    name: llama3.1:8b
  async: 7200
  poll: 10

- name: A derived model with 24 layers on the GPU, for clients that use its name
  selo.gpu_memory.ollama_model:
    name: llama3.1-capped:8b
    from: llama3.1:8b
    parameters:
      num_gpu: 24
      num_ctx: 4096

- name: The same for clients that cannot use another name
  selo.gpu_memory.ollama_model:
    name: llama3.1:8b
    from: llama3.1:8b
    parameters:
      num_gpu: 24
      num_ctx: 4096

- name: Put the model back as it was
  selo.gpu_memory.ollama_model:
    name: llama3.1:8b
    state: restored
"""

RETURN = r"""
model:
  description: The name of the model, with its tag, as Ollama spells it.
  returned: success
  type: str
  sample: llama3.1:8b
steps:
  description: What was done, or, in check mode, would be done, in this order. Also returned if a later step failed.
  returned: always, once Ollama has answered
  type: list
  elements: str
  sample:
    - pull llama3.1:8b
    - copy llama3.1:8b to llama3.1:8b-gpu-memory-kept
    - create llama3.1:8b from llama3.1:8b-gpu-memory-kept
parameters:
  description:
    - All parameters of the model now, or, in check mode, as they would be; V(null) if there is no such model.
  returned: success
  type: dict
  sample: {num_gpu: 24, num_ctx: 4096, stop: ["<|eot_id|>"]}
digest:
  description:
    - The SHA-256 of the model's manifest now, as C(ollama list) shows it; V(null) if there is no such model. In check
      mode it is what it is before.
  returned: success
  type: str
  sample: 46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e
kept:
  description: The name under which the model is kept as it was, or would be; V(null) if it is not.
  returned: success
  type: str
  sample: llama3.1:8b-gpu-memory-kept
pulled:
  description:
    - What was pulled. C(downloaded_mib) came through the network, C(total_mib) is all of the model. V(null) if nothing
      was pulled.
  returned: success
  type: dict
  sample: {model: "llama3.1:8b", downloaded_mib: 4693, total_mib: 4693, wall_s: 91.4}
version:
  description: The version of Ollama.
  returned: success
  type: str
  sample: 0.32.15
"""

import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import urls
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import model_state
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.api import Ollama, OllamaProblem
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Answer

PROGRESS_EVERY_S = 0.5


def wanted_of(params: dict[str, Any]) -> model_state.Wanted:
    """What the options ask for; Invalid with all that is wrong with them."""
    problems = [progress_file.problem_of(params["progress_path"])]
    if params["timeout"] <= 0:
        problems.append(f"timeout is {params['timeout']}, it must be more than 0")
    try:
        urls.parse(params["url"])
    except ValueError as problem:
        problems.append(f"url is {params['url']}: {problem}")
    try:
        wanted = model_state.wanted(*(params[key] for key in ("name", "state", "from", "parameters", "pull")))
    except model_state.Invalid as problem:
        problems.append(str(problem))
    if any(problems):
        raise model_state.Invalid("; ".join(problem for problem in problems if problem))
    return wanted


def pull(ollama: Ollama, model: str, progress_path: str | None) -> dict[str, object]:
    """Pull the model; the figures for the result."""
    meter = model_state.Meter(model)
    written = 0.0

    def on_line(line: Answer) -> None:
        nonlocal written
        meter.add(line)
        if progress_path and (time.monotonic() - written >= PROGRESS_EVERY_S or line.get("status") == "success"):
            written = time.monotonic()
            progress_file.write(progress_path, meter.figures())

    ollama.pull(model, on_line)
    return meter.result()


def apply(
    wanted: model_state.Wanted, ollama: Ollama, progress_path: str | None, check_mode: bool, steps: list[str]
) -> dict[str, object]:
    """Do what is wanted, or in check mode predict it; the result. `steps` gets each step once it is done."""
    version_text = ollama.version()
    version = model_state.check_version(version_text)
    digests = ollama.digests()
    wanted = model_state.as_listed(wanted, digests)
    before = models = ollama.show_all(wanted.names)
    changed, pulled = False, None
    to_pull = model_state.model_to_pull(wanted, models)
    if to_pull:
        if check_mode:
            models = {**models, to_pull: models[to_pull] or model_state.NOT_PULLED}
        else:
            pulled = pull(ollama, to_pull, progress_path)
            models = ollama.show_all(wanted.names)
            if models[to_pull] is None:
                raise OllamaProblem(
                    f"Ollama says that it has pulled {to_pull}, but does not show it; is the name right?"
                )
        steps.append(f"pull {to_pull}")
        changed = check_mode or ollama.digests().get(to_pull) != digests.get(to_pull)
    todo = model_state.steps(wanted, models)
    after = model_state.after(wanted, models, todo)
    # All bodies first: one that cannot be written must stop it before anything is done.
    bodies = [model_state.create_body(wanted, step.source, version) if step.verb == "create" else {} for step in todo]
    for step, body in zip(todo, bodies):
        if not check_mode:
            ollama.do(step, body)
        steps.append(str(step))
    if todo and not check_mode:
        after = read_back(wanted, ollama, after)
    own = after[wanted.name]
    return {
        "changed": changed or bool(todo),
        "model": wanted.name,
        "steps": steps,
        "parameters": own and dict(own.parameters),
        "digest": ollama.digests().get(wanted.name),
        "kept": wanted.kept if after[wanted.kept] else None,
        "pulled": pulled,
        "version": version_text,
        "diff": {"before": model_state.view(before), "after": model_state.view(after)},
    }


def read_back(
    wanted: model_state.Wanted, ollama: Ollama, expected: model_state.Models
) -> dict[str, model_state.Shown | None]:
    """The models as they are now; OllamaProblem if one is not as expected."""
    found = ollama.show_all(wanted.names)
    for name, model in found.items():
        if not model_state.agrees(model, expected[name], wanted):
            shown = model_state.view({name: model}).get(name, "no such model")
            raise OllamaProblem(f"Ollama says that it is done, but of {name} it shows {shown}; is somebody else at it?")
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent", "restored"], "default": "present"},
            "from": {"type": "str"},
            "parameters": {"type": "dict", "default": {}},
            "pull": {"type": "str", "choices": ["missing", "always"], "default": "missing"},
            "url": {"type": "str", "default": "http://127.0.0.1:11434"},
            "timeout": {"type": "float", "default": 600},
            "progress_path": {"type": "path"},
        },
        supports_check_mode=True,
    )
    try:
        wanted = wanted_of(module.params)
    except model_state.Invalid as problem:
        module.fail_json(msg=str(problem))
    steps: list[str] = []
    try:
        ollama = Ollama(module.params["url"], module.params["timeout"])
        result = apply(wanted, ollama, module.params["progress_path"], module.check_mode, steps)
    except (OllamaProblem, model_state.Invalid) as problem:
        names = [wanted.name, *filter(None, [module.params["from"]])]
        msg = secrets.Masking(["ollama.service"], names=names)(str(problem))
        module.fail_json(msg=msg, steps=steps, changed=bool(steps) and not module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
