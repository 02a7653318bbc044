"""The planner asked with what was declared and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _predict
from ansible_collections.selo.gpu_memory.tests.unit import builders

DATA = Path(__file__).resolve().parents[3] / "data" / "planner"
MODEL, SMALL = builders.MODEL, "llama3.2:3b-instruct-q8_0"


def show(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.show.json").read_text(encoding="utf-8"))


def test_the_guides_profile_on_the_guides_model() -> None:
    read = builders.read(ollama__api__show={MODEL: show("llama31-8b-q8_0")})
    predicted, notes = _predict.predict(builders.declared(), read, "0.32.15")
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
    predicted, notes = _predict.predict(builders.declared(), read, "0.32.15")
    assert predicted is not None
    assert predicted["models"] == [SMALL]
    assert notes == [f"{MODEL} cannot be planned: the /api/show answer has no model_info"]


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
    predicted, _unused = _predict.predict(declared, read, "0.32.15")
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
    predicted, _unused = _predict.predict(builders.declared(overrides={"intent": overrides}), read, "0.32.15")
    assert predicted is not None
    assert predicted["kv_mib"] == kv_mib


def test_nothing_to_plan_is_none_and_no_error() -> None:
    assert _predict.predict(builders.declared(), builders.read(), "0.32.15") == (None, [])
    assert _predict.predict(builders.declared(), builders.read(), None) == (None, [])
