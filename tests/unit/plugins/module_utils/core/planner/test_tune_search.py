"""The search by simulation: whatever the planner believes, the result is what an exhaustive search would find."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner, tune_search
from hypothesis import given, settings
from hypothesis import strategies as st

LAB_DATA = Path(__file__).parents[5] / "data" / "planner"
CARD_MIB = 16380
CUDA_MIB = 305
MODELS = {
    "llama31-8b": "llama31-8b-q8_0",
    "llama32-3b": "llama32-3b-q8_0",
    "qwen25-3b": "qwen25-3b-q4_k_m",
}
TRUTH = {
    (row["case"], *(int(row[name]) for name in ("num_gpu", "num_ctx", "num_parallel", "num_batch"))): int(
        row["projected_gpu_mib"]
    )
    + (CUDA_MIB if int(row["num_gpu"]) else 0)
    for row in csv.DictReader((LAB_DATA / "lab_models_projection.csv").open())
}


def wrong(each: tune_search.Candidate, factor: float) -> tune_search.Candidate:
    return replace(each, terms=tuple(term * factor for term in each.terms))


@functools.cache
def model_of(case: str) -> planner.Model:
    return planner.Model.from_show(json.loads((LAB_DATA / f"{MODELS[case]}.show.json").read_text()))


@functools.cache
def by_layers(case: str) -> list[tune_search.Candidate]:
    return planned(case, {}, {}, ["tokens_per_s"])


def planned(
    case: str, over: dict[str, Any], at_least: dict[str, Any], objective: list[str]
) -> list[tune_search.Candidate]:
    model = model_of(case)
    base = {"num_ctx": 4096, "num_parallel": 2, "num_batch": 512, "kv_cache_type": "f16"}
    wanted = tune_search.settings(base, over, at_least, model.offloadable)
    return tune_search.candidates(model, wanted, objective, ollama_version="0.32.15", gpu_gb=288, host_gb=60)


def searched(
    among: list[tune_search.Candidate],
    use: Callable[[tune_search.Setting], float],
    limit: float,
    card: float,
    most: int = 40,
) -> tuple[tune_search.Result, list[tune_search.Probe]]:
    """A search in which `use` is the truth."""
    probes: list[tune_search.Probe] = []
    while isinstance(step := tune_search.next_step(among, probes, limit, card, most), tune_search.Next):
        setting = step.candidate.setting
        assert setting not in [probe.setting for probe in probes]
        assert step.why
        used = use(setting)
        outcome = tune_search.OUT_OF_MEMORY if used > card else tune_search.OVER if used > limit else tune_search.HELD
        probes.append(tune_search.Probe(setting, outcome, None if used > card else round(used), step.why))
    return step, probes


def exhaustive(
    among: list[tune_search.Candidate], use: Callable[[tune_search.Setting], float], limit: float
) -> tune_search.Setting | None:
    return next((each.setting for each in among if use(each.setting) <= limit), None)


def lab_truth(case: str) -> Callable[[tune_search.Setting], float]:
    return lambda s: TRUTH[case, s.num_gpu, s.num_ctx, s.num_parallel, s.num_batch]


# --- the lab's models, with what llama.cpp projects as the truth ---


def test_the_guides_model_at_9000_mib() -> None:
    among, use = by_layers("llama31-8b"), lab_truth("llama31-8b")
    result, probes = searched(among, use, 9000 - 800, CARD_MIB - 800)
    assert result.best and result.proven
    assert result.best.setting == exhaustive(among, use, 8200)
    assert result.best.setting.num_gpu == 29
    assert len(probes) <= 3
    tried, end = tune_search.guide_walk(lambda layers: use(replace(result.best.setting, num_gpu=layers)) <= 8200, 33)
    assert (tried, end) == ([40, 35, 30, 25], 25)


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05, 1.1])
def test_a_planner_that_is_wrong(factor: float) -> None:
    among, use = by_layers("llama31-8b"), lab_truth("llama31-8b")
    result, probes = searched([wrong(each, factor) for each in among], use, 8200, CARD_MIB - 800)
    assert result.best and result.best.setting.num_gpu == 29 and result.proven
    assert len(probes) <= 6


GRID = {"num_ctx": [2048, 4096, 8192], "num_batch": [512, 1024]}
CONFIGURATIONS = [
    # case, threshold, others, over, at least, objective
    ("llama31-8b", 9000, 800, {}, {}, ["tokens_per_s"]),
    ("llama31-8b", 12288, 2636, {}, {}, ["tokens_per_s"]),
    ("llama31-8b", 16000, 800, GRID, {"num_ctx": 4096}, ["num_ctx", "tokens_per_s"]),
    ("llama31-8b", 6000, 123, GRID, {"num_ctx": 2048}, ["tokens_per_s", "num_ctx"]),
    ("llama31-8b", 2500, 1799, {}, {}, ["tokens_per_s"]),
    ("llama32-3b", 4096, 800, {}, {}, ["tokens_per_s"]),
    ("llama32-3b", 4500, 739, GRID, {"num_ctx": 4096}, ["num_ctx", "tokens_per_s"]),
    ("llama32-3b", 16000, 12000, {}, {}, ["tokens_per_s"]),
    ("qwen25-3b", 2400, 2, GRID, {}, ["num_ctx", "tokens_per_s"]),
    ("qwen25-3b", 3300, 831, {}, {"num_batch": 512}, ["tokens_per_s"]),
    ("qwen25-3b", 16200, 14000, GRID, {"num_parallel": 2}, ["tokens_per_s"]),
    ("llama31-8b", 1500, 1450, {}, {}, ["tokens_per_s"]),
]


@pytest.mark.no_cover
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_equal_to_exhaustive_search(configuration: tuple[Any, ...]) -> None:
    case, threshold, others, over, at_least, objective = configuration
    among, use = planned(case, over, at_least, objective), lab_truth(case)
    best = exhaustive(among, use, threshold - others)
    for factor in (1.0, 0.9, 1.1):
        believed = [wrong(each, factor) for each in among]
        result, probes = searched(believed, use, threshold - others, CARD_MIB - others)
        assert result.proven, factor
        assert (result.best and result.best.setting) == best, factor
        assert len(probes) <= (3 if factor == 1 else 6), (factor, [probe.setting for probe in probes])


# --- curves of any form ---

mib = st.floats(0, 400)


@st.composite
def curves(draw: st.DrawFn) -> list[tune_search.Candidate]:
    """A model's settings with their planned terms: weights and cache grow by the layer, copies for host layers do as
    they like and vanish with the last, so that the total need not grow."""
    layers = draw(st.integers(1, 40))
    weight, cache = draw(st.floats(20, 400)), draw(st.floats(0, 100))
    compute, output = draw(st.floats(20, 600)), draw(st.floats(0, 700))
    copies = draw(st.lists(mib, min_size=layers, max_size=layers))
    among = []
    for context in range(1, draw(st.integers(1, 3)) + 1):
        for number in range(layers + 1):
            offload = copies[number] if 0 < number < layers else 0.0
            terms = (
                output * (number > 0) + weight * number, cache * number * context, compute * context * (number > 0),
                offload, 305.0 * (number > 0),
            )  # fmt: skip
            speed = 1 / (1000 * layers - 900 * number + context)
            setting = tune_search.Setting(number, 1024 * context)
            among.append(tune_search.Candidate(setting, terms, speed, (speed, float(context), -sum(terms))))
    return sorted(among, key=lambda each: each.score, reverse=True)


@settings(max_examples=300, deadline=None)
@given(curves(), st.lists(st.floats(0.9, 1.1), min_size=5, max_size=5), st.floats(-200, 400), st.data())
def test_whatever_the_curve_and_however_wrong_the_planner(
    among: list[tune_search.Candidate], errors: list[float], constant: float, data: st.DataObject
) -> None:
    """Every term wrong by up to a tenth, each by its own factor; and a constant that nobody knew of."""
    truth = {
        each.setting: max(0.0, sum(term * error for term, error in zip(each.terms, errors)) + constant)
        for each in among
    }
    # A limit close to one of the settings, where it is hardest.
    limit = truth[data.draw(st.sampled_from(among)).setting] + data.draw(st.floats(-20, 20))
    result, probes = searched(among, truth.__getitem__, limit, limit + data.draw(st.floats(0, 8000)), most=200)
    found = result.best and result.best.setting
    assert result.proven
    # Half a MiB is what rounding to whole ones may cost.
    assert found in (exhaustive(among, truth.__getitem__, limit), exhaustive(among, truth.__getitem__, limit + 0.5))
    assert result.best is None or next(p for p in probes if p.setting == found).outcome == tune_search.HELD


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["llama31-8b", "llama32-3b", "qwen25-3b"]), st.integers(500, 9500), st.randoms())
def test_a_planner_that_is_wrong_at_random(case: str, limit: int, random: Any) -> None:
    """Each prediction wrong by up to a tenth by itself, so that none says anything of its neighbour."""
    use = lab_truth(case)
    believed = [wrong(each, random.uniform(0.9, 1.1)) for each in by_layers(case)]
    result, probes = searched(believed, use, limit, CARD_MIB)
    assert result.proven
    assert (result.best and result.best.setting) == exhaustive(believed, use, limit)
    assert len(probes) <= 8


def test_too_few_probes_are_owned_up_to() -> None:
    among, use = by_layers("llama31-8b"), lab_truth("llama31-8b")
    result, probes = searched([wrong(each, 1.3) for each in among], use, 8200, CARD_MIB - 800, most=1)
    assert len(probes) == 1
    assert not result.proven
    assert "1 probes were allowed" in result.why
    assert result.best and result.best.setting.num_gpu < 29


def test_nothing_fits() -> None:
    among = planned("llama31-8b", {"num_gpu": [20, 33]}, {}, ["tokens_per_s"])
    result, probes = searched(among, lab_truth("llama31-8b"), 1000, CARD_MIB)
    assert (result.best, result.proven, len(probes)) == (None, True, 1)
    assert "no setting in bounds" in result.why


def test_running_out_of_memory_is_an_answer() -> None:
    """The card ends where the threshold does, and the planner is far too low: each death moves the next proposal."""
    among, use = by_layers("llama31-8b"), lab_truth("llama31-8b")
    result, probes = searched([wrong(each, 0.8) for each in among], use, 6000, 6000)
    assert probes[0].outcome == tune_search.OUT_OF_MEMORY
    assert result.best and result.best.setting == exhaustive(among, use, 6000)
    assert len(probes) <= 6


# --- bounds and ladders ---


def test_bounds() -> None:
    base = {"num_ctx": 4096, "num_parallel": 2, "num_batch": 512, "kv_cache_type": "f16"}
    assert len(tune_search.settings(base, {}, {}, 33)) == 34
    assert {s.num_gpu for s in tune_search.settings(base, {"num_gpu": [30, 40, 999]}, {}, 33)} == {30, 33}
    contexts = tune_search.settings(base, {"num_ctx": [2048, 4096, 8192], "num_gpu": [1]}, {"num_ctx": 4096}, 33)
    assert [s.num_ctx for s in contexts] == [4096, 8192]
    with pytest.raises(tune_search.Invalid, match="at_least.num_ctx = 9000"):
        tune_search.settings(base, {}, {"num_ctx": 9000}, 33)


@pytest.mark.parametrize(
    ("over", "at_least", "objective", "words"),
    [
        ({"layers": [1]}, {}, [], "gpu_memory_tune_over.layers is not known"),
        ({"num_gpu": 5}, {}, [], "must be a list of values"),
        ({"num_gpu": []}, {}, [], "must be a list of values"),
        ({"num_ctx": [0]}, {}, [], "whole numbers"),
        ({"num_ctx": ["4096"]}, {}, [], "whole numbers"),
        ({"kv_cache_type": ["q9"]}, {}, [], "allowed: f32, f16"),
        ({}, {"kv_cache_type": 1}, [], "at_least.kv_cache_type"),
        ({}, {}, ["speed"], "'speed' is not known"),
    ],
)
def test_bounds_that_cannot_be(
    over: dict[str, Any], at_least: dict[str, Any], objective: list[str], words: str
) -> None:
    (problem,) = tune_search.bounds(over, at_least, objective)
    assert words in problem


PROFILES = {
    "baseline": {"num_ctx": 8192, "num_parallel": 2, "num_batch": 512, "gpu_layers": 999},
    "stable": {"num_ctx": 4096, "num_parallel": 2, "num_batch": 512, "gpu_layers": 40, "max_used_mib": 12288},
    "conservative": {"num_ctx": 2048, "num_parallel": 1, "num_batch": 512, "gpu_layers": 35, "max_used_mib": 10240},
}


def test_still_crashing_is_the_guides_ladder() -> None:
    steps = tune_search.ladder("still_crashing", PROFILES, "f16")
    shapes = [(s.setting.num_gpu, s.setting.num_ctx, s.setting.num_parallel) for s in steps]
    assert shapes == [(35, 2048, 1), (35, 1024, 1), (35, 1024, 1), (30, 1024, 1)]


def test_too_slow_is_the_guides_ladder() -> None:
    steps = tune_search.ladder("too_slow", PROFILES, "f16")
    shapes = [(s.setting.num_gpu, s.setting.num_ctx, s.setting.num_parallel) for s in steps]
    assert shapes == [(40, 4096, 2), (42, 4096, 2), (44, 4096, 2), (44, 5120, 2)]


HELD, OVER = tune_search.HELD, tune_search.OVER


@pytest.mark.parametrize(
    ("mode", "outcomes", "taken", "end"),
    [
        ("still_crashing", [OVER, OVER, HELD, HELD], 3, 2),
        ("still_crashing", [OVER] * 4, 4, None),
        ("too_slow", [HELD, HELD, OVER, HELD], 3, 1),
        ("too_slow", [HELD] * 4, 4, 3),
        ("too_slow", [OVER] * 4, 1, None),
        ("profiles", [OVER, HELD, HELD, HELD], 4, None),
    ],
)
def test_ladders_are_climbed(mode: str, outcomes: list[str], taken: int, end: int | None) -> None:
    steps = tune_search.ladder("too_slow", PROFILES, "f16")
    done: list[str] = []
    while (step := tune_search.climb(mode, steps, done)) is not None:
        done.append(outcomes[step])
    assert len(done) == taken
    assert tune_search.climbed(mode, done) == end


@pytest.mark.parametrize(
    ("largest", "tried", "end"),
    [
        (33, [40], 40),
        (29, [40, 35, 30, 25], 25),
        (30, [40, 35, 30], 30),
        (3, [*range(40, -1, -5)], 0),
        (-1, [*range(40, -1, -5)], None),
    ],
)
def test_the_guides_walk(largest: int, tried: list[int], end: int | None) -> None:
    assert tune_search.guide_walk(lambda layers: layers <= largest, 33) == (tried, end)


def test_bounds_that_can_be_are_no_problem() -> None:
    over = {"num_gpu": [0, 33], "num_ctx": [2048], "kv_cache_type": ["f16", "q8_0"]}
    assert tune_search.bounds(over, {"num_ctx": 2048, "num_gpu": 0}, ["num_ctx", "tokens_per_s"]) == []
    assert len(tune_search.bounds({"num_gpu": [-1], "num_ctx": [0]}, {}, ["tokens_per_s"])) == 2


def test_profiles_that_are_compared_are_no_ladder_to_climb() -> None:
    outcomes = [tune_search.OVER, tune_search.HELD, tune_search.HELD]
    assert [tune_search.climbed(mode, outcomes) for mode in ("still_crashing", "too_slow", "profiles")] == [1, 2, None]
    assert tune_search.climbed("too_slow", [tune_search.OVER]) is None
