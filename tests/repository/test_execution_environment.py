"""What an execution environment is told to bring is what a control node is told to install."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / "requirements.in").exists(), reason="not in the artifact")
def test_an_execution_environment_brings_what_a_control_node_has():
    needs = yaml.safe_load((ROOT / "meta" / "execution-environment.yml").read_text())["dependencies"]
    pinned = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE))
    wanted = re.findall(r"^([\w-]+)>=([\d.]+)", (ROOT / needs["python"]).read_text(), re.MULTILINE)
    assert {name for name, _unused in wanted} == set(pinned) - {"ansible-core"}
    for name, least in wanted:
        assert [int(part) for part in pinned[name].split(".")] >= [int(part) for part in least.split(".")]
    assert (ROOT / needs["system"]).exists()
