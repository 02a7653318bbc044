"""Found hosts: GPUs, drivers and NVML."""

from __future__ import annotations

from tests.faults.fault_lab import DROP_INS
from tests.found.condition import Found
from tests.found.rows.servers import loaded

# The words of molecule/lab/simulated_gpu: a card more, or another word of a record.
STATE = "/run/simulated-gpu/state"
SMALL = "GPU-00000000-0000-0000-0000-000000000003"
SMALL_CARD = f"echo 'gpu total=3072 name=\"NVIDIA T400\" uuid={SMALL} pci=00000000:02:00.0' >> {STATE}\n"
BIG = f"$(sed -n 's/^gpu .*uuid=\\([^ ]*\\).*/\\1/p' {STATE} | head -n 1)"


def listing(how: str) -> str:
    """How NVML lists the processes of the card."""
    return f"sed -i 's/^gpu /gpu lists={how} /' {STATE}"


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
    # WSL 2: NVML lists processes, but has no figure of any.
    Found(
        "no_figure_of_any_process",
        listing("no-figures"),
        "pass",
        ("16380 MiB = not attributed (the driver has no figure of Xorg, Ollama) 9974",),
        "Syllo/nvtop#432",
        short=True,
    ),
    # The host is a container: newer drivers hide the processes of other pid namespaces, older give the machine's pids.
    Found(
        "no_process_listed",
        listing("nothing"),
        "pass",
        ("16380 MiB = not attributed 9974",),
        "NVIDIA/nvidia-container-toolkit#1013",
    ),
    Found(
        "pids_of_the_machine",
        f"{loaded()}\n{listing('foreign-pids')}",
        "pass",
        ("16380 MiB = not attributed (this host does not see process",),
        "canonical/lxd#9755",
    ),
]
