"""Speeds by arithmetic."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import throughput


@pytest.mark.parametrize(
    ("name", "gb_per_s", "known"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", 288, True),
        ("NVIDIA GeForce RTX 4060", 272, True),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", 672, True),
        ("Tesla T4", 320, True),
        ("NVIDIA A100-SXM4-80GB", 2039, True),
        ("NVIDIA A100-PCIE-40GB", 1555, True),
        ("NVIDIA L40S", 864, True),
        ("NVIDIA RTX 4000 SFF Ada Generation", 280, True),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 300, False),
        ("NVIDIA GeForce RTX 9999", 300, False),
        (None, 300, False),
    ],
)
def test_a_card_is_known_by_its_whole_name(name: str | None, gb_per_s: int, known: bool) -> None:
    assert throughput.gpu_gb_per_s(name) == (gb_per_s, known)


def test_a_token_takes_as_long_as_reading_the_gpu_and_then_the_host() -> None:
    gib = 1024.0
    # 8 GiB over 288 GB/s are 29.83 ms; 1 GiB over 60 GB/s are 17.90 ms
    assert throughput.tokens_per_s(8 * gib, 0, 288, 60) == pytest.approx(33.53, abs=0.01)
    assert throughput.tokens_per_s(8 * gib, 1 * gib, 288, 60) == pytest.approx(20.96, abs=0.01)
    assert throughput.tokens_per_s(0, 0, 288, 60) == 0
