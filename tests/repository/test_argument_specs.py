"""What each role documents of its variables is what it has: the same names and defaults, of the types it says."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = sorted((Path(__file__).parents[2] / "roles").iterdir())
# Given with -e, since play keywords are templated before any host is known.
TYPES = {"str", "int", "float", "bool", "list", "dict", "path", "raw"}
PYTHON = {"str": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict, "path": str}


@functools.cache
def specs(role: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]


@functools.cache
def defaults(role: Path) -> dict[str, Any]:
    return yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}


def options(role: Path) -> dict[str, Any]:
    """The options of all entry points of a role; one that several have is the same in each, but for its words."""
    found: dict[str, Any] = {}
    for entry, spec in specs(role).items():
        for name, option in (spec.get("options") or {}).items():
            same = {key: value for key, value in option.items() if key != "description"}
            known = {key: value for key, value in found.setdefault(name, option).items() if key != "description"}
            assert same == known, f"{entry}: {name} differs between entry points"
    return found


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_specs_are_the_same_both_ways(role: Path) -> None:
    said = {name: option["default"] for name, option in options(role).items() if "default" in option}
    # As text, so that 1, 1.0 and true are told apart.
    assert {name: repr(value) for name, value in said.items()} == {
        name: repr(value) for name, value in defaults(role).items()
    }


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_option_has_a_type_and_its_default_is_of_it(role: Path) -> None:
    def check(name: str, option: dict[str, Any]) -> None:
        assert option.get("type") in TYPES, f"{name} has no type"
        assert option.get("description"), f"{name} has no description"
        assert (option["type"] == "list") == ("elements" in option), f"{name}: a list has elements"
        if option.get("default") is not None and option["type"] != "raw":
            assert isinstance(option["default"], PYTHON[option["type"]]), name
            assert option["type"] == "bool" or not isinstance(option["default"], bool), name
        for inner, described in (option.get("options") or {}).items():
            check(f"{name}.{inner}", described)

    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), name
        check(name, option)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_ansible_accepts_the_defaults_and_leaves_them_as_they_are(role: Path) -> None:
    validated = ArgumentSpecValidator(options(role)).validate(defaults(role))
    assert validated.error_messages == []
    plain = {name: value for name, value in defaults(role).items() if "options" not in options(role)[name]}
    assert {name: validated.validated_parameters[name] for name in plain} == plain


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_is_described_and_is_there(role: Path) -> None:
    for entry, spec in specs(role).items():
        assert spec["short_description"] and spec["description"], entry
        assert (role / "tasks" / f"{entry}.yml").is_file(), entry
