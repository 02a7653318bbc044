# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a model answers, by arithmetic: a token takes as long as reading what it needs. Pure; not a measurement.

The rule holds for one answer at a time, whose speed memory bounds; it says nothing of reading a prompt.
"""

from __future__ import annotations

import re

# GB/s (10^9 bytes) of a GPU's own memory, from the makers' data sheets; desktop and server cards.
GPU_GB_PER_S = {
    "GTX 1060": 192, "GTX 1070": 256, "GTX 1080": 320, "GTX 1080 TI": 484, "GTX 1650": 128, "GTX 1660": 192,
    "GTX 1660 TI": 288, "RTX 2060": 336, "RTX 2070": 448, "RTX 2080": 448, "RTX 2080 SUPER": 496, "RTX 2080 TI": 616,
    "RTX 3050": 224, "RTX 3060": 360, "RTX 3060 TI": 448, "RTX 3070": 448, "RTX 3070 TI": 608, "RTX 3080": 760,
    "RTX 3080 TI": 912, "RTX 3090": 936, "RTX 3090 TI": 1008, "RTX 4060": 272, "RTX 4060 TI": 288, "RTX 4070": 504,
    "RTX 4070 SUPER": 504, "RTX 4070 TI": 504, "RTX 4070 TI SUPER": 672, "RTX 4080": 717, "RTX 4080 SUPER": 736,
    "RTX 4090": 1008, "RTX 5050": 320, "RTX 5060": 448, "RTX 5060 TI": 448, "RTX 5070": 672, "RTX 5070 TI": 896,
    "RTX 5080": 960, "RTX 5090": 1792, "A2000": 288, "A4000": 448, "A4500": 640, "A5000": 768, "A6000": 768,
    "RTX 2000 ADA": 224, "RTX 4000 ADA": 360, "RTX 4000 SFF ADA": 280, "RTX 4500 ADA": 432, "RTX 5000 ADA": 576,
    "RTX 6000 ADA": 960, "QUADRO RTX 4000": 416, "QUADRO RTX 5000": 448, "QUADRO RTX 6000": 672, "P4": 192, "P40": 346,
    "P100": 732, "V100": 900, "T4": 320, "A2": 200, "A10": 600, "A16": 200, "A30": 933, "A40": 696, "A100": 1555,
    "A100 80GB": 1935, "A100 SXM4 80GB": 2039, "L4": 300, "L40": 864, "L40S": 864, "H100": 2039, "H100 80GB HBM3": 3350,
}  # fmt: skip
UNKNOWN_GPU_GB_PER_S = 300
HOST_GB_PER_S = 60  # between two channels of DDR4-3200 (51) and of DDR5-5600 (90)
MIB_PER_GB = 1e9 / (1024 * 1024)


def gpu_gb_per_s(name: str | None) -> tuple[int, bool]:
    """Bandwidth of a GPU by the name that NVML gives it, and whether the name is known (a laptop's chips differ)."""
    words = f" {re.sub(r'[^A-Z0-9]+', ' ', (name or '').upper())} "
    known = [card for card in GPU_GB_PER_S if f" {card} " in words]
    if not known or " LAPTOP " in words or " MAX Q " in words:
        return UNKNOWN_GPU_GB_PER_S, False
    return GPU_GB_PER_S[max(known, key=len)], True


def tokens_per_s(gpu_mib: float, host_mib: float, gpu_gb: float, host_gb: float) -> float:
    """Tokens a second where each reads `gpu_mib` from the GPU and then `host_mib` from the host, at GB/s."""
    seconds = gpu_mib / (gpu_gb * MIB_PER_GB) + host_mib / (host_gb * MIB_PER_GB)
    return 1 / seconds if seconds else 0.0
