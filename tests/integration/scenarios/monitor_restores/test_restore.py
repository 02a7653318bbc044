"""The action `restore`: the last proven settings come back by a unit that the monitor can only ask."""

from __future__ import annotations

from typing import Any

from tests.integration.scenarios import lab_host
from tests.integration.scenarios import monitored_host as monitor


def test_a_breach_brings_the_proven_settings_back_once(host: Any) -> None:
    proven = host.file(lab_host.DROP_IN).content_string
    host.check_output(f"{monitor.DROP_IN_OF_ANOTHER} && systemctl daemon-reload && systemctl restart ollama")
    assert host.file(lab_host.DROP_IN).content_string != proven
    monitor.periods_until(host, "actions_total", 1, f"{monitor.STRANGER} 13000")
    monitor.eventually(lambda: host.file(lab_host.DROP_IN).content_string == proven)
    monitor.periods_until(host, "drift", "=0")
    assert monitor.value(host, "over_threshold") == 1, "the stranger is still there"
    said = "journalctl --unit gpu-memory-monitor-restore --output cat --no-pager"
    # It waits for Ollama and the backend.
    monitor.eventually(lambda: "is back (the monitor saw a breach)" in host.check_output(said))

    host.check_output(monitor.DROP_IN_OF_ANOTHER)
    looked = monitor.value(host, "samples_total")
    monitor.periods_until(host, "samples_total", looked + 20)  # four periods
    assert host.file(lab_host.DROP_IN).content_string != proven
    assert monitor.value(host, "actions_total") == 1


def test_the_monitor_still_has_no_network(host: Any) -> None:
    assert host.check_output(f"systemctl show {monitor.UNIT} -p PrivateNetwork --value") == "yes"
