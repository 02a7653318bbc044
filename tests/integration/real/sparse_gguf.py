"""GGUF files that have a model's metadata and tensors' shapes, and no data: what an engine reserves needs no more."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import row_bytes
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf_header import (
    ARRAY,
    STRING,
    TENSOR_TYPES,
)

ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _UINT64 = 4, 5, 6, 7, 10
_NUMBERS = {name: number for number, name in TENSOR_TYPES.items()}
_TOKEN_TYPES = "tokenizer.ggml.token_type_count"


def write(path: Path, show: Mapping[str, Any]) -> None:
    """The file behind an /api/show answer; what Ollama adds to the metadata is left out, arrays without values too."""
    metadata = _on_which_no_size_depends(show["model_info"]["general.architecture"]) | {
        key: value
        for key, value in show["model_info"].items()
        if value is not None
        and key != "general.parameter_count"
        and (key == _TOKEN_TYPES or not key.startswith("tokenizer."))
    }
    offset, listed = 0, []
    for tensor in show["tensors"]:
        shape = tensor["shape"]
        listed.append(
            _string(tensor["name"])
            + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _NUMBERS[tensor["type"]], offset)
        )
        size = row_bytes(tensor["type"], shape[0]) * prod(shape[1:])
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(listed), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _typed(value))
        file.writelines(listed)
        file.truncate(-(-file.tell() // ALIGNMENT) * ALIGNMENT + offset)


def _on_which_no_size_depends(architecture: str) -> dict[str, Any]:
    """What an engine asks for. Tokens are not needed: a vocabulary without them is as large as its matrix."""
    epsilons = ("layer_norm_rms_epsilon", "layer_norm_epsilon")
    return {"tokenizer.ggml.model": "none"} | {f"{architecture}.attention.{name}": 1e-5 for name in epsilons}


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(value: Any) -> bytes:
    if isinstance(value, (list, tuple)):
        kinds = [_kind(each) for each in value]
        kind = _FLOAT32 if _FLOAT32 in kinds else kinds[0]
        values = b"".join(_bare(kind, float(each) if kind == _FLOAT32 else each) for each in value)
        return struct.pack("<IIQ", ARRAY, kind, len(value)) + values
    kind = _kind(value)
    return struct.pack("<I", kind) + _bare(kind, value)


def _kind(value: Any) -> int:
    if isinstance(value, str):
        return STRING
    if isinstance(value, bool):
        return _BOOL
    if isinstance(value, float):
        return _FLOAT32
    return _UINT64 if value > 0xFFFFFFFF else _UINT32 if value >= 0 else _INT32


def _bare(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _string(value)
    return struct.pack({_UINT32: "<I", _INT32: "<i", _FLOAT32: "<f", _BOOL: "<?", _UINT64: "<Q"}[kind], value)
