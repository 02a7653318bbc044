"""The end of a tuning run: what was found on each host, and what became of it where it was adopted."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.tests.unit import recorded_fleet
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_tune_text import result


def test_each_host_is_shown_also_one_that_was_lost(act: Act) -> None:
    adopted = recorded_fleet.recorded("pass")
    hostvars = {"gpu01": {"gpu_memory_tuned": result(), "gpu_memory_result": adopted}, "gpu02": {}}
    answer = act("gpu_memory_tune_report", {"ansible_play_hosts_all": ["gpu01", "gpu02"], "hostvars": hostvars})
    assert answer == {"changed": False, "shown": 2}
    (tuned, colour), (applied, _unused), (lost, lost_colour) = act.shown
    assert tuned.startswith("gpu01  llama3.1:8b") and "num_gpu 29" in tuned and colour is None
    assert adopted["host"] in applied and "PASS" in applied
    assert "the host was lost during the run" in lost and lost_colour == "red"


def test_a_host_that_when_leaves_out_is_not_shown(act: Act) -> None:
    hosts = ["gpu01", "gpu09"]
    hostvars = {"gpu01": {"gpu_memory_tuned": result()}, "gpu09": {}}
    variables = {"ansible_play_hosts_all": hosts, "ansible_play_hosts": hosts, "hostvars": hostvars}
    assert act("gpu_memory_tune_report", variables)["shown"] == 1 and "gpu09" not in act.text()
