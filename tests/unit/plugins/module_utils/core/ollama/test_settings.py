"""Which variable carries an intent in which release: one row for each place where releases differ."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
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
    assert settings.ollama_environment(INTENT, [4092], settings.parse_version(version)) == (wanted, unheard)


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
    assert settings.ollama_environment({}, margins, (0, 24, 0)) == ({"OLLAMA_GPU_OVERHEAD": overhead}, [])
    assert settings.ollama_environment({}, margins, (0, 30, 0)) == ({"LLAMA_ARG_FIT_TARGET": fit_target}, [])


@pytest.mark.parametrize(
    "version, cache_type, wanted, unheard",
    [
        ("0.4.9", "q8_0", {}, ["kv_cache_type"]),
        ("0.5.0", "q8_0", {"OLLAMA_FLASH_ATTENTION": "true", "OLLAMA_KV_CACHE_TYPE": "q8_0"}, []),
        ("0.24.0", "q4_0", {"OLLAMA_FLASH_ATTENTION": "true", "OLLAMA_KV_CACHE_TYPE": "q4_0"}, []),
        ("0.24.0", "f16", {"OLLAMA_KV_CACHE_TYPE": "f16"}, []),
        ("0.24.0", "q5_0", {}, ["kv_cache_type"]),  # it would take f16, with a warning
        ("0.30.0", "q5_0", {"OLLAMA_KV_CACHE_TYPE": "q5_0"}, []),
        ("0.32.15", "q8_0", {"OLLAMA_KV_CACHE_TYPE": "q8_0"}, []),  # which switches flash attention on by itself
    ],
)
def test_a_type_of_cache_is_written_where_the_release_takes_it(version, cache_type, wanted, unheard):
    intent = {"kv_cache_type": cache_type}
    assert settings.ollama_environment(intent, [], settings.parse_version(version)) == (wanted, unheard)


def test_the_variables_that_carry_a_margin():
    assert sorted(settings.MARGINS) == ["LLAMA_ARG_FIT_TARGET", "OLLAMA_GPU_OVERHEAD"]


def test_without_a_threshold_there_is_no_margin():
    assert settings.margins_mib([{"total_mib": 16380}], None) == []
    assert settings.ollama_environment({}, [], (0, 32, 0)) == ({}, [])


def test_an_intent_that_is_not_there_is_not_written():
    assert settings.ollama_environment({"num_ctx": 2048}, [], (0, 32, 0)) == ({"OLLAMA_CONTEXT_LENGTH": "2048"}, [])


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
    assert settings.margins_mib([gpu], threshold) == [margin]


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
    assert settings.parse_version(text) == version


@given(st.text() | st.integers() | st.none() | st.from_regex(r"v?\d+\.\d+\.\d+.*"))
def test_any_version_text_is_a_release_or_none(text):
    version = settings.parse_version(text)
    assert version is None or version > (0, 0, 0)


@given(
    st.dictionaries(st.sampled_from([*INTENT, "other"]), st.integers(0, 10**6)),
    st.lists(st.integers(0, 10**5), max_size=8),
    st.none() | st.tuples(st.integers(0, 1), st.integers(0, 40), st.integers(0, 200)),
)
def test_nothing_empty_is_ever_rendered(intent, margins, version):
    """An empty LLAMA_ARG_* keeps llama-server from starting, and Ollama's own would fall back to a default."""
    environment, unheard = settings.ollama_environment(intent, margins, version)
    assert all(value and value.replace(",", "").isdigit() for value in environment.values())
    assert set(environment) <= settings.SHOWN
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
    assert settings.shown(environment) == {"OLLAMA_NUM_PARALLEL": "2"}


def test_every_name_that_nobody_reads_says_why():
    assert all(settings.NOBODY_READS.values())
    assert not set(settings.NOBODY_READS) & {row.variable for row in settings.OLLAMA_READS}


@pytest.mark.parametrize(
    "name, before, first, last, after",
    [
        ("OLLAMA_NUM_PARALLEL", "0.1.32", "0.1.33", None, None),
        ("OLLAMA_MAX_LOADED_MODELS", "0.1.32", "0.1.33", None, None),
        ("OLLAMA_MAX_QUEUE", "0.1.33", "0.1.34", None, None),
        ("OLLAMA_CONTEXT_LENGTH", "0.5.12", "0.5.13", None, None),
        ("OLLAMA_FLASH_ATTENTION", "0.1.38", "0.1.39", None, None),
        ("OLLAMA_KV_CACHE_TYPE", "0.4.7", "0.5.0", None, None),
        ("OLLAMA_GPU_OVERHEAD", "0.3.9", "0.3.10", "0.24.0", "0.30.0"),
        ("OLLAMA_KEEP_ALIVE", "0.1.28", "0.1.29", None, None),
        ("OLLAMA_LOAD_TIMEOUT", "0.3.9", "0.3.10", None, None),
        ("OLLAMA_SCHED_SPREAD", "0.1.44", "0.1.45", None, None),
        ("OLLAMA_MAX_VRAM", "0.1.28", "0.1.29", "0.1.44", "0.1.45"),
        ("OLLAMA_NEW_ENGINE", "0.5.11", "0.5.12", "0.24.0", "0.30.0"),
        ("OLLAMA_NEW_ESTIMATES", "0.11.4", "0.11.5", "0.11.10", "0.11.11"),
        ("OLLAMA_MULTIUSER_CACHE", "0.3.12", "0.3.13", "0.24.0", "0.30.0"),
        ("OLLAMA_LLM_LIBRARY", "0.1.20", "0.1.21", None, None),
        ("OLLAMA_VULKAN", "0.12.10", "0.12.11", None, None),
        ("CUDA_VISIBLE_DEVICES", "0.1.32", "0.1.33", None, None),
        ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "0.3.12", "0.3.13", None, None),
    ],
)
def test_the_releases_between_which_ollama_reads_a_variable(name, before, first, last, after):
    read = [first, *([last] if last else ["0.33.0", "1.0.0"])]
    silent = [before, *([after] if after else [])]
    assert [release for release in read + silent if settings.known(name, settings.parse_version(release))] == read


@pytest.mark.parametrize(
    ("totals_mib", "release", "num_ctx"),
    [
        ([16376], "0.32.15", 4096),
        ([16376, 16376], "0.32.15", 32768),  # all GPUs together
        ([24564], "0.32.15", 32768),
        ([24564, 24564], "0.32.15", 262144),
        ([24564, 24564], "0.15.4", 4096),
        ([], "0.32.15", 4096),
    ],
)
def test_the_context_where_nothing_sets_one(totals_mib, release, num_ctx):
    gpus = [{"total_mib": total, "reserved_mib": 400} for total in totals_mib]
    assert settings.default_num_ctx(gpus, settings.parse_version(release)) == num_ctx


def test_a_cache_type_is_passed_on_in_small_letters_and_without_quotes():
    assert settings.cache_type(" 'Q8_0' ") == "q8_0"
    assert settings.cache_type('""') == ""
