"""Nothing of the monitor is left, and what an apply keeps is."""

from __future__ import annotations

from typing import Any

from tests.integration.scenarios import monitored_host as monitor


def test_nothing_is_left(host: Any) -> None:
    found = host.check_output("find / -xdev -name '*gpu-memory-monitor*' -o -xdev -name 'gpu_memory.prom*'")
    assert found == ""
    assert not host.file("/run/gpu-memory-monitor").exists
    assert host.run(f"systemctl cat {monitor.UNIT}").rc != 0
    assert "monitor" not in host.file("/var/lib/gpu-memory").listdir()


def test_the_generations_are_still_there(host: Any) -> None:
    assert "proven        generation" in host.check_output("gpu-memory status")
