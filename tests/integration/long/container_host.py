# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab host whose Ollama is in a container: playbooks on it, and what its server was started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.integration import records
from tests.integration.faults.fault_lab import Host, playbook

OLLAMA_ANSWERS = "until curl -fsm 1 http://127.0.0.1:11434/api/version >/dev/null; do sleep 0.2; done"


def run(
    host: Host, directory: Path, name: str, *arguments: str, status: int = 0, timeout_s: float, **variables: Any
) -> str:
    started = playbook(host, directory, name, *arguments, **variables)
    output, _ = started.communicate(timeout=timeout_s)
    assert started.returncode == status, output
    return " ".join(output.split())  # folded


def record(directory: Path) -> dict[str, Any]:
    return records.read(directory / "gpu01.json")


def server(host: Host, engine: str) -> tuple[str, dict[str, str]]:
    """The process of the container `ollama`, and what it was started with; `engine`: podman or docker."""
    pid = host.read(f"{engine} inspect ollama --format '{{{{.State.Pid}}}}' 2>/dev/null").strip()
    items = host.read(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    return pid, dict(item.partition("=")[::2] for item in items)
