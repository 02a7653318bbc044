#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a host watch its GPU memory as long as it lives, or take the watch away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose, gpus
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, quadlets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.library import LIBRARY
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool, stored_generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import installation
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import LinuxHost

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Nvml

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "profile": {"type": "str", "default": ""},
    "max_used_mib": {"type": "int"},
    "period_s": {"type": "int", "default": 15},
    "ollama": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": unit_runtime.ARGUMENTS,
    },
    "gpus": {"type": "list", "elements": "str", "default": []},
    "drop_in": {"type": "str", "default": unit_text.DROP_IN},
    "environment": {"type": "dict", "default": {}},
    "intent": {"type": "dict", "default": {}},
    "action": {"type": "str", "choices": ["none", "unload", "restore"], "default": "none"},
    "action_interval_s": {"type": "int", "default": 3600},
    "textfile_dir": {"type": "path", "default": "/var/lib/prometheus/node-exporter"},
    "bindings_path": {"type": "path"},
}
INTENTS = ("num_ctx", "num_parallel", "gpu_layers")


def chosen_gpus(wanted: dict[str, Any], nvml: Nvml) -> Nvml:
    """What NVML showed with its `gpus` parted, as `gpus.select` has it."""
    runtime = LinuxHost().runtime("ollama", wanted["ollama"])
    unit = runtime.read()
    environment = (runtime.environment(unit, [gpus.ORDER]) or unit).get("environment") or {}
    return gpus.select(nvml, wanted["gpus"], environment, runtime.log(None)["discovered"])


def configuration(wanted: dict[str, Any], units: str, counting: list[str]) -> dict[str, Any]:
    """The monitor's configuration, from the module's arguments and the UUIDs of the GPUs that count."""
    unit = host_read.read_unit(wanted["ollama"]["unit"])["id"]  # the journal knows no alias
    names = ("profile", "max_used_mib", "period_s", "action", "action_interval_s", "textfile_dir")
    return {
        **{name: wanted[name] for name in names},
        "ollama": {"unit": unit, "url": wanted["ollama"]["url"].rstrip("/")},
        "gpus": counting,
        "gpus_named": bool(wanted["gpus"]),
        "drop_in": f"{units}/{wanted['ollama']['unit']}.d/{wanted['drop_in']}",
        "environment": {name: str(value) for name, value in wanted["environment"].items()},
        "intent": {name: int(wanted["intent"][name]) for name in INTENTS if wanted["intent"].get(name) is not None},
    }


def present(module: AnsibleModule, places: installation.Places) -> dict[str, Any]:
    unit = module.params["ollama"]["unit"]
    made_of = quadlets.read(unit)
    if made_of or compose.is_one(unit):
        place = f" ({made_of.file})" if made_of else ""
        raise StateError(
            f"{unit} runs Ollama in a container{place}, which the monitor does not watch yet; status.yml and "
            "verify.yml read it"
        )
    nvml = chosen_gpus(module.params, LIBRARY.snapshot(module.params["bindings_path"]))
    config = configuration(
        module.params, places.paths.units, sorted(gpu["uuid"] for gpu in nvml["gpus"] if gpu.get("uuid"))
    )
    problems = [*installation.problems_of(config), *(nvml["problems"] if nvml["status"] == "ok" else [])]
    if config["action"] == "restore" and not stored_generations.summary().get("proven"):
        problems.append("action = 'restore' needs a proven generation, and nothing is proven on this host; apply first")
    if problems:
        raise StateError("\n".join(problems))
    result: dict[str, Any] = {
        "nvml": {name: nvml[name] for name in ("status", "message")},
        "metrics": places.metrics,
    }
    if nvml["bindings"] is None and nvml["status"] != "ok":
        return {**result, "failed": True, "msg": f"{LIBRARY.NAME}: {nvml['message']}"}
    bindings = None  # not every library has any
    if nvml["bindings"]:
        with open(nvml["bindings"]["path"], "rb") as file:
            bindings = file.read()
    files = installation.wanted_files(config, places, host_tool.archive(), bindings)
    result["diff"] = [
        installation.difference(path, files[path][0]) for path in (places.config, places.unit(installation.SERVICE))
    ]
    result["changed"] = installation.install(config, places, LinuxHost(), files, module.check_mode)
    if config["textfile_dir"] and not installation.is_exported(config):
        module.warn(f"there is no {config['textfile_dir']}, so no node_exporter reads {places.metrics}")
    if not module.check_mode and nvml["status"] == "ok" and not installation.nvml_answers(places):
        cure = f"see on the host: journalctl -u {installation.SERVICE}"
        return {
            **result,
            "failed": True,
            "msg": f"{LIBRARY.NAME} can be read here, but not in the monitor's sandbox; {cure}",
        }
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    root.required(module)
    places = installation.Places()
    try:
        if module.params["state"] == "absent":
            result = {"changed": installation.remove(places, LinuxHost(), module.check_mode)}
        else:
            result = present(module, places)
    except StateError as problem:
        module.fail_json(msg=str(problem))
    except OSError as problem:
        module.fail_json(msg=f"{problem.filename or 'this host'}: {problem.strerror}")
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
