"""Which hosts a play is for, before it starts."""

from __future__ import annotations

import pytest
from ansible import context
from ansible.parsing.dataloader import DataLoader
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import fleet_hosts

RTX = {"gpus": [{"name": "RTX", "total_mib": 16380}]}
VARIABLES = {"groups": {"all": ["a", "b", "c"], "ungrouped": [], "web": ["a"]}}


def matching(pattern, limit=None, variables=None):
    limited = {"ansible_limit": limit} if limit else {}
    return fleet_hosts.matching(pattern, {**(variables or VARIABLES), **limited}, DataLoader())


def test_the_hosts_of_a_pattern_within_the_limit_in_the_order_of_the_inventory():
    assert matching("all") == ["a", "b", "c"]
    assert matching("all", "c,b") == ["b", "c"]
    assert matching("all:!web", "all") == ["b", "c"]


def test_an_inventory_without_hosts_says_how_to_get_some():
    with pytest.raises(ValueError, match="the inventory has no hosts: start the lab with ./script/lab up"):
        matching("all", variables={"groups": {"all": []}})


def test_a_syntax_check_needs_no_inventory(monkeypatch):
    monkeypatch.setattr(context, "CLIARGS", {"syntax": True})
    assert matching("all", variables={"groups": {"all": []}}) == []


@pytest.mark.parametrize(
    "pattern, limit, said",
    [
        ("nosuch", None, "nosuch'?; it has all, ungrouped, web"),
        ("web", "b", "no host of the inventory matches 'web' within --limit b"),
        ("all:!all", None, "no host of the inventory matches"),
    ],
)
def test_no_match_is_an_error(pattern, limit, said):
    with pytest.raises(ValueError, match=said):
        matching(pattern, limit)


def test_the_kind_of_each_host_as_it_was_read():
    hostvars = {"a": {"gpu_memory_seen": {"nvml": RTX}}, "b": {"gpu_memory_seen": {"failed": True}}, "c": {}}
    assert fleet_hosts.kinds(["a", "b", "c"], {"hostvars": hostvars}) == {
        "a": "RTX with 16380 MiB",
        "b": None,
        "c": None,
    }
