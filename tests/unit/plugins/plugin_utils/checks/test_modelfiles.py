"""What a Modelfile sets, against a profile."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import modelfile
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import modelfiles

EMBEDS = {"capabilities": ["embedding"]}


def declared(*models: str, **backend: Any) -> dict[str, Any]:
    intent = {"num_ctx": 4096, "gpu_layers": 40}
    return {"models": list(models), "profile": {"intent": intent}, "backend": backend}


def shown(trained: int = 131072, **parameters: int) -> dict[str, Any]:
    return {
        "model_info": {"general.architecture": "llama", "llama.context_length": trained},
        "parameters": parameters,
        "capabilities": ["completion"],
    }


def test_options_that_requests_carry_are_not_the_modelfiles() -> None:
    model = shown(num_ctx=2048, num_gpu=10, num_batch=256)
    assert modelfiles.parameters(declared(), model) == {"num_ctx": 2048, "num_gpu": 10, "num_batch": 256}
    keys = {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_GPU_LAYERS"}
    assert modelfiles.parameters(declared(keys=keys), model) == {"num_batch": 256}
    assert modelfiles.parameters(declared(keys=keys, sends={"num_batch": 512}), model) == {}
    assert modelfiles.parameters(declared(), None) == {}


@pytest.mark.parametrize(
    ("model", "refused", "noted"),
    [
        (shown(), [], []),
        (shown(num_ctx=4096), [], []),
        (shown(num_ctx=16384), ["PARAMETER num_ctx 16384 in the Modelfile of m wins over the profile's 4096"], []),
        (shown(num_ctx=2048), [], ["PARAMETER num_ctx 2048 in the Modelfile of m"]),
        (shown(2048, num_ctx=8192), [], []),  # no runner gets more than what it was trained for
        (shown(2048, num_ctx=1024), [], ["PARAMETER num_ctx 1024 in the Modelfile of m"]),
        (shown(num_gpu=10), [], ["PARAMETER num_gpu 10 in the Modelfile of m"]),
        (shown(num_gpu=-1), [], []),
        (
            shown(num_gpu=0),
            ["PARAMETER num_gpu 0 in the Modelfile of m keeps it from the GPU"],
            ["PARAMETER num_gpu 0"],
        ),
    ],
)
def test_more_than_the_profile_lets_is_refused_and_less_is_noted(
    model: dict[str, Any], refused: list[str], noted: list[str]
) -> None:
    for found, wanted in (
        (modelfiles.problems(declared("m"), {"m": model}), refused),
        (modelfiles.notes(declared("m"), {"m": model}), noted),
    ):
        assert len(found) == len(wanted)
        assert all(text.startswith(start) for text, start in zip(found, wanted))


def test_an_embedder_counts_only_where_there_is_nothing_else() -> None:
    embedder = {**shown(num_ctx=8192), **EMBEDS}
    assert modelfiles.problems(declared("m", "e"), {"m": shown(), "e": embedder}) == []
    assert len(modelfiles.problems(declared("e"), {"m": shown(), "e": embedder})) == 1


def test_whose_value_it_is() -> None:
    shows = {"other": shown(), "m": shown(num_ctx=2048)}
    assert modelfiles.set_by_one(declared(), shows, "num_ctx", 2048) == "PARAMETER num_ctx 2048 in the Modelfile of m"
    assert modelfiles.set_by_one(declared(), shows, "num_ctx", None) is None
    assert modelfiles.set_by_one(declared(sends={"num_ctx": 4096}), shows, "num_ctx", 2048) is None


def test_a_number_that_is_text_is_refused_before_a_load_fails() -> None:
    text = (
        'num_ctx                        "8192"\nnum_gpu                        20\nstop                           "7"\n'
    )
    model = {**shown(), "as_text": modelfile.as_text(text)}
    (problem,) = modelfiles.problems(declared("m"), {"m": model})
    assert problem.startswith('PARAMETER num_ctx of m is the text "8192"')
    assert "PARAMETER num_ctx 8192 in a Modelfile" in problem
