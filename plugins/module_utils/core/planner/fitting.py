# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama-server puts on the only GPU where not all fits and nobody says how much: the order of its decisions. Pure.

These are those of llama.cpp's common/fit.cpp. It fills layers from the last one on; of a model with experts it then
has all layers on the GPU, if it can, and as many of their experts as fit, from the first layer on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.placement import EXPERTS

# What the first layer that overflows keeps on the host, the least last; of all further ones it is the experts.
BEYOND_ATTENTION = r"\.ffn_(gate|up|gate_up|down)"
BEYOND_UP = r"\.ffn_(gate|gate_up|down)"
BEYOND_GATE = r"\.ffn_down"
_BLOCKS_OF_AN_EXPRESSION = 64


class Layout(NamedTuple):
    """`layers` on the GPU, the output layer among them; the last `overflowing` of them in part."""

    layers: int
    overflowing: int = 0
    of_first: str = EXPERTS  # what the first of these keeps on the host

    def on_cpu(self, offloadable: int) -> tuple[str, ...]:
        """The expressions of the tensors that stay on the host."""
        first = offloadable - self.overflowing  # llama.cpp counts the output layer as if it were the last block
        blocks = list(range(first + 1, offloadable - 1))
        of_first = [rf"^blk\.{first}{self.of_first}"] if first < offloadable - 1 else []
        chunks = range(0, len(blocks), _BLOCKS_OF_AN_EXPRESSION)
        further = ["|".join(map(str, blocks[at : at + _BLOCKS_OF_AN_EXPRESSION])) for at in chunks]
        return (*of_first, *(rf"^blk\.({numbers}){EXPERTS}" for numbers in further))


Measure = Callable[[Layout], int]


def fitted_layout(offloadable: int, with_experts: bool, target: int, measure: Measure) -> Layout:
    """What is put on a GPU of which `target` bytes may be used, and not everything fits."""
    filled = _filled(offloadable, with_experts, target, measure)
    # with the experts of every block on the host: until here the first one kept its own
    if not with_experts or measure(Layout(offloadable, offloadable)) >= target:
        return filled
    return _converted(filled, target, measure)


def _filled(offloadable: int, with_experts: bool, target: int, measure: Measure) -> Layout:
    """The most layers, those with experts without them."""

    def further(low: Layout, step: int) -> Layout:
        in_part = low.overflowing + step - (not low.overflowing) if with_experts else 0
        return Layout(low.layers + step, in_part)

    everything = Layout(offloadable, offloadable - 1 if with_experts else 0)
    return _false_position(Layout(0), everything, offloadable, target, measure, further)


def _converted(filled: Layout, target: int, measure: Measure) -> Layout:
    """The same layers with as many of their experts as fit, and then a part of one more."""

    def further(low: Layout, step: int) -> Layout:
        return low._replace(overflowing=low.overflowing - step)

    whole = filled._replace(overflowing=0)
    found = _false_position(filled, whole, filled.overflowing, target, measure, further)
    more = found._replace(of_first=BEYOND_UP)
    if measure(more) < target:
        most = found._replace(of_first=BEYOND_GATE)
        return most if measure(most) < target else more
    least = found._replace(of_first=BEYOND_ATTENTION)
    return least if measure(least) < target else found


def _false_position(
    low: Layout, high: Layout, apart: int, target: int, measure: Measure, further: Callable[[Layout, int], Layout]
) -> Layout:
    """The last layout from `low` on that is within the target, if each further one takes more."""
    used_low, used_high = measure(low), measure(high)
    if used_high <= target:
        return high
    while apart > 1:
        room = target - used_low
        guess = apart * room // (used_high - used_low) if room >= 0 else apart
        step = min(max(guess, 1), apart - 1)
        tried = further(low, step)
        used = measure(tried)
        if used <= target:
            low, used_low, apart = tried, used, apart - step
        else:
            used_high, apart = used, step
    return low
