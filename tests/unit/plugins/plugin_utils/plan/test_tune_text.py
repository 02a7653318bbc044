from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import tune_svg, tune_text

BEST = {"num_gpu": 29, "num_ctx": 4096, "num_parallel": 2, "num_batch": 512, "kv_cache_type": "f16"}


def probe(layers: int, outcome: str, peak: int, speed: float | None, why: str = "it was <likely>") -> dict[str, Any]:
    use = None if outcome == tune_search.OUT_OF_MEMORY else peak - 800
    return {"setting": {**BEST, "num_gpu": layers}, "outcome": outcome, "use_mib": use, "why": why, "peak_mib": peak,
            "others_mib": 800, "tokens_per_s": speed, "detail": {}}  # fmt: skip


def result(**changes: Any) -> dict[str, Any]:
    setting = tune_search.Setting(**BEST)
    return {
        "host": "gpu01",
        "hosts": ["gpu01", "gpu02"],
        "problems": [],
        "mode": "search",
        "model": "llama3.1:8b-instruct-q8_0",
        "max_used_mib": 9000,
        "ollama": "0.32.15",
        "gpu": {"name": "A <card> & more", "total_mib": 16380, "uuid": "GPU-1", "reserved_mib": 0},
        "others_mib": 800,
        "probes": [probe(29, tune_search.HELD, 8826, 15.9), probe(30, tune_search.OVER, 9079, 14.9)],
        "best": dict(BEST),
        "proven": True,
        "why": "it held",
        "curve": [{"num_gpu": n, "peak_mib": 1500 + 253 * n, "tokens_per_s": 5.0 + n} for n in range(34)],
        "guide_walk": {"layers": [40, 35, 30, 25], "load_tests": 4, "ends_at": 25},
        "profile": tune_search.profile(setting, 9000, "llama3.1:8b-instruct-q8_0", "stable", "f16"),
        "files": ["/x/gpu01.tune.yml"],
        "loaded_before": ["qwen2.5:3b"],
        "loaded_again": ["qwen2.5:3b"],
        **changes,
    }


def test_a_search() -> None:
    text = tune_text.block(result())
    first, *rest = text.splitlines()
    assert first == (
        "gpu01  llama3.1:8b-instruct-q8_0  num_gpu 29, num_ctx 4096 x 2, num_batch 512, f16   "
        "held, 8826 of 9000 MiB, 15.9 tok/s (2 load tests)"
    )
    assert [line.split()[0] for line in rest] == [
        "probe", "it", "probe", "it", "because", "guide", "others", "for", "file",
    ]  # fmt: skip
    assert "its walk by 5 layers would take 4 load tests (40, 35, 30, 25) and end at 25" in text


def test_what_is_not_proven_says_so() -> None:
    assert "not proven to be the best" in tune_text.block(result(proven=False))


def test_a_model_that_did_not_come_back_is_told() -> None:
    assert "qwen2.5:3b was loaded before, and could not be loaded again" in tune_text.block(result(loaded_again=[]))
    assert "loaded again" not in tune_text.block(result())


def test_nothing_holds() -> None:
    text = tune_text.block(result(best=None, probes=[probe(0, tune_search.OUT_OF_MEMORY, 16000, None)]))
    assert "NOTHING HOLDS   1 load tests" in text
    assert "out of memory" in text


def test_profiles_are_measured_beside_the_guides_words() -> None:
    probes = [
        probe(33, tune_search.HELD, 10882, 20.0, "baseline"),
        {**probe(33, tune_search.HELD, 9854, 19.8, "stable"), "setting": {**BEST, "num_ctx": 2048}},
    ]
    text = tune_text.block(result(mode="profiles", best=None, probes=probes, guide_walk=None))
    assert "MEASURED   2 load tests" in text
    assert "stable: 99% (19.8 tok/s); the guide says ~95%" in text
    died = [probe(33, tune_search.OUT_OF_MEMORY, 16000, None, "baseline"), *probes[1:]]
    text = tune_text.block(result(mode="profiles", best=None, probes=died, guide_walk=None))
    assert "baseline: not measured, since it ran out of memory" in text
    assert "stable: not comparable" in text


def test_hosts_that_were_not_tuned() -> None:
    refused = tune_text.block({"host": "gpu01", "problems": ["no GPU"]})
    assert refused.splitlines() == ["gpu01  NOT TUNED", "  reason     no GPU"]
    other = tune_text.block({"host": "gpu02", "problems": [], "because": "gpu01 is tuned for it"})
    assert other.splitlines() == ["gpu02  not tuned here", "  because    gpu01 is tuned for it"]


def test_the_profile_is_ready_for_group_vars() -> None:
    text = tune_text.profile_yaml(result())
    read = yaml.safe_load(text)
    assert read == {"gpu_memory_profile": "tuned", "gpu_memory_profiles": {"tuned": result()["profile"]}}
    assert read["gpu_memory_profiles"]["tuned"]["intent"] == {
        "num_ctx": 4096, "num_parallel": 2, "num_batch": 512, "gpu_layers": 29, "max_used_mib": 9000,
    }  # fmt: skip
    assert "gpu01, gpu02" in text


@pytest.mark.parametrize("name", ["a\nevil: true", "x # y", '"'])
def test_a_hosts_words_stay_comments(name: str) -> None:
    found = result(gpu={"name": name, "total_mib": 1, "uuid": "", "reserved_mib": 0}, why=name)
    assert set(yaml.safe_load(tune_text.profile_yaml(found))) == {"gpu_memory_profile", "gpu_memory_profiles"}


def test_a_profile_names_a_cache_type_that_is_not_deployed_already() -> None:
    setting = tune_search.Setting(**{**BEST, "kv_cache_type": "q8_0"})
    for deployed, wanted in (("f16", "q8_0"), ("q8_0", None)):
        found = result(profile=tune_search.profile(setting, 9000, "m", "stable", deployed))
        intent = yaml.safe_load(tune_text.profile_yaml(found))["gpu_memory_profiles"]["tuned"]["intent"]
        assert intent.get("kv_cache_type") == wanted


# --- the picture ---


def shapes(found: dict[str, Any], kind: str) -> list[ET.Element]:
    return list(ET.fromstring(tune_svg.svg(found)).iter(f"{{http://www.w3.org/2000/svg}}{kind}"))


def test_a_picture_of_a_search() -> None:
    found = result()
    circles = shapes(found, "circle")
    assert len(circles) == 4  # two probes, in peak and in speed
    assert len(shapes(found, "polyline")) == 2
    (limit,) = [line for line in shapes(found, "line") if line.get("class") == "limit"]
    held, over = (float(circle.get("cy") or 0) for circle in circles[:2])
    assert over < float(limit.get("y1") or 0) < held  # up is more
    assert circles[0].get("fill") != circles[1].get("fill")
    texts = [element.text for element in shapes(found, "text")]
    assert "threshold 9000" in texts
    assert any(text and "A <card> & more" in text for text in texts)


def test_a_picture_of_a_ladder_and_of_one_point() -> None:
    steps = result(mode="too_slow")
    assert [element.text for element in shapes(steps, "text") if (element.text or "").startswith("step")] == [
        "step 1",
        "step 2",
    ]
    alone = result(mode="profiles", best=None, probes=[probe(33, tune_search.OUT_OF_MEMORY, 16000, None)], curve=[])
    assert len(shapes(alone, "circle")) == 1


def test_points_lie_on_their_curve() -> None:
    found = result(curve=[{"num_gpu": 29, "peak_mib": 8826, "tokens_per_s": 15.9}, *result()["curve"][30:]])
    line = shapes(found, "polyline")[0].get("points") or ""
    x, y = line.split()[0].split(",")
    circle = shapes(found, "circle")[0]
    assert (circle.get("cx"), circle.get("cy")) == (x, y)
