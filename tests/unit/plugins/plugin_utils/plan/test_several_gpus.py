# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several GPUs a model gets depends on what is free there, and so on what was loaded before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import several_gpus
from ansible_collections.selo.gpu_memory.tests.unit.builders import MODEL
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import SMALL, show

TODAY = "0.32.15"
MODELS = {
    MODEL: planner.Model.from_show(show("llama31-8b-q8_0")),
    SMALL: planner.Model.from_show(show("llama32-3b-q8_0")),
}
SCENARIO = planner.Scenario(num_ctx=4096, num_parallel=2, num_batch=512)
CARD = 16380.0
# What llama.cpp has on two RPC devices: weights, cache, compute; and a runtime each.
FIRST, LAST = 3757 + 544 + 228 + 305, 3847 + 480 + 188 + 305


def together(
    *free_mib: float, models: Sequence[str] = (MODEL,), most: int = 6, spread: bool = False
) -> several_gpus.Together:
    def plan_of(name: str, free: Sequence[float], context_mib: float) -> planner.Plan:
        free = [max(mib - context_mib, 1.0) for mib in free]
        return planner.plan(
            MODELS.get(name, MODELS[SMALL]), SCENARIO, ollama_version=TODAY, gpus_free_mib=free, spread=spread
        )

    return several_gpus.together(models, plan_of, free_mib, most, TODAY)


ALONE = planner.plan(MODELS[MODEL], SCENARIO, ollama_version=TODAY).total_mib
SMALL_ALONE = planner.plan(MODELS[SMALL], SCENARIO, ollama_version=TODAY).total_mib


def held(found: several_gpus.Together) -> list[int]:
    return [round(gpu.total_mib) for gpu in found.gpus]


def test_a_model_gets_the_gpu_with_the_most_free() -> None:
    found = together(15580, CARD)
    assert held(found) == [0, round(ALONE)]
    low, high = found.plans[MODEL].band_mib["total_mib"]
    assert (found.gpus[1].least_mib, found.gpus[1].most_mib) == (low, high)
    assert held(together(CARD, CARD)) == [round(ALONE), 0], "of equal ones the first"


def test_a_model_that_is_divided_is_within_what_llama_cpp_has_on_each() -> None:
    first, last = together(CARD, CARD, spread=True).gpus
    assert abs(first.total_mib - FIRST) < 48 and abs(last.total_mib - LAST) < 48
    assert first.least_mib < FIRST < first.most_mib
    assert last.least_mib < LAST < last.most_mib


def test_what_is_free_by_cuda_has_not_its_own_context_in_it() -> None:
    """Ollama expects 9162 MiB, so 11453 free: with a context of 305 gone that is not there, of 135 it may be."""
    first, last = together(11600, 9000).gpus
    assert held(together(11600, 9000))[1] > 3000, "it is divided"
    assert last.least_mib == 0 and first.most_mib >= ALONE, "or not"


def test_models_lie_apart_or_together_by_the_order_in_which_they_come() -> None:
    """The small one first takes the second GPU, and the large one then the first, which has more left."""
    found = together(15580, CARD, models=[MODEL, SMALL])
    assert set(found.plans) == {MODEL, SMALL}
    assert held(found) == [round(ALONE), round(ALONE)]
    assert found.gpus[0].least_mib < SMALL_ALONE + 100, "the large one first takes the second"
    assert held(together(15580, CARD, models=[MODEL, SMALL], most=1)) == [0, round(ALONE)]


def test_a_further_model_is_let_in_only_where_it_should_fit() -> None:
    found = together(11900, 2000, models=[MODEL, SMALL])
    assert list(found.plans) == [MODEL]
    assert held(found) == [round(ALONE), 0]
    # Divided over what is left of both it would fit, and so it is let in.
    found = together(11900, 4000, models=[MODEL, SMALL])
    assert set(found.plans) == {MODEL, SMALL}
    assert held(found)[1] > 1000


def test_too_many_ways_to_lie_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_gpus, "MOST_STATES", 200)  # all 2000 take seconds
    many = [f"m{number}" for number in range(8)]
    with pytest.raises(planner.ScenarioInvalid, match="8 models on 3 GPUs have too many ways"):
        together(60000, 60001, 60002, models=many, most=9)
