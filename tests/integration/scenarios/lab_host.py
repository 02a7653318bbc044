"""A lab host as the scenarios' tests see it: read with plain commands, sharing no code with the collection."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.integration import records

BACKEND = "/mnt/local/Projects/SELODSP/selo-ai/backend"
DROP_IN = "/etc/systemd/system/ollama.service.d/zz-gpu-memory.conf"
LAB = Path(__file__).resolve().parents[3] / "molecule" / "lab"
SIMULATED_GPU = "/opt/gpu-memory-lab/simulated_gpu/simulated_gpu.py"

# Whatever a run may write; what a running host writes by itself (logs, /run, /proc) is elsewhere.
WATCHED = f"/etc /usr/local /var/lib/gpu-memory /var/spool {BACKEND}"


def picture(host: Any) -> dict[str, Any]:
    """All watched files with content hash, mode, owner and time of change, and both services' processes."""
    existing = host.check_output(f"ls -d {WATCHED} 2>/dev/null || true").split()
    found = host.check_output(f"find {' '.join(existing)} -xdev -type f -printf '%p\t%m %u:%g %T@\n'")
    hashes = host.check_output(f"find {' '.join(existing)} -xdev -type f -exec sha256sum {{}} +")
    files = dict(line.split("\t") for line in found.splitlines())
    for line in hashes.splitlines():
        digest, path = line.split(maxsplit=1)
        files[path] += f" {digest}"
    return {"files": files, "services": {name: service(host, name) for name in ("ollama", "selo-backend")}}


def is_edited(host: Any) -> bool:
    """Whether the host's owner has run `systemctl edit ollama`: LAB_EDITED of the scenario."""
    return "LAB_EDITED=1" in host.file("/etc/lab/options").content_string.splitlines()


def service(host: Any, name: str) -> dict[str, str]:
    """What systemd says of the service: which process, started when."""
    shown = host.check_output(f"systemctl show {name} -p ActiveState -p MainPID -p ActiveEnterTimestamp")
    return dict(line.split("=", 1) for line in shown.splitlines())


def scenario_directory() -> Path:
    return Path(os.environ["SCENARIO_DIRECTORY"])


def remembered_picture() -> Path:
    return scenario_directory() / "pictures" / "gpu01.json"


def report() -> dict[str, Any]:
    return records.read(scenario_directory() / "report" / "gpu01.json")


def runs() -> list[dict[str, Any]]:
    """What each run of a playbook changed, in the order of the runs."""
    return [json.loads(path.read_text()) for path in sorted((scenario_directory() / "runs").iterdir())]


def environment(lines: str) -> dict[str, str]:
    """`KEY=value` a line, as /proc/PID/environ has it after its zero bytes became line ends."""
    return dict(line.split("=", 1) for line in lines.splitlines() if "=" in line)
