"""Who holds a GPU's memory adds up to its total, whatever the driver tells."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import memory_parts
from ansible_collections.selo.gpu_memory.tests.unit.builders import MIB, holder, memory, process, read
from hypothesis import given
from hypothesis import strategies as st

OWNERS = memory_parts.known([read()])
RUNNER, BACKEND, DESKTOP = holder(400, "llama-server", 9054), holder(500, "python3", 1836), holder(900, "Xorg", 800)
ORPHAN = {"pid": 812, "command": "llama-server", "kind": "process", "name": None, "user": "ollama", "alone": True}


def shown(memory: dict[str, Any], *processes: dict[str, Any], owners: memory_parts.Known = OWNERS) -> dict[str, int]:
    return {part["name"]: part["mib"] for part in memory_parts.split(memory, processes, owners)}


def test_each_owner_and_what_is_left() -> None:
    assert memory_parts.split(memory(11700, reserved_mib=300), [DESKTOP, BACKEND, RUNNER], OWNERS) == [
        {"what": "ollama", "name": "Ollama", "mib": 9054},
        {"what": "backend", "name": "backend", "mib": 1836},
        {"what": "others", "name": "Xorg", "mib": 800},
        {"what": "reserved", "name": "reserved by the driver", "mib": 300},
        {"what": "not attributed", "name": "not attributed", "mib": 10},
        {"what": "free", "name": "free", "mib": 4380},
    ]


def test_another_ollama_is_no_part_of_this_one() -> None:
    owners = memory_parts.known([None, {"failed": True}, read(ollama__others=[ORPHAN])])
    runners = [holder(812, "llama-server", 2294), RUNNER]
    assert shown(memory(11348), *runners, owners=owners) == {
        "Ollama": 9054, "llama-server 812, whose server is gone": 2294, "free": 5032,
    }  # fmt: skip


def test_a_runner_that_only_the_load_saw_is_ollamas_unless_a_read_knows_better() -> None:
    seen = [process(pid=77), process(pid=812)]
    owners = memory_parts.known([read(ollama__others=[ORPHAN])], seen)
    assert [memory_parts.kind_of(holder(pid, "x", 1), owners) for pid in (77, 812)] == [
        memory_parts.OLLAMA,
        memory_parts.OTHERS,
    ]


@pytest.mark.parametrize("name", ["ollama", "llama-server", "ollama_llama_se"])
def test_ollamas_own_names_as_the_kernel_cuts_them(name: str) -> None:
    assert memory_parts.kind_of(holder(7, name, 1), OWNERS) == memory_parts.OLLAMA


@pytest.mark.parametrize(
    ("processes", "name"),
    [
        ([], "not attributed"),
        ([holder(400, "llama-server", None), DESKTOP], "not attributed (the driver has no figure of Ollama)"),
        (
            [holder(pid, f"p{pid}", None) for pid in range(1, 6)],
            "not attributed (the driver has no figure of p1, p2, p3 and 2 more)",
        ),
        ([holder(4711, None, 9054), DESKTOP], "not attributed (this host does not see process 4711)"),
        (
            [DESKTOP, holder(8, "late", 11000)],
            "not attributed (the processes were listed at another moment)",
        ),
    ],
)
def test_what_is_not_known_is_said_and_nothing_is_guessed(processes: list[dict[str, Any]], name: str) -> None:
    attributed = 800 if DESKTOP in processes and "moment" not in name else 0
    found = shown(memory(11690), *processes)
    assert found.pop(name) == 11690 - attributed
    assert found == {**({"Xorg": 800} if attributed else {}), "free": 4690}


def test_where_nvml_counts_the_reserved_part_as_used_it_is_not_attributed() -> None:
    old = {**memory(1100), "reserved": None}
    assert shown(old, DESKTOP) == {
        "Xorg": 800, "not attributed (with what the driver reserves)": 300, "free": 15280,
    }  # fmt: skip
    # Should used of v2 have the reserved part in it, as nvml.h says, it is not counted twice.
    assert shown({**memory(1100), "reserved": 300 * MIB}, DESKTOP) == {
        "Xorg": 800,
        "not attributed": 300,
        "free": 15280,
    }


def test_processes_of_one_name_are_one_part() -> None:
    tabs = [holder(pid, "chrome", 10) for pid in range(10, 15)]
    assert shown(memory(50), *tabs) == {"chrome": 50, "free": 16330}


def test_of_many_others_the_smallest_are_one_part() -> None:
    many = [holder(pid, f"p{pid}", pid) for pid in range(101, 101 + memory_parts.NAMED + 1)]
    found = memory_parts.split(memory(12000), [RUNNER, *many], OWNERS)
    assert [(part["what"], part["name"]) for part in found[:2]] == [("ollama", "Ollama"), ("others", "p109")]
    assert found[memory_parts.NAMED] == {"what": "others", "name": "2 others", "mib": 101 + 102}
    assert "others" not in {part["name"] for part in memory_parts.split(memory(12000), [RUNNER, *many[1:]], OWNERS)}


def test_as_text() -> None:
    assert (
        memory_parts.text(16380, memory_parts.split(memory(800), [DESKTOP], OWNERS))
        == "16380 MiB = Xorg 800 + free 15580"
    )


bytes_of_a_card = st.integers(0, 24 * 1024 * MIB)


@given(
    total=bytes_of_a_card,
    used=bytes_of_a_card,
    free=bytes_of_a_card,
    reserved=st.none() | bytes_of_a_card,
    processes=st.lists(
        st.tuples(
            st.sampled_from([312, 400, 500, 812, 900, 901]),
            st.sampled_from(["ollama", "Xorg", "a", None]),
            st.none() | bytes_of_a_card,
        ),
        max_size=12,
    ),
)
def test_the_sum_is_the_total_whatever_the_driver_says(
    total: int, used: int, free: int, reserved: int | None, processes: list[tuple[int, str | None, int | None]]
) -> None:
    rows = [{"pid": pid, "name": name, "used_bytes": count} for pid, name, count in processes]
    found = memory_parts.split({"total": total, "used": used, "free": free, "reserved": reserved}, rows, OWNERS)
    assert sum(part["mib"] for part in found) == total // MIB
    assert all(part["mib"] >= 0 for part in found)
    assert {part["what"] for part in found} <= set(memory_parts.KINDS)
