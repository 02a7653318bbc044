"""Found hosts: GPUs, drivers and NVML."""

from __future__ import annotations

from tests.faults.fault_lab import DROP_INS
from tests.found.condition import Found

# The words of molecule/lab/simulated_gpu: a card more, or another word of a record.
STATE = "/run/simulated-gpu/state"
SMALL = "GPU-00000000-0000-0000-0000-000000000003"
SMALL_CARD = f"echo 'gpu total=3072 name=\"NVIDIA T400\" uuid={SMALL} pci=00000000:02:00.0' >> {STATE}\n"
BIG = f"$(sed -n 's/^gpu .*uuid=\\([^ ]*\\).*/\\1/p' {STATE} | head -n 1)"


def visible(value: str) -> str:
    return (
        f"mkdir -p {DROP_INS}; printf '[Service]\\nEnvironment=CUDA_VISIBLE_DEVICES=%s\\n' \"{value}\" "
        f"> {DROP_INS}/20-owner.conf; systemctl daemon-reload; systemctl restart ollama\n"
        "for try in $(seq 50); do curl -s localhost:11434/api/version && break; sleep 0.2; done"
    )


ROWS: list[Found] = [
    Found(
        "small_card_hidden", SMALL_CARD + visible(BIG), "pass", ("NVIDIA T400", "decides nothing"), "ollama/ollama#1813"
    ),
    Found(
        "no_card_visible",
        visible("-1"),
        "refused",
        ("hides every GPU", "CUDA_VISIBLE_DEVICES=-1"),
        "ollama/ollama#1813",
    ),
    Found(
        "card_named_by_nobody",
        "",
        "refused",
        ("there is no GPU 7", "it has: 0 = GPU-"),
        "ollama/ollama#1813",
        variables={"gpu_memory_gpus": ["7"]},
    ),
]
