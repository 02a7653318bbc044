# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is read from a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
    BackendFacts,
    HostSystem,
    Nvml,
    OllamaFacts,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import State

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class OllamaRead(TypedDict):
    """What a read says of Ollama."""

    ollama: OllamaFacts


class HostFacts(OllamaRead):
    """The result of gpu_memory_info; one that failed has only `msg`."""

    host: HostSystem
    nvml: Nvml
    backend: BackendFacts
    state: State
    # A digest for each file and each unit in systemd's memory that the services would start with.
    starts: NotRequired[dict[str, str]]
    failed: NotRequired[bool]
    msg: NotRequired[str]
