#!/usr/bin/python
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find Ollama and its backend on a host."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import discovery
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    root.required(module)
    module.exit_json(changed=False, **discovery.discover())


if __name__ == "__main__":
    main()
