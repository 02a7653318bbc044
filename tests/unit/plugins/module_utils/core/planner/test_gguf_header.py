"""The head of a GGUF file, whole, broken and made up."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import gguf_header
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import ModelUnreadable
from hypothesis import given
from hypothesis import strategies as some


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def file(keys: Mapping[str, bytes], tensors: list[tuple[str, list[int], int]], version: int = 3) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys))
    head += b"".join(text(name) + value for name, value in keys.items())
    for name, shape, kind in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return head


def array(kind: int, *values: bytes) -> bytes:
    return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(values)


KEYS = {
    "general.architecture": struct.pack("<I", 8) + text("llama"),
    "tokenizer.ggml.tokens": array(8, text("a"), text("bcd"), text("")),
    "llama.block_count": struct.pack("<II", 4, 2),
    "llama.attention.head_count_kv": array(4, *[struct.pack("<I", count) for count in (8, 4)]),
    "llama.some_switch": struct.pack("<I?", 7, True),
}
TENSORS = [("token_embd.weight", [4096, 100], 14), ("blk.0.attn_q.weight", [4096, 4096], 39)]
WHOLE = file(KEYS, TENSORS)


def test_keys_and_tensors_are_those_of_the_file() -> None:
    assert gguf_header.show(WHOLE + b"\0" * 64) == {
        "model_info": {
            "general.architecture": "llama",
            "tokenizer.ggml.tokens": None,  # read over
            "llama.block_count": 2,
            "llama.attention.head_count_kv": [8, 4],
            "llama.some_switch": True,
            "general.parameter_count": 4096 * 100 + 4096 * 4096,
        },
        "tensors": [
            {"name": "token_embd.weight", "type": "Q6_K", "shape": [4096, 100]},
            {"name": "blk.0.attn_q.weight", "type": "MXFP4", "shape": [4096, 4096]},
        ],
    }


@pytest.mark.parametrize("length", range(0, len(WHOLE), 7))
def test_a_head_that_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ModelUnreadable):
        gguf_header.show(WHOLE[:length])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"GGML" + WHOLE[4:], "no GGUF file"),
        (file(KEYS, TENSORS, version=1), "version 2 or 3"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 1 << 40, 0), "claims"),
        (file({"a": struct.pack("<IIQ", 9, 8, 1 << 60)}, []), "ends within"),
        (file({"a": struct.pack("<IIQ", 9, 4, 1 << 60)}, []), "ends within"),
        (file({"a": struct.pack("<IIQ", 9, 9, 1)}, []), "an array of the type 9"),
        (file({"a": struct.pack("<I", 77)}, []), "unknown type 77"),
        (file({"a": struct.pack("<IQ", 8, 1 << 40)}, []), "a text of"),
        (file({}, [("t", [1] * 9, 0)]), "9 dimensions"),
    ],
)
def test_what_no_file_has_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ModelUnreadable, match=why):
        gguf_header.show(data)


@given(some.binary(max_size=200), some.integers(0, len(WHOLE)))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int) -> None:
    try:
        found: dict[str, Any] = gguf_header.show(WHOLE[:at] + noise)
    except ModelUnreadable:
        return
    assert set(found) == {"model_info", "tensors"}
