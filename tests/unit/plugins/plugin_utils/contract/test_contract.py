"""The types that mypy holds the code to are those of the values: recorded ones, and those that the code makes here."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Decision
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import LoadResult
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import HostPlan, Status
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import side_by_side
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_record, host_status

from tests.unit.builders import MODEL, declared, load, read

DATA = Path(__file__).resolve().parents[4] / "data"
SHOW = json.loads((DATA / "planner" / "llama31-8b-q8_0.show.json").read_text(encoding="utf-8"))
HOST = read(ollama__api__show={MODEL: {**SHOW, "blob": None, "parameters": {}}})
WANTED = declared(models=[MODEL])


class ReadOnly:
    """As typing has it since 3.13."""

    def __class_getitem__(cls, item):
        return item


def differences(value, kind, whole: bool, at: str = "") -> list[str]:
    """What of a JSON value is not as a type says. `whole`: no key that must be there may lack."""
    if typing.get_origin(kind) is typing.NotRequired:
        kind = typing.get_args(kind)[0]
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        found = [differences(value, one, whole, at) for one in inside]
        return [] if [] in found else max(found, key=len)
    if typing.is_typeddict(kind):
        if not isinstance(value, Mapping):
            return [f"{at} is no {kind.__name__}"]
        names = {"NotRequired": typing.NotRequired, "ReadOnly": ReadOnly}
        keys = typing.get_type_hints(kind, localns=names, include_extras=True)
        must = {key for key in kind.__required_keys__ if typing.get_origin(keys[key]) is not typing.NotRequired}
        wrong = [f"{at}.{key} is unknown to {kind.__name__}" for key in value if key not in keys]
        wrong += [f"{at}.{key} of {kind.__name__} is missing" for key in sorted(must - set(value)) if whole]
        known = ((key, value[key]) for key in value if key in keys)
        return wrong + [text for key, one in known for text in differences(one, keys[key], whole, f"{at}.{key}")]
    if origin is list and isinstance(value, (list, tuple)):
        return [text for one in value for text in differences(one, inside[0], whole, f"{at}[]")]
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return [text for key, one in value.items() for text in differences(one, inside[1], whole, f"{at}.{key}")]
    plain = {float: (int, float), None: type(None)}.get(kind, kind)
    return [] if isinstance(plain, (type, tuple)) and isinstance(value, plain) else [f"{at} = {value!r} is no {kind}"]


@pytest.mark.parametrize("path", sorted((DATA / "report").glob("*.json")), ids=lambda path: path.stem)
def test_recorded_records(path):
    assert differences(json.loads(path.read_text(encoding="utf-8")), Record, whole=True) == []


def test_what_the_builders_make_is_of_a_host_and_of_a_load():
    assert differences(HOST, HostFacts, whole=False) == []
    assert differences(load(), LoadResult, whole=False) == []


def test_what_is_declared():
    assert differences(WANTED, Declared, whole=True) == []
    assert differences(declared(fallback_profile="conservative", backend="none"), Declared, whole=True) == []


def test_what_is_decided_judged_and_shown():
    decision = decisions.decide(WANTED, HOST, deploys=True)
    record = host_record.record("a", WANTED, "pass", [], decision=decision, before=HOST, load=load(), after=HOST)
    assert decision["problems"] == []
    assert differences(decision, Decision, whole=True) == []
    assert differences(record, Record, whole=True) == []
    assert differences(host_status.status("a", WANTED, HOST, str), Status, whole=True) == []
    plan = side_by_side.compare(WANTED, HOST)
    assert plan["profiles"] and differences(plan, HostPlan, whole=True) == []


def test_a_key_that_is_wrong_lacks_or_is_unknown_is_told():
    decision = {**decisions.decide(WANTED, HOST, deploys=True), "restart": "ollama", "restarts": []}
    told = differences(decision, Decision, whole=True)
    assert told == [".restarts is unknown to Decision", ".restart = 'ollama' is no list[str]"]
