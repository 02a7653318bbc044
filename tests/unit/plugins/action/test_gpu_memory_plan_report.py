"""The plans of all hosts, shown once, with a word on each host that was lost."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_side_by_side import plan


def test_each_host_is_shown_and_what_is_wrong_is_red(act: Act) -> None:
    hostvars = {"gpu01": {"gpu_memory_planned": plan()}, "gpu02": {}}
    result = act("gpu_memory_plan_report", {"ansible_play_hosts_all": ["gpu01", "gpu02"], "hostvars": hostvars})
    assert result == {"changed": False, "shown": 2}
    (first, first_colour), (second, second_colour), *_more = act.shown
    assert "gpu01" in first and "stable" in first and first_colour is None
    assert "gpu02" in second and "no result: the host was lost during the run" in second and second_colour == "red"


def test_without_hosts_there_is_nothing_to_show(act: Act) -> None:
    assert act("gpu_memory_plan_report", {"ansible_play_hosts_all": [], "hostvars": {}})["shown"] == 0
    assert builders.MODEL not in act.text()


def test_a_host_that_when_leaves_out_is_not_shown(act: Act) -> None:
    hosts = ["gpu01", "gpu02"]
    hostvars = {"gpu01": {"gpu_memory_planned": plan()}, "gpu02": {}}
    variables = {"ansible_play_hosts_all": hosts, "ansible_play_hosts": hosts, "hostvars": hostvars}
    assert act("gpu_memory_plan_report", variables)["shown"] == 1 and "gpu02" not in act.text()
