from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import prompt_reuse

# Lines of llama-server (build 11669); each batch of a task has its line, of which only the first is about the cache.
FIRST = [
    "slot   operator(): id  0 | task 0 | new prompt, n_ctx_slot = 1024, n_keep = 4, task.n_tokens = 25",
    "slot   operator(): id  0 | task 0 | cached n_tokens = 0, memory_seq_rm [0, end)",
    "slot   operator(): id  0 | task 0 | cached n_tokens = 1, memory_seq_rm [1, end)",
    "slot   operator(): id  0 | task 0 | cached n_tokens = 21, memory_seq_rm [21, end)",
]
AGAIN = [
    "slot   operator(): id  0 | task 7 | new prompt, n_ctx_slot = 1024, n_keep = 4, task.n_tokens = 25",
    "slot   operator(): id  0 | task 7 | cached n_tokens = 20, memory_seq_rm [20, end)",
]


def read(*lines: str) -> tuple[int | None, int | None]:
    reuse = prompt_reuse.PromptReuse()
    for line in lines:
        reuse.read(line)
    return reuse.longest_sent, reuse.most_reused


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], (None, None)),
        (FIRST, (25, 0)),
        ([*FIRST, *AGAIN], (25, 20)),
        (["slot print_timing: id  0 | task 0 | prompt processing, n_tokens =     21, progress = 0.84"], (None, None)),
        (["slot   operator(): id  0 | task 9 | cached n_tokens = 20, memory_seq_rm [20, end)"], (None, None)),
    ],
)
def test_what_came_from_the_cache(lines: list[str], expected: tuple[int | None, int | None]) -> None:
    assert read(*lines) == expected


@pytest.mark.parametrize("figures", [(None, 3, 0), (0, 3, 0), (3584, None, None), (3584, 1792, 0), (3584, 3593, 1)])
def test_a_filled_context_and_one_that_nobody_knows_of_raise_no_doubt(figures: tuple[int | None, ...]) -> None:
    assert prompt_reuse.doubt(*figures) is None


def test_a_context_that_was_not_filled_names_both_figures() -> None:
    text = prompt_reuse.doubt(3584, 1, 3592) or ""
    assert "up to 3584 tokens" in text
    assert "evaluated has 1, 3592 of another came from its prompt cache" in text
    assert "cache" not in (prompt_reuse.doubt(3584, 1791, None) or "cache")
