# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host to keep generations of: real files below a temporary directory, a fake systemd and a fake clock."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generations import Generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import (
    HEALTH_URL,
    OLLAMA_URL,
    FakeHost,
)

OLD_ENV = b"OLLAMA_GPU_LAYERS=999\nSECRET=hunter2\n"
NEW_ENV = b"OLLAMA_GPU_LAYERS=40\nSECRET=hunter2\n"
SERVICE, TIMER, WANTS = "gpu-memory-restore.service", "gpu-memory-restore.timer", "timers.target.wants"
UNMASK = "gpu-memory-restore-unmask.service"
SERVICES = {
    "ollama": {"unit": "ollama.service", "url": OLLAMA_URL, "timeout_s": 60},
    "backend": {"kind": "unit", "unit": "backend.service", "health": {"url": HEALTH_URL}, "timeout_s": 180},
    "restart": ["ollama", "backend"],
}
RESTARTS = ["stop backend.service", "restart ollama.service", "start backend.service"]


class Managed:
    """A host with an `.env` that is there and a drop-in that is not, and what a run does to it."""

    def __init__(self, root: Path) -> None:
        self.host = FakeHost()
        self.paths = Paths(
            *(str(root / name) for name in ("state", "units", "sbin-gpu-memory", "run", "second", "jobs"))
        )
        for name in ("units", "run"):
            (root / name).mkdir()
        self.env = root / ".env"
        self.env.write_bytes(OLD_ENV)
        self.env.chmod(0o640)
        self.drop_in = root / "ollama.service.d" / "zz-gpu-memory.conf"
        self.store = Generations(self.paths, self.host, wait_s=0)

    def files(self) -> list[dict[str, Any]]:
        return [
            {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None}
            for path in (self.drop_in, self.env)
        ]

    def keep(self, run_id: str = "run1", **changed: Any) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "run_id": run_id,
            "holder": "alice applies stable",
            "files": self.files(),
            "services": SERVICES,
            "restore_after_s": 240,
            "tool": b"tool",
        }
        return self.store.keep(**{**wanted, **changed})

    def write(self, content: bytes = NEW_ENV) -> None:
        self.env.write_bytes(content)
        self.drop_in.parent.mkdir(exist_ok=True)
        self.drop_in.write_text(unit_text.render_dropin({}))

    def is_old(self) -> bool:
        return (
            self.env.read_bytes() == OLD_ENV
            and self.env.stat().st_mode & 0o777 == 0o640
            and not self.drop_in.parent.exists()
        )

    def armed(self) -> bool:
        units = os.listdir(self.paths.units)
        # The directory that says what timers.target pulls in is not ours.
        assert sorted(units) in ([], [WANTS], [UNMASK, SERVICE, TIMER, WANTS])
        pulled_in = os.listdir(os.path.join(self.paths.units, WANTS)) if WANTS in units else []
        assert pulled_in == ([TIMER] if len(units) > 1 else [])
        assert os.path.lexists(os.path.join(self.paths.run, "systemd", "system.control")) == bool(pulled_in)
        return bool(pulled_in) and TIMER in self.host.active

    def restarts(self) -> list[str]:
        return [line for line in self.host.log if line in RESTARTS]
