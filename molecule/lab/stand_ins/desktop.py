"""A desktop's share of the simulated GPU: a process named Xorg that holds 800 MiB and does nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "simulated_gpu"))
import simulated_gpu

Path("/proc/self/comm").write_text("Xorg")
simulated_gpu.reserve(800, kind="graphics")
signal.pause()
