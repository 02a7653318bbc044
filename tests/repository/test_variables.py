"""Every variable of the playbooks is one that the collection knows, or one that nobody could have meant otherwise."""

from __future__ import annotations

import re

import yaml
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration
from ansible_collections.selo.gpu_memory.tests.repository.documented import ROOT

DEFAULTS = yaml.safe_load((ROOT / "roles" / "gpu_memory" / "defaults" / "main.yml").read_text())
# What one part of a run hands to another.
INTERNAL = {"gpu_memory_fixed_profile", "gpu_memory_undo", "gpu_memory_report_of"}


def text_of(*directories: str) -> str:
    return "".join(path.read_text() for each in directories for path in sorted((ROOT / each).rglob("*.yml")))


def test_what_a_run_takes_without_a_default_of_the_role_is_known() -> None:
    taken = set(re.findall(r"\b(gpu_memory_\w+) \| default\(", text_of("playbooks", "roles/gpu_memory/tasks")))
    assert taken - INTERNAL - {*DEFAULTS} == {*declaration.RUN_LEVEL, *declaration.OF_PLAYBOOKS}


def test_what_a_run_keeps_for_itself_is_never_taken_for_a_misspelt_variable() -> None:
    ours = set(re.findall(r"\b_*gpu_memory_\w+", text_of("playbooks", "roles")))
    assert INTERNAL | {"gpu_memory_result", "gpu_memory_fleet"} <= ours
    assert declaration.misspelt(ours, DEFAULTS) == []
