"""What is put on a GPU that is too small, held against llama-server's own decisions (fit_projection.csv)."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import fitting, planner
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

VERSION = "0.32.15"
MIB = 1 << 20
OF_FIRST = {"UP": fitting.BEYOND_UP, "GATE": fitting.BEYOND_GATE, "ATTN": fitting.BEYOND_ATTENTION, "": fitting.EXPERTS}
with (recorded_models.DATA / "fit_projection.csv").open() as table:
    ROWS = list(csv.DictReader(table))


def scenario(row: dict[str, str]) -> planner.Scenario:
    names = ("num_ctx", "num_parallel", "num_batch", "flash_attention", "draft_num_predict")
    return planner.Scenario.from_dict({**{name: row[name] for name in names}, "kv_cache_type": row["cache_type"]})


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['case']}-{row['target_mib']}-{row['num_ctx']}")
def test_what_overflows_is_what_llama_server_lets_overflow(row: dict[str, str]) -> None:
    """The recorded device lends nothing to layers on the host, so what CUDA borrows is left out."""
    model = recorded_models.model(row["case"])
    layers = model.offloadable - (0 if int(row["draft_num_predict"]) else len(model.predicting))

    def used(layout: fitting.Layout) -> int:
        given = replace(scenario(row), num_gpu=layout.layers, on_cpu=layout.on_cpu(layers))
        plan = planner.plan(model, given, ollama_version=VERSION)
        return int((plan.weights_mib + plan.kv_mib + plan.compute_mib) * MIB)

    found = fitting.fitted_layout(layers, model.has_experts, int(row["target_mib"]) * MIB, used)
    recorded = fitting.Layout(int(row["layers"]), int(row["overflowing"]), OF_FIRST[row["of_first"]])
    assert found == recorded
    assert used(found) / MIB == pytest.approx(float(row["used_mib"]), rel=0.02, abs=48)


def layout_of(name: str, free_mib: float, version: str = VERSION, **settings: object) -> planner.Scenario:
    asked = planner.Scenario.from_dict({"num_ctx": 8192, "num_batch": 512, **settings})
    return planner.fitted(recorded_models.model(name), asked, free_mib, ollama_version=version)


def test_what_fits_stays_as_it_was_asked_for() -> None:
    asked = planner.Scenario.from_dict({"num_ctx": 8192, "num_batch": 512})
    assert layout_of("gpt-oss-20b", 20_000) == asked


def test_of_a_model_with_experts_all_layers_stay_and_parts_of_some_go_to_the_cpu() -> None:
    model, found = recorded_models.model("gpt-oss-20b"), layout_of("gpt-oss-20b", 9000)
    plan = planner.plan(model, found, ollama_version=VERSION)
    assert plan.offloaded_layers == model.offloadable == 25
    assert 0 < plan.partial_layers < 24
    assert plan.total_mib <= 9000
    assert any("such as experts, stay on the CPU" in warning for warning in plan.warnings)
    more = replace(found, on_cpu=found.on_cpu[1:])
    assert planner.plan(model, more, ollama_version=VERSION).total_mib > 9000


def test_before_llama_server_experts_go_with_their_layer() -> None:
    found = layout_of("gpt-oss-20b", 9000, version="0.24.0")
    assert 0 < found.num_gpu < 25
    assert not found.on_cpu


def test_a_model_without_experts_loses_whole_layers() -> None:
    found = layout_of("gemma3-12b", 9000)
    assert 0 < found.num_gpu < 49
    assert not found.on_cpu


def test_a_projector_stays_on_the_gpu_and_is_left_room_for_unless_somebody_says_what_to_leave_free() -> None:
    answer = recorded_models.answer_of("gemma3-12b")
    answer["tensors"].append({"name": "v.made_up.weight", "type": "F16", "shape": [1024, 1024 * 500]})
    answer["model_info"].pop("general.parameter_count", None)
    model = planner.Model.from_show(answer)
    asked = planner.Scenario.from_dict({"num_ctx": 8192, "num_batch": 512})
    with_room, without = (
        planner.plan(
            model,
            planner.fitted(model, asked, 9000, ollama_version=VERSION, projector_counts=counts),
            ollama_version=VERSION,
        )
        for counts in (True, False)
    )
    blind = planner.plan(recorded_models.model("gemma3-12b"), layout_of("gemma3-12b", 9000), ollama_version=VERSION)
    assert without.offloaded_layers == blind.offloaded_layers > with_room.offloaded_layers
    assert with_room.total_mib <= 9000 < without.total_mib == pytest.approx(blind.total_mib + 1000)
    assert without.band_mib["total_mib"][0] == pytest.approx(blind.band_mib["total_mib"][0], abs=1)


def test_nothing_is_put_where_nothing_is_free() -> None:
    for name in ("gpt-oss-20b", "gemma3-12b"):
        assert layout_of(name, 0).num_gpu == 0


def test_expressions_name_many_blocks_without_a_word_too_long() -> None:
    expressions = fitting.Layout(1001, 1000).on_cpu(1001)
    assert max(map(len, expressions)) <= 512
    assert sum(expression.count("|") for expression in expressions) >= 998
