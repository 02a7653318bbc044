"""Every command that the pages show is one that there is: its playbook or script, its options and its variables."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.cli.playbook import PlaybookCLI
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import declaration
from ansible_collections.selo.gpu_memory.tests.repository.documented import ROOT, Command, commands

SHOWN = commands()
PLAYBOOKS = [command for command in SHOWN if command.words[0] == "ansible-playbook"]


@functools.cache
def known_variables() -> set[str]:
    specs = [yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/argument_specs.yml")]
    entries = [entry for spec in specs for entry in spec["argument_specs"].values()]
    return {*declaration.RUN_LEVEL, *declaration.OF_PLAYBOOKS}.union(*(entry.get("options") or {} for entry in entries))


def playbook(name: str) -> Path:
    if name.startswith("selo.gpu_memory."):
        return ROOT / "playbooks" / f"{name.rpartition('.')[2]}.yml"
    return ROOT / name


def extra_variables(words: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option, given in zip(words, words[1:]):
        if option in ("-e", "--extra-vars"):
            found.update(
                json.loads(given) if given.startswith("{") else dict(pair.split("=", 1) for pair in given.split())
            )
    return found


def test_there_are_commands() -> None:
    assert len(PLAYBOOKS) >= 10


@pytest.mark.parametrize("command", PLAYBOOKS, ids=str)
def test_a_playbook_is_there_and_its_options_and_variables_are_known(command: Command) -> None:
    given = PlaybookCLI(["ansible-playbook", *command.words[1:]])
    given.init_parser()
    options, names = given.parser.parse_known_args(command.words[1:])
    assert not [name for name in names if name.startswith("-")]
    # The root's own two are not in the artifact, which these tests also run in.
    for name in options.args:
        assert playbook(name).exists() or name in ("apply-stable.yml", "apply-conservative.yml")
    assert set(extra_variables(command.words)) <= known_variables()


@pytest.mark.parametrize("command", [each for each in SHOWN if "script/" in each.words[0]], ids=str)
def test_a_script_is_there(command: Command) -> None:
    if not (ROOT / "script").exists():
        pytest.skip("scripts are no part of the artifact")
    assert (ROOT / command.words[0]).exists()
