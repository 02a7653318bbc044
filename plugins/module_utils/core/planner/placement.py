# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stays on the host of blocks that are on the GPU: tensors by their names, as --override-tensor takes them.

The expressions of --cpu-moe, --n-cpu-moe and --n-cpu-ffn are llama.cpp's own (common/common.h).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import Tensor
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.model_shape import Block

EXPERTS, DENSE = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps", r"\.ffn_(up|down|gate)\."
# What lies in no block, by the names that llama.cpp has for it; the input is on the host anyway.
OF_NO_BLOCK = ("output.weight", "output_norm.weight", "token_embd.weight")
LONGEST = 512
# A repeat of what repeats takes as long as somebody likes.
_REPEATS_OF_REPEATS = re.compile(r"[*+?}]\){1,8}[*+?{]|\\[1-9]")


class NotPlanned(ValueError):
    """An expression that is not counted; the message says which, and why."""


def of_first(blocks: int, kind: str) -> list[str]:
    """The expressions for one kind of tensors in so many blocks from the first on."""
    return [rf"blk\.{index}{kind}" for index in range(blocks)]


def readable(expressions: Iterable[str]) -> list[re.Pattern[str]]:
    """Raises NotPlanned for what is no expression, takes too long, or is about what lies in no block."""
    found = []
    for text in expressions:
        if len(text) > LONGEST or _REPEATS_OF_REPEATS.search(text):
            raise NotPlanned(f"{text[:80]!r} is too long, or repeats what repeats")
        try:
            expression = re.compile(text)
        except (re.error, RecursionError, OverflowError):
            raise NotPlanned(f"{text[:80]!r} is no regular expression") from None
        if any(map(expression.search, OF_NO_BLOCK)):
            raise NotPlanned(f"{text[:80]!r} is about the output layer, too")
        found.append(expression)
    return found


class Kept(NamedTuple):
    """What stays on the host, by block; `tensors` of those that keep any."""

    tensors: dict[int, tuple[Tensor, ...]]

    @classmethod
    def of(cls, blocks: Sequence[Block], expressions: Iterable[str]) -> Kept:
        """Raises NotPlanned."""
        patterns = readable(expressions)
        kept = {
            block.index: tuple(
                tensor for tensor in block.tensors.values() if any(pattern.search(tensor.name) for pattern in patterns)
            )
            for block in (blocks if patterns else ())
        }
        return cls({index: tensors for index, tensors in kept.items() if tensors})

    def layers(self, blocks: Iterable[Block]) -> int:
        """Of how many of these anything stays on the host."""
        return sum(bool(self._of(block)) for block in blocks)

    def device_bytes(self, block: Block) -> int:
        """What a block has on the GPU."""
        return block.device_bytes - sum(tensor.device_bytes for tensor in self._of(block))

    def host_bytes(self, block: Block) -> int:
        """What stays on the host of a block on the GPU."""
        return sum(tensor.bytes for tensor in self._of(block))

    def _of(self, block: Block) -> tuple[Tensor, ...]:
        return self.tensors.get(block.index, ()) if block.tensors else ()  # one that is not loaded has none

    def copied_bytes(self, blocks: Iterable[Block]) -> int:
        """The most that one block's tensors take on the GPU while it works with copies of them."""
        return max((self.host_bytes(block) for block in blocks), default=0)
