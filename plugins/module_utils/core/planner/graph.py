# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An emulation of ggml's graph allocator: how large the buffer for a graph's intermediate results gets.

The rules are those of ggml/src/ggml-alloc.c: nodes are placed in order, best fit among the holes, else at the end;
some operations take over a source's place when nobody else needs it; a tensor is freed when its last reader is done.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import align


class _Arena:
    """Free blocks by offset; the last one has no end."""

    def __init__(self) -> None:
        self._offsets = [0]
        self._sizes = [1 << 62]
        self.peak = 0

    def take(self, size: int) -> int:
        best, best_size = len(self._sizes) - 1, 0
        for index in range(len(self._sizes) - 1):
            block = self._sizes[index]
            if block >= size and (not best_size or block <= best_size):
                best, best_size = index, block
        offset = self._offsets[best]
        if self._sizes[best] == size:
            del self._offsets[best], self._sizes[best]
        else:
            self._offsets[best] += size
            self._sizes[best] -= size
        self.peak = max(self.peak, offset + size)
        return offset

    def give(self, offset: int, size: int) -> None:
        index = bisect_left(self._offsets, offset)
        if index < len(self._offsets) and offset + size == self._offsets[index]:
            self._offsets[index] = offset
            self._sizes[index] += size
        else:
            self._offsets.insert(index, offset)
            self._sizes.insert(index, size)
        if index and self._offsets[index - 1] + self._sizes[index - 1] == self._offsets[index]:
            self._sizes[index - 1] += self._sizes[index]
            del self._offsets[index], self._sizes[index]


class Node(NamedTuple):
    """One tensor of the graph; `size` 0: it needs no memory of its own (`view_of` >= 0: it shows that tensor's)."""

    size: int
    sources: tuple[int, ...]
    in_place: bool
    view_of: int


class Graph:
    """Nodes in the order of execution; every method returns the new node's number."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, size: int, *sources: int, in_place: bool = False) -> int:
        self.nodes.append(Node(align(int(size)), sources, in_place, -1))
        return len(self.nodes) - 1

    def store(self, *sources: int) -> int:
        """Writes to memory that the graph does not own, such as the cache."""
        return self.add(0, *sources)

    def view(self, source: int, *others: int) -> int:
        root = self.nodes[source].view_of
        self.nodes.append(Node(0, (source, *others), False, source if root < 0 else root))
        return len(self.nodes) - 1

    def peak_bytes(self) -> int:
        """The size of the buffer that ggml would reserve for this graph, in bytes."""
        nodes = self.nodes
        readers, views = [0] * len(nodes), [0] * len(nodes)
        for node in nodes:
            for source in node.sources:
                readers[source] += 1
            if node.view_of >= 0:
                views[node.view_of] += 1
        arena = _Arena()
        place = [-1] * len(nodes)
        for number, node in enumerate(nodes):
            if node.view_of < 0 and node.size:
                if node.in_place:
                    for source in node.sources:
                        if (
                            place[source] >= 0
                            and nodes[source].size == node.size
                            and readers[source] == 1
                            and not views[source]
                        ):
                            place[number], place[source] = place[source], -1
                            break
                if place[number] < 0:
                    place[number] = arena.take(node.size)
            for source in node.sources:
                readers[source] -= 1
                if readers[source] or views[source]:
                    continue
                owner = nodes[source].view_of
                if owner >= 0:
                    views[owner] -= 1
                    if views[owner] or readers[owner]:
                        continue
                else:
                    owner = source
                if place[owner] >= 0:
                    arena.give(place[owner], nodes[owner].size)
                    place[owner] = -1
        return arena.peak
