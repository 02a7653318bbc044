"""All profiles of a host side by side: what is planned, and that no figure stands for more than is known.

The expected figures are computed by hand: llama3.1:8b q8_0 has 32 blocks of 221.03 MiB and an output layer of 532.33;
a token's keys and values take 4096 bytes a block; compute and runtime are llama.cpp's 120 and 305.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import prediction, side_by_side
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import MODEL, SMALL, show

BOTH = {MODEL: show("llama31-8b-q8_0"), SMALL: show("llama32-3b-q8_0")}


def host(*models: str, **changes: Any) -> dict[str, Any]:
    """A host that has `models`, none of them loaded."""
    names = models or (MODEL,)
    return builders.read(
        **{
            "ollama__runners": [],
            "ollama__api__loaded": [],
            "ollama__api__models": [{"name": name, "digest": "d", "size": 1} for name in names],
            "ollama__api__show": {name: BOTH[name] for name in names},
            **changes,
        }
    )


def plan(read: dict[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
    return {"host": "gpu01", **side_by_side.compare(builders.declared(**variables), host() if read is None else read)}


def profile(plan: dict[str, Any], name: str = "stable") -> dict[str, Any]:
    return next(each for each in plan["profiles"] if each["name"] == name)


def row(plan: dict[str, Any], setting: str, name: str = "stable") -> tuple[Any, Any]:
    found = next(each for each in profile(plan, name)["comparison"] if each["setting"] == setting)
    really = found["really"]
    return found["guide"], really[MODEL] if isinstance(really, dict) else really


def proof(backend_mib: int, **env: str) -> dict[str, Any]:
    wanted = {**builders.built_in_profiles()["stable"]["env"], **env}
    record = {
        "profile": "stable",
        "settings": [{"name": name, "wanted": value} for name, value in wanted.items()],
        "memory": {"others": [{"name": "Xorg", "peak_mib": 800}, {"name": "backend", "peak_mib": backend_mib}]},
    }
    return {"key": "k", "verdict": "pass", "at": builders.NOW, "record": record}


def test_the_budget_term_by_term() -> None:
    stable = profile(plan())
    assert stable["chosen"]
    assert stable["terms"] == {
        "weights_mib": 7605,  # 32 x 221.03 + 532.33
        "kv_mib": 1024,  # 32 blocks x 4096 bytes x 4096 tokens x 2 slots
        "compute_mib": 120,
        "op_offload_mib": 0,
        "runtime_mib": 305,
    }
    assert (stable["ollama_mib"], stable["sum_mib"], stable["headroom_mib"]) == (9054, 9854, 12288 - 9854)
    assert (stable["margin_mib"], stable["margin"]) == (16380 - 12288, "void")


@pytest.mark.parametrize(
    ("name", "context", "layers", "usage"),
    [
        ("baseline", "8192 each, 16384 in all", "all 33", "10882 MiB + backend"),
        ("stable", "4096 each, 8192 in all", "all 33: 40 caps nothing", "9854 MiB + backend"),
        ("conservative", "2048", "all 33: 35 caps nothing", "9084 MiB + backend"),
    ],
)
def test_the_guides_words_stand_beside_what_is_real(name: str, context: str, layers: str, usage: str) -> None:
    planned = plan()
    assert row(planned, "Context window", name) == (side_by_side.GUIDE[name]["Context window"], context)
    assert row(planned, "GPU layers", name)[1] == layers
    assert row(planned, "Expected GPU usage", name) == (side_by_side.GUIDE[name]["Expected GPU usage"], usage)


def test_the_guide_says_nothing_of_a_changed_profile() -> None:
    planned = plan(overrides={"intent": {"num_ctx": 3072}})
    assert row(planned, "Context window") == (None, "3072 each, 6144 in all")


def test_every_number_of_layers_has_its_row() -> None:
    table = profile(plan())["models"][0]["layer_table"]
    assert [each["layers"] for each in table] == list(range(34))
    everything, quarter = table[33], table[24]
    assert everything["gpu_mib"] == 9054
    # 24 layers: the output and 23 blocks of 221.03 weights, 23 x 32 of cache, compute 104 and copies 68.5, runtime 305
    assert quarter["gpu_mib"] == 6830
    # a token reads 7605.3 + 512 MiB (one slot's cache) at 288 GB/s: 29.55 ms
    assert everything["tokens_per_s"] == 33.8
    # 24 layers: 5616 + 368 MiB at 288 GB/s and 1989.3 + 144 at 60 GB/s: 59.07 ms
    assert (quarter["tokens_per_s"], quarter["speed_percent"]) == (16.9, 50)
    assert [everything["speed_percent"], table[0]["speed_percent"]] == [100, 21]  # 60 / 288


def test_bandwidths_are_parameters() -> None:
    declared = builders.declared()
    slow = side_by_side.compare(declared, host(), gpu_gb_per_s=144, host_gb_per_s=30)
    assert slow["bandwidth_gb_per_s"] == {"gpu": 144, "host": 30}
    assert profile(slow)["models"][0]["tokens_per_s"] == 16.9


def test_a_cap_that_caps_nothing_is_named_with_its_cure() -> None:
    assert (
        "40 ≥ 33 layers: nothing is offloaded; gpu_layers 24 would offload a quarter: 2225 MiB less on the GPU, "
        "about 50 % slower"
    ).replace("2225", str(9054 - 6830)) in profile(plan())["warnings"]
    # The guide's 999 means all, and does all.
    assert not any("caps nothing" in text or "≥" in text for text in profile(plan(), "baseline")["warnings"])
    assert not any("≥" in text for text in profile(plan(overrides={"intent": {"gpu_layers": 24}}))["warnings"])


def test_the_largest_settings_fit_and_the_next_ones_do_not() -> None:
    planned = plan(overrides={"intent": {"max_used_mib": 9000}})
    stable = profile(planned)
    (model,) = stable["models"]
    room = 9000 - 800
    declared = builders.declared(overrides={"intent": {"max_used_mib": 9000}})
    whole = planner.Model.from_show(BOTH[MODEL])
    wanted = prediction.scenario(declared, host(), MODEL)

    def total(**changes: int) -> float:
        scenario = planner.Scenario(**{**vars(wanted), **changes})
        return planner.plan(whole, scenario, ollama_version="0.32.15").total_mib

    assert model["largest_num_gpu"] == 29
    assert total(num_gpu=29) <= room < total(num_gpu=30)
    assert total(num_ctx=model["largest_num_ctx"]) <= room < total(num_ctx=model["largest_num_ctx"] + 256)
    assert stable["refused"]
    assert stable["warnings"][0] == (
        "854 MiB more than max_used_mib 9000, so apply refuses it; would fit with nothing left for the backend, "
        "which is not measured yet: "
        f"gpu_layers 29 (about {100 - model['layer_table'][29]['speed_percent']} % slower) or num_ctx "
        f"{model['largest_num_ctx']}"
    )


def test_nothing_fits_at_all() -> None:
    planned = plan(overrides={"intent": {"max_used_mib": 900}})
    (model,) = profile(planned)["models"]
    assert (model["largest_num_gpu"], model["largest_num_ctx"]) == (0, None)
    assert not profile(planned)["fits"]


def test_a_gpu_that_is_ignored_is_told() -> None:
    note = "GPU 1 (T400) is ignored, since this Ollama does not use it: it decides nothing"
    assert note in plan(host(nvml__notes=[note]))["notes"]


def test_the_backend_is_not_known_before_a_load() -> None:
    planned = plan()
    assert profile(planned)["backend_mib"] is None
    assert row(planned, "Stability") == ("stable", "fits with backend <= 2434")
    assert not profile(planned)["fits_surely"]
    assert any("not known before a load: apply" in note for note in planned["notes"])


def test_the_backend_counts_as_measured_with_the_same_settings_and_with_no_others() -> None:
    planned = plan(host(state__proof=proof(1836)))
    assert [(each["name"], each["backend_mib"]) for each in planned["profiles"]] == [
        ("baseline", None),
        ("stable", 1836),
        ("conservative", None),
    ]
    assert profile(planned)["sum_mib"] == 9854 + 1836
    assert row(planned, "Stability") == ("stable", "fits, 598 MiB left")
    assert profile(plan(host(state__proof=proof(1836, CHAT_NUM_CTX="2048"))))["backend_mib"] is None


def test_what_the_backend_takes_never_makes_apply_refuse() -> None:
    stable = profile(plan(host(state__proof=proof(4000))))
    assert (stable["fits"], stable["refused"]) == (False, False)


def test_without_a_backend_ollama_fits_the_layers_into_the_threshold() -> None:
    planned = plan(backend="none", overrides={"intent": {"max_used_mib": 8000}})
    stable = profile(planned)
    (model,) = stable["models"]
    assert stable["sum_mib"] <= 8000 < stable["sum_mib"] - model["gpu_mib"] + model["layer_table"][26]["gpu_mib"]
    assert row(planned, "GPU layers")[1] == "25 of 33, fitted by Ollama"
    assert row(planned, "GPU memory reserved")[1] == "8380 MiB (51 %)"
    assert (
        "gpu_layers 40 reaches nobody: the backend does not send it; Ollama fits the layers by itself, "
        "and only 25 of 33 fit: apply fails unless gpu_layers is no more"
    ) in stable["warnings"]


def test_a_key_that_the_profile_leaves_alone_is_named() -> None:
    backend = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
    file = builders.env_file(values={"OLLAMA_NUM_GPU": "1"})
    own = {"own": {"intent": {"num_ctx": 4096, "num_parallel": 2, "max_used_mib": 12288}}}
    planned = plan(host(backend__env_files=[file]), backend=backend, profile="own", profiles=own)
    assert row(planned, "GPU layers", "own")[1] == "1 of 33"
    assert (
        "only 1 of 33 layers are on the GPU, as OLLAMA_NUM_GPU=1 on this host says, which the profile does not set: "
        "about 78 % slower; env.OLLAMA_NUM_GPU 33 fits as well, "
        "with nothing left for the backend, which is not measured yet"
    ) in profile(planned, "own")["warnings"]


def test_a_cap_that_caps_nothing_is_left_to_ollama_where_the_key_is_ours() -> None:
    backend = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
    planned = plan(host(backend__env_files=[builders.env_file(values={"OLLAMA_NUM_GPU": "1"})]), backend=backend)
    assert row(planned, "GPU layers")[1] == "33 of 33, fitted by Ollama"
    assert row(planned, "GPU memory reserved")[1] == "4092 MiB (25 %)"
    assert not any("reaches nobody" in text for text in profile(planned)["warnings"])


def test_others_are_named_and_what_no_process_holds_is_not_lost() -> None:
    gpu = builders.gpu(
        used_mib=2000,
        processes=[
            builders.holder(900, "Xorg", 500, "graphics"),
            builders.holder(901, "chrome", 100, "graphics"),
            builders.holder(902, "chrome", 100, "graphics"),
            builders.holder(500, "python3", 300),  # the backend
            builders.holder(400, "llama-server", 900),
        ],
    )
    assert side_by_side.held_by_others(host(), gpu) == [
        {"name": "Xorg", "used_mib": 500},
        {"name": "chrome", "used_mib": 200},
        {"name": "not attributed", "used_mib": 100},
    ]
    # Where the driver keeps one figure back, the rest may be that process's.
    gpu["processes"][0] = builders.holder(900, "Xorg", None)
    assert side_by_side.held_by_others(host(), gpu) == [{"name": "chrome", "used_mib": 200}]
    # As where it lists the pids of another namespace, so that Ollama's own is not told from others'.
    gpu["processes"] = [builders.holder(5000400, None, 900)]
    runners = builders.read()["ollama"]["runners"]
    assert side_by_side.held_by_others(host(nvml__gpus=[gpu], ollama__runners=runners), gpu) == []


def test_several_models_count_as_far_as_they_stay_loaded_together() -> None:
    one = plan(host(MODEL, SMALL), models=[MODEL, SMALL])
    assert profile(one)["loaded_together"] == [MODEL]
    assert profile(one)["ollama_mib"] == 9054
    assert any("not all 2 models stay loaded together" in text for text in profile(one)["warnings"])
    two = plan(host(MODEL, SMALL), models=[MODEL, SMALL], overrides={"intent": {"max_loaded_models": 2}})
    stable = profile(two)
    assert stable["loaded_together"] == [MODEL, SMALL]
    assert stable["ollama_mib"] == sum(model["gpu_mib"] for model in stable["models"])
    assert stable["models"][0]["room_mib"] == 12288 - 800 - stable["models"][1]["gpu_mib"]


def test_an_own_profile_has_a_column_and_a_bad_one_says_why() -> None:
    own = {"half": {"extends": "stable", "intent": {"gpu_layers": 16}}, "bad": {"extends": "nothing"}}
    planned = plan(profiles=own)
    assert [each["name"] for each in planned["profiles"]] == ["baseline", "stable", "conservative", "half", "bad"]
    assert profile(planned, "half")["models"][0]["layers"] == 16
    assert "that profile is not known" in profile(planned, "bad")["problems"][0]
    assert planned["problems"] == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nvml": {"status": "library_missing", "message": "no library", "gpus": []}}, "NVML: no library"),
        ({"ollama__unit__load_state": "not-found"}, "the unit ollama.service is not-found on this host"),
        ({"ollama__api__show": {}}, "set gpu_memory_models to what this host serves"),
        ({"ollama__api__show": {MODEL: {"model_info": {}}}}, f"{MODEL} cannot be planned: "),
        ({"ollama__api__version": "0.0.0"}, "calls itself '0.0.0'"),
    ],
)
def test_what_cannot_be_planned_is_text(changes: dict[str, Any], problem: str) -> None:
    planned = plan(host(**changes))
    assert any(problem in text for text in planned["problems"])


def test_a_declaration_with_problems_is_not_planned_from_half_of_it() -> None:
    planned = plan(verify="sometimes")
    assert "gpu_memory_verify" in planned["problems"][0]
    assert planned["profiles"] == []


def test_a_setting_that_ollama_refuses_is_a_problem_of_the_profile_alone() -> None:
    environment = {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"}
    planned = plan(host(ollama__process__environment=environment))
    assert "llama-server refuses" in profile(planned)["problems"][0]


def test_what_people_copied_is_found_on_the_host() -> None:
    planned = plan(host(ollama__unit__environment={"OLLAMA_MAX_VRAM": "12000000000"}))
    assert (
        "OLLAMA_MAX_VRAM=12000000000 in what ollama.service was started with: dead since Ollama 0.1.45; take it out; "
        "a profile's max_used_mib is its successor" in planned["notes"]
    )


def test_a_profile_for_16_gb_is_refused_on_another_size_or_scaled_as_apply_does() -> None:
    refused = profile(plan(host(MODEL, nvml__gpus=[builders.gpu(total_mib=24564)])))
    assert refused["refused"] and any("gpu_memory_other_sizes: scale" in text for text in refused["warnings"])
    scaled = profile(plan(host(MODEL, nvml__gpus=[builders.gpu(total_mib=24564)]), other_sizes="scale"))
    assert (scaled["refused"], scaled["max_used_mib"], scaled["limit_mib"]) == (False, 18423, 18423)
    assert "max_used_mib is 18423 here" in scaled["warnings"][0]


def test_the_plan_counts_a_modelfile_where_no_request_carries_the_option() -> None:
    own = {MODEL: {**BOTH[MODEL], "parameters": {"num_ctx": 16384, "num_gpu": 10}}}
    planned = plan(host(ollama__api__show=own), backend="none")
    stable = profile(planned)
    assert row(planned, "GPU layers")[1] == "10 of 33"
    assert row(planned, "Context window")[1] == "16384 each, 32768 in all"
    assert (stable["margin"], stable["refused"]) == ("void", True)
    assert any("PARAMETER num_ctx 16384 in the Modelfile" in text for text in stable["warnings"])
    assert not any("reaches nobody" in text for text in stable["warnings"])
    with_backend = plan(host(ollama__api__show=own))
    assert row(with_backend, "Context window")[1] == "4096 each, 8192 in all"
    assert not profile(with_backend)["refused"]


def two_gpus(spread: str = "0", **variables: Any) -> dict[str, Any]:
    read = host(nvml__gpus=[builders.gpu(), builders.gpu(1, processes=[], used_mib=0)])
    read["ollama"]["process"]["environment"] = {**builders.STABLE_ON_0_32, "OLLAMA_SCHED_SPREAD": spread}
    return plan(read, **variables)


def test_of_several_gpus_the_tightest_is_judged() -> None:
    planned = two_gpus()
    stable = profile(planned)
    assert [gpu["index"] for gpu in planned["gpus"]] == [0, 1]
    assert [(gpu["ollama_mib"], gpu["sum_mib"]) for gpu in stable["gpus"]] == [(0, 800), (9054, 9054)]
    assert stable["tightest"]["index"] == 1
    assert (stable["sum_mib"], stable["headroom_mib"], stable["fits"]) == (9054, 12288 - 9054, True)
    assert stable["tightest"]["terms"] == stable["terms"]


def test_a_model_that_is_divided_is_judged_on_each_gpu() -> None:
    planned = two_gpus("1", backend="none", overrides={"intent": {"max_used_mib": 6000, "num_batch": 512}})
    stable = profile(planned)
    first, second = stable["gpus"]
    assert abs(first["ollama_mib"] + second["ollama_mib"] - stable["ollama_mib"]) <= 1
    assert stable["ollama_mib"] > 9500
    assert stable["tightest"] == first
    assert stable["fits"] and not stable["refused"]
    (model,) = stable["models"]
    assert model["layer_table"][33]["fits"] and model["layer_table"][33]["gpu_mib"] == stable["ollama_mib"]
    assert model["largest_num_ctx"] >= 4096
    too_much = profile(two_gpus("1", overrides={"intent": {"max_used_mib": 5000}}))
    assert too_much["refused"] and not too_much["fits"]
    assert any("on GPU 0" in warning for warning in too_much["warnings"])
    larger = [row["fits"] for row in too_much["models"][0]["layer_table"]]
    assert larger[0] and not larger[33]
