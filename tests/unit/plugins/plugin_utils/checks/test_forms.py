"""What a value may be."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import forms


@pytest.mark.parametrize(
    "name, value, meant",
    [
        ("OLLAMA_GPU_OVERHEAD", "3K", 3 * 1024),
        ("OLLAMA_GPU_OVERHEAD", "512 MiB", 512 * 1024**2),
        ("OLLAMA_GPU_OVERHEAD", "1.5g", 1536 * 1024**2),
        ("OLLAMA_GPU_OVERHEAD", "1TB", 1024**4),
    ],
)
def test_a_size_with_a_unit_is_answered_with_the_number_that_is_meant(name, value, meant):
    variable = next(row for row in settings.VARIABLES if row.name == name)
    assert forms.malformed(variable, value) == f"{variable.form}: {meant} for {value}"


@pytest.mark.parametrize(
    "name, release, good, bad",
    [
        ("OLLAMA_NUM_PARALLEL", "0.32.0", ["2", ' "2" ', ""], ["-1", "2.0", "two", "²", "18446744073709551616"]),
        ("OLLAMA_FLASH_ATTENTION", "0.32.0", ["1", "true", "F"], ["on", "yes", "2"]),
        ("OLLAMA_KEEP_ALIVE", "0.32.0", ["5m", "1h30m", "-1", "300", "1.5h"], ["5 m", "5d", "forever", "5m3"]),
        ("OLLAMA_KV_CACHE_TYPE", "0.24.0", ["f16", "q8_0", "Q8_0"], ["q5_1", "bf16"]),
        ("OLLAMA_KV_CACHE_TYPE", "0.32.0", ["f16", "q8_0", "q5_1", "bf16", " 'Q8_0'"], ["q6_K", "' q8_0'", "fp16"]),
    ],
)
def test_what_a_value_may_be(name, release, good, bad):
    variable = settings.known(name, settings.parse_version(release))
    assert [value for value in [*good, *bad] if forms.malformed(variable, value) is None] == good
