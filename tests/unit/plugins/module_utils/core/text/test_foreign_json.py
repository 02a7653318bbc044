from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json


@pytest.mark.parametrize(
    "text, value",
    [
        ('{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
        (b"7", 7),
        ("9" * 18, 999999999999999999),
        ("9" * 19, None),
        ("-" + "9" * 10_000_000, None),  # as a number it would take hours
        ("[NaN, Infinity, -Infinity]", [None, None, None]),
    ],
)
def test_what_is_json(text, value):
    assert foreign_json.read(text) == value


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000, "nan"])
def test_what_is_none(text):
    with pytest.raises(ValueError):
        foreign_json.read(text)
    assert foreign_json.fields(text) == {}


def test_only_an_object_has_fields():
    assert foreign_json.fields('{"a": 1}') == {"a": 1}
    assert foreign_json.fields("[1]") == {}


@pytest.mark.parametrize(
    "value, number",
    [(3, 3.0), (0.5, 0.5), (10**15, 1e15)]
    + [(value, None) for value in (0, -1, 10**15 + 1, 1e400, float("nan"), True, "3", None, [3], {"a": 3})],
)
def test_what_can_be_counted_by(value, number):
    assert foreign_json.positive(value) == number
