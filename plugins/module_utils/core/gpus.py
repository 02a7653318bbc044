# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of a host's GPUs count: those that its Ollama uses, or those that the operator named. Pure.

What Ollama says of the GPUs that it found at its start (`inference compute`) goes before its environment: an index in
CUDA_VISIBLE_DEVICES counts by CUDA's order, which is not NVML's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Gpu, GpuId, Nvml


AnyGpu = TypeVar("AnyGpu", bound="GpuId")

USED = "used"
_CUDAS_NUMBER = re.compile(r"CUDA(\d{1,3})$")
VISIBLE, ORDER, LIBRARY = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OLLAMA_LLM_LIBRARY"
CURE = (
    "see whether nvidia-smi works and /dev/nvidia-uvm is there (after a suspend or a driver upgrade: rmmod nvidia_uvm; "
    "modprobe nvidia_uvm), whether CUDA_VISIBLE_DEVICES names a GPU of this host, and in a container whether it was "
    "given the GPU; then restart Ollama"
)


def select(
    nvml: Nvml,
    wanted: Sequence[str],
    environment: Mapping[str, str],
    discovered: Sequence[Mapping[str, str]],
) -> Nvml:
    """What NVML showed, with its `gpus` parted: those that count stay, the others are `ignored`.

    `wanted`: indices or UUIDs, empty for the ones that Ollama uses. `environment`: the server's. `discovered`: the
    attributes of its lines `inference compute` since its start; empty where that is not known.
    Adds `order` (the UUIDs of the GPUs that Ollama found, as CUDA counts them; empty where that is not known), `lost`
    (the sentence that Ollama has no GPU, or None), `problems` and `notes`.
    """
    gpus = list(nvml.get("gpus") or [])
    seen = found_by_ollama(gpus, discovered)
    visible = visible_gpus(gpus, environment)
    lost = lost_text(gpus, visible, environment, discovered)
    problems: list[str] = []
    notes: list[str] = []
    if wanted:
        used, problems = named(gpus, wanted)
        extra = [gpu for gpu in seen if gpu not in used]
        notes += [f"Ollama uses {name_of(gpu)} as well, which gpu_memory_gpus does not name" for gpu in extra]
    else:
        used = seen or visible or gpus
        missed = [gpu for gpu in visible or [] if seen and gpu not in seen and not gpu.get("error")]
        notes += [
            f"Ollama did not find {name_of(gpu)} when it started, though its environment allows it; {CURE}"
            for gpu in missed
        ]
        notes += [
            f"Ollama may also use a GPU that NVML does not show (its log says library={one.get('library')}), and then "
            f"nothing here shows what it holds there; {LIBRARY}=cuda_v13, or cuda_v12, keeps it to NVIDIA's"
            for one in discovered
            if seen and _is_elsewhere(one) and not found_by_ollama(gpus, [one])
        ]
    ignored = [gpu for gpu in gpus if gpu not in used]
    order = in_cudas_order(gpus, discovered)
    why = "gpu_memory_gpus does not name it" if wanted else "this Ollama does not use it"
    for gpu in ignored:
        ill = f" ({gpu['error']})" if gpu.get("error") else ""
        notes.append(f"{name_of(gpu)} is ignored, since {why}: it decides nothing{ill}")
    notes += [
        f"{name_of(gpu)} is in an exclusive compute mode, so that only one process can use it at a time, and neither a "
        f"second model nor a backend's own; nvidia-smi -i {gpu['index']} -c DEFAULT"
        for gpu in used
        if str(gpu.get("compute_mode")).startswith("exclusive")
    ]
    return {
        **nvml,
        "gpus": used,
        "ignored": ignored,
        "order": order,
        "lost": lost,
        "problems": problems,
        "notes": notes,
    }


def name_of(gpu: Gpu) -> str:
    return f"GPU {gpu['index']} ({gpu.get('name') or gpu.get('uuid') or 'unreadable'})"


def named(gpus: Sequence[Gpu], wanted: Sequence[str]) -> tuple[list[Gpu], list[str]]:
    """The GPUs that an operator named by index or UUID, each once, and what is wrong with the names."""
    used: list[Gpu] = []
    problems = []
    for word in wanted:
        gpu = next((gpu for gpu in gpus if word in (str(gpu["index"]), gpu.get("uuid"))), None)
        if gpu is None:
            known = ", ".join(f"{gpu['index']} = {gpu.get('uuid') or 'unreadable'}" for gpu in gpus) or "none"
            problems.append(f"gpu_memory_gpus: there is no GPU {word} on this host; it has: {known}")
        elif gpu in used:
            problems.append(f"gpu_memory_gpus names {name_of(gpu)} twice; take one of the two away")
        else:
            used.append(gpu)
    return sorted(used, key=lambda gpu: int(gpu["index"])), problems


def found_by_ollama(gpus: Sequence[AnyGpu], discovered: Sequence[Mapping[str, str]]) -> list[AnyGpu]:
    """The GPUs that Ollama's own lines name, by UUID or PCI address."""
    ids = {one.get("id") for one in discovered}
    addresses = {_address(one["pci_id"]) for one in discovered if one.get("pci_id")}
    return [
        gpu
        for gpu in gpus
        if (gpu.get("uuid") and gpu["uuid"] in ids)
        or (gpu.get("pci_bus_id") and _address(str(gpu["pci_bus_id"])) in addresses)
    ]


def in_cudas_order(gpus: Sequence[AnyGpu], discovered: Sequence[Mapping[str, str]]) -> list[str]:
    """The UUIDs of the GPUs that Ollama's own lines name, by the number that CUDA has for each; or none."""
    numbered = {
        int(match[1]): str(gpu["uuid"])
        for one in discovered
        for gpu in found_by_ollama(gpus, [one])
        if (match := _CUDAS_NUMBER.match(one.get("name", ""))) and gpu.get("uuid")
    }
    found = [numbered[number] for number in sorted(numbered)]
    return found if len(found) == len(found_by_ollama(gpus, discovered)) else []


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu] | None:
    """What CUDA_VISIBLE_DEVICES leaves of them; None where that cannot be known.

    CUDA reads up to the first word that names no GPU, and takes the beginning of a UUID. An index counts by PCI
    address only where CUDA_DEVICE_ORDER says so; by default the fastest GPU comes first, and of equal ones the first.
    """
    value = environment.get(VISIBLE)
    if value is None:
        return list(gpus)
    ordered = sorted(gpus, key=lambda gpu: _address(str(gpu.get("pci_bus_id") or "")))
    by_address = environment.get(ORDER) == "PCI_BUS_ID" or len({gpu.get("name") for gpu in gpus}) == 1
    visible: list[Gpu] = []
    for word in (word.strip() for word in value.split(",")):
        if word.isascii() and word.isdigit():
            if int(word) >= len(gpus):
                break
            if not by_address:
                return None
            visible.append(ordered[int(word)])
            continue
        if word.startswith("MIG-"):
            return None  # a part of a GPU: which one that is, NVML's UUIDs do not say
        matching = [gpu for gpu in gpus if word.startswith("GPU-") and str(gpu.get("uuid")).startswith(word)]
        if len(matching) != 1:
            break
        visible += matching
    return [gpu for gpu in gpus if gpu in visible]


def lost_text(
    gpus: Sequence[Gpu],
    visible: Sequence[Gpu] | None,
    environment: Mapping[str, str],
    discovered: Sequence[Mapping[str, str]],
) -> str | None:
    """That Ollama has no NVIDIA GPU, with the cause as far as it is known, and the cure; None where it has one."""
    others = [one for one in discovered if _is_elsewhere(one)]
    if not gpus or found_by_ollama(gpus, discovered) or len(others) < len(discovered):
        return None
    if visible == []:
        return (
            f"{VISIBLE}={environment[VISIBLE]} hides every GPU of this host from Ollama; take it out of its unit, or "
            f"name one of: {', '.join(str(gpu.get('uuid')) for gpu in gpus)}; then restart Ollama"
        )
    if not discovered:
        return None
    found = ", ".join(dict.fromkeys(f"library={one.get('library')}" for one in others))
    told = f"Ollama found no NVIDIA GPU when it started (its log says {found}), though the driver shows one"
    if environment.get(LIBRARY):
        return f"{told}: {LIBRARY}={environment[LIBRARY]} leaves it no other library; take it out, and restart Ollama"
    return f"{told}; {CURE}"


def _is_elsewhere(found: Mapping[str, str]) -> bool:
    """Whether a line of Ollama's that no NVIDIA GPU fits is of the CPU, or of a card of another make on the bus."""
    library = found.get("library", "").lower()
    return library in ("cpu", "rocm") or library != "cuda" and bool(found.get("pci_id"))


def _address(pci: str) -> str:
    """A PCI address in one spelling: NVML writes 00000000:01:00.0, Ollama 0000:01:00.0."""
    domain, colon, rest = pci.lower().partition(":")
    return f"{domain.lstrip('0') or '0'}{colon}{rest}"
