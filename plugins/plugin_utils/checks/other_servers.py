# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of a unit that listens elsewhere, and of what other Ollamas of a host hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        OtherOllama,
    )


def elsewhere(unit: str, url: str, addresses: list[str], apart: bool) -> str | None:
    """The cure where `unit` runs but does not answer at `url`: the addresses where it listens.

    `apart`: in a network namespace of its own. None where it listens at `url` itself, and is only silent.
    """
    if not addresses or not apart and _is_among(url, addresses):
        return None
    if apart:
        return (
            f"{unit} listens at {', '.join(addresses)} in a network namespace of its own (PrivateNetwork=, "
            f"NetworkNamespacePath= or JoinsNamespaceOf=), which does not answer at {url}: set gpu_memory_ollama.url "
            "to an address of that namespace, or to the socket that passes requests on to it"
        )
    return f"{unit} listens at {', '.join(addresses)} and not at {url}: set gpu_memory_ollama.url={addresses[0]}"


def _is_among(url: str, addresses: Sequence[str]) -> bool:
    host, port = servers.place_of(url) or ("", 0)
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    return any(servers.place_of(address) in [(one, port) for one in hosts] for address in addresses)


def short(other: OtherOllama) -> str:
    """An Ollama's process that is not of the server declared, as a name in a list."""
    if other["alone"]:
        return f"{other['command']} {other['pid']}, whose server is gone"
    return f"{other['command']} {other['pid']} of {other['name'] or 'no unit'}"


def other_note(other: OtherOllama, used_mib: int) -> str:
    """What another Ollama's process holds, and how to have it back."""
    if other["alone"]:
        cure = f"its server is gone and nobody will end it; run: kill {other['pid']}"
    else:
        cure = "it counts as memory of others; stop it if it is not needed"
    return f"{short(other)} ({servers.told(other)}) holds {used_mib} MiB of GPU memory: {cure}"
