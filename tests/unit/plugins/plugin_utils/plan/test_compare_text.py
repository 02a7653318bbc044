"""A plan as an operator reads it: within 120 columns, whatever a host's processes are called."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import compare_text, side_by_side
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import MODEL, SMALL
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_side_by_side import host, plan, proof


def lines(planned: dict[str, Any]) -> list[str]:
    return compare_text.block(planned)


def cells(planned: dict[str, Any], label: str) -> list[str]:
    """The cells of the first line with this label."""
    line = next(line for line in lines(planned) if line.strip().startswith(label))
    rest = line[2 + compare_text.LABEL_WIDTH :]
    width = compare_text.CELL_WIDTH
    return [" ".join(rest[start : start + width].split()) for start in range(0, len(rest), width)]


def test_the_budget_adds_up_before_the_readers_eyes() -> None:
    planned = plan()
    assert cells(planned, "BUDGET") == ["baseline", "stable (chosen)", "conservative"]
    assert cells(planned, "weights") == ["7605", "7605", "7605"]
    assert cells(planned, "KV cache") == ["2048", "1024", "256"]
    assert cells(planned, "= Ollama") == ["10082 (9864 to 10282)", "9054 (8836 to 9254)", "8284 (8066 to 8484)"]
    assert cells(planned, "others now: Xorg") == ["800", "800", "800"]
    assert cells(planned, "= sum") == ["10882 + backend", "9854 + backend", "9084 + backend"]
    assert cells(planned, "threshold") == ["16380 (none: the card)", "12288", "10240"]
    assert cells(planned, "headroom")[1] == "2434 left for the backend"
    assert cells(planned, "margin left by Ollama") == ["-", "4092 void", "6140 void"]


def test_the_largest_that_fits_says_where_the_backend_has_no_room_in_it() -> None:
    planned = plan(host(state__proof=proof(1836)))
    text = "\n".join(lines(planned))
    assert cells(planned, "LARGEST") == ["under 16380, backend ?", "under 12288", "under 10240, backend ?"]
    assert [cell.startswith("at most ") for cell in cells(planned, "num_ctx")] == [True, False, True]
    assert [cell.startswith("at most ") for cell in cells(planned, "num_gpu")] == [True, False, True]
    assert "with nothing left for the backend, which is not measured yet, so what really fits is less" in text
    assert "backend ?" not in "\n".join(lines(plan(backend="none")))


def test_the_guides_table_has_its_words_and_the_truth() -> None:
    assert cells(plan(), "GPU layers") == ["guide: 999 (all)", "guide: 40", "guide: 35"]
    text = "\n".join(lines(plan()))
    assert "all 33: 40 caps nothing" in text
    assert "100 %, at most 34 tok/s" in text


def test_the_layer_table_shows_a_readable_selection() -> None:
    assert compare_text.shown_layers(33) == [0, 1, 8, 14, 16, 24, 32, 33]
    assert compare_text.shown_layers(33, {20}) == [0, 1, 8, 14, 16, 20, 24, 32, 33]
    assert compare_text.shown_layers(1) == [0, 1]
    everything = next(line for line in lines(plan()) if line.startswith("   33  "))
    assert everything.split()[:4] == ["33", "10082", "573", "100"]
    assert everything.endswith("~8.5GB, CPU 0, 100%")


def test_rows_that_are_too_much_are_marked() -> None:
    planned = plan(profiles={"tight": {"extends": "stable", "intent": {"max_used_mib": 8000}}})
    assert any("8854!" in line and line.startswith("   32") for line in lines(planned))


@pytest.mark.parametrize(
    "planned",
    [
        plan(),
        plan(host(MODEL, SMALL), models=[MODEL, SMALL], overrides={"intent": {"max_loaded_models": 2}}),
        plan(profiles={f"a-profile-with-a-name-{'x' * 40}{n}": {"extends": "stable"} for n in range(4)}),
        plan(backend="none"),
        plan(host(ollama__api__show={})),
        {"host": "h" * 200, **side_by_side.unread("x" * 500)},
    ],
)
def test_it_fits_a_terminal_of_120_columns(planned: dict[str, Any]) -> None:
    assert max(map(len, lines(planned))) <= 120
    assert len(compare_text.one_line(planned)) <= 120


def test_nothing_from_a_host_steers_the_terminal() -> None:
    hostile = "\x1b[2J\x1b]0;gone\x07\u202eevil\nname"
    gpu = builders.gpu(processes=[builders.holder(7, hostile, 800)])
    planned = plan(host(nvml__gpus=[gpu]))
    for line in lines(planned):
        assert line.isprintable()
    assert any("others now: ?[2J" in line for line in lines(planned))


def test_a_warning_stands_once_with_all_its_profiles() -> None:
    text = "\n".join(lines(plan()))
    assert text.count("switches Ollama's fitting off") == 1
    assert "stable, conservative: the backend sends OLLAMA_GPU_LAYERS" in text


def test_many_hosts_get_a_line_each() -> None:
    good, bad = plan(backend="none"), {"host": "gpu02", **side_by_side.unread("NVML: no library")}
    # the batch is Ollama's own here, 1024: 120 MiB more compute than with the guide's backend
    assert compare_text.summary([good, good, good, good, bad]) == [
        *["gpu01 stable fits 9974 of 12288 MiB, headroom 2314, 4 warnings"] * 4,
        "gpu02 cannot be planned: NVML: no library",
    ]
    assert len(compare_text.summary([good, bad])[0].splitlines()) > 40


def test_each_of_several_gpus_has_a_line() -> None:
    gpus = [builders.gpu(), builders.gpu(1, processes=[], used_mib=0)]
    text = "\n".join(compare_text.block(plan(host(nvml__gpus=gpus))))
    assert "GPU 0: NVIDIA" in text and "GPU 1: NVIDIA" in text
    on_second = next(line for line in text.splitlines() if line.startswith("  on GPU 1"))
    assert "9054" in on_second
    assert "others now: Xorg" in text and "the tightest" in text
