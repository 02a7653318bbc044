"""The records and plans that runs have written, read back: none passes that does not add up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text())
    check(record)
    return record


def check(record: Mapping[str, Any]) -> None:
    """Of each GPU that could be read the parts are NVML's total, to 1 MiB."""
    gpus = [*record["gpus"], *(record.get("ignored") or [])] if "gpus" in record else filter(None, [record["gpu"]])
    for gpu in gpus:
        if gpu.get("total_mib") is None and gpu.get("error"):
            continue
        mib = [part["mib"] for part in gpu["parts"]]
        assert abs(sum(mib) - gpu["total_mib"]) <= 1, f"{record['host']}: {gpu['parts']} of {gpu['total_mib']} MiB"
        assert min(mib) >= 0, f"{record['host']}: {gpu['parts']}"
