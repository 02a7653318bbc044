"""A step that names tests which are not there would pass unseen: molecule only says that it found none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

MOLECULE = Path(__file__).resolve().parents[2] / "molecule"
STEPS = [
    pytest.param(file.parent, step, id=f"{file.parent.name}: {step}")
    for file in sorted(MOLECULE.glob("*/molecule.yml"))
    for step in yaml.safe_load(file.read_text())["scenario"]["test_sequence"]
]


def test_there_are_scenarios() -> None:
    assert {step.values[0].name for step in STEPS} >= {"default", "conservative", "check"}


@pytest.mark.parametrize(("scenario", "step"), STEPS)
def test_what_a_step_names_is_there(scenario: Path, step: str) -> None:
    verb, *paths = step.split()
    assert verb != "verify" or paths
    for path in paths:
        found = [scenario / path] if path.endswith(".yml") else list((scenario / path).glob("test_*.py"))
        assert found
        assert all(file.is_file() for file in found)
