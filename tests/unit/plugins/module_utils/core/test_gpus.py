# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import gpus

BIG = {"index": 1, "uuid": "GPU-aa11", "name": "RTX 4060 Ti", "pci_bus_id": "00000000:02:00.0", "error": None}
SMALL = {"index": 0, "uuid": "GPU-aa22", "name": "T400", "pci_bus_id": "00000000:01:00.0", "error": None}
DEAD = {"index": 2, "uuid": None, "name": None, "pci_bus_id": None, "error": "lost"}
TWINS = [{**SMALL, "name": "A"}, {**BIG, "name": "A"}]
CPU = {"id": "cpu", "library": "cpu", "pci_id": ""}


def cuda(**changes: str) -> dict[str, str]:
    return {"id": "GPU-aa11", "library": "CUDA", "pci_id": "0000:02:00.0", **changes}


def select(cards: list[Any], discovered: list[dict[str, str]], *wanted: str, **environment: str) -> dict[str, Any]:
    return gpus.select({"status": "ok", "gpus": cards}, wanted, environment, discovered)


@pytest.mark.parametrize("line", [cuda(), cuda(id="0"), cuda(pci_id="")])
def test_what_ollama_found_goes_before_its_environment(line: dict[str, str]) -> None:
    found = select([SMALL, BIG, DEAD], [line], CUDA_VISIBLE_DEVICES="0")
    assert found["gpus"] == [BIG]
    assert found["ignored"] == [SMALL, DEAD]
    assert (found["lost"], found["problems"]) == (None, [])


@pytest.mark.parametrize(
    ("value", "order", "cards", "visible"),
    [
        ("GPU-aa11", None, [SMALL, BIG], [BIG]),
        ("GPU-aa1", None, [SMALL, BIG], [BIG]),
        ("GPU-aa", None, [SMALL, BIG], []),  # the beginning of two
        ("1", None, [SMALL, BIG], None),  # the fastest first: which that is, is CUDA's to say
        ("1", "PCI_BUS_ID", [SMALL, BIG], [BIG]),
        ("1", None, TWINS, [TWINS[1]]),
        ("1,0", "PCI_BUS_ID", [SMALL, BIG], [SMALL, BIG]),
        ("0,7,1", "PCI_BUS_ID", [SMALL, BIG], [SMALL]),
        ("-1", None, [SMALL, BIG], []),
        ("", None, [SMALL, BIG], []),
        ("NoDevFiles", None, [SMALL, BIG], []),
        ("0, 1", "PCI_BUS_ID", [SMALL, BIG], [SMALL, BIG]),
        ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", None, [SMALL, BIG], None),  # a part of one
        ("MIG-GPU-aa11/1/0", None, [SMALL, BIG], None),
        (None, None, [SMALL, BIG], [SMALL, BIG]),
    ],
)
def test_cuda_visible_devices(
    value: str | None, order: str | None, cards: list[Any], visible: list[Any] | None
) -> None:
    environment = {gpus.VISIBLE: value, gpus.ORDER: order}
    assert gpus.visible_gpus(cards, {name: text for name, text in environment.items() if text is not None}) == visible


def test_all_count_where_nothing_is_known() -> None:
    assert select([SMALL, BIG], [])["gpus"] == [SMALL, BIG]


def test_an_ollama_without_a_gpu_is_lost() -> None:
    found = select([BIG], [CPU])
    assert found["gpus"] == [BIG]
    assert "library=cpu" in found["lost"] and "nvidia_uvm" in found["lost"]
    hidden = select([BIG], [CPU], CUDA_VISIBLE_DEVICES="-1")["lost"]
    assert "CUDA_VISIBLE_DEVICES=-1 hides" in hidden and "GPU-aa11" in hidden
    assert select([], [CPU])["lost"] is None
    assert select([BIG], [])["lost"] is None


AMD = {"id": "0", "library": "ROCm", "pci_id": "0000:03:00.0"}
OLD_AMD = {"id": "0", "library": "rocm", "pci_id": ""}
BY_VULKAN = {"id": "01000000-0200-0000-0000-000000000000", "library": "Vulkan", "pci_id": "0000:02:00.0"}


def test_an_ollama_that_has_only_a_card_of_another_make_is_lost() -> None:
    for line in (AMD, OLD_AMD, {**BY_VULKAN, "pci_id": "0000:03:00.0"}):
        assert f"library={line['library']}" in select([BIG], [line])["lost"]
        both = select([BIG], [line, cuda()])
        assert both["lost"] is None and f"library={line['library']}" in both["notes"][0]
    assert select([BIG], [BY_VULKAN, cuda()])["notes"] == []
    assert select([BIG], [cuda(), cuda(id="MIG-1", pci_id="")])["notes"] == []
    assert select([BIG], [BY_VULKAN])["lost"] is None
    assert select([BIG], [cuda(id="MIG-1", pci_id="")])["lost"] is None


def test_a_library_that_was_asked_for_is_the_cause() -> None:
    lost = select([BIG], [CPU], OLLAMA_LLM_LIBRARY="cpu")["lost"]
    assert "OLLAMA_LLM_LIBRARY=cpu leaves it no other library; take it out" in lost
    assert "nvidia_uvm" not in lost


def test_an_ill_gpu_that_ollama_does_not_use_is_told_with_its_illness() -> None:
    (note,) = select([BIG, DEAD], [cuda()])["notes"]
    assert note == "GPU 2 (unreadable) is ignored, since this Ollama does not use it: it decides nothing (lost)"


def test_an_exclusive_compute_mode_is_noted() -> None:
    (note,) = select([{**BIG, "compute_mode": "exclusive_process"}], [cuda()])["notes"]
    assert "only one process" in note and "nvidia-smi -i 1 -c DEFAULT" in note
    assert select([{**BIG, "compute_mode": "default"}], [cuda()])["notes"] == []


def test_a_gpu_that_ollama_did_not_find_is_told() -> None:
    notes = "\n".join(select([SMALL, BIG], [cuda()])["notes"])
    assert "GPU 0 (T400) is ignored, since this Ollama does not use it" in notes
    assert "did not find GPU 0 (T400)" in notes
    assert "did not find" not in "\n".join(select([BIG, DEAD], [cuda()])["notes"])


def test_gpus_that_were_named() -> None:
    found = select([SMALL, BIG], [cuda()], "GPU-aa22")
    assert found["gpus"] == [SMALL]
    assert "Ollama uses GPU 1 (RTX 4060 Ti) as well" in found["notes"][0]
    assert "GPU 1 (RTX 4060 Ti) is ignored, since gpu_memory_gpus does not name it" in found["notes"][1]
    assert select([SMALL, BIG], [], "1", "0")["gpus"] == [SMALL, BIG]
    assert "no GPU 7" in select([SMALL, BIG], [], "7")["problems"][0]
    assert "twice" in select([SMALL, BIG], [], "0", "GPU-aa22")["problems"][0]


@pytest.mark.parametrize(
    ("lines", "order"),
    [
        ([("GPU-aa11", "CUDA0"), ("GPU-aa22", "CUDA1")], ["GPU-aa11", "GPU-aa22"]),
        ([("GPU-aa22", "CUDA1"), ("GPU-aa11", "CUDA0")], ["GPU-aa11", "GPU-aa22"]),  # by free memory in the log
        ([("GPU-aa11", "CUDA0")], ["GPU-aa11"]),
        ([("GPU-aa11", "CUDA0"), ("GPU-aa22", "")], []),
        ([("GPU-aa11", "CUDA0"), ("GPU-aa22", "CUDA0")], []),
        ([], []),
    ],
)
def test_the_order_is_what_ollama_says(lines: list[tuple[str, str]], order: list[str]) -> None:
    discovered = [{"id": uuid, "library": "CUDA", "pci_id": "", "name": name} for uuid, name in lines]
    assert select([SMALL, BIG], discovered)["order"] == order
