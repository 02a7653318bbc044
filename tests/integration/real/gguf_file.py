"""What Ollama's /api/show answers of a GGUF file, read from the file itself."""

from __future__ import annotations

import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

# GGUF's numbers for the types of metadata (letters as `struct` has them) and for those of tensors.
LETTERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
TENSOR_TYPES = {
    **dict(enumerate(("F32", "F16", "Q4_0", "Q4_1"))),
    **dict(enumerate(("Q5_0", "Q5_1", "Q8_0", "Q8_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_K"), 6)),
    **dict(enumerate(("IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS"), 16)),
    **dict(enumerate(("I8", "I16", "I32", "I64", "F64", "IQ1_M", "BF16"), 24)),
    **{34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"},
}


def show(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        magic, _version, tensors, keys = _unpack(file, "4sIQQ")
        assert magic == b"GGUF"
        info = {_string(file): _value(file, *_unpack(file, "I")) for _ in range(keys)}
        listed = [_tensor(file) for _ in range(tensors)]
    info["general.parameter_count"] = sum(prod(tensor["shape"]) for tensor in listed)
    return {"model_info": info, "tensors": listed}


def _unpack(file: BinaryIO, letters: str) -> tuple[Any, ...]:
    return struct.unpack("<" + letters, file.read(struct.calcsize("<" + letters)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    return file.read(length).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _string(file)
    if kind == ARRAY:
        of, length = _unpack(file, "IQ")
        return [_value(file, of) for _ in range(length)]
    (value,) = _unpack(file, LETTERS[kind])
    return value


def _tensor(file: BinaryIO) -> dict[str, Any]:
    name, (dimensions,) = _string(file), _unpack(file, "I")
    shape = _unpack(file, f"{dimensions}Q")
    kind, _offset = _unpack(file, "IQ")
    return {"name": name, "type": TENSOR_TYPES[kind], "shape": list(shape)}
