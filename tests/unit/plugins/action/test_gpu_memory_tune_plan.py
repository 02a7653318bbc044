"""What a tuning run is to do on a host, and which host of a kind is tuned for the others."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_tune_declare import GIVEN


def test_of_a_host_the_run_or_every_reason_against_it(act: Act) -> None:
    given = {"at": "host", "declared": builders.declared(models=[builders.MODEL]), "read": builders.read()}
    result = act("gpu_memory_tune_plan", tune=GIVEN, **given)
    assert (result["problems"], result["changed"]) == ([], False)
    assert (result["run"]["model"], result["run"]["max_used_mib"]) == (builders.MODEL, 12288)
    wrong = act("gpu_memory_tune_plan", tune={**GIVEN, "mode": "guess", "max_probes": 0}, **given)
    assert len(wrong["problems"]) == 2 and "guess" in wrong["problems"][1]


def test_the_first_of_a_kind_is_tuned_for_all_of_it(act: Act) -> None:
    keys = {"gpu01": "16 GB", "gpu02": "24 GB", "gpu03": "16 GB", "gpu04": None}
    play = {
        "ansible_play_hosts_all": list(keys),
        "hostvars": {host: {"__gpu_memory_tune": {"key": key}} if key else {} for host, key in keys.items()},
    }
    found = {host: act("gpu_memory_tune_plan", {**play, "inventory_hostname": host}, at="group") for host in keys}
    assert {host: one["tunes"] for host, one in found.items() if keys[host]} == {
        "gpu01": True, "gpu02": True, "gpu03": False,
    }  # fmt: skip
    assert found["gpu03"]["hosts"] == found["gpu01"]["hosts"] == ["gpu01", "gpu03"]
