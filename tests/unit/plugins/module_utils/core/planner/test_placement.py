"""What the server's environment keeps on the CPU, against what llama-server's own projection said (build 11669)."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import placement
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.planner import (
    Plan,
    Scenario,
    ScenarioInvalid,
    plan,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

LLAMA, GEMMA, GPT = "llama31-8b-q8_0", "gemma3-12b", "gpt-oss-20b"
OFF_GPU = {"cache_on_gpu": False}
FIRST_12 = {"on_cpu": placement.of_first(12, placement.EXPERTS)}


def planned(name: str, num_ctx: int, slots: int, batch: int, **settings: object) -> Plan:
    scenario = Scenario.from_dict(
        {"num_ctx": num_ctx, "num_parallel": slots, "num_batch": batch, "flash_attention": "on", **settings}
    )
    return plan(recorded_models.model(name), scenario, ollama_version="0.32.15")


@pytest.mark.parametrize(
    ("name", "num_ctx", "slots", "batch", "settings", "weights", "kv", "compute"),
    [
        (LLAMA, 16384, 1, 1024, {}, 7605, 2048, 264),
        (LLAMA, 65536, 2, 512, OFF_GPU, 7605, 0, 616),
        (GEMMA, 32768, 2, 512, OFF_GPU, 11924, 0, 590),
        ("gemma3-4b", 131072, 1, 512, OFF_GPU, 2082, 0, 668),
        (GPT, 65536, 2, 512, OFF_GPU, 10949, 0, 362),
        (LLAMA, 16384, 1, 2048, {"on_cpu": placement.of_first(12, placement.DENSE)}, 5463, 2048, 528),
        (GEMMA, 16384, 1, 1024, {"full_windows": True}, 11924, 6144, 304),
        (GPT, 32768, 2, 2048, {"full_windows": True}, 10949, 3072, 616),
        (GPT, 16384, 1, 1024, FIRST_12, 6095, 414, 214),
        ("qwen2moe-14b", 4096, 2, 2048, {"on_cpu": [placement.EXPERTS]}, 1577, 1536, 212),
        ("phi4-14b", 2048, 4, 512, {"on_cpu": ["attn"]}, 7556, 1600, 151),
    ],
)
def test_each_term_is_that_of_the_engine(name, num_ctx, slots, batch, settings, weights, kv, compute):
    found = planned(name, num_ctx, slots, batch, **settings)
    assert found.weights_mib == pytest.approx(weights, abs=1)
    assert found.kv_mib == pytest.approx(kv, abs=1)
    assert found.compute_mib == pytest.approx(compute, abs=4)


@pytest.mark.parametrize(
    ("name", "num_ctx", "batch", "expression", "compute"),
    [
        (LLAMA, 16384, 1024, "ffn_.*", 112),
        (GPT, 16384, 2048, placement.EXPERTS, 253),
        ("lfm2-1.2b", 16384, 1024, "ffn_(up|down)", 96),
    ],
)
def test_what_is_computed_on_the_host_is_within_the_band(name, num_ctx, batch, expression, compute):
    found = planned(name, num_ctx, 1, batch, on_cpu=[expression])
    low, high = found.band_mib["compute_mib"]
    assert low <= compute <= high
    assert found.band_mib["op_offload_mib"][0] == 0  # a device that the host does not borrow


def test_what_stays_on_the_host_is_counted_there():
    all_on_gpu, some = planned(GPT, 4096, 1, 512), planned(GPT, 4096, 1, 512, **FIRST_12)
    moved = all_on_gpu.weights_mib - some.weights_mib
    assert moved > 4000
    assert some.host_mib - all_on_gpu.host_mib == pytest.approx(moved, rel=0.01)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("[", "no regular expression"),
        ("(a+)+b", "repeats what repeats"),
        (".*", "output layer"),
        ("a" * 600, "too long"),
    ],
)
def test_an_expression_that_is_not_planned_is_refused(expression, why):
    with pytest.raises(ScenarioInvalid, match=why):
        planned(LLAMA, 4096, 1, 512, on_cpu=[expression])


def test_a_cache_on_the_cpu_is_refused_where_blocks_read_each_others():
    with pytest.raises(ScenarioInvalid, match="blocks read each other's"):
        planned("gemma3n-e4b", 4096, 1, 512, **OFF_GPU)
