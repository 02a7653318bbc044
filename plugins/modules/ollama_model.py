#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a model in Ollama, or not, with parameters of its own if need be."""

from __future__ import annotations

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
