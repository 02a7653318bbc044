"""Which variable carries an intent in which release: one row for each place where releases differ."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _settings
from hypothesis import given
from hypothesis import strategies as st

INTENT = {"num_parallel": 2, "max_loaded_models": 1, "num_ctx": 4096, "num_batch": 512, "gpu_layers": 40}
PARALLEL = {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_MAX_LOADED_MODELS": "1"}
CONTEXT = {"OLLAMA_CONTEXT_LENGTH": "4096"}
OVERHEAD = {"OLLAMA_GPU_OVERHEAD": str(4092 * 1024 * 1024)}
FIT_TARGET = {"LLAMA_ARG_FIT_TARGET": "4092"}


@pytest.mark.parametrize(
    "version, wanted, unheard",
    [
        ("0.1.32", {}, ["margin_mib", "max_loaded_models", "num_ctx", "num_parallel"]),
        ("0.1.33", PARALLEL, ["margin_mib", "num_ctx"]),
        ("0.3.9", PARALLEL, ["margin_mib", "num_ctx"]),
        ("0.3.10", {**PARALLEL, **OVERHEAD}, ["num_ctx"]),
        ("0.5.12", {**PARALLEL, **OVERHEAD}, ["num_ctx"]),
        ("0.5.13", {**PARALLEL, **CONTEXT, **OVERHEAD}, []),
        ("0.15.5", {**PARALLEL, **CONTEXT, **OVERHEAD}, []),
        ("0.24.0", {**PARALLEL, **CONTEXT, **OVERHEAD}, []),
        ("0.30.0", {**PARALLEL, **CONTEXT, **FIT_TARGET}, []),
        ("v0.32.15", {**PARALLEL, **CONTEXT, **FIT_TARGET}, []),
        ("0.33.0-rc2", {**PARALLEL, **CONTEXT, **FIT_TARGET}, []),
        ("1.0.0", {**PARALLEL, **CONTEXT, **FIT_TARGET}, []),
        (None, {}, ["margin_mib", "max_loaded_models", "num_ctx", "num_parallel"]),
    ],
)
def test_what_each_release_reads(version, wanted, unheard):
    assert _settings.ollama_environment(INTENT, [4092], _settings.parse_version(version)) == (wanted, unheard)


@pytest.mark.parametrize(
    "margins, overhead, fit_target",
    [
        ([4092], "4290772992", "4092"),
        ([4092, 4092], "4290772992", "4092"),
        ([4092, 12288], "12884901888", "4092,12288"),  # one number for all keeps every threshold
        ([0], "0", "0"),
    ],
)
def test_a_margin_is_bytes_up_to_0_24_and_mib_since_0_30(margins, overhead, fit_target):
    assert _settings.ollama_environment({}, margins, (0, 24, 0)) == ({"OLLAMA_GPU_OVERHEAD": overhead}, [])
    assert _settings.ollama_environment({}, margins, (0, 30, 0)) == ({"LLAMA_ARG_FIT_TARGET": fit_target}, [])


def test_without_a_threshold_there_is_no_margin():
    assert _settings.margins_mib([{"total_mib": 16380}], None) == []
    assert _settings.ollama_environment({}, [], (0, 32, 0)) == ({}, [])


def test_an_intent_that_is_not_there_is_not_written():
    assert _settings.ollama_environment({"num_ctx": 2048}, [], (0, 32, 0)) == ({"OLLAMA_CONTEXT_LENGTH": "2048"}, [])


@pytest.mark.parametrize(
    "gpu, threshold, margin",
    [
        ({"total_mib": 16380, "reserved_mib": 0}, 12288, 4092),
        ({"total_mib": 16380, "reserved_mib": 300}, 12288, 3792),
        ({"total_mib": 16380, "reserved_mib": None}, 12288, 4092),
        ({"total_mib": 8192}, 12288, 0),
    ],
)
def test_margin(gpu, threshold, margin):
    assert _settings.margins_mib([gpu], threshold) == [margin]


@pytest.mark.parametrize(
    "text, version",
    [
        ("0.32.15", (0, 32, 15)),
        ("v0.33.0-rc2", (0, 33, 0)),
        ("0.5.13+cuda", (0, 5, 13)),
        ("0.0.0", None),  # a build from source
        ("0.0.0-dirty", None),
        ("0.32", None),
        ("latest", None),
        ("", None),
        (None, None),
        (0.32, None),
        ("9" * 5000 + ".1.1", None),
    ],
)
def test_parse_version(text, version):
    assert _settings.parse_version(text) == version


@given(st.text() | st.integers() | st.none() | st.from_regex(r"v?\d+\.\d+\.\d+.*"))
def test_any_version_text_is_a_release_or_none(text):
    version = _settings.parse_version(text)
    assert version is None or version > (0, 0, 0)


@given(
    st.dictionaries(st.sampled_from([*INTENT, "other"]), st.integers(0, 10**6)),
    st.lists(st.integers(0, 10**5), max_size=8),
    st.none() | st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 200)),
)
def test_nothing_empty_is_ever_rendered(intent, margins, version):
    """An empty LLAMA_ARG_* keeps llama-server from starting, and Ollama's own would fall back to a default."""
    environment, unheard = _settings.ollama_environment(intent, margins, version)
    assert all(value and value.replace(",", "").isdigit() for value in environment.values())
    assert set(environment) <= _settings.SHOWN
    assert not {"OLLAMA_GPU_OVERHEAD", "LLAMA_ARG_FIT_TARGET"} <= set(environment)
    assert "margin_mib" not in unheard or margins


def test_only_settings_of_memory_are_shown():
    environment = {
        "OLLAMA_NUM_PARALLEL": "2",
        "OLLAMA_HOST": "a",
        "HTTPS_PROXY": "http://u:p@x",
        "API_KEY": "k",
        "PATH": "/",
    }
    assert _settings.shown(environment) == {"OLLAMA_NUM_PARALLEL": "2"}


def test_every_name_that_nobody_reads_says_why():
    assert all(_settings.NOBODY_READS.values())
    assert not set(_settings.NOBODY_READS) & {row.variable for row in _settings.OLLAMA_READS}
