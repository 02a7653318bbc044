"""The planner asked with what was declared and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import prediction
from ansible_collections.selo.gpu_memory.tests.unit import builders

DATA = Path(__file__).resolve().parents[4] / "data" / "planner"
MODEL, SMALL = builders.MODEL, "llama3.2:3b-instruct-q8_0"


def show(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.show.json").read_text(encoding="utf-8"))


def test_the_guides_profile_on_the_guides_model() -> None:
    read = builders.read(ollama__api__show={MODEL: show("llama31-8b-q8_0")})
    predicted, notes = prediction.predict(builders.declared(), read, "0.32.15")
    assert notes == []
    assert predicted is not None
    assert {name: predicted[name] for name in ("models", "weights_mib", "kv_mib", "total_mib", "others_mib")} == {
        "models": [MODEL],
        "weights_mib": 7605,
        "kv_mib": 1024,
        "total_mib": 9054,
        "others_mib": 800,
    }


def test_what_cannot_be_planned_is_named_and_the_rest_is_planned() -> None:
    read = builders.read(ollama__api__show={MODEL: {"model_info": {}}, SMALL: show("llama32-3b-q8_0")})
    predicted, notes = prediction.predict(builders.declared(), read, "0.32.15")
    assert predicted is not None
    assert predicted["models"] == [SMALL]
    assert notes == [f"{MODEL} cannot be planned: the /api/show answer has no model_info"]


def test_a_warning_of_one_model_among_several_says_of_which() -> None:
    shows = {MODEL: show("llama31-8b-q8_0"), SMALL: show("llama32-3b-q8_0")}
    for declared_models, start in ((shows, f"{MODEL}: num_gpu 40"), ({MODEL: shows[MODEL]}, "num_gpu 40")):
        read = builders.read(ollama__api__show=declared_models)
        predicted, _unused = prediction.predict(builders.declared(), read, "0.32.15")
        assert predicted is not None
        assert predicted["warnings"][0].startswith(f"{start} caps nothing: the model has 33 layers")


@pytest.mark.parametrize(
    ("backend", "parameters", "terms"),
    [
        ("none", {"num_ctx": 2048, "num_gpu": 10}, {"offloaded_layers": 10, "kv_mib": 144}),
        ("guide", {"num_ctx": 2048, "num_gpu": 10}, {"offloaded_layers": 33, "kv_mib": 1024}),  # its requests win
    ],
)
def test_a_modelfile_counts_where_no_request_carries_the_option(
    backend: str, parameters: dict[str, int], terms: dict[str, int]
) -> None:
    read = builders.read(ollama__api__show={MODEL: {**show("llama31-8b-q8_0"), "parameters": parameters}})
    predicted, _notes = prediction.predict(builders.declared(backend=backend), read, "0.32.15")
    assert predicted is not None
    assert {name: predicted[name] for name in terms} == terms


@pytest.mark.parametrize(
    ("total_mib", "together"),
    [
        (32000, [MODEL, SMALL]),
        (14000, [MODEL]),  # Ollama would not let the second in: 80 % of what the first leaves is too little
    ],
)
def test_only_models_that_ollama_would_admit_count_together(total_mib: int, together: list[str]) -> None:
    declared = builders.declared(overrides={"intent": {"max_loaded_models": 2}}, backend="none")
    read = builders.read(
        ollama__api__show={MODEL: show("llama31-8b-q8_0"), SMALL: show("llama32-3b-q8_0")},
        nvml__gpus=[builders.gpu(total_mib=total_mib)],
    )
    predicted, _unused = prediction.predict(declared, read, "0.32.15")
    assert predicted is not None
    assert predicted["models"] == together


Q8 = {"OLLAMA_KV_CACHE_TYPE": "q8_0"}
KV_OF_F16, KV_OF_Q8 = 1024, 544


@pytest.mark.parametrize(
    ("overrides", "ours", "others", "runs", "kv_mib"),
    [
        ({"kv_cache_type": "q8_0"}, {}, {}, {}, KV_OF_Q8),  # before it is deployed
        ({}, Q8, {}, Q8, KV_OF_F16),  # deployed by a profile that said so; this one does not
        ({}, Q8, Q8, Q8, KV_OF_Q8),  # an operator's own drop-in says so as well
        ({}, {}, {}, Q8, KV_OF_Q8),  # a wrapper sets it
        ({"kv_cache_type": "f16"}, {}, Q8, Q8, KV_OF_F16),
    ],
)
def test_the_cache_is_planned_as_it_will_be_under_the_profile(
    overrides: dict[str, str], ours: dict[str, str], others: dict[str, str], runs: dict[str, str], kv_mib: int
) -> None:
    read = builders.read(
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
        ollama__drop_ins__own=builders.drop_in({**builders.STABLE_ON_0_32, **ours}),
        ollama__unit__sources=[
            builders.source("drop-in", "/etc/systemd/system/ollama.service.d/override.conf", others),
            builders.source("drop-in", builders.DROP_IN_PATH, {**builders.STABLE_ON_0_32, **ours}),
        ],
        ollama__process__environment={**builders.STABLE_ON_0_32, **runs},
    )
    predicted, _unused = prediction.predict(builders.declared(overrides={"intent": overrides}), read, "0.32.15")
    assert predicted is not None
    assert predicted["kv_mib"] == kv_mib


def test_nothing_to_plan_is_none_and_no_error() -> None:
    assert prediction.predict(builders.declared(), builders.read(), "0.32.15") == (None, [])
    assert prediction.predict(builders.declared(), builders.read(), None) == (None, [])


def cannot_fit(max_used_mib: int | None, **others: Any) -> str | None:
    read = builders.read(ollama__api__show={MODEL: show("llama31-8b-q8_0")}, **others)
    predicted, _unused = prediction.predict(builders.declared(), read, "0.32.15")
    return prediction.cannot_fit(predicted, max_used_mib)


def test_a_profile_is_refused_only_where_even_the_low_end_is_too_much() -> None:
    low = 8836 + 800  # what others hold counts
    assert cannot_fit(low) is cannot_fit(None) is prediction.cannot_fit(None, 12288) is None
    text = cannot_fit(low - 1)
    assert text is not None
    assert text.startswith(
        f"this cannot fit: {MODEL} will use 9054 MiB (weights 7605, KV 1024, compute 120, runtime 305;"
    )
    assert f"others hold 800 (Xorg 800), which is more than max_used_mib = {low - 1}; lower num_ctx" in text
    alone = cannot_fit(8000, nvml__gpus__0__processes=[])
    assert alone is not None and "others hold 0, which is more than max_used_mib = 8000" in alone


def test_of_others_the_largest_stand_first_and_a_nameless_one_has_its_number() -> None:
    processes = [
        builders.holder(900, "Xorg", 800, "graphics"),
        builders.holder(77, None, 2000),
        builders.holder(78, "idle", None),
        builders.holder(400, "llama-server", 9054),
        builders.holder(500, "python3", 1836),
    ]
    read = builders.read(nvml__gpus__0__processes=processes)
    assert prediction.others(read) == ["process 77 2000", "Xorg 800"]
    assert prediction.others_mib(builders.declared(), read) == 2800


def test_settings_that_ollama_refuses_are_named_with_their_model() -> None:
    environment = {**builders.STABLE_ON_0_32, "OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"}
    read = builders.read(ollama__api__show={MODEL: show("llama31-8b-q8_0")}, ollama__process__environment=environment)
    predicted, notes = prediction.predict(builders.declared(), read, "0.32.15")
    assert predicted is None
    assert len(notes) == 1 and notes[0].startswith(
        f"{MODEL} cannot be planned: kv_cache_type q8_0 with flash_attention"
    )


def test_without_a_version_nothing_is_said() -> None:
    assert prediction.predict(builders.declared(), builders.read(), None) == (None, [])


def test_where_no_layers_are_asked_for_as_many_are_loaded_as_fitting_leaves_room_for() -> None:
    declared = builders.declared(backend="none")
    answers = {MODEL: show("llama31-8b-q8_0")}

    def layers(*gpus: dict[str, Any]) -> int:
        predicted, _unused = prediction.predict(
            declared, builders.read(ollama__api__show=answers, nvml__gpus=list(gpus)), "0.32.15"
        )
        assert predicted is not None
        return int(predicted["offloaded_layers"])

    small = builders.gpu(total_mib=9000)
    assert layers(builders.gpu()) == 33
    assert 0 < layers(small) < 33
    assert layers(small, builders.gpu(1, total_mib=9000)) == 33  # a model may spread over two
    assert layers({**small, "error": "lost"}, small) == layers(small)


def test_what_the_host_does_not_see_is_not_others_where_ollamas_own_may_be_among_it() -> None:
    unseen = builders.holder(5000400, None, 9054)
    read = builders.read(nvml__gpus=[builders.gpu(used_mib=9054, processes=[unseen])])
    assert prediction.others_mib(builders.declared(), read) == 0
    assert prediction.others(read) == []
    idle = builders.changed(read, {"ollama.runners": []})
    assert prediction.others(idle) == ["process 5000400 9054"]
    second = builders.gpu(1, processes=[builders.holder(400, "llama-server", 9054)])
    elsewhere = builders.changed(read, {"nvml.gpus": [read["nvml"]["gpus"][0], second]})
    assert prediction.others(elsewhere) == ["process 5000400 9054"], "our runner is listed"


def test_an_ollama_whose_server_is_gone_crowds_the_model_out():
    gpu = {"index": 0, "processes": [{"pid": 7, "name": "llama-server", "used_mib": 9000}]}
    other = {"pid": 7, "command": "llama-server", "kind": "unit", "name": "x.service", "user": None, "alone": True}
    read = {"nvml": {"gpus": [gpu]}, "ollama": {"others": [other], "api": {"show": {}}}}
    predicted = {"models": ["m"], "offloaded_layers": 26, "offloadable_layers": 33}

    def crowded_out(predicted, gpu_layers, read):
        intent = {"gpu_layers": gpu_layers}
        return prediction.crowded_out(predicted, {"profile": {"intent": intent}, "backend": {"keys": {}}}, read)

    text = crowded_out(predicted, 40, read)
    assert text and "only 26 of 33" in text and "9000 MiB" in text and "kill 7" in text
    assert crowded_out(predicted, 26, read) is None
    assert crowded_out(predicted, 40, {**read, "ollama": {**read["ollama"], "others": []}}) is None
    assert crowded_out(None, 40, read) is None
    asked = {**read["ollama"], "api": {"show": {"m": {"parameters": {"num_gpu": 26}}}}}
    assert crowded_out(predicted, 40, {**read, "ollama": asked}) is None, "the Modelfile's layers are not fitted"


@pytest.mark.parametrize(
    ("setting", "terms"),
    [
        ({"LLAMA_ARG_NO_KV_OFFLOAD": "1"}, {"kv_mib": 0}),
        ({"LLAMA_ARG_OVERRIDE_TENSOR": "ffn_.*=CPU"}, {"weights_mib": 1893}),
        ({"LLAMA_ARG_N_GPU_LAYERS": "5"}, {"offloaded_layers": 5}),
        ({"LLAMA_ARG_CTX_SIZE": "64"}, {"kv_mib": 1024}),  # Ollama's own flag wins
    ],
)
def test_what_the_server_was_started_with_counts(setting: dict[str, str], terms: dict[str, int]) -> None:
    environment = {**builders.STABLE_ON_0_32, **setting}
    read = builders.read(
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
        ollama__process__environment=environment,
    )
    predicted, notes = prediction.predict(builders.declared(backend="none"), read, "0.32.15")
    assert notes == []
    assert predicted is not None
    assert {name: predicted[name] for name in terms} == terms


def test_what_no_plan_counts_is_refused_by_its_name() -> None:
    environment = {**builders.STABLE_ON_0_32, "LLAMA_ARG_SPEC_TYPE": "ngram-mod"}
    read = builders.read(
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
        ollama__process__environment=environment,
    )
    predicted, (note,) = prediction.predict(builders.declared(), read, "0.32.15")
    assert predicted is None
    assert "LLAMA_ARG_SPEC_TYPE: it moves GPU memory in a way that no plan counts" in note


FIRST, LAST = 3757 + 544 + 228 + 305, 3847 + 480 + 188 + 305  # by llama.cpp itself, on two devices


def on_two(*cards: dict[str, Any], max_used_mib: int = 12288, spread: str = "1", **changes: Any) -> Any:
    """The guide's model and profile on several GPUs: the prediction, why it cannot fit, and the notes."""
    cards = cards or (builders.gpu(), builders.gpu(1, processes=[], used_mib=0))
    read = builders.read(
        **{"ollama__api__show": {MODEL: show("llama31-8b-q8_0")}, "nvml__gpus": list(cards), **changes}
    )
    read["ollama"]["process"]["environment"] = {**builders.STABLE_ON_0_32, "OLLAMA_SCHED_SPREAD": spread}
    declared = builders.declared(overrides={"intent": {"max_used_mib": max_used_mib}})
    predicted, notes = prediction.predict(declared, read, "0.32.15")
    return predicted, prediction.cannot_fit(predicted, max_used_mib), notes


def test_each_of_several_gpus_is_predicted_with_what_others_hold_there() -> None:
    predicted, refused, notes = on_two(spread="0")
    assert (refused, notes) == (None, [])
    first, second = predicted["gpus"]
    assert (first["total_mib"], first["others_mib"], first["others"]) == (0, 800, ["Xorg 800"])
    assert (second["total_mib"], second["others_mib"], second["others"]) == (9054, 0, [])
    assert predicted["total_mib"] == 9054
    assert second["band_mib"] == predicted["band_mib"]


def test_a_threshold_is_held_against_each_gpu_and_not_against_the_sum() -> None:
    predicted, refused, _notes = on_two(max_used_mib=6000)
    assert refused is None and predicted["total_mib"] > 9500
    for gpu, told in zip(predicted["gpus"], (FIRST, LAST)):
        # the desktop's 800 MiB move one block of 236 MiB or none
        assert gpu["band_mib"][0] <= told + 250 and told - 250 <= gpu["band_mib"][1]
    _predicted, refused, _notes = on_two(max_used_mib=5000)
    assert refused and "GPU 0 will hold" in refused and "Xorg 800" in refused and "max_used_mib = 5000" in refused


def test_a_gpu_that_was_not_named_is_planned_and_not_judged() -> None:
    cards = builders.gpu(), builders.gpu(1, processes=[], used_mib=0)
    unnamed = {"nvml__gpus": [cards[1]], "nvml__ignored": [cards[0]], "nvml__order": [builders.UUID, "GPU-1"]}
    predicted, refused, _notes = on_two(max_used_mib=5300, **unnamed)
    assert [gpu["judged"] for gpu in predicted["gpus"]] == [False, True]
    assert refused is None
    assert on_two(max_used_mib=4000, **unnamed)[1].startswith("this cannot fit: GPU 1")


def test_gpus_of_different_sizes_are_taken_in_ollamas_order() -> None:
    small, large = builders.gpu(0, total_mib=8192, processes=[]), builders.gpu(1, total_mib=24564, processes=[])
    by_number, _refused, notes = on_two(small, large, max_used_mib=20000)
    assert by_number is None and "does not tell in which order" in notes[0]
    predicted, _refused, notes = on_two(small, large, max_used_mib=20000, nvml__order=["GPU-1", builders.UUID])
    assert notes == []
    assert [(gpu["index"], gpu["total_mib"] > 6000) for gpu in predicted["gpus"]] == [(1, True), (0, False)]


def test_layers_that_fitting_would_move_between_gpus_are_refused() -> None:
    """Where requests ask for no number of layers, and less than the margin would be left of one GPU."""
    read = builders.read(
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
        nvml__gpus=[builders.gpu(), builders.gpu(1, processes=[], used_mib=0)],
    )
    read["ollama"]["process"]["environment"] = {**builders.STABLE_ON_0_32, "OLLAMA_SCHED_SPREAD": "1"}
    for threshold, planned in ((6000, True), (5400, False)):
        declared = builders.declared(overrides={"intent": {"max_used_mib": threshold}}, backend="none")
        predicted, notes = prediction.predict(declared, read, "0.32.15")
        assert (predicted is not None) is planned
        assert planned or "how its fitting then moves layers is not planned" in notes[0]


def test_several_gpus_before_0_30_are_not_planned() -> None:
    cards = [builders.gpu(), builders.gpu(1)]
    read = builders.read(ollama__api__show={MODEL: show("llama31-8b-q8_0")}, nvml__gpus=cards)
    predicted, notes = prediction.predict(builders.declared(), read, "0.24.0")
    assert predicted is None and "before 0.30" in notes[0]
