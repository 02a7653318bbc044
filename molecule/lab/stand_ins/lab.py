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


def option(name: str, default: str) -> str:
    """An option of the lab (LAB_...): from the environment, else as script/lab gave it to the host."""
    if name in os.environ:
        return os.environ[name]
    lines = OPTIONS.read_text().splitlines() if OPTIONS.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line).get(name, default)


def card() -> simulated_gpu.Gpu:
    """The GPU. A host has one."""
    return simulated_gpu._State.read().card(0)


def driver() -> simulated_gpu.Driver:
    return simulated_gpu._State.read().of(simulated_gpu.Driver)[0]


def speedup() -> float:
    """What every simulated duration is divided by."""
    return float(option("LAB_SPEEDUP", "1"))
