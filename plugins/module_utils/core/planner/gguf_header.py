# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of a GGUF file as Ollama's /api/show would answer it. Pure: bytes in, no file.

A tokenizer takes megabytes and no memory of the GPU: what is an array of text, or long, is passed over.
"""

from __future__ import annotations

from math import prod
from struct import Struct
from struct import error as StructError
from typing import Union

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import ModelUnreadable

Bytes = Union[bytes, memoryview]
MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY = 8, 9
LONGEST_NAME, LONGEST_TEXT = 4096, 1 << 24
MOST_KEYS = MOST_TENSORS = 1 << 16
MOST_KEPT = 4096  # values of an array that may have one for each block
MOST_DIMENSIONS = 4
_LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_NUMBERS = {kind: Struct("<" + letter) for kind, letter in _LETTERS.items()}
_U32, _U64, _HEAD = Struct("<I"), Struct("<Q"), Struct("<4sIQQ")
TENSOR_TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), 6)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"), 16)),
    **dict(enumerate(("I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 24)),
    **{34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"},
}


def show(data: Bytes) -> dict[str, object]:
    """`model_info` and `tensors` of a file's bytes. Raises ModelUnreadable for what is no whole head of a GGUF file."""
    try:
        return _Reader(data).show()
    except (StructError, IndexError, OverflowError):
        raise ModelUnreadable("the file ends within its head, or is no GGUF file") from None


class _Reader:
    def __init__(self, data: Bytes) -> None:
        self._data, self._at = memoryview(data), 0

    def show(self) -> dict[str, object]:
        magic, version, tensors, keys = _HEAD.unpack_from(self._data)
        self._at = _HEAD.size
        if magic != MAGIC or version not in VERSIONS:
            raise ModelUnreadable("this is no GGUF file of version 2 or 3")
        if keys > MOST_KEYS or tensors > MOST_TENSORS:
            raise ModelUnreadable(f"the file claims {keys} keys and {tensors} tensors")
        info: dict[str, object] = {}
        for _unused in range(keys):
            name = self._text(LONGEST_NAME)
            info[name] = self._value(self._number(_U32))
        listed = [self._tensor() for _unused in range(tensors)]
        info["general.parameter_count"] = sum(prod(shape) for _name, _kind, shape in listed)
        described = [{"name": name, "type": kind, "shape": shape} for name, kind, shape in listed]
        return {"model_info": info, "tensors": described}

    def _number(self, form: Struct) -> int:
        (number,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(number)

    def _text(self, longest: int) -> str:
        length = self._number(_U64)
        if length > longest:
            raise ModelUnreadable(f"the file has a text of {length} bytes where none is so long")
        begin, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise IndexError
        return bytes(self._data[begin : self._at]).decode(errors="replace")

    def _value(self, kind: int) -> object:
        if kind == STRING:
            return self._text(LONGEST_TEXT)
        if kind == ARRAY:
            return self._array(self._number(_U32), self._number(_U64))
        form = _NUMBERS.get(kind)
        if form is None:
            raise ModelUnreadable(f"the file has a value of the unknown type {kind}")
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return value

    def _array(self, kind: int, count: int) -> list[object] | None:
        if kind == STRING:
            self._pass_texts(count)
            return None
        form = _NUMBERS.get(kind)
        if form is None:
            raise ModelUnreadable(f"the file has an array of the type {kind}")
        begin, self._at = self._at, self._at + count * form.size
        if self._at > len(self._data):
            raise IndexError
        if count > MOST_KEPT:
            return None
        return [value for (value,) in form.iter_unpack(self._data[begin : self._at])]

    def _pass_texts(self, count: int) -> None:
        """Over so many texts; each is at least its length, so that a count beyond the file ends at the file's end."""
        data, at, length_at = self._data, self._at, _U64.unpack_from
        for _unused in range(count):
            at += 8 + length_at(data, at)[0]
        if at > len(data):
            raise IndexError
        self._at = at

    def _tensor(self) -> tuple[str, str, list[int]]:
        name, dimensions = self._text(LONGEST_NAME), self._number(_U32)
        if dimensions > MOST_DIMENSIONS:
            raise ModelUnreadable(f"{name} has {dimensions} dimensions")
        shape = [self._number(_U64) for _unused in range(dimensions)]
        kind = self._number(_U32)
        self._number(_U64)  # where its data are
        return name, TENSOR_TYPES.get(kind, str(kind)), shape
