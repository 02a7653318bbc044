# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host tool is made of; so the controller, too, can tell whether a host has that of this collection. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

PACKAGE = "ansible_collections.selo.gpu_memory.plugins.module_utils"
PACKED = (
    "core.compose",
    "core.containers",
    "core.gpus",
    "core.ollama.endpoints",
    "core.ollama.launch",
    "core.ollama.llama_args",
    "core.ollama.log_lines",
    "core.ollama.model_name",
    "core.ollama.model_use",
    "core.ollama.modelfile",
    "core.ollama.prompt_reuse",
    "core.ollama.servers",
    "core.ollama.settings",
    "core.ollama.shown_arrays",
    "core.planner.architectures",
    "core.planner.compute",
    "core.planner.fitting",
    "core.planner.gguf",
    "core.planner.gguf_header",
    "core.planner.graph",
    "core.planner.library_names",
    "core.planner.model_shape",
    "core.planner.placement",
    "core.planner.planner",
    "core.planner.show_text",
    "core.systemd.dependents",
    "core.systemd.quadlet",
    "core.systemd.start_script",
    "core.systemd.unit_environment",
    "core.systemd.unit_oddities",
    "core.systemd.unit_states",
    "core.systemd.unit_text",
    "core.text.credentials",
    "core.text.dotenv",
    "core.text.dotenv_readers",
    "core.text.env_lines",
    "core.text.escapes",
    "core.text.foreign_json",
    "core.text.masking",
    "core.text.metrics",
    "core.text.series",
    "core.text.urls",
    "core.text.utc",
    "core.tool_parts",
    "core.waiting",
    "host.facts.compose_files",
    "host.facts.dependents",
    "host.facts.host_read",
    "host.facts.quadlets",
    "host.facts.secrets",
    "host.facts.unit_files",
    "host.facts.unit_oddities",
    "host.gpu.library",
    "host.gpu.nvml_library",
    "host.gpu.port",
    "host.gpu.sampling",
    "host.keep.file_state",
    "host.keep.generation_store",
    "host.keep.generations",
    "host.keep.going_back",
    "host.keep.host_tool",
    "host.keep.in_force",
    "host.keep.lease_holding",
    "host.keep.leases",
    "host.keep.own_files",
    "host.keep.restore_timer",
    "host.keep.service_control",
    "host.keep.state",
    "host.keep.state_files",
    "host.keep.stored_generations",
    "host.keep.take_back",
    "host.keep.tries",
    "host.keep.what_is_ours",
    "host.monitor.watch",
    "host.monitor.watch_rules",
    "host.ollama.plan_command",
    "host.ollama.runtime",
    "host.ollama.server_log",
    "host.ollama.server_process",
    "host.ollama.shown",
    "host.ollama.unit_runtime",
    "host.port.atomic_files",
    "host.port.child_process",
    "host.port.clock",
    "host.port.commands",
    "host.port.docker",
    "host.port.held_path",
    "host.port.http_client",
    "host.port.proc_stat",
    "host.port.service_properties",
    "host.port.systemd",
)
MAIN = f"""\
import sys

if sys.argv[1:2] == ["monitor"]:  # without what the other commands need: it runs as long as the host
    from {PACKAGE}.host.monitor.watch import main

    sys.exit(main(sys.argv[2]))

if sys.argv[1:2] == ["plan"]:  # for anybody, without what is kept on this host
    from {PACKAGE}.host.ollama.plan_command import main

    sys.exit(main(sys.argv[2:]))

if sys.argv[1:] == ["restore", "--if-expired"]:  # the restore timer, all through an apply
    from {PACKAGE}.host.keep import leases, tries

    if leases.holds() or tries.wait():
        sys.exit(0)

from {PACKAGE}.host.keep.host_tool import main

sys.exit(main())
"""


def files(source: Callable[[str], str]) -> dict[str, str]:
    """The tool's files by their paths in it; `source` gives a module's source by its name below `PACKAGE`."""
    packages = {f"{PACKAGE}.{name}".rpartition(".")[0] for name in PACKED}
    parts = [name.split(".") for name in packages]
    found = {"/".join([*names[:count], "__init__.py"]): "" for names in parts for count in range(1, len(names) + 1)}
    found.update({f"{PACKAGE}.{name}".replace(".", "/") + ".py": source(name) for name in PACKED})
    found["__main__.py"] = MAIN
    return found


def digest(content: Mapping[str, str]) -> str:
    """A tool bears it, so that one of other files can be told from it."""
    whole = hashlib.sha256()
    for name in sorted(content):
        whole.update(f"{name}\0{len(content[name])}\0{content[name]}".encode())
    return whole.hexdigest()
