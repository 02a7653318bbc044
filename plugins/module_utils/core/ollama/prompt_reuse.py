# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a runner took from its prompt cache instead of evaluating it. Pure.

llama-server keeps prompts that it has evaluated (8 GiB of them, unless told otherwise), and of a known one evaluates
the last token only. Ollama's API does not tell; the runner's log does (tools/server/server-context.cpp).
"""

from __future__ import annotations

import re

TASK = re.compile(
    r"\| task (?P<task>\d{1,12}) \| (?:new prompt,.{0,200}? task\.n_tokens|cached n_tokens) = (?P<n>\d{1,9})"
)
NEW = "task.n_tokens"
TASKS_AT_ONCE = 1000
ENOUGH = 1 / 2  # of what was asked: tokens of prompts are counted in words, which some vocabularies split or join


class PromptReuse:
    """Adds up, line by line, `longest_sent` and `most_reused`: tokens of a whole prompt, and of one from the cache."""

    def __init__(self) -> None:
        self.longest_sent: int | None = None
        self.most_reused: int | None = None
        self._new: set[str] = set()

    def read(self, words: str) -> None:
        found = TASK.search(words)
        if not found:
            return
        tokens = int(found["n"])
        if NEW in found[0]:
            self.longest_sent = max(self.longest_sent or 0, tokens)
            if len(self._new) < TASKS_AT_ONCE:
                self._new.add(found["task"])
        elif found["task"] in self._new:  # each further batch of a task says what the task itself has evaluated
            self._new.discard(found["task"])
            self.most_reused = max(self.most_reused or 0, tokens)


def doubt(asked: int | None, evaluated: int | None, reused: int | None) -> str | None:
    """Why a load that asked for prompts of up to `asked` tokens proves nothing; None where it does, or nobody knows."""
    if not asked or evaluated is None or evaluated >= asked * ENOUGH:
        return None
    cached = f", {reused} of another came from its prompt cache" if reused else ""
    return (
        f"the load asked for prompts of up to {asked} tokens, and the longest that the model evaluated has {evaluated}"
        f"{cached}: the context was not filled; see what shortens or answers requests before they reach the model"
    )
