"""What the stand-ins know of the lab they run in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import simulated_gpu

Json = dict[str, Any]
MIB = 1024 * 1024
OPTIONS = Path("/etc/lab/options")
DATA = Path(__file__).resolve().parents[1] / "data"
ALL = "all"
PROHIBITED = 2  # a compute mode of NVML


def option(name: str, default: str) -> str:
    """An option of the lab (LAB_...): from the environment, else as script/lab gave it to the host."""
    if name in os.environ:
        return os.environ[name]
    lines = OPTIONS.read_text().splitlines() if OPTIONS.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line).get(name, default)


def cards() -> list[simulated_gpu.Gpu]:
    """The GPUs, in NVML's order."""
    return simulated_gpu._State.read().of(simulated_gpu.Gpu)


def card() -> simulated_gpu.Gpu:
    """The first GPU. Most hosts have one."""
    return cards()[0]


def visible_cards() -> list[int]:
    """NVML's numbers of the GPUs that CUDA lets this process have, in CUDA's order: the fastest first, or by address.

    The larger of two is the faster here. CUDA reads CUDA_VISIBLE_DEVICES up to the first word that is no device's.
    """
    try:
        found, fails = cards(), driver().cuda_fails
    except (OSError, ValueError):
        return []
    by_address = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    ordered = sorted(range(len(found)), key=lambda n: found[n].pci if by_address else -found[n].total)
    usable = [number for number in ordered if not fails and found[number].compute_mode != PROHIBITED]
    visible: list[int] = []
    for word in (word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", ALL).split(",")):
        if word == ALL:
            return usable
        named = [n for n in ordered if word.startswith("GPU-") and found[n].uuid.startswith(word)]
        if word.isdecimal() and int(word) < len(ordered):
            named = [ordered[int(word)]]
        if len(named) != 1:
            break
        visible += named
    return [number for number in visible if number in usable]


def driver() -> simulated_gpu.Driver:
    return simulated_gpu._State.read().of(simulated_gpu.Driver)[0]


def speedup() -> float:
    """What every simulated duration is divided by."""
    return float(option("LAB_SPEEDUP", "1"))
