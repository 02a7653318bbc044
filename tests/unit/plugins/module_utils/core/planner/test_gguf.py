"""Sizes of tensors."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import (
    TYPES,
    ModelUnreadable,
    Tensor,
    parse_tensor,
    row_bytes,
)


@pytest.mark.parametrize(
    ("type_name", "shape", "size"),
    [
        ("F32", (4096,), 16384),
        ("BF16", (4096, 2), 16384),
        ("Q8_0", (4096, 128256), 558170112),
        ("Q4_K", (2048, 256), 294912),
        ("Q6_K", (2048, 151936), 255252480),
        ("MXFP4", (2880, 4096, 32), 200540160),
    ],
)
def test_bytes(type_name: str, shape: tuple[int, ...], size: int) -> None:
    assert Tensor("t", type_name, shape).bytes == size


def test_cuda_pads_the_last_row_of_a_quantised_tensor_once() -> None:
    odd = Tensor("t", "Q4_0", (2880, 100))  # 2880 % 512 = 320: 192 elements are missing, 6 blocks of 18 bytes
    assert odd.bytes <= odd.device_bytes - 6 * 18 < odd.bytes + 128
    assert Tensor("t", "F16", (2880, 100)).device_bytes == 576000
    assert Tensor("t", "Q4_0", (4096, 4)).device_bytes == Tensor("t", "Q4_0", (4096, 4)).bytes


def test_part_of_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of 32"):
        row_bytes("q8_0", 33)


def test_every_type_is_at_least_a_bit_an_element() -> None:
    assert all(1 / 8 <= size / block <= 8 for block, size in TYPES.values())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "F16", "shape": [1]}, "tensors[3] has no usable name: 'None'"),
        ({"name": "a b", "type": "F16", "shape": [1]}, "tensors[3] has no usable name: 'a b'"),
        ({"name": "x" * 129, "type": "F16", "shape": [1]}, "tensors[3] has no usable name: 'xxx"),
        ([], "tensors[3] is not an object with name, type and shape: '[]'"),
    ],
)
def test_a_tensor_that_cannot_be_told_is_refused_by_its_place(entry: object, words: str) -> None:
    with pytest.raises(ModelUnreadable) as refused:
        parse_tensor(entry, 3)
    assert words in str(refused.value)
