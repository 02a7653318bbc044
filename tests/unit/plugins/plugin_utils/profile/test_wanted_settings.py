"""What a host's files should say: caps and margins, which exclude each other, and keys that a backend takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import wanted_settings
from ansible_collections.selo.gpu_memory.tests.unit.builders import MODEL, UUID, declared, gpu, read
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import SMALL, show

LLAMA, QWEN = show("llama31-8b-q8_0"), show("qwen25-3b-q4_k_m")  # 33 and 37 layers
SELO = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
MARGIN = "LLAMA_ARG_FIT_TARGET"


def vision(mib: int) -> dict[str, Any]:
    """The model with a projector of so many MiB."""
    model = copy.deepcopy(LLAMA)
    model["tensors"].append({"name": "mm.0.weight", "type": "F16", "shape": [1024, 512 * mib]})
    return model


def wanted(shows: dict[str, Any], layers: int = 40, backend: Any = None, version: str = "0.32.15", **changes: Any):
    declaration = declared(
        backend=SELO if backend is None else backend, models=list(shows), overrides={"intent": {"gpu_layers": layers}}
    )
    host = read(ollama__api__show=shows, ollama__api__version=version, **changes)
    return wanted_settings.backend_env(declaration, host), wanted_settings.ollama_environment(declaration, host)[0]


@pytest.mark.parametrize(
    ("layers", "shows", "sent", "margin"),
    [
        (40, {MODEL: LLAMA}, "-1", "4092"),  # caps nothing: left to Ollama, with a margin
        (33, {MODEL: LLAMA}, "-1", "4092"),
        (32, {MODEL: LLAMA}, "32", None),  # caps: no margin, which would have no effect
        (0, {MODEL: LLAMA}, "0", None),
        (40, {MODEL: LLAMA, SMALL: QWEN}, "-1", "4092"),
        (35, {MODEL: LLAMA, SMALL: QWEN}, "35", None),  # caps one of the two, and the key is one for both
        (40, {MODEL: {}}, "40", "4092"),  # not known whether it caps
        (20, {MODEL: {}}, "20", "4092"),
        (35, {MODEL: {}, SMALL: QWEN}, "35", None),
    ],
)
def test_a_cap_or_a_margin_and_never_both(layers, shows, sent, margin):
    env, environment = wanted(shows, layers)
    assert env["OLLAMA_NUM_GPU"] == sent
    assert environment.get(MARGIN) == margin


@pytest.mark.parametrize(
    ("models", "sent"),
    [
        ([], "35"),  # caps one of the two that the host has
        ([MODEL], "-1"),  # caps nothing of the one that is served
    ],
)
def test_without_a_declared_model_every_one_of_the_host_counts(models, sent):
    declaration = declared(backend=SELO, models=models, overrides={"intent": {"gpu_layers": 35}})
    host = read(ollama__api__show={MODEL: LLAMA, SMALL: QWEN})
    assert wanted_settings.backend_env(declaration, host)["OLLAMA_NUM_GPU"] == sent


def test_the_guide_s_own_key_is_written_as_the_guide_says():
    env, environment = wanted({MODEL: LLAMA}, backend="guide")
    assert env["OLLAMA_GPU_LAYERS"] == "40"
    assert environment[MARGIN] == "4092"


def test_a_cap_that_nobody_carries_leaves_the_margin():
    env, environment = wanted({MODEL: LLAMA}, 20, backend="none")
    assert "OLLAMA_NUM_GPU" not in env
    assert environment[MARGIN] == "4092"


@pytest.mark.parametrize(
    ("version", "shows", "name", "value"),
    [
        ("0.31.1", {MODEL: vision(800)}, MARGIN, "4092"),  # Ollama did not add anything yet
        ("0.31.2", {MODEL: vision(800)}, MARGIN, str(4092 + 800 + 1024)),
        ("0.32.15", {MODEL: vision(800), SMALL: vision(100)}, MARGIN, str(4092 + 800 + 1024)),
        ("0.32.15", {MODEL: LLAMA}, MARGIN, "4092"),
        ("0.24.0", {MODEL: vision(800)}, "OLLAMA_GPU_OVERHEAD", str(4092 * 1024 * 1024)),
    ],
)
def test_a_margin_leaves_room_for_a_projector_where_ollama_would_have(version, shows, name, value):
    assert wanted(shows, version=version)[1][name] == value


def test_without_a_threshold_there_is_no_margin():
    declaration = declared(profile="baseline", backend=SELO, models=[MODEL])
    host = read(ollama__api__show={MODEL: LLAMA})
    assert MARGIN not in wanted_settings.ollama_environment(declaration, host)[0]
    assert wanted_settings.backend_env(declaration, host)["OLLAMA_NUM_GPU"] == "-1"


def test_margins_follow_ollamas_order_and_the_first_holds_for_any_gpu_that_has_a_model_alone() -> None:
    small, large = gpu(0, total_mib=12282), gpu(1, total_mib=16380)

    def margins(**nvml: object) -> list[int]:
        host = read(nvml__gpus=[small, large], **nvml)
        return wanted_settings.margins_mib(declared(overrides={"intent": {"max_used_mib": 10240}}), host)

    assert margins() == [6140, 6140]
    assert margins(nvml__order=["GPU-1", UUID]) == [6140, 2042]
    assert margins(nvml__order=["GPU-1"]) == [6140]
