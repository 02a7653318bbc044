# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A GPU's memory as parts that add up to its total: who holds how much, and what is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import other_servers
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuMemory, Holder
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import PeakProcess
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Part

MIB = 1024 * 1024
OLLAMA, BACKEND, OTHERS, RESERVED, UNKNOWN, FREE = KINDS = (
    "ollama", "backend", "others", "reserved", "not attributed", "free",
)  # fmt: skip
NAMES = {OLLAMA: "Ollama", BACKEND: "backend", RESERVED: "reserved by the driver", FREE: "free"}
COMM = 15  # the kernel keeps so much of a name
OLLAMA_NAMES = {name[:COMM] for name in (servers.OLLAMA, *servers.RUNNERS)}
NAMED = 8  # of others; the rest are one part


class Known(NamedTuple):
    """The processes whose owner is known: pids of this Ollama and of the backend, and other Ollamas' by pid."""

    ollama: frozenset[int]
    backend: frozenset[int]
    strangers: Mapping[int, str]


def known(reads: Iterable[HostFacts | None], processes: Iterable[PeakProcess] = ()) -> Known:
    """From reads of the host (gpu_memory_info, whatever failed is passed by) and the `processes` of a load."""
    read = [one for one in reads if one and "ollama" in one]
    strangers = {
        other["pid"]: other_servers.short(other) for one in read for other in one["ollama"].get("others") or []
    }
    ollama = {runner["pid"] for one in read for runner in one["ollama"]["runners"]}
    ollama |= {unit["main_pid"] for unit in (one["ollama"]["unit"] for one in read) if "main_pid" in unit}
    ollama |= {process["pid"] for process in processes if process.get("command")}  # only runners show theirs
    backend = {pid for one in read for pid in one["backend"]["pids"]}
    return Known(frozenset(ollama - strangers.keys()), frozenset(backend), strangers)


def kind_of(process: Holder | PeakProcess, owners: Known) -> str:
    """Whose a process with GPU memory is: `OLLAMA`, `BACKEND` or `OTHERS`."""
    pid = process["pid"]
    if pid in owners.strangers:
        return OTHERS
    if pid in owners.backend:
        return BACKEND
    return OLLAMA if pid in owners.ollama or process["name"] in OLLAMA_NAMES else OTHERS


def name_of(process: Holder | PeakProcess, owners: Known) -> str:
    """What a process is called in a list of holders."""
    kind = kind_of(process, owners)
    if kind != OTHERS:
        return NAMES[kind]
    return owners.strangers.get(process["pid"]) or process["name"] or f"process {process['pid']}"


def split(memory: GpuMemory, processes: Sequence[Holder], owners: Known) -> list[Part]:
    """The parts, each {what (one of `KINDS`), name, mib}. Together they are the total in whole MiB, exactly.

    `memory`: one read of NVML in bytes (total, used, free, reserved; reserved is None where NVML counts it as used).
    `processes`: the listing beside it, each {pid, name, used_bytes}.

    Not attributed is what is used beyond the listed figures: contexts, processes that are in no list, those that the
    driver gives no figure of (WSL 2), and those that this host does not see (of another pid namespace). Where the
    listing has more than is used, it is of another moment: then nothing of it counts, so that no part is negative or
    was not measured.
    """
    total, used = memory["total"], min(memory["used"], memory["total"])
    free = min(memory["free"], total - used)
    held: dict[tuple[str, str], int] = {}
    doubts = ["with what the driver reserves"] if memory["reserved"] is None and used else []
    silent, unseen = [], []
    for process in processes:
        if process["used_bytes"] is None:
            silent.append(name_of(process, owners))
        elif process["name"] is None:
            unseen.append(str(process["pid"]))
        elif process["used_bytes"]:
            key = (kind_of(process, owners), name_of(process, owners))
            held[key] = held.get(key, 0) + process["used_bytes"]
    if sum(held.values()) > used:
        held = {}
        doubts.append("the processes were listed at another moment")
    if silent:
        doubts.append(f"the driver has no figure of {_few(silent)}")
    if unseen:
        doubts.append(f"this host does not see process {_few(unseen)}")
    unknown = "; ".join(doubts)
    sizes = [
        *_fewer(sorted(held.items(), key=lambda item: (KINDS.index(item[0][0]), -item[1]))),
        ((RESERVED, NAMES[RESERVED]), total - used - free),
        ((UNKNOWN, f"{UNKNOWN} ({unknown})" if unknown else UNKNOWN), used - sum(held.values())),
        ((FREE, NAMES[FREE]), free),
    ]
    parts: list[Part] = []
    before = 0
    for (what, name), size in sizes:
        # Rounded where one part ends and the next begins, so that no rounding is left over.
        mib = (before + size) // MIB - before // MIB
        before += size
        if mib or what == FREE:
            parts.append({"what": what, "name": name, "mib": mib})
    return parts


def text(total_mib: int, parts: Sequence[Part]) -> str:
    """`16380 MiB = Ollama 9054 + Xorg 800 + free 6526`."""
    return f"{total_mib} MiB = " + " + ".join(f"{part['name']} {part['mib']}" for part in parts)


def _few(names: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:3]) + (f" and {len(distinct) - 3} more" if len(distinct) > 3 else "")


def _fewer(held: Sequence[tuple[tuple[str, str], int]]) -> list[tuple[tuple[str, str], int]]:
    """The smallest of too many others as one."""
    ours = [one for one in held if one[0][0] != OTHERS]
    others = held[len(ours) :]
    if len(others) <= NAMED:
        return list(held)
    rest = others[NAMED - 1 :]
    return [*ours, *others[: NAMED - 1], ((OTHERS, f"{len(rest)} others"), sum(size for _unused, size in rest))]
