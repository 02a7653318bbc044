# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tensors of a GGUF model as Ollama's /api/show lists them: types, shapes, bytes."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from math import prod

MIB = 1024 * 1024

# type -> (elements in a block, bytes of a block)
TYPES: dict[str, tuple[int, int]] = {
    "F64": (1, 8),
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "I8": (1, 1),
    "I16": (1, 2),
    "I32": (1, 4),
    "I64": (1, 8),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q8_1": (32, 36),
    "IQ4_NL": (32, 18),
    "MXFP4": (32, 17),
    "NVFP4": (64, 36),
    "Q2_K": (256, 84),
    "Q3_K": (256, 110),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
    "Q8_K": (256, 292),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "IQ2_XXS": (256, 66),
    "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82),
    "IQ3_XXS": (256, 98),
    "IQ3_S": (256, 110),
    "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54),
    "TQ2_0": (256, 66),
}

ALIGNMENT = 128  # of a CUDA buffer, bytes
_ROW_PAD = 512  # CUDA pads the last row of a quantised tensor to this many elements
_MAX_DIMENSIONS = 4
_MAX_BYTES = 1 << 42  # 4 TiB: a larger tensor is a broken answer, not a model


class ModelUnreadable(ValueError):
    """An /api/show answer does not say enough (or contradicts itself); the message names what."""


def row_bytes(type_name: str, elements: int) -> int:
    """Bytes of one row; `elements` must be a whole number of the type's blocks."""
    block, size = TYPES[type_name.upper()]
    if elements % block:
        raise ValueError(f"{elements} elements are not a whole number of {type_name} blocks of {block}")
    return elements // block * size


def align(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


@dataclass(frozen=True)
class Tensor:
    """One tensor: `shape` in GGUF order (shape[0] is the row)."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @functools.cached_property
    def bytes(self) -> int:
        return row_bytes(self.type, self.shape[0]) * prod(self.shape[1:])

    @property
    def device_bytes(self) -> int:
        """Bytes in a CUDA buffer: padded last row of a quantised tensor, aligned start of the next."""
        block = TYPES[self.type][0]
        tail = self.shape[0] % _ROW_PAD
        pad = row_bytes(self.type, align(_ROW_PAD - tail, block)) if block > 1 and tail else 0
        return align(self.bytes + pad)


def parse_tensor(entry: object, position: int) -> Tensor:
    """One entry of /api/show's `tensors`; raises ModelUnreadable with the tensor's name and what is wrong."""
    where = f"tensors[{position}]"
    if not isinstance(entry, dict):
        raise ModelUnreadable(f"{where} is not an object with name, type and shape: {str(entry)[:60]!r}")
    name, type_name, shape = entry.get("name"), entry.get("type"), entry.get("shape")
    if not isinstance(name, str) or not re.fullmatch(r"[\x21-\x7e]{1,128}", name):
        raise ModelUnreadable(f"{where} has no usable name: {str(name)[:60]!r}")
    where = f"{where} {name}"
    if not isinstance(type_name, str) or type_name.upper() not in TYPES:
        raise ModelUnreadable(f"{where} has type {type_name!r}, whose size is not known (known: {', '.join(TYPES)})")
    if not isinstance(shape, (list, tuple)) or not 1 <= len(shape) <= _MAX_DIMENSIONS:
        raise ModelUnreadable(f"{where} has shape {shape!r}; 1 to {_MAX_DIMENSIONS} dimensions are possible")
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape):
        raise ModelUnreadable(f"{where} has shape {shape!r}; every dimension must be a whole number above 0")
    tensor = Tensor(name, type_name.upper(), tuple(shape))
    block = TYPES[tensor.type][0]
    if tensor.shape[0] % block:
        raise ModelUnreadable(
            f"{where} has rows of {tensor.shape[0]} elements, not a multiple of {tensor.type}'s {block}"
        )
    if tensor.bytes > _MAX_BYTES:
        raise ModelUnreadable(
            f"{where} with shape {shape!r} would take {tensor.bytes // MIB} MiB; that is no real model"
        )
    return tensor
