"""A step whose tests or playbook are not there would pass unseen: molecule only says that it found none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SHARED = yaml.safe_load((ROOT / ".config" / "molecule" / "config.yml").read_text())["ansible"]["playbooks"]
SCENARIOS = {file.parent: yaml.safe_load(file.read_text()) for file in sorted(ROOT.glob("molecule/*/molecule.yml"))}
RUNS_NO_PLAYBOOK_OF_ITS_OWN = {"check": "converge", "idempotence": "converge"}


def test_there_are_scenarios() -> None:
    assert {directory.name for directory in SCENARIOS} >= {"default", "conservative", "check"}


@pytest.mark.parametrize(
    ("directory", "scenario", "step"),
    [
        pytest.param(directory, scenario, step, id=f"{directory.name}: {step}")
        for directory, scenario in SCENARIOS.items()
        for step in scenario["scenario"]["test_sequence"]
    ],
)
def test_what_a_step_runs_is_there(directory: Path, scenario: dict[str, Any], step: str) -> None:
    verb, *paths = step.split()
    if verb == "verify":
        assert paths
        assert all(list((directory / path).glob("test_*.py")) for path in paths)
    elif paths:
        assert all((directory / path).is_file() for path in paths)
    else:
        playbooks = {**SHARED, **scenario["ansible"]["playbooks"]}
        assert (directory / playbooks[RUNS_NO_PLAYBOOK_OF_ITS_OWN.get(verb, verb)]).is_file()
