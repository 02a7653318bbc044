#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all that the planning and the verdict of a GPU memory profile need, in one execution."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import gpus
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_use
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read, secrets, what_starts
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import gpu_containers
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.library import LIBRARY
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import stored_generations, what_is_ours
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process, unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import WallClock
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import LinuxHost

ARGUMENTS: dict[str, Any] = {
    "declared": {"type": "dict"},
    "ollama": {
        "type": "dict",
        "default": {},
        "apply_defaults": True,
        "options": unit_runtime.ARGUMENTS,
    },
    "models": {"type": "list", "elements": "str"},
    "backend": {"type": "dict", "default": {"kind": "none"}},
    "gpus": {"type": "list", "elements": "str", "default": []},
    "env_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "env": {"type": "dict", "default": {}},
    "profile_file": {
        "type": "dict",
        "options": {
            "path": {"type": "path", "required": True},
            "read_by": {"type": "list", "elements": "str"},
            "env": {"type": "dict", "required": True},
        },
    },
    "drop_in": {"type": "str", "default": unit_text.DROP_IN},
    "journal_since": {"type": "float"},
    "journal_clock": {
        "type": "dict",
        "options": {"boot": {"type": "str", "required": True}, "ahead_s": {"type": "float", "required": True}},
    },
    "bindings_path": {"type": "path"},
    "show_secrets": {"type": "bool", "default": False, "no_log": False},
}


def env_files(wanted: dict[str, Any]) -> list[str]:
    files = [*(wanted["backend"].get("env_files") or []), *filter(None, [wanted["profile_file"]])]
    return [file["path"] for file in files]


def masking(wanted: dict[str, Any]) -> secrets.Masking:
    """What is shown of a text by somebody else, such as a journal's line."""
    found = secrets.Masking(files=env_files(wanted), names=wanted["models"] or (), shows_secrets=wanted["show_secrets"])
    found.look({"ollama": wanted["ollama"], "backend": wanted["backend"], "restart": []})
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
    )
    root.required(module)
    wanted = module.params
    host = LinuxHost(masking(wanted))
    runtime = host.runtime("ollama", wanted["ollama"])
    unit = runtime.read()
    nvml = LIBRARY.snapshot(wanted["bindings_path"])
    process = runtime.environment(unit, [gpus.ORDER])
    clock = wanted["journal_clock"] and WallClock(**wanted["journal_clock"])
    log = runtime.log(wanted["journal_since"], clock)
    environment = (process or unit).get("environment") or {}
    processes = [process for gpu in nvml["gpus"] for process in gpu.get("processes") or []]
    holders = {process["pid"] for process in processes}
    api = host_read.read_ollama_api(wanted["ollama"]["url"].rstrip("/"), wanted["models"], host.mask)
    if wanted["journal_since"]:
        blobs = set(filter(None, (model_use.blob_of(load["command"]) for load in log["loads"])))
        api["names"] = host_read.read_names(wanted["ollama"]["url"].rstrip("/"), api, blobs)
    found = server_process.read(unit, wanted["ollama"]["url"], api["version"] is not None)
    silent = None
    if api["error"] and unit.get("load_state") == "loaded":
        silent = unit_runtime.why_silent(host, unit["name"])
    module.exit_json(
        changed=False,
        host=host_read.read_host(),
        nvml=gpus.select(nvml, wanted["gpus"], environment, log["discovered"]),
        ollama={
            "unit": unit,
            "drop_ins": host_read.read_drop_ins(unit, wanted["drop_in"], what_is_ours.manifests(Paths())),
            "process": process,
            "runners": host_read.read_runners(found["family"]),
            "server": found["server"],
            "listens": found["listens"],
            "apart": found["apart"],
            "why_silent": silent,
            "others": server_process.others(found["family"], processes),
            "gpu_containers": gpu_containers.read(holders, found["family"]),
            "api": api,
            "journal": log,
        },
        backend=host_read.read_backend(wanted["backend"], wanted["env_keys"], wanted["env"], wanted["profile_file"]),
        starts=what_starts.read(
            what_starts.units_of(wanted["ollama"], wanted["backend"]),
            env_files(wanted),
            what_starts.commands_of(wanted["backend"]),
        ),
        state=stored_generations.summary(),
    )


if __name__ == "__main__":
    main()
