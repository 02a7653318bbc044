#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read all that the planning and the verdict of a GPU memory profile need, in one execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_info
short_description: Read what decides over GPU memory on an Ollama host
version_added: "1.0.0"
description:
  - Reads units, processes, drop-ins, env files, Ollama's API and journal, and the GPUs through NVML, in one execution.
  - Everything is read from the running system. What cannot be read is V(null), or has an C(error) that says why.
  - Of environments and env files only settings of GPU memory are read, and the keys named in O(env_keys). Other values
    never leave the host.
  - NVML is read in a child process, so that a crash of the driver's library becomes a message.
options:
  declared:
    description:
      - The result of M(selo.gpu_memory.gpu_memory_declare), by which all is read that no other option names.
      - The action plugin takes O(ollama), O(backend), O(gpus), O(env_keys) and O(models) from it.
    type: dict
  ollama:
    description: Where Ollama is.
    type: dict
    default: {}
    suboptions:
      unit:
        description: The systemd unit of the server.
        type: str
        default: ollama.service
      url:
        description: The address of its API as seen from the host.
        type: str
        default: http://127.0.0.1:11434
  models:
    description: Models whose C(/api/show) answer is wanted, if they are present; by default, those that are loaded now.
    type: list
    elements: str
  backend:
    description:
      - The backend as the role P(selo.gpu_memory.gpu_memory#role) resolves it.
      - Its C(kind) is V(none), V(unit) or V(command).
    type: dict
    default: {kind: none}
  gpus:
    description:
      - The GPUs that count, by index or UUID. By default those that this Ollama uses, by its log and its environment.
      - The others are in C(nvml.ignored).
    type: list
    elements: str
    default: []
  env_keys:
    description: The keys whose values are read from the backend's env files.
    type: list
    elements: str
    default: []
  env:
    description: The keys that are to be set in the backend's env files. What would keep them from it is read too.
    type: dict
    default: {}
  profile_file:
    description: The profile's own file.
    type: dict
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      read_by:
        description: Who reads it.
        type: list
        elements: str
      env:
        description: The keys that are to be set in it.
        type: dict
        required: true
  drop_in:
    description: The file name of this collection's drop-in.
    type: str
    default: zz-gpu-memory.conf
  journal_since:
    description: Read Ollama's log from this Unix time on; by default, since its last start.
    type: float
  bindings_path:
    description:
      - A directory on the host with C(pynvml.py), for hosts that have no good nvidia-ml-py of their own.
      - Set by the action plugin, which sends the controller's copy.
    type: path
extends_documentation_fragment:
  - selo.gpu_memory.secrets
attributes:
  check_mode:
    description: Can run in check mode and return the same.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Does not change state.
    support: full
author:
  - selo.gpu_memory authors (@selo-ai)
"""

EXAMPLES = r"""
- name: Read what decides over GPU memory
  selo.gpu_memory.gpu_memory_info:
    models: ["llama3.1:8b-instruct-q8_0"]
  become: true
  register: gpu_memory

- name: Show how much of each GPU is used
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.used_mib }} of {{ item.total_mib }} MiB"
  loop: "{{ gpu_memory.nvml.gpus }}"
"""

RETURN = r"""
host:
  description: Boot id, architecture and version of systemd.
  returned: success
  type: dict
  sample: {boot_id: 2f6f8f0e-5d3f-4f5b-9f6a-000000000000, machine: x86_64, systemd: 252}
nvml:
  description:
    - The GPUs as NVML shows them. C(status) is V(ok) or names what is wrong, C(message) its cause and cure.
    - C(memory) is in bytes, as it was while the C(processes) were listed. The figures of a process are V(null) where
      the driver has none (WSL 2), its name is V(null) where this host does not see it (another pid namespace).
  returned: success
  type: dict
  sample:
    status: ok
    driver_version: 550.163.01
    gpus:
      - index: 0
        uuid: GPU-38079876-a1c8-5fa0-92ea-8efc513d7869
        name: NVIDIA GeForce RTX 4060 Ti
        total_mib: 16380
        used_mib: 800
        reserved_mib: 0
        memory: {total: 17175674880, used: 838860800, free: 16336814080, reserved: 0}
        processes: [{pid: 900, name: Xorg, kind: graphics, used_mib: 800, used_bytes: 838860800}]
ollama:
  description: The server's unit, drop-ins, process, runners, API and journal.
  returned: success
  type: dict
  contains:
    unit:
      description: >-
        The unit as systemd has merged it. C(dependents) are the running units that systemd stops or restarts along with
        it, and what in their files makes it do so.
      type: dict
      sample:
        load_state: loaded
        active_state: active
        main_pid: 312
        dependents: [{unit: open-webui.service, why: PartOf=ollama.service}]
    drop_ins:
      description: This collection's drop-in, and the others with their settings of GPU memory.
      type: dict
      sample: {own: {exists: false}, others: []}
    process:
      description: What the server's process was started with.
      type: dict
      sample: {pid: 312, environment: {OLLAMA_NUM_PARALLEL: "2"}}
    runners:
      description: The processes that hold the models, with what may be shown of their command lines.
      type: list
      elements: dict
      sample: [{pid: 400, settings: {num_ctx_total: 8192, num_parallel: 2, num_gpu: 40, num_batch: 512}}]
    gpu_containers:
      description: The containers on this host with a process that uses a GPU.
      type: list
      elements: str
      sample: [docker 3f1c2ab90d5e]
    api:
      description: >-
        Version, models, loaded models, and C(show) for the O(models). With O(journal_since) also C(names), those of
        other models that were loaded, by their files.
      type: dict
      sample: {version: 0.32.15, models: [], loaded: []}
    journal:
      description:
        - Settings at start, loads with layers and buffers, speeds, and failures by severity.
        - They are from where the server's standard error goes, the journal or a file. C(log) says which, and whether
          it could be read.
      type: dict
      sample:
        server_config: {OLLAMA_NUM_PARALLEL: "2"}
        loads: []
        failures: []
        tokens_per_s: [[1769890506.3, 33.8]]
        log: {where: the journal, problem: null, dropped: 0, cut: false, lines: 12}
backend:
  description: The backend's unit or processes, its health, and its env files with the values of O(env_keys).
  returned: success
  type: dict
  sample: {kind: unit, health: {ok: true, status: 200}}
starts:
  description:
    - What the services would be started with now, as a digest by path for each file of their units and each env file,
      and for each unit in systemd's memory. It tells whether one of them has changed.
  returned: success
  type: dict
  sample: {/etc/systemd/system/ollama.service: 2c26b46b68ffc68f}
state:
  description: What this collection keeps on the host (generations, lease, proof, restore timer).
  returned: success
  type: dict
  sample: {lease: null, proof: null, generations: []}
"""

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
    log = runtime.log(wanted["journal_since"])
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
            "gpu_containers": gpu_containers.read(holders),
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
