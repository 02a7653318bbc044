"""A found host: prepared, tried, and looked at before and after."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration import records
from tests.integration.faults.fault_lab import LEFT_BEHIND, PICTURE, SETTLED, Host, playbook
from tests.integration.found.condition import Found

RUN_S = 600
# Which of the host's services run, and as which process.
SERVICES = "systemctl show 'ollama*.service' 'selo*.service' --property Id,ActiveState,MainPID | grep -v '^$' || true"
STARTS_AT_BOOT = "systemctl show ollama.service selo-backend.service selo-ai.service --property Id,UnitFileState"
# Those of the units in this host's own directory that run.
RUNNING = """
for unit in $(cd /etc/systemd/system && ls -- *.service); do
  if systemctl is-active --quiet "$unit"; then echo "$unit"; fi
done
"""


@dataclass(frozen=True)
class Outcome:
    record: dict[str, Any]
    output: str
    written: str  # the output, every file that the run wrote on the controller, and what the host says of it
    status: int
    before: str
    after: str
    enabled_before: str
    enabled_after: str
    running_before: str
    running_after: str
    settled: bool
    left_behind: str


def attempt(found: Found, host: Host, directory: Path) -> Outcome:
    host.read(found.prepare)
    before, enabled = host.read(PICTURE + SERVICES), host.read(STARTS_AT_BOOT)
    running = host.read(RUNNING)
    run = playbook(host, directory, found.playbook, *found.arguments, **found.variables)
    output, _ = run.communicate(timeout=RUN_S)
    with contextlib.suppress(AssertionError):  # a background job takes a moment to tidy up after itself
        host.wait_until(f'{SETTLED} && test -z "$({LEFT_BEHIND})"', 20)
    path = directory / f"{host.name}.json"
    told = host.run("gpu-memory status; gpu-memory list; cat /var/lib/gpu-memory/*.json 2>/dev/null").stdout
    files = [file.read_text(errors="replace") for file in sorted(directory.rglob("*")) if file.is_file()]
    return Outcome(
        record=records.read(path) if path.exists() else {},
        output=output,
        written="\n".join([output, told, *files]),
        status=run.returncode,
        before=before,
        after=host.read(PICTURE + SERVICES),
        enabled_before=enabled,
        enabled_after=host.read(STARTS_AT_BOOT),
        running_before=running,
        running_after=host.read(RUNNING),
        settled=host.holds(SETTLED),
        left_behind=host.read(LEFT_BEHIND),
    )
