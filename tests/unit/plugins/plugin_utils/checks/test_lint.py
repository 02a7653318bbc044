"""What people copied onto their hosts: a row for each variable, release and value that does not do what it says."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args, settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.checks import forms, lint
from ansible_collections.selo.gpu_memory.tests.unit.builders import (
    DROP_IN_PATH,
    ENV_PATH,
    MODEL,
    STABLE_ON_0_32,
    UNIT_PATH,
    built_in_profiles,
    declared,
    drop_in,
    env_file,
    read,
    source,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.plugin_utils.plan.test_prediction import show

EARLIER = "/etc/systemd/system/ollama.service.d/override.conf"


def found(environment: dict[str, str], version: str = "0.32.15", **changes: Any) -> list[dict[str, Any]]:
    """The findings on a host where somebody's drop-in sets this."""
    host = read(
        ollama__api__version=version,
        ollama__unit__sources=[
            source("unit", UNIT_PATH),
            source("drop-in", EARLIER, environment),
            source("drop-in", DROP_IN_PATH, STABLE_ON_0_32),
        ],
        ollama__process__environment={**environment, **STABLE_ON_0_32},
        **changes,
    )
    return [one for one in lint.lint(declared(), host) if one["name"] in environment]


BREAKS = "every load fails"
TRUE = "it counts as true"
DEFAULT = "the default is used"


@pytest.mark.parametrize(
    ("name", "value", "version", "read_by", "problem", "cure"),
    [
        ("OLLAMA_GPU_LAYERS", "40", "0.32.15", "nobody", "no release of Ollama reads it", "num_gpu"),
        ("OLLAMA_GPU_LAYERS", "40", "0.1.40", "nobody", "no release of Ollama reads it", "num_gpu"),
        ("OLLAMA_NUM_GPU", "1", "0.24.0", "nobody", "forks do", "num_gpu"),
        ("OLLAMA_NUM_CTX", "8192", "0.32.15", "nobody", "no release of Ollama reads it", "OLLAMA_CONTEXT_LENGTH"),
        ("OLLAMA_NUM_THREADS", "8", "0.32.15", "nobody", "no release of Ollama reads it", "num_thread"),
        ("OLLAMA_MAX_VRAM", "14000000000", "0.32.15", "nobody", "dead since Ollama 0.1.45", "max_used_mib"),
        ("OLLAMA_MAX_VRAM", "14000000000", "0.1.45", "nobody", "dead since Ollama 0.1.45", "max_used_mib"),
        ("OLLAMA_MAX_VRAM", "12G", "0.1.44", "Ollama", DEFAULT, "12884901888 for 12G"),
        ("TORCH_CUDA_MEMORY_FRACTION", "0.75", "0.32.15", "nobody", "no PyTorch reads it", "is a call"),
        ("OLLAMA_GPU_OVERHEAD", "8G", "0.24.0", "Ollama", DEFAULT, "8589934592 for 8G"),
        ("OLLAMA_GPU_OVERHEAD", "2.5GB", "0.24.0", "Ollama", DEFAULT, "2684354560 for 2.5GB"),
        ("OLLAMA_GPU_OVERHEAD", "4290772992", "0.30.0", "nobody", "since 0.30.0", "LLAMA_ARG_FIT_TARGET"),
        ("OLLAMA_GPU_OVERHEAD", "4290772992", "0.3.9", "nobody", "since 0.3.10 only", "take it out"),
        ("OLLAMA_CONTEXT_LENGTH", "8192", "0.5.12", "nobody", "since 0.5.13 only", "take it out"),
        ("OLLAMA_NUM_PARALLEL", "2", "0.1.32", "nobody", "since 0.1.33 only", "take it out"),
        ("OLLAMA_NUM_PARALLEL", "two", "0.32.15", "Ollama", DEFAULT, "a whole number"),
        ("OLLAMA_MAX_LOADED_MODELS", "-1", "0.32.15", "Ollama", DEFAULT, "a whole number"),
        ("OLLAMA_MAX_QUEUE", "1e3", "0.32.15", "Ollama", DEFAULT, "a whole number"),
        ("OLLAMA_CONTEXT_LENGTH", "8k", "0.32.15", "Ollama", DEFAULT, "a whole number"),
        ("OLLAMA_FLASH_ATTENTION", "off", "0.32.15", "Ollama", TRUE, "1 or 0"),
        ("OLLAMA_FLASH_ATTENTION", "off", "0.3.1", "Ollama", "it is ignored", "1 or 0"),
        ("OLLAMA_SCHED_SPREAD", "no", "0.24.0", "Ollama", TRUE, "1 or 0"),
        ("OLLAMA_VULKAN", "off", "0.32.15", "Ollama", TRUE, "1 or 0"),
        ("OLLAMA_NEW_ENGINE", "1", "0.30.0", "nobody", "since 0.30.0", "take it out"),
        ("OLLAMA_NEW_ESTIMATES", "1", "0.24.0", "nobody", "since 0.11.11", "take it out"),
        ("OLLAMA_MULTIUSER_CACHE", "no", "0.24.0", "Ollama", TRUE, "1 or 0"),
        ("OLLAMA_KEEP_ALIVE", "forever", "0.32.15", "Ollama", "5m is used", "a duration"),
        ("OLLAMA_LOAD_TIMEOUT", "5 minutes", "0.32.15", "Ollama", "5m is used", "a duration"),
        ("OLLAMA_KV_CACHE_TYPE", "q8", "0.32.15", "llama-server", BREAKS, "one of f32, f16"),
        ("OLLAMA_KV_CACHE_TYPE", "q5_0", "0.24.0", "Ollama", "f16 is used", "one of f16, q8_0, q4_0"),
        ("OLLAMA_KV_CACHE_TYPE", "q8_0", "0.24.0", "Ollama", "f16 is used", "OLLAMA_FLASH_ATTENTION=1"),
        ("OLLAMA_KV_CACHE_TYPE", "q8_0", "0.4.7", "nobody", "since 0.5.0 only", "take it out"),
        ("LLAMA_ARG_FIT_TARGET", "", "0.32.15", "llama-server", BREAKS, "MiB"),
        ("LLAMA_ARG_FIT_TARGET", "4G", "0.32.15", "llama-server", "takes 4 of it", "write 4096, which is MiB"),
        ("LLAMA_ARG_FIT_TARGET", "1GiB", "0.32.15", "llama-server", "takes 1 of it", "write 1024, which is MiB"),
        ("LLAMA_ARG_FIT_TARGET", "1.5", "0.32.15", "llama-server", "takes 1 of it", "write 1, or what is meant"),
        ("LLAMA_ARG_FIT_TARGET", "-1", "0.32.15", "llama-server", "leaves nothing free", "write MiB"),
        ("LLAMA_ARG_FIT_TARGET", "G", "0.32.15", "llama-server", BREAKS, "MiB"),
        ("LLAMA_ARG_FIT_TARGET", "4092", "0.24.0", "nobody", "since 0.30.0 only", "take it out"),
        ("LLAMA_ARG_FIT", "no", "0.32.15", "llama-server", BREAKS, "on or off"),
        ("LLAMA_ARG_FIT", "off", "0.32.15", "llama-server", "switches Ollama's fitting off", "take it out"),
        ("LLAMA_ARG_N_GPU_LAYERS", "max", "0.32.15", "llama-server", BREAKS, "auto or all"),
        ("LLAMA_ARG_N_GPU_LAYERS", "20", "0.32.15", "llama-server", "a margin is void", "num_gpu"),
        ("LLAMA_ARG_N_GPU_LAYERS", "20", "0.24.0", "nobody", "since 0.30.0 only", "take it out"),
        ("LLAMA_ARG_N_GPU_LAYERS", "5abc", "0.32.15", "llama-server", "takes 5 of it", "write 5"),
        ("LLAMA_ARG_N_GPU_LAYERS", "all", "0.32.15", "llama-server", "a margin is void", "num_gpu"),
        ("LLAMA_ARG_CTX_SIZE", "abc", "0.32.15", "llama-server", BREAKS, "a whole number"),
        ("LLAMA_ARG_N_PARALLEL", "0", "0.32.15", "llama-server", BREAKS, "other than 0"),
        ("LLAMA_ARG_FLASH_ATTN", "foo", "0.32.15", "llama-server", BREAKS, "on, off or auto"),
        ("LLAMA_ARG_SPLIT_MODE", "foo", "0.32.15", "llama-server", BREAKS, "none, layer, row"),
        ("LLAMA_ARG_SPLIT_MODE", "row", "0.32.15", "llama-server", "no plan counts", "take it out"),
        ("LLAMA_ARG_TENSOR_SPLIT", "abc", "0.32.15", "llama-server", BREAKS, "one for each GPU"),
        ("LLAMA_ARG_TENSOR_SPLIT", "3:1", "0.32.15", "llama-server", "takes 3.0 of it", "what is meant"),
        ("LLAMA_ARG_DEVICE", "none", "0.32.15", "llama-server", "the whole model stays on the CPU", "take it out"),
        ("LLAMA_ARG_DEVICE", "gpu", "0.32.15", "llama-server", BREAKS, "none, or devices"),
        ("LLAMA_ARG_KV_OFFLOAD", "off", "0.32.15", "llama-server", "the KV cache stays on the CPU", "take it out"),
        ("LLAMA_ARG_NO_KV_OFFLOAD", "0", "0.32.15", "llama-server", "the KV cache stays on the CPU", "take it out"),
        ("LLAMA_ARG_CPU_MOE", "1", "0.32.15", "llama-server", "experts a model has stays on the CPU", "take it out"),
        ("LLAMA_ARG_CPU_MOE", "yes", "0.32.15", "nobody", "takes it for off", "write on"),
        ("LLAMA_ARG_N_CPU_MOE", "12", "0.32.15", "llama-server", "first 12 layers have of experts", "take it out"),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "ffn_.*=CPU", "0.32.15", "llama-server", "tensors match ffn_.*", "take it out"),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "[=CUDA0", "0.32.15", "llama-server", BREAKS, "mend it"),
        ("LLAMA_ARG_OVERRIDE_TENSOR", "ffn", "0.32.15", "llama-server", BREAKS, "ffn_.*=CPU"),
        ("LLAMA_ARG_SPEC_TYPE", "ngram-mod", "0.32.15", "llama-server", "no plan counts", "take it out"),
        ("LLAMA_ARG_LOG_JSONL", "1", "0.32.15", "llama-server", "nobody reads such lines", "take it out"),
        ("LLAMA_ARG_DRAFT_MAX", "16", "0.32.15", "llama-server", BREAKS, "nothing"),
        ("LLAMA_ARG_CTX_SIZE", "8192", "0.32.15", "nobody", "Ollama's own flag", "take it out"),
        ("LLAMA_ARG_BATCH", "512", "0.32.15", "nobody", "Ollama's own flag", "take it out"),
        ("LLAMA_ARG_KV_OFFLOAD", "", "0.32.15", "llama-server", BREAKS, "on or off"),
        ("LLAMA_ARG_N_CPU_MOE", "all", "0.32.15", "llama-server", BREAKS, "a whole number"),
        ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "1", "0.32.15", "llama-server", "NVML does not count it", "take it out"),
        ("GGML_CUDA_ENABLE_UNIFIED_MEMORY", "0", "0.24.0", "llama-server", "NVML does not count it", "take it out"),
    ],
)
def test_a_variable_that_does_not_do_what_it_says(name, value, version, read_by, problem, cure):
    environment = {**STABLE_ON_0_32, name: value}
    changes = {"ollama__unit__sources": [source("drop-in", EARLIER, {name: value})]}
    host = read(ollama__api__version=version, ollama__process__environment=environment, **changes)
    (finding,) = (one for one in lint.lint(declared(), host) if one["name"] == name and EARLIER in one["where"])
    if name == "OLLAMA_KV_CACHE_TYPE" and read_by == "llama-server":
        read_by = "Ollama"  # which passes it on
    assert finding["read_by"] == read_by
    assert problem in finding["problem"]
    assert cure in finding["cure"]
    line = lint.text(finding)
    assert line.startswith(f"{name}={value} in {EARLIER}")
    assert line.isprintable()


@pytest.mark.parametrize(
    ("environment", "version"),
    [
        ({"OLLAMA_MAX_VRAM": "14000000000"}, "0.1.44"),
        ({"OLLAMA_GPU_OVERHEAD": "4290772992"}, "0.24.0"),
        ({"OLLAMA_KEEP_ALIVE": "-1"}, "0.32.15"),
        ({"OLLAMA_KEEP_ALIVE": "1h30m"}, "0.32.15"),
        ({"OLLAMA_NUM_PARALLEL": '"2"'}, "0.32.15"),  # envconfig strips spaces and quotes
        ({"OLLAMA_NUM_PARALLEL": ""}, "0.32.15"),  # as if it were not there
        ({"OLLAMA_FLASH_ATTENTION": "False"}, "0.32.15"),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "1"}, "0.24.0"),
        ({"OLLAMA_KV_CACHE_TYPE": "q5_1"}, "0.32.15"),
        ({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}, "0.32.15"),  # Ollama passes it on in small letters
        ({"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "LLAMA_ARG_CACHE_TYPE_V": "q8_0"}, "0.32.15"),
        ({"LLAMA_ARG_SWA_FULL": "1"}, "0.32.15"),
        ({"LLAMA_ARG_CPU_MOE": "0"}, "0.32.15"),
        ({"LLAMA_ARG_N_CPU_MOE": "0"}, "0.32.15"),
        ({"LLAMA_ARG_KV_OFFLOAD": "on"}, "0.32.15"),
        ({"LLAMA_ARG_FIT_TARGET": "1024,2048"}, "0.32.15"),
        ({"LLAMA_ARG_TENSOR_SPLIT": "0.5/0.5,"}, "0.32.15"),
        ({"LLAMA_ARG_FIT": "on"}, "0.32.15"),
        ({"LLAMA_ARG_N_GPU_LAYERS": "auto"}, "0.32.15"),
        ({"LLAMA_ARG_TENSOR_SPLIT": "3,1"}, "0.32.15"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "0.32.15"),
    ],
)
def test_what_is_in_order_is_not_mentioned(environment, version):
    assert found(environment, version) == []


def test_a_quantised_cache_without_flash_attention_fails_every_load():
    findings = found({"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"})
    assert [one["problem"] for one in findings] == ["with OLLAMA_FLASH_ATTENTION off every load fails"]


def test_a_host_on_its_profile_has_nothing_to_find():
    assert lint.lint(declared(), read()) == []


def test_one_line_names_every_file():
    environment = {"OLLAMA_NUM_CTX": "8192"}
    host = read(ollama__unit__sources=[source("unit", UNIT_PATH, environment), source("drop-in", EARLIER, environment)])
    (finding,) = lint.lint(declared(), host)
    assert finding["where"] == [UNIT_PATH, EARLIER]


def test_what_only_the_process_has_is_found():
    host = read(ollama__process__environment={**STABLE_ON_0_32, "OLLAMA_NUM_CTX": "8192"})
    (finding,) = lint.lint(declared(), host)
    assert finding["where"] == ["what ollama.service was started with"]


def test_what_our_own_drop_in_had_for_another_release_is_drift_and_no_finding():
    old = {**STABLE_ON_0_32, "OLLAMA_GPU_OVERHEAD": "1"}
    host = read(ollama__drop_ins__own=drop_in(old), ollama__process__environment=old)
    assert lint.lint(declared(), host) == []


def test_settings_of_ollama_in_a_backend_s_file():
    values = {
        **built_in_profiles()["stable"]["env"],
        "OLLAMA_NUM_GPU": "1",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "CUDA_VISIBLE_DEVICES": "0",
        "OLLAMA_KEEP_ALIVE": None,
    }
    findings = lint.lint(declared(), read(backend__env_files=[env_file(values=values)]))
    assert {one["name"]: (one["where"], one["problem"]) for one in findings} == {
        "OLLAMA_NUM_GPU": ([ENV_PATH], "no release of Ollama reads it (forks do)"),
        "OLLAMA_KV_CACHE_TYPE": ([ENV_PATH], "Ollama's service does not read the backend's file"),
    }


def test_a_key_of_the_backend_is_its_own():
    backend = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
    host = read(backend__env_files=[env_file(values={"OLLAMA_NUM_GPU": "1"})])
    assert lint.lint(declared(backend=backend), host) == []


def test_without_a_known_release_only_what_holds_for_all_is_said():
    environment = {"OLLAMA_NUM_CTX": "8192", "OLLAMA_FLASH_ATTENTION": "off"}
    assert [one["name"] for one in found(environment, "0.0.0")] == ["OLLAMA_NUM_CTX"]


def test_every_variable_that_nobody_reads_has_a_cure():
    assert set(settings.CURES) == set(settings.NOBODY_READS)


def test_what_we_write_is_known_and_well_formed_in_every_release():
    for row in settings.OLLAMA_READS:
        for version in (row.first, min(row.last, (0, 33, 0))):
            wanted = {"margin_mib": [4092, 12288], "kv_cache_type": "q8_0"}.get(row.intent, 4096)
            written = row.write(wanted)
            if row.variable in llama_args.ARGS:
                assert llama_args.taken(row.variable, written) == written
                assert llama_args.ARGS[row.variable].effect == llama_args.PLANNED
                continue
            variable = settings.known(row.variable, version)
            assert variable is not None, (row, version)
            assert forms.malformed(variable, written) is None


@pytest.mark.parametrize(("value", "found"), [("1", True), ("32", True), ("33", False), ("-1", False), ("x", False)])
def test_a_key_that_keeps_a_model_on_the_cpu(value, found):
    backend = {"extends": "guide", "keys": {"num_ctx": "CHAT_NUM_CTX", "gpu_layers": "OLLAMA_NUM_GPU"}}
    host = read(
        backend__env_files=[env_file(values={"OLLAMA_NUM_GPU": value})],
        ollama__api__show={MODEL: show("llama31-8b-q8_0")},
    )
    line = (
        f"OLLAMA_NUM_GPU={value} in {ENV_PATH}: the backend sends it as num_gpu, so that {value} of 33 layers are "
        "on the GPU; apply makes it -1 (this collection's cure, not the profile's)"
    )
    lines = [lint.text(finding) for finding in lint.lint(declared(backend=backend, models=[MODEL]), host)]
    assert lines == ([line] if found else [])
