"""Found hosts: GPUs, drivers and NVML."""

from __future__ import annotations

from tests.found.condition import Found

ROWS: list[Found] = []
