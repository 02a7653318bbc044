# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prompts of a known number of tokens, the same for the same seed, and where they go in a body.

Pure, but for the seed that is drawn.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping
from typing import Any

GUIDE, MIXED, FILL = "guide", "mixed", "fill"
KINDS = (GUIDE, MIXED, FILL)
# Each is one token with the space before it in the vocabularies of GPT, Llama, Qwen, Gemma and Mistral models, and four
# characters, which is also the usual rule of thumb.
WORDS = (
    "the", "and", "for", "are", "but", "not", "you", "all", "any", "can", "had", "her", "was", "one", "our", "out",
    "day", "get", "has", "him", "his", "how", "man", "new", "now", "old", "see", "two", "way", "who", "did", "its",
    "let", "put", "say", "she", "too", "use", "may", "own", "end", "war", "law", "few", "far", "big", "run", "set",
)  # fmt: skip
FULL = 7 / 8  # of a slot's context; the rest is for the chat template, what a backend adds, and the reply
SHORTEST = 1 / 64
APART = 6
SEEDS = 2**31


def drawn_seed() -> int:
    """One for a run of its own, since a server need not read again what it has in its prompt cache."""
    return random.SystemRandom().randrange(SEEDS)


def text(tokens: int, seed: str) -> str:
    """A prompt of so many tokens. Two seeds soon differ, so that a server cannot reuse its cache of another prompt."""
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _unused in range(tokens))


def told_apart(words: str, seed: str) -> str:
    """The same words behind a few of their own, so that nobody has them in a cache."""
    return f"{text(APART, seed)}: {words}"


def tokens_of(kind: str, context_tokens: int, index: int, seed: int) -> int | None:
    """How long the prompt number `index` is; None where it stays as the body has it.

    `context_tokens` is the context of one slot. `mixed` begins with a full one, and then comes any length between
    SHORTEST and FULL, each doubling as likely as the other, with a full one again at every fourth.
    """
    if kind == GUIDE:
        return None
    share = FULL
    if kind == MIXED and index % 4:
        share = SHORTEST * (FULL / SHORTEST) ** random.Random(f"{seed}/{index}").random()
    return max(1, round(context_tokens * share))


def with_prompt(body: object, at: str, prompt: Callable[[str], str]) -> object:
    """A copy of a body with what `prompt` makes of its text at `at` (`messages.0.content`); ValueError without one."""
    body = copy.deepcopy(body)
    *parents, last = at.split(".")
    try:
        place: Any = body
        for name in parents:
            place = place[_key(place, name)]
        if not isinstance(place[_key(place, last)], str):
            raise TypeError
        place[_key(place, last)] = prompt(place[_key(place, last)])
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"there is no text at {at} in the body") from None
    return body


def _key(place: object, name: str) -> Any:
    return name if isinstance(place, Mapping) else int(name)
