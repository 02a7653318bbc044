"""A GGUF model small enough to write in a test, and whole enough for llama.cpp to load: two layers, bytes as tokens."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEADS, FEED_FORWARD, LAYERS, CONTEXT = 64, 2, 128, 2, 4096
OFFLOADABLE = LAYERS + 1
_ALIGNMENT = 32
_F32 = 0
# llama.cpp's token types: unknown, control, byte
_TOKENS = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256))]


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: object) -> bytes:
    """GGUF's type number and the value: 4 uint32, 5 int32, 6 float32, 8 string, 9 array."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    assert isinstance(value, Sequence)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(each) for each in value)
    kind, letter = (6, "f") if isinstance(value[0], float) else (5, "i")
    return struct.pack(f"<IIQ{len(value)}{letter}", 9, kind, len(value), *value)


def metadata() -> dict[str, object]:
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": 0,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [token for token, _ in _TOKENS],
        "tokenizer.ggml.scores": [0.0] * len(_TOKENS),
        "tokenizer.ggml.token_type": [kind for _, kind in _TOKENS],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def shapes() -> dict[str, tuple[int, ...]]:
    """Of each tensor, the row first, as GGUF has them."""
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, len(_TOKENS))}
    for layer in range(LAYERS):
        of_layer = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, WIDTH),
            "attn_v": (WIDTH, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (WIDTH, FEED_FORWARD),
            "ffn_up": (WIDTH, FEED_FORWARD),
            "ffn_down": (FEED_FORWARD, WIDTH),
        }
        found.update({f"blk.{layer}.{name}.weight": shape for name, shape in of_layer.items()})
    return {**found, "output_norm.weight": (WIDTH,), "output.weight": (WIDTH, len(_TOKENS))}


def write(path: Path) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes()), len(metadata()))
    head += b"".join(_string(key) + _value(value) for key, value in metadata().items())
    content = bytearray()
    for number, (name, shape) in enumerate(shapes().items()):
        head += _string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, len(content))
        elements = 1
        for length in shape:
            elements *= length
        # any small values that differ will do
        content += struct.pack(f"<{elements}f", *(((7 * number + i) % 13 - 6) / 100 for i in range(elements)))
        content += bytes(-len(content) % _ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + content)
