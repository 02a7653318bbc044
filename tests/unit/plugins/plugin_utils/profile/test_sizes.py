"""GPUs of another size than a profile's threshold is meant for."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes, wanted_settings

from tests.unit.builders import declared, gpu, read


def host(*totals):
    return {
        **read(),
        "nvml": {**read()["nvml"], "gpus": [gpu(number, total_mib=mib) for number, mib in enumerate(totals)]},
    }


@pytest.mark.parametrize("total", [16380, 16384, 15360, 15109, 16160])
def test_what_is_sold_as_16_gb_is_16_gb(total):
    assert not sizes.is_other(declared()["profile"], gpu(total_mib=total))


@pytest.mark.parametrize("total", [8188, 12282, 20470, 24564, 46068])
def test_other_sizes_are_refused_with_the_cure(total):
    problems = decisions.decide(declared(), host(total), deploys=True)["problems"]
    assert len([problem for problem in problems if "gpu_memory_other_sizes: scale" in problem]) == 1
    assert f"has {total} MiB" in problems[0]


@pytest.mark.parametrize("total, threshold", [(8188, 6141), (12282, 9211), (24564, 18423), (46068, 34551)])
def test_scaled_it_is_the_same_share(total, threshold):
    sized = sizes.sized(declared(other_sizes="scale"), host(total))
    assert sized["profile"]["max_used_mib"] == sized["profile"]["intent"]["max_used_mib"] == threshold
    assert sizes.sized(sized, host(total)) is sized
    decision = decisions.decide(declared(other_sizes="scale"), host(total), deploys=False)
    if not decision["problems"]:
        assert decision["max_used_mib"] == threshold
        assert any(f"max_used_mib is {threshold} here" in note for note in decision["notes"])


def test_scaled_the_margin_follows():
    environment, _unused = wanted_settings.ollama_environment(
        sizes.sized(declared(other_sizes="scale"), host(24564)), host(24564)
    )
    assert str(24564 - 18423) in environment.values()


def test_of_several_gpus_the_smallest_counts():
    assert sizes.sized(declared(other_sizes="scale"), host(24564, 16380))["profile"]["max_used_mib"] == 12285


@pytest.mark.parametrize(
    "own",
    [
        {"overrides": {"intent": {"max_used_mib": 18432}}},
        {"profile": "mine", "profiles": {"mine": {"extends": "stable", "intent": {"max_used_mib": 18432}}}},
    ],
)
def test_an_operators_own_threshold_fits_any_size(own):
    for choice in ("refuse", "scale"):
        declaration = declared(other_sizes=choice, **own)
        assert sizes.sized(declaration, host(24564)) is declaration
        assert not any("meant for" in text for text in decisions.gpu_problems(declaration, host(24564)["nvml"]))


def test_a_profile_that_only_extends_is_meant_for_the_same_size():
    declaration = declared(profile="mine", profiles={"mine": {"extends": "stable", "intent": {"num_ctx": 2048}}})
    assert sizes.is_other(declaration["profile"], gpu(total_mib=24564))


def test_only_these_choices():
    assert "allowed: refuse, scale" in declared(other_sizes="maybe")["problems"][0]
