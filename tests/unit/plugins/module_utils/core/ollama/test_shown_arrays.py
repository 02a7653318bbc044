from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import shown_arrays
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

PATTERN = "olmo2.attention.sliding_window_pattern"


def terse(name: str) -> dict[str, Any]:
    """A recorded model as Ollama shows it without `verbose`."""
    answer = copy.deepcopy(recorded_models.answer_of(name))
    answer["model_info"] = {
        key: None if isinstance(value, list) else value for key, value in answer["model_info"].items()
    }
    return answer


def planned(answer: dict[str, Any]) -> planner.Plan:
    scenario = planner.Scenario(num_ctx=16384, num_parallel=2, num_batch=512)
    return planner.plan(planner.Model.from_show(answer), scenario, ollama_version="0.32.15")


@pytest.mark.parametrize("name", recorded_models.ARCHITECTURES)
def test_arrays_are_wanted_where_the_plan_is_another_one_without_them(name: str) -> None:
    figures = [
        (plan.kv_mib, plan.band_mib) for plan in (planned(recorded_models.answer_of(name)), planned(terse(name)))
    ]
    assert bool(shown_arrays.wanted(terse(name))) == (figures[0] != figures[1])
    assert shown_arrays.wanted(recorded_models.answer_of(name)) == []


@pytest.mark.parametrize("withheld", [None, []])
def test_heads_are_wanted_where_one_matrix_has_queries_keys_and_values(withheld: object) -> None:
    info = {"general.architecture": "openelm", "openelm.attention.head_count_kv": withheld}
    tensors = [{"name": "blk.0.attn_qkv.weight"}]
    assert shown_arrays.wanted({"model_info": info, "tensors": tensors}) == ["openelm.attention.head_count_kv"]
    assert shown_arrays.wanted({"model_info": {**info, "openelm.attention.head_count_kv": 4}, "tensors": tensors}) == []


@pytest.mark.parametrize(
    "foreign", [{}, {"model_info": []}, {"model_info": {}, "tensors": 7}, {"model_info": {"a": 1}}]
)
def test_nothing_is_wanted_of_what_is_no_answer_of_ollama(foreign: dict[str, Any]) -> None:
    assert shown_arrays.wanted(foreign) == []
    assert shown_arrays.wanted({"model_info": {}, "tensors": [7, {}, None]}) == []


def picked(text: str, size: int, keys: tuple[str, ...] = (PATTERN,)) -> dict[str, object]:
    content, found = text.encode(), shown_arrays.Picked(keys)
    for at in range(0, len(content), size):
        found.take(content[at : at + size])
    return found.found()


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
def test_arrays_are_picked_however_the_answer_comes(size: int) -> None:
    values = [True, False] * 32
    words = [f"word {number}" for number in range(20_000 if size > 7 else 2000)]
    info = {"a.tokens": words, PATTERN: values, "olmo2.attention.head_count_kv": [8, 0], "z.tokens": words}
    text = json.dumps({"model_info": info, "tensors": []}, separators=(",", ":"))
    keys = (PATTERN, "olmo2.attention.head_count_kv", "olmo2.absent")
    assert picked(text, size, keys) == {PATTERN: values, "olmo2.attention.head_count_kv": [8, 0]}
    assert picked(json.dumps({"model_info": info}, indent=2), size, keys[:1]) == {PATTERN: values}


def test_a_key_within_a_text_is_none() -> None:
    text = json.dumps({"template": f',"{PATTERN}":[1]', "model_info": {"a": f'"{PATTERN}":[2]', PATTERN: [3]}})
    assert picked(text, 4096) == {PATTERN: [3]}


@pytest.mark.parametrize("value", ["[1,", "[1;2]", '["a"]', "[[1]]", f"[{'1,' * shown_arrays.LONGEST}1]", "7"])
def test_what_is_no_short_array_of_numbers_is_left(value: str) -> None:
    assert picked(f'{{"{PATTERN}":{value}', 4096) == {}


def test_no_more_than_a_little_is_kept_of_what_is_dropped() -> None:
    found, most = shown_arrays.Picked([PATTERN]), 0
    for _unused in range(200):
        found.take(b'"word",' * 10_000)
        most = max(most, len(found._unread))
    assert most <= 4 * shown_arrays.LONGEST + 70_000
    assert found.found() == {}
