"""The table of faults as docs/rollback.md has it: python -m tests.integration.faults.as_text"""

from __future__ import annotations

from tests.integration.faults.table import FAULTS, NEW, OPEN, SAME, Fault

HEADER = "| fault | strikes | verdict | the host then | the reason names |\n| --- | --- | --- | --- | --- |\n"
ENDS = {SAME: "as it was", NEW: "proven on the new settings", OPEN: "on the new settings, unproven"}
MOMENTS = {
    "before": "before the run",
    "kept": "once the old state is kept",
    "written": "once the drop-in is written",
    "restarting": "in the restart",
    "restarted": "after the restart",
    "loading": "under load",
    "loaded": "after the load",
}


def table() -> str:
    return HEADER + "".join(row(fault) for fault in FAULTS)


def row(fault: Fault) -> str:
    name = fault.name.replace("_", " ").replace("nvml", "NVML").replace("gpu", "GPU").replace("ollama", "Ollama")
    verdict = " or ".join(f"`{verdict}`" for verdict in fault.verdict.split("|"))
    then = ENDS[fault.ends]
    strikes = "between two runs" if fault.is_second else MOMENTS[fault.moment]
    if not fault.settles and fault.ends == SAME:
        then += ", held until somebody mends it"
    elif not fault.settles:
        then = "on the new settings, unproven, until somebody mends it"
    elif not fault.runs:
        then += ", a service still missing or stopped"
    says = ", ".join(f"`{words}`" for words in fault.says) or "-"
    return f"| {name}{' (short)' if fault.short else ''} | {strikes} | {verdict} | {then} | {says} |\n"


if __name__ == "__main__":
    print(table(), end="")
