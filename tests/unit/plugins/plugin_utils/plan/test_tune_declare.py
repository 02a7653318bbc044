from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import tune_declare

from tests.unit import builders
from tests.unit.plugins.plugin_utils.plan.test_prediction import SMALL, show

GIVEN: dict[str, Any] = {
    name[len("gpu_memory_tune_") :]: value
    for name, value in builders.role_file("defaults/main.yml").items()
    if name.startswith("gpu_memory_tune_")
}
GIVEN.update(gpu_gb_per_s=0, host_gb_per_s=0)


def resolved(read: dict[str, Any] | None = None, models: list[str] | None = None, **given: Any) -> dict[str, Any]:
    declared = builders.declared(models=[builders.MODEL] if models is None else models)
    return tune_declare.tuning_of(declared, builders.read() if read is None else read, {**GIVEN, **given})


def test_the_defaults_search_over_layers_for_the_profile() -> None:
    found = resolved()
    assert found["problems"] == []
    assert found["run"]["base"] == {"num_ctx": 4096, "num_parallel": 2, "num_batch": 512}
    assert (found["run"]["max_used_mib"], found["run"]["model"]) == (12288, builders.MODEL)
    assert (found["run"]["mode"], found["run"]["over"], found["adopt"]) == ("search", {}, False)
    assert found["run"]["gpu"]["uuid"] == builders.UUID
    assert set(found["run"]["profiles"]) == {"baseline", "stable", "conservative"}
    assert found["services"]["restart"] == []
    private = found["run"]["private_files"], found["run"]["private_units"]
    assert private == (found["services"]["private_files"], ["selo-backend.service"])


@pytest.mark.parametrize(
    ("mode", "given", "expected"),
    [("search", "9000", 9000), ("search", "9GiB", 9216), ("too_slow", 0, 13312), ("too_slow", 9000, 9000),
     ("still_crashing", 0, 12288)],
)  # fmt: skip
def test_the_threshold(mode: str, given: Any, expected: int) -> None:
    assert resolved(mode=mode, max_used_mib=given)["run"]["max_used_mib"] == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "fast"}, "gpu_memory_tune_mode = 'fast' is not allowed; allowed: search"),
        ({"max_probes": 0}, "gpu_memory_tune_max_probes = 0 must be probes, from 1 to 50"),
        ({"timeout": "soon"}, "gpu_memory_tune_timeout = 'soon' must be seconds"),
        ({"max_used_mib": "12 GB"}, "gpu_memory_tune_max_used_mib = '12 GB' must be MiB"),
        ({"adopt": "perhaps"}, "gpu_memory_tune_adopt = 'perhaps' must be true or false"),
        ({"over": []}, "must be mappings"),
        ({"over": {"layers": [1]}}, "gpu_memory_tune_over.layers is not known"),
        ({"model": "another"}, "gpu_memory_tune_model = 'another' is none of gpu_memory_models"),
        ({"models": ["a", "b"]}, "gpu_memory_tune_model must name the model to tune; this host serves: a, b"),
        ({"models": []}, "none is named in gpu_memory_models"),
        ({"beside": "nomic-embed-text"}, "gpu_memory_tune_beside must be a list of models"),
        ({"beside": ["another"]}, "gpu_memory_tune_beside has 'another', which is none of gpu_memory_models"),
        ({"beside": [builders.MODEL.upper()]}, "each other model once, and not the one to tune"),
        ({"beside": ["b", "b:latest"], "models": [builders.MODEL, "b"]}, "each other model once"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in resolved(**given)["problems"])


def test_models_that_stay_loaded_beside() -> None:
    read = builders.read()
    read["ollama"]["api"]["models"].append({"name": "embedder:latest", "digest": "b"})
    found = resolved(read, [builders.MODEL, "embedder"], model=builders.MODEL, beside=["embedder:latest"])
    assert (found["problems"], found["run"]["beside"]) == ([], ["embedder:latest"])


def test_several_problems_are_told_at_once() -> None:
    assert len(resolved(mode="fast", max_probes=0, adopt="perhaps")["problems"]) == 3


def test_a_host_that_cannot_be_read_and_one_that_is_held() -> None:
    assert resolved(read={"failed": True, "msg": "no route"})["problems"] == ["no route"]
    read = builders.read()
    read["state"]["lease"] = {"live": True, "until": "later", "holder": "somebody applies stable"}
    assert "somebody applies stable" in resolved(read)["problems"][0]


def two_gpus(*models: str, spread: str = "0", **changes: Any) -> dict[str, Any]:
    """A host of two GPUs, of which the first has a desktop; with `models` (else the guide's)."""
    files = {builders.MODEL: "llama31-8b-q8_0", SMALL: "llama32-3b-q8_0"}
    names = models or (builders.MODEL,)
    read = builders.read(
        **{
            "nvml__gpus": [builders.gpu(), builders.gpu(1, processes=[], used_mib=0)],
            "ollama__api__show": {name: show(files[name]) for name in names},
            "ollama__api__models": [{"name": name, "digest": "d", "size": 1} for name in names],
            **changes,
        }
    )
    read["ollama"]["process"]["environment"] = {**builders.STABLE_ON_0_32, "OLLAMA_SCHED_SPREAD": spread}
    return read


def test_of_several_gpus_the_one_that_ollama_will_take_is_tuned_for() -> None:
    gpu = resolved(two_gpus())["run"]["gpu"]
    assert (gpu["index"], gpu["uuid"], gpu["further"]) == (1, "GPU-1", [builders.UUID])
    assert resolved()["run"]["gpu"]["further"] == []
    beside = resolved(two_gpus(builders.MODEL, SMALL), [builders.MODEL, SMALL], model=builders.MODEL, beside=[SMALL])
    assert beside["run"]["gpu"]["index"] == 0, "what stays loaded beside has the other"


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (two_gpus(spread="1"), "divides llama3.1:8b-instruct-q8_0 over 2 of 2 GPUs here: tuning is for one"),
        (two_gpus(nvml__gpus=[builders.gpu(0, total_mib=9000), builders.gpu(1, total_mib=9000)]), "over 2 of 2 GPUs"),
        (
            two_gpus(
                nvml__gpus=[builders.gpu()],
                nvml__ignored=[builders.gpu(1, processes=[])],
                nvml__order=[builders.UUID, "GPU-1"],
            ),
            "Ollama may put the model on GPU 1 (NVIDIA GeForce RTX 4060 Ti), which gpu_memory_gpus does not name",
        ),
        (two_gpus(ollama__api__version="0.24.0"), "on which of 2 GPUs"),
    ],
)
def test_a_model_that_need_not_be_on_one_gpu_is_not_tuned(read: dict[str, Any], words: str) -> None:
    (problem,) = resolved(read)["problems"]
    assert words in problem and "CUDA_VISIBLE_DEVICES" in problem


def test_hosts_of_a_kind_are_tuned_once() -> None:
    other = builders.read()
    other["nvml"]["gpus"][0]["total_mib"] = 24564
    keys = {
        "a": resolved(other)["key"],
        "b": resolved()["key"],
        "lost": None,
        "c": resolved()["key"],
    }
    assert tune_declare.group_of("b", keys) == tune_declare.group_of("c", keys) == ["b", "c"]
    assert tune_declare.group_of("a", keys) == ["a"]
    assert tune_declare.group_of("lost", keys) == []


def proven(measured_mib: int) -> dict[str, Any]:
    read = builders.read()
    others = [{"name": "backend", "peak_mib": measured_mib}]
    record = {"profile": "stable", "memory": {"others": others}, "settings": []}
    read["state"]["proof"] = {"at": builders.NOW, "record": record}
    return read


def test_room_is_left_for_what_the_backend_takes_under_load() -> None:
    read = proven(1836)
    read["nvml"]["gpus"][0]["processes"] = []  # it has just been started
    found = resolved(read)
    assert (found["run"]["max_used_mib"], found["threshold_mib"]) == (12288 - 1836, 12288)
    assert "1836 MiB of the threshold are left for the backend" in found["note"]
    pid = read["backend"]["pids"][0]
    read["nvml"]["gpus"][0]["processes"] = [builders.process("python3", pid=pid, used_mib=1800)]
    assert resolved(read)["run"]["max_used_mib"] == 12288 - 36
    assert resolved(read, leave_mib=500)["run"]["max_used_mib"] == 12288 - 500
    assert resolved(read, leave_mib=0)["note"] is None
    assert "all of the threshold" in resolved(read, leave_mib=12288)["problems"][0]


def test_a_backend_that_was_never_measured_is_owned_up_to() -> None:
    found = resolved()
    assert found["run"]["max_used_mib"] == 12288
    assert "has not been measured" in found["note"]


@pytest.mark.parametrize(("given", "left", "note"), [(2000, 2000, "2000 MiB of the threshold are left"), (0, 0, None)])
def test_what_the_operator_leaves_for_the_backend_counts(given: int, left: int, note: str | None) -> None:
    found = resolved(leave_mib=given)
    assert found["run"]["max_used_mib"] == 12288 - left
    assert (found["note"] or "").startswith(note or "") and bool(found["note"]) == bool(note)


def test_without_a_backend_nothing_is_left_for_one() -> None:
    declared = builders.declared(models=[builders.MODEL], backend="none")
    found = tune_declare.tuning_of(declared, builders.read(backend__kind="none", backend__pids=[]), GIVEN)
    assert (found["run"]["max_used_mib"], found["note"]) == (12288, None)


def test_a_profile_without_a_threshold_needs_one_from_the_operator() -> None:
    declared = builders.declared(models=[builders.MODEL], profile="baseline", allow_unsafe=True)
    problems = tune_declare.tuning_of(declared, builders.read(), GIVEN)["problems"]
    assert problems == ["gpu_memory_tune_max_used_mib must be set, since the profile has no threshold (max_used_mib)"]
