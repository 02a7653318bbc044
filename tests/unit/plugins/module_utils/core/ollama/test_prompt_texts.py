from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import prompt_texts


def lengths(kind: str, seed: int = 1) -> list[int | None]:
    return [prompt_texts.tokens_of(kind, 4096, index, seed) for index in range(40)]


def test_a_word_is_a_token_of_four_characters() -> None:
    text = prompt_texts.text(3584, "1/0")
    assert len(text.split()) == 3584
    assert len(text) == 4 * 3584 - 1


def test_the_same_seed_says_the_same() -> None:
    assert prompt_texts.text(50, "1/0") == prompt_texts.text(50, "1/0")
    assert lengths("mixed") == lengths("mixed")


def test_other_prompts_soon_differ() -> None:
    beginnings = {prompt_texts.text(8, f"1/{index}") for index in range(2000)}
    assert len(beginnings) == 2000


def test_the_same_words_told_apart() -> None:
    beginnings = {prompt_texts.told_apart("What is AI?", f"1/{index}")[:20] for index in range(100)}
    assert len(beginnings) == 100
    assert prompt_texts.told_apart("What is AI?", "1/0").endswith("What is AI?")


def test_lengths() -> None:
    assert lengths("guide") == [None] * 40
    assert lengths("fill") == [3584] * 40
    mixed = [length or 0 for length in lengths("mixed")]
    assert mixed[::4] == [3584] * 10
    between = [length for index, length in enumerate(mixed) if index % 4]
    assert 64 <= min(between) < 256
    assert 1024 < max(between) <= 3584
    assert lengths("mixed", seed=2) != lengths("mixed")


@pytest.mark.parametrize(
    ("body", "at", "expected"),
    [
        ({"message": "old", "id": 1}, "message", {"message": "new", "id": 1}),
        (
            {"messages": [{"role": "user", "content": "old"}]},
            "messages.0.content",
            {"messages": [{"role": "user", "content": "new"}]},
        ),
    ],
)
def test_a_prompt_goes_into_its_place(body: Any, at: str, expected: Any) -> None:
    before = str(body)
    assert prompt_texts.with_prompt(body, at, lambda old: old.replace("old", "new")) == expected
    assert str(body) == before


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({"message": "x"}, "prompt"),
        ({"message": {"x": 1}}, "message"),
        ("text", "message"),
        ({"messages": []}, "messages.0"),
        ({"messages": [{}]}, "messages.first.content"),
        ({"message": "x"}, "message.0"),
        ({"message": "x"}, ""),
        (None, "message"),
    ],
)
def test_a_place_that_is_not_there(body: Any, at: str) -> None:
    with pytest.raises(ValueError, match="no text at"):
        prompt_texts.with_prompt(body, at, str)
