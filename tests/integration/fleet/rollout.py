# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet of lab hosts, one run of a playbook over all of them, and what each host is like before and after."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration import records
from tests.integration.faults.fault_lab import KEPT, PICTURE, ROOT, Host, lab

LAB = os.environ.get("FLEET_LAB_NAME", "fleet-test")
HOSTS = int(os.environ.get("FLEET_HOSTS", "16"))
# A unit has another one after each start, whoever started it.
STARTS = "systemctl show ollama selo-backend --property InvocationID --value"
CHATS = "journalctl -u selo-backend -u ollama --no-pager --output cat | grep -c /api/chat || true"
PROOF = f"cat {KEPT}/pointers.json 2>/dev/null || true"
RECAP = re.compile(r"^(\S+)\s*: ok=\d+\s+changed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Look:
    """A host as it was at a moment: `picture` all files that a run may write, `starts` of its services, `chats`."""

    picture: str
    starts: str
    chats: str
    proof: str


@dataclass(frozen=True)
class Run:
    status: int
    output: str
    records: dict[str, dict[str, Any]]
    wall_s: float

    def verdicts(self) -> dict[str, str]:
        return {host: record["verdict"] for host, record in self.records.items()}

    def changed(self) -> dict[str, int]:
        return {host: int(count) for host, count in RECAP.findall(self.output)}


class Fleet:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts = [Host(f"gpu{number:02d}", LAB) for number in range(1, HOSTS + 1)]

    def host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def look(self) -> dict[str, Look]:
        def one(host: Host) -> Look:
            return Look(host.read(PICTURE), host.read(STARTS), host.read(CHATS), host.read(PROOF))

        with ThreadPoolExecutor(4) as pool:
            return dict(zip((host.name for host in self.hosts), pool.map(one, self.hosts)))

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        reports = self.directory / str(len(list(self.directory.iterdir())))
        reports.mkdir()
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = json.dumps({"gpu_memory_report_dir": str(reports), **variables})
        command = [program, "-i", str(ROOT / ".lab" / LAB / "inventory"), playbook, "-e", settings, *arguments]
        environment = {**os.environ, "NO_COLOR": "1"}
        began = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=3600
        )
        wall_s = time.monotonic() - began
        read = {file.stem: records.read(file) for file in sorted(reports.glob("gpu*.json"))}
        print(f"{playbook} {' '.join(arguments)}: exit {done.returncode}, {wall_s:.0f} s")
        print(done.stdout[-12000:], done.stderr[-3000:])
        return Run(done.returncode, done.stdout, read, wall_s)


def up() -> None:
    os.environ.setdefault("LAB_SPEEDUP", "10")
    lab("up", str(HOSTS), name=LAB)
    lab("reset", name=LAB)


def down() -> None:
    lab("down", name=LAB)
