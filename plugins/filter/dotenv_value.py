# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `dotenv_value`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv

DOCUMENTATION = r"""
name: dotenv_value
short_description: Write a value for a .env file so that each of its readers sees it exactly
version_added: "1.0.0"
description:
  - Gives the value as it is where all readers take it so, else in quotes that all of them understand. It is an error if
    there are none.
positional: readers
options:
  _input:
    description: The value, text or a number.
    type: raw
    required: true
  readers:
    description: The programs that read the file, as for M(selo.gpu_memory.dotenv). The default of that if empty.
    type: list
    elements: str
    choices:
      [python-dotenv, bash, systemd, docker, podman, compose, godotenv, node, npm-dotenv, ruby-dotenv, honcho,
       dynaconf, environs, pydantic-settings]
author: "selo.gpu_memory authors (@selo-ai)"
"""

EXAMPLES = r"""
# GREETING='hello, #1'
- name: Show a line of a .env file
  ansible.builtin.debug:
    msg: "GREETING={{ 'hello, #1' | selo.gpu_memory.dotenv_value(['python-dotenv', 'bash']) }}"
"""

RETURN = r"""
_value:
  description: What goes behind the equals sign.
  type: str
"""


def dotenv_value(value: Any, readers: Sequence[str] | None = None) -> str:
    try:
        return dotenv.encode(dotenv.canonical(value), list(readers or dotenv.DEFAULT_READERS))
    except ValueError as problem:
        raise AnsibleFilterError(f"dotenv_value: {problem}") from problem


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"dotenv_value": dotenv_value}
