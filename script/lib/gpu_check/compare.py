"""The simulated NVML held against the record of a real run. Pure: two records in, what differs out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]


def differences(simulated: Record, real: Record) -> list[str]:
    """A sentence for each thing that the real driver does and the simulated one does not; none is good.

    What one GPU has and another has not (accounting, MIG) is no difference where the real one lacks it.
    """
    if simulated["schema"] != real["schema"]:
        return [f"the records are of schema {simulated['schema']} and {real['schema']}; make both with one release"]
    if "calls" not in real:
        return [f"the real run broke off: {real['checks'][0]['why']}"]
    return [*_facts(simulated, real), *_calls(simulated, real), *_checks(simulated, real)]


def _facts(simulated: Record, real: Record) -> list[str]:
    told = [name for name, value in real["gpu"].items() if value is not None and simulated["gpu"].get(name) is None]
    found = [f"the real driver tells a GPU's {name}, the simulated one does not" for name in told]
    if simulated["gpu"]["memory_api"] != real["gpu"]["memory_api"]:
        found.append(f"memory is read by {real['gpu']['memory_api']}, simulated by {simulated['gpu']['memory_api']}")
    if bool(simulated["gpu"]["reserved_mib"]) != bool(real["gpu"]["reserved_mib"]):
        found.append(f"reserved: {real['gpu']['reserved_mib']} MiB, simulated {simulated['gpu']['reserved_mib']} MiB")
    return found


def _calls(simulated: Record, real: Record) -> list[str]:
    """Calls that answer with the real driver and end with an error on the simulated one."""
    missing = {"error": "no such call in the record"}
    failing = {name: simulated["calls"].get(name, missing)["error"] for name in real["calls"]}
    return [
        f"{name} answers with the real driver, simulated it is {failing[name]}"
        for name, cost in real["calls"].items()
        if not cost["error"] and failing[name]
    ]


def _checks(simulated: Record, real: Record) -> list[str]:
    own = {check["name"]: check for check in simulated["checks"]}
    found = []
    for check in real["checks"]:
        mine = own.get(check["name"], {"ok": None, "why": "it was not made"})
        if check["ok"] and not mine["ok"]:
            found.append(
                f"{check['name']} holds with the real driver, simulated not: {mine['why'] or mine['measured']}"
            )
        elif check["ok"] is False and mine["ok"]:
            found.append(
                f"{check['name']} holds simulated, not with the real driver, which has {check['measured']} "
                f"{check['why']}: the expectation ({check['expected']}) is wrong, or the simulation too kind"
            )
    return found
