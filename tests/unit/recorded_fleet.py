"""A fleet of any size from three real records of a lab run, the same each time.

`pass.json`, `fail.json` and `rolled_back.json` are what three runs on a lab host wrote; the hosts here are copies of
them with other names, and figures moved by a little. Verdicts that no measurement belongs to have none.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).resolve().parents[1] / "data" / "report"
AT = 1_795_694_400.0
MEASURED = (
    "peak_used_mib", "evidence", "predicted", "load", "sampling", "speed", "memory", "journal", "restarts",
    "generation",
)  # fmt: skip
WITHOUT_A_LOAD = {
    "refused": "NVML: driver 470.256 is too old: install 510 or newer",
    "untouched": "wave 2 closed the gate: gpu001 fail, gpu005 rolled_back",
    "inconclusive": "no result: the host was lost during the run; if anything was written, it puts it back by itself",
}


def recorded(verdict: str) -> dict[str, Any]:
    return json.loads((RECORDED / f"{verdict}.json").read_text(encoding="utf-8"))


def records(count: int) -> list[dict[str, Any]]:
    sources = {verdict: recorded(verdict) for verdict in ("pass", "fail", "rolled_back")}
    return [_record(number, sources) for number in range(1, count + 1)]


def _record(number: int, sources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    verdict = _verdict(number)
    record = copy.deepcopy(sources.get(verdict, sources["pass"]))
    record |= {"host": f"gpu{number:03d}", "at": AT - number, "wave": 1 + min(2, number // 10), "verdict": verdict}
    if verdict in WITHOUT_A_LOAD:
        record |= dict.fromkeys(MEASURED) | {"gpus": [], "settings": [], "notes": [], "acted": False}
        record |= {"reason": WITHOUT_A_LOAD[verdict], "reasons": [WITHOUT_A_LOAD[verdict]]}
        return record
    more = 17 * number % 400 - 200
    record["peak_used_mib"] += more
    for gpu in record["gpus"]:
        gpu["uuid"] = f"GPU-{number:08d}"
        gpu["peak_used_mib"] += more
        gpu["timeline"] = [[at, used + more] for at, used in gpu["timeline"]]
    if record["speed"]:
        record["speed"] = round(record["speed"] + number % 7 / 10, 1)
    if number % 9 == 0:
        record["previous"] = {"at": AT - 86_400}
        record["changes"] = [{"what": "peak (MiB)", "before": "11012", "now": str(record["peak_used_mib"])}]
    return record


def _verdict(number: int) -> str:
    for every, verdict in ((67, "refused"), (41, "fail"), (29, "rolled_back"), (23, "inconclusive"), (19, "untouched")):
        if number % every == 0:
            return verdict
    return "pass"
