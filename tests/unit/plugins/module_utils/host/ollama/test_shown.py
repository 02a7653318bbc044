from __future__ import annotations

import copy
import json
import tracemalloc
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import shown
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

PATTERN = "olmo2.attention.sliding_window_pattern"
WORDS = [f"word {number}" for number in range(300_000)]


def test_arrays_that_a_plan_needs_are_asked_for_once_more_and_nothing_else_of_the_answer_is_kept(serve: Any) -> None:
    whole = recorded_models.answer_of("olmo3-7b")
    asked = []
    long_answer = json.dumps({"model_info": {**whole["model_info"], "tokenizer.ggml.tokens": WORDS}}).encode()

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        asked.append(json.loads(body).get("verbose", False))
        if asked[-1]:
            return 200, long_answer
        terse = {**whole, "model_info": {**whole["model_info"], PATTERN: None, "tokenizer.ggml.tokens": None}}
        return 200, json.dumps(terse).encode()

    url = serve(answer)
    tracemalloc.start()
    found = shown.with_arrays(url, "olmo3")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == [False, True]
    assert found["model_info"] == {**whole["model_info"], "tokenizer.ggml.tokens": None}
    assert not planner.Model.from_show(found).windows_guessed
    assert peak < len(long_answer) / 2


def test_a_model_whose_tensors_tell_all_is_asked_for_once(serve: Any) -> None:
    answers = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        answers.append(json.loads(body))
        return 200, json.dumps(recorded_models.answer_of("gemma4-e2b")).encode()

    shown.with_arrays(serve(answer), "gemma4")
    assert [each.get("verbose") for each in answers] == [None]


@pytest.mark.parametrize("long_answer", [(500, b"{}"), (200, b"no JSON"), (200, b'{"model_info": {}}')])
def test_without_the_second_answer_the_plan_says_what_is_missing(serve: Any, long_answer: tuple[int, bytes]) -> None:
    terse = copy.deepcopy(recorded_models.answer_of("olmo3-7b"))
    terse["model_info"][PATTERN] = None

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        return long_answer if json.loads(body).get("verbose") else (200, json.dumps(terse).encode())

    found = shown.with_arrays(serve(answer), "olmo3")
    model = planner.Model.from_show(found)
    assert model.windows_guessed and any("without its values" in note for note in model.notes)


def test_no_answer_at_all_is_an_error_and_an_answer_of_somebody_else_is_empty(serve: Any) -> None:
    with pytest.raises(http_client.HttpError, match="404"):
        shown.terse(serve(lambda handler, body: (404, b"{}")), "a")
    assert shown.with_arrays(serve(lambda handler, body: (200, b"[7]")), "a") == {}
