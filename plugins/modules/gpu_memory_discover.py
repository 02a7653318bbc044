#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find Ollama and its backend on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_memory_discover
short_description: Find Ollama, its models and its backend on a host
version_added: "1.0.0"
description:
  - Finds the unit and address of Ollama, the models that it has, and backends, which are processes whose working
    directory holds a C(.env) with settings of Ollama.
  - Only the names of keys are read from env files, never a value.
options: {}
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
- name: Find Ollama and its backend
  selo.gpu_memory.gpu_memory_discover:
  become: true
  register: found
"""

RETURN = r"""
ollama:
  description: The server that runs as a unit, or null.
  returned: success
  type: dict
  sample: {unit: ollama.service, url: "http://127.0.0.1:11434"}
models:
  description: The models that it has.
  returned: success
  type: list
  elements: str
  sample: ["llama3.1:8b-instruct-q8_0"]
backends:
  description: What looks like a backend, with the names of the keys that its C(.env) holds.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: unit
      unit: selo-backend.service
      directory: /srv/backend
      env_files: [{path: .env}]
      keys_found: [CHAT_NUM_CTX]
notes:
  description: What needs a human.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import discovery
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    root.required(module)
    module.exit_json(changed=False, **discovery.discover())


if __name__ == "__main__":
    main()
