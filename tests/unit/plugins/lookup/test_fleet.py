"""Both lookups that a play's header asks: for which hosts, in which order, in which waves."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible_collections.selo.gpu_memory.plugins.lookup import fleet, waves

SMALL = {"gpu_memory_seen": {"nvml": {"gpus": [{"name": "RTX", "total_mib": 16380}]}}}
LARGE = {"gpu_memory_seen": {"nvml": {"gpus": [{"name": "L4", "total_mib": 23034}]}}}
VARIABLES = {
    "groups": {"all": ["a", "b", "c", "d"], "web": ["c", "d"]},
    "hostvars": {"a": SMALL, "b": SMALL, "c": LARGE, "d": {}},
}


def look(lookup: ModuleType, pattern: str, variables: Any = None, **options: Any) -> Any:
    """As Ansible asks, but that it has read the options from the documentation."""
    plugin = lookup.LookupModule(loader=DataLoader())
    plugin.set_options = lambda **_unused: None
    plugin.get_option = {"canary": "first", **options}.get
    return plugin.run([pattern], variables or VARIABLES)


def test_in_the_order_of_the_inventory_the_pattern_itself_will_do() -> None:
    assert look(fleet, "all") == ["all"]
    assert look(waves, "all", batches=[1, "25%", "100%"]) == [1, "25%", "100%"]


def test_with_a_canary_of_each_kind_these_come_first_and_fill_the_first_wave() -> None:
    assert look(fleet, "all", canary="per_hardware") == ["a", "c", "b", "d"]
    assert look(waves, "all", canary="per_hardware", batches=[1, "100%"]) == [2, "100%"]
    assert look(fleet, "web", canary="per_hardware") == ["c", "d"]


@pytest.mark.parametrize(
    ("lookup", "pattern", "options", "words"),
    [
        (fleet, "nosuch", {}, "nosuch"),
        (fleet, "all", {"canary": "all"}, "gpu_memory_canary = 'all' is not allowed; allowed: first, per_hardware"),
        (waves, "nosuch", {"batches": [1]}, "nosuch"),
        (waves, "all", {"batches": []}, r"gpu_memory_batches = \[\] names no wave"),
        (waves, "all", {"batches": ["some"]}, "gpu_memory_batches"),
        (waves, "all", {"batches": [1], "canary": "x"}, "gpu_memory_canary = 'x' is not allowed"),
    ],
)
def test_what_cannot_be_ends_the_run_by_name(
    lookup: ModuleType, pattern: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnsibleError, match=words):
        look(lookup, pattern, **options)


def test_an_inventory_without_hosts_says_how_to_get_some() -> None:
    with pytest.raises(AnsibleError, match="the inventory has no hosts: start the lab"):
        look(fleet, "all", {"groups": {"all": []}, "hostvars": {}})
