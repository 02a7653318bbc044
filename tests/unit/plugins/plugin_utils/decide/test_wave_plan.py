from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import wave_plan

RTX = {"name": "NVIDIA GeForce RTX 4060 Ti", "total_mib": 16380}
L4 = {"name": "NVIDIA L4", "total_mib": 23034}
HOSTS = ["a", "b", "c", "d"]
KINDS = {"a": "small", "b": "small", "c": None, "d": "large"}


def test_a_kind_is_all_gpus_of_a_host_by_name_and_size():
    assert wave_plan.hardware({"gpus": [RTX]}) == "NVIDIA GeForce RTX 4060 Ti with 16380 MiB"
    assert wave_plan.hardware({"gpus": [L4, RTX]}) == wave_plan.hardware({"gpus": [RTX, L4]})
    assert wave_plan.hardware({"gpus": [RTX, RTX]}) != wave_plan.hardware({"gpus": [RTX]})


@pytest.mark.parametrize("nvml", [None, {}, {"gpus": []}, {"gpus": [{"error": "lost", "index": 0}]}])
def test_what_was_not_read_is_no_kind(nvml):
    assert wave_plan.hardware(nvml) is None


def test_the_first_of_each_kind_comes_first_and_the_others_keep_their_order():
    assert wave_plan.canaries(HOSTS, KINDS) == ["a", "d"]
    assert wave_plan.in_order(HOSTS, KINDS) == ["a", "d", "b", "c"]
    assert wave_plan.in_order(HOSTS, {}) == HOSTS


@pytest.mark.parametrize(
    "batches, canaries, of, waves",
    [
        ([1, "25%", "100%"], 1, 16, [1, "25%", "100%"]),
        ([1, "25%", "100%"], 3, 16, [3, "25%", "100%"]),
        ([5, "100%"], 3, 16, [5, "100%"]),
        (["10%", "100%"], 3, 100, [10, "100%"]),
        (["10%", "100%"], 3, 16, [3, "100%"]),
        ("2", 1, 16, [2]),
        (4, 1, 16, [4]),
        ("12.5%", 1, 16, ["12%"]),
        ("0.5%", 1, 16, ["1%"]),
    ],
)
def test_waves(batches, canaries, of, waves):
    assert wave_plan.sizes(batches, canaries, of) == waves


@pytest.mark.parametrize("junk", ["", "x", 0, -1, "0%", "101%", "nan%", True, None, [], [1, "half"], {}, [[1]], 1.5])
def test_no_waves(junk):
    with pytest.raises(ValueError, match="gpu_memory_batches"):
        wave_plan.sizes(junk, 1, 16)


def test_no_canary():
    with pytest.raises(ValueError, match="gpu_memory_canary = 'per_gpu' is not allowed; allowed: first, per_hardware"):
        wave_plan.check_canary("per_gpu")


def test_a_canary_that_is_not_known_is_refused_by_name() -> None:
    assert [wave_plan.check_canary(name) for name in wave_plan.CANARIES] == list(wave_plan.CANARIES)
    with pytest.raises(ValueError, match="gpu_memory_canary = 'all' is not allowed; allowed: first, per_hardware"):
        wave_plan.check_canary("all")
