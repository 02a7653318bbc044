# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arrays of a model that /api/show holds back, picked out of its long answer with `verbose`. Pure.

That answer has the tokenizer, too, megabytes of it, and Ollama keeps it in its memory: it is worth asking for only
where an array decides what a plan says, and what comes is dropped while it comes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json

LONGEST = 32 * 1024  # bytes of one array; a model has at most some hundred blocks
_PATTERN = "attention.sliding_window_pattern"
_HEADS = ("attention.head_count", "attention.head_count_kv")


def wanted(answer: Mapping[str, object]) -> list[str]:
    """The keys of `model_info` whose array is there without its values, and which the tensors do not tell either."""
    info, tensors = answer.get("model_info"), answer.get("tensors")
    if not isinstance(info, dict) or not isinstance(tensors, list):
        return []
    architecture = info.get("general.architecture")

    def value(name: str) -> object:
        return info.get(f"{architecture}.{name}")

    def held_back(name: str) -> bool:
        return f"{architecture}.{name}" in info and value(name) in (None, [])

    names = {str(tensor["name"]) for tensor in tensors if isinstance(tensor, dict) and "name" in tensor}
    found = []
    # Where heads with a window have a width of their own, the norm of the queries has it.
    by_width = value("attention.key_length_swa") not in (None, value("attention.key_length"))
    if held_back(_PATTERN) and not (by_width and "blk.0.attn_q_norm.weight" in names):
        found.append(_PATTERN)
    of_one_matrix = any(name.endswith(".attn_qkv.weight") for name in names)
    sized = any(isinstance(value(f"attention.{name}"), int) for name in ("key_length", "head_count"))
    if of_one_matrix or not sized:
        found += [name for name in _HEADS if held_back(name)]
    return [f"{architecture}.{name}" for name in found]


class Picked:
    """The arrays of these keys, of the bytes of a JSON text as they come; of the rest no more than LONGEST is kept.

    A key cannot be feigned within a text: there its quotes would be escaped.
    """

    def __init__(self, keys: Collection[str]) -> None:
        self._unread = b""
        self._found: dict[str, object] = {}
        either = b"|".join(re.escape(key.encode()) for key in keys)
        self._array = re.compile(rb'[{,]\s{0,8}"(%s)"\s{0,8}:\s{0,8}(\[[^][{}"]{0,%d}\])' % (either, LONGEST))

    def take(self, chunk: bytes) -> None:
        self._unread += chunk
        if len(self._unread) >= 4 * LONGEST:  # not at each chunk: what is kept would be read again each time
            self._read()
            self._unread = self._unread[-2 * LONGEST :]

    def found(self) -> dict[str, object]:
        """Key and array of those that were there, now that the text has ended."""
        self._read()
        return self._found

    def _read(self) -> None:
        for match in self._array.finditer(self._unread):
            try:
                values = foreign_json.read(match[2])
            except ValueError:
                continue
            if isinstance(values, list):
                self._found.setdefault(match[1].decode(), values)
