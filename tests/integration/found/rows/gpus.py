"""Found hosts: GPUs, drivers and NVML."""

from __future__ import annotations

from tests.integration.faults.fault_lab import DROP_INS, GPU
from tests.integration.found.condition import Found
from tests.integration.found.rows.servers import FAQ, MODEL, loaded

# The words of molecule/lab/simulated_gpu: a card more, or another word of a record.
STATE = "/run/simulated-gpu/state"
SMALL = "GPU-00000000-0000-0000-0000-000000000003"
SMALL_CARD = f"echo 'gpu total=3072 name=\"NVIDIA T400\" uuid={SMALL} pci=00000000:02:00.0' >> {STATE}\n"
BIG = f"$(sed -n 's/^gpu .*uuid=\\([^ ]*\\).*/\\1/p' {STATE} | head -n 1)"


SECOND = "GPU-00000000-0000-0000-0000-000000000002"
# A second card of the kind, with nothing on it.
TWO_CARDS = f"""
sed -n 's/:01:/:02:/; s/^\\(gpu .*uuid=\\)[^ ]*/\\1{SECOND}/p' {STATE} > /opt/card; cat /opt/card >> {STATE}
"""


LARGE_SECOND_CARD = f"""{TWO_CARDS}
sed -i '/ pci=00000000:01:/s/^gpu total=16380/gpu total=8188/; /{SECOND}/s/total=16380/total=24564/' {STATE}
"""


def listing(how: str) -> str:
    """How NVML lists the processes of the card."""
    return f"sed -i 's/^gpu /gpu lists={how} /' {STATE}"


RESTARTED = "systemctl restart ollama; until curl -fsm 1 http://127.0.0.1:11434/api/version; do sleep 0.2; done"


def set_in_the_unit(*variables: str) -> str:
    """Ollama with these variables in its owner's drop-in."""
    lines = "\n".join(["[Service]", *(f"Environment={variable}" for variable in variables)])
    return (
        f"mkdir -p {DROP_INS}; cat > {DROP_INS}/20-owner.conf <<END\n{lines}\nEND\nsystemctl daemon-reload; {RESTARTED}"
    )


def visible(value: str) -> str:
    return set_in_the_unit(f'"CUDA_VISIBLE_DEVICES={value}"')


def words_of(record: str, words: str) -> str:
    """More words of a record of the simulated GPU's state: of the card, or of the driver."""
    return f"sed -i 's/^{record} /&{words} /' {STATE}\n"


def fault(code: str, function: str = "*", *options: str) -> str:
    """What NVML answers from now on, as a driver in trouble does."""
    return " ".join([GPU, "fault", f"--function '{function}'", f"--code {code}", *options]) + "\n"


def library_at(directory: str) -> str:
    """The driver's library, where the loader does not look."""
    return f"mkdir -p {directory}; mv /usr/lib/libnvidia-ml.so.1 {directory}/; ldconfig\n"


LOST = ("Ollama found no NVIDIA GPU", "library=cpu")
NO_UVM = words_of("driver", "cuda_fails=1")
TOOLKIT = "NVIDIA/nvidia-container-toolkit"
CUDA_GUIDE = "https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html"
COMPUTE_MODE = (
    "https://docs.rs/nvml-wrapper/latest/i686-pc-windows-msvc/nvml_wrapper/enum_wrappers/device/enum.ComputeMode.html"
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
    # --- what Ollama was left with ------------------------------------------------------------------------------------
    Found(
        "no_gpu_found_after_a_suspend",
        f"{NO_UVM}{RESTARTED}",
        "refused",
        (*LOST, "nvidia_uvm", "restart Ollama"),
        "ollama/ollama#5464",
        short=True,
    ),
    Found(
        "only_the_cpus_library_was_asked_for",
        set_in_the_unit("OLLAMA_LLM_LIBRARY=cpu"),
        "refused",
        (*LOST, "OLLAMA_LLM_LIBRARY=cpu leaves it no other library", "take it out"),
        "https://docs.ollama.com/troubleshooting",
    ),
    Found(
        "no_card_visible_since_the_value_is_empty",
        visible(""),
        "refused",
        ("hides every GPU", "CUDA_VISIBLE_DEVICES="),
        "ollama/ollama#1813",
    ),
    Found("card_visible_by_the_beginning_of_its_uuid", visible(f"$(echo {BIG} | cut -c1-10)"), "pass", (), CUDA_GUIDE),
    Found("cards_visible_with_blanks", SMALL_CARD + visible("0, 7"), "pass", ("decides nothing",), CUDA_GUIDE),
    Found(
        "other_makers_variables_are_set",
        set_in_the_unit("HIP_VISIBLE_DEVICES=-1", "ROCR_VISIBLE_DEVICES=-1", "NVIDIA_VISIBLE_DEVICES=none"),
        "pass",
        (),
        "ollama/ollama#17136",
    ),
    # --- several cards that Ollama uses -------------------------------------------------------------------------------
    Found(
        "model_gets_the_emptier_of_two_cards",
        f"{TWO_CARDS}{RESTARTED}",
        "pass",
        ("measured +0; GPU 0 0 (0 to 0) and Xorg 800; GPU 1 9174 (8956 to 9374)", "GPU 1 at", "peak 9174 of 12288"),
        FAQ,
        short=True,
    ),
    # 9974 MiB on one; the threshold is each card's.
    Found(
        "model_is_spread_over_two_cards",
        f"{TWO_CARDS}{set_in_the_unit('OLLAMA_SCHED_SPREAD=1')}",
        "pass",
        ("measured +1; GPU 0 5063 (4801 to 5306) and Xorg 800; GPU 1 5009 (4764 to 5236)", "peak 5863 of 6500"),
        FAQ,
        variables={"gpu_memory_overrides": {"intent": {"max_used_mib": 6500}}},
        short=True,
    ),
    Found(
        "second_of_two_cards_is_the_only_one_visible",
        f"{TWO_CARDS}{visible('1')}",
        "pass",
        ("GPU 0 (NVIDIA GeForce RTX 4060 Ti) is ignored", "GPU 1 at", "peak 9174 of 12288"),
        FAQ,
    ),
    # It would pass with what the desktop holds.
    Found(
        "model_goes_to_a_card_that_was_not_named",
        f"{TWO_CARDS}{RESTARTED}",
        "rolled_back",
        ("the model is on GPU 1", "gpu_memory_gpus does not name", "CUDA_VISIBLE_DEVICES"),
        FAQ,
        variables={"gpu_memory_gpus": ["0"]},
    ),
    # What CUDA counts first has 8 GB, and the model goes to the other.
    Found(
        "two_cards_of_different_sizes_and_the_small_one_is_first",
        f"{LARGE_SECOND_CARD}{set_in_the_unit('CUDA_DEVICE_ORDER=PCI_BUS_ID')}",
        "pass",
        ("measured -1; GPU 0 0 (0 to 0) and Xorg 800; GPU 1 4609 (", "peak 4608 of 6141 MiB", "on GPU 1"),
        FAQ,
        variables={"gpu_memory_other_sizes": "scale", "gpu_memory_models": [MODEL]},
    ),
    # --- cards --------------------------------------------------------------------------------------------------------
    Found(
        "name_is_not_utf8",
        f"{SMALL_CARD}sed -i 's/NVIDIA /NVIDIA \\xff\\xfe/' {STATE}\n{visible(BIG)}",
        "pass",
        ("NVIDIA \\xff\\xfeT400", "decides nothing"),
        "gpuopenanalytics/pynvml#53",
        short=True,
    ),
    Found(
        "second_card_is_dead_and_not_seen_by_ollama",
        SMALL_CARD + fault("GpuIsLost", "nvmlDeviceGetHandleByIndex*", "--gpu 1") + visible(BIG),
        "pass",
        ("GPU 1 (unreadable)", "decides nothing", "Xid 79"),
        "wookayin/gpustat#125",
    ),
    Found(
        "only_card_fell_off_the_bus",
        fault("GpuIsLost", "nvmlDeviceGet*", "--gpu 0"),
        "refused",
        ("fallen off the bus", "Xid 79", "power-cycle"),
        "wookayin/gpustat#81",
    ),
    Found(
        "only_card_answers_unknown_error",
        fault("Unknown", "nvmlDeviceGetHandleByIndex*", "--gpu 0"),
        "refused",
        ("NVML says: Unknown Error", "nvidia-smi --gpu-reset"),
        f"{TOOLKIT}#48",
        short=True,
    ),
    Found(
        "only_card_is_split_by_mig",
        words_of("gpu", "mig=1"),
        "refused",
        ("split by MIG", "nvidia-smi -i 0 -mig 0"),
        "ollama/ollama#14031",
    ),
    Found(
        "second_card_is_split_by_mig_and_hidden",
        SMALL_CARD.replace("total=3072", "total=3072 mig=1") + visible(BIG),
        "pass",
        ("decides nothing",),
        "ollama/ollama#4814",
    ),
    Found(
        "compute_is_prohibited",
        words_of("gpu", "compute_mode=2"),
        "refused",
        ("compute mode Prohibited", "nvidia-smi -i 0 -c DEFAULT"),
        COMPUTE_MODE,
    ),
    Found(
        "compute_is_exclusive",
        words_of("gpu", "compute_mode=3"),
        "pass",
        ("only one process can use it", "nvidia-smi -i 0 -c DEFAULT"),
        "NVIDIA/DIGITS#2005",
    ),
    Found(
        "memory_is_the_hosts",
        fault("NotSupported", "nvmlDeviceGetMemoryInfo*"),
        "refused",
        ("shares the host's memory", "leave this host out"),
        "kubernetes-sigs/dra-driver-nvidia-gpu#1073",
    ),
    Found(
        "guest_with_a_virtual_gpu",
        fault("NotSupported", "nvmlDeviceGetMigMode")
        + fault("NotSupported", "nvmlDevice?etAccounting*")
        + fault("NotSupported", "nvmlDevice?etPersistenceMode")
        + fault("NotSupported", "nvmlDeviceGetComputeMode"),
        "pass",
        (),
        "https://docs.nvidia.com/grid/latest/grid-management-sdk-user-guide/index.html",
    ),
    # --- the driver ---------------------------------------------------------------------------------------------------
    Found(
        "driver_was_upgraded_while_it_ran",
        fault("LibRmVersionMismatch", "nvmlInit*"),
        "refused",
        ("the driver was upgraded while it ran", "reboot"),
        "abysssol/ollama-flake#4",
    ),
    Found(
        "driver_is_not_loaded",
        f"rm {STATE}",
        "refused",
        ("the NVIDIA kernel driver is not loaded", "dkms autoinstall", "Secure Boot"),
        "gridhead/nvidia-auto-installer-for-fedora-linux#75",
    ),
    Found(
        "driver_shows_no_card",
        f"sed -i '/^gpu /d' {STATE}",
        "refused",
        ("the driver is loaded but shows no GPU", "NVRM lines in the kernel log"),
        "NVIDIA/open-gpu-kernel-modules#789",
    ),
    *(
        Found(f"library_where_{who}_puts_it", library_at(directory), "pass", (), known_from)
        for who, directory, known_from in (
            (
                "debian",
                "/usr/lib/x86_64-linux-gnu/nvidia/current",
                "CFSworks/nvml_fix#31",
            ),
            ("nixos", "/run/opengl-driver/lib", "NixOS/nixpkgs#83713"),
            ("wsl", "/usr/lib/wsl/lib", "ollama/ollama#1898"),
        )
    ),
    Found(
        "library_where_nobody_puts_it",
        library_at("/srv/driver"),
        "refused",
        ("libnvidia-ml.so.1 cannot be loaded", "none of the directories", "/etc/ld.so.conf.d"),
        "microsoft/WSL#11888",
    ),
]
