# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the monitor concludes; no host, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import watch_rules
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.watch_rules import MIB, Monitor

THRESHOLD_MIB = 12288
ENVIRONMENT = {"OLLAMA_NUM_PARALLEL": "2", "LLAMA_ARG_FIT_TARGET": "4092"}
CONFIG: dict[str, Any] = {
    "profile": "stable",
    "max_used_mib": THRESHOLD_MIB,
    "period_s": 15,
    "ollama": {"unit": "ollama.service"},
    "gpus": ["GPU-0", "GPU-1"],
    "gpus_named": False,
    "environment": ENVIRONMENT,
    "intent": {"num_ctx": 4096, "num_parallel": 2, "gpu_layers": 40},
    "action": "unload",
    "action_interval_s": 3600,
}
SERVER = 'level=INFO msg="server config" env="map[LLAMA_ARG_FIT_TARGET:{margin} OLLAMA_NUM_PARALLEL:{parallel}]"'
START = 'msg="starting llama-server" cmd="/usr/lib/ollama/llama-server --model /m -c {total} -np {parallel} -ngl {cap}"'
OOM = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 900 MiB on device 0: cudaMalloc failed: out of memory"


def gpu(used_mib: float, peak_mib: float | None = None, **more: Any) -> dict[str, Any]:
    reading = {
        "index": 0, "uuid": "GPU-0", "pci_bus_id": "00000000:01:00.0", "error": None, "samples": 15,
        "total": 16380 * MIB, "reserved": 300 * MIB,
        "used": int(used_mib * MIB), "peak": int((peak_mib or used_mib) * MIB), "max_gap_s": 1.01, "processes": [],
    }  # fmt: skip
    return {**reading, **more}


def monitor(**config: Any) -> Monitor:
    watched = Monitor({**CONFIG, **config})
    watched.saw_drop_in(unit_text.render_dropin(ENVIRONMENT))
    see(watched)
    return watched


def test_a_service_that_is_not_back_is_told() -> None:
    watched = Monitor(CONFIG)
    assert value(watched, "going_back") == 0
    watched.going_back = True
    assert value(watched, "going_back") == 1


def value(watched: Monitor, metric: str, **labels: str) -> float | None:
    found = [
        sample.value
        for sample in watched.samples(1000.0)
        if sample.metric.name == f"gpu_memory_{metric}" and labels.items() <= sample.labels.items()
    ]
    assert len(found) < 2, f"{metric} {labels} is ambiguous"
    return found[0] if found else None


def see(watched: Monitor, *lines: str) -> None:
    watched.saw_journal([(900.0, line) for line in lines], followed=True)
    watched.saw_writer(runs=True)


def test_the_threshold_itself_is_no_breach_and_a_byte_more_is() -> None:
    watched = monitor()
    watched.saw_gpus([gpu(THRESHOLD_MIB)])
    assert (value(watched, "over_threshold"), value(watched, "breaches_total")) == (0, 0)
    watched.saw_gpus([gpu(THRESHOLD_MIB + 1 / MIB)])
    assert (value(watched, "over_threshold"), value(watched, "breaches_total")) == (1, 1)


def test_a_peak_within_a_period_is_a_breach_but_no_reason_to_act() -> None:
    watched = monitor()
    for _unused in range(5):
        watched.saw_gpus([gpu(9000, peak_mib=13000)])
    assert value(watched, "over_threshold") == 1
    assert value(watched, "breaches_total") == 1, "one breach that lasts is counted once"
    assert not watched.acts(1000.0)


def test_it_acts_after_two_periods_over_the_threshold_and_not_again_within_the_interval() -> None:
    watched = monitor()
    watched.saw_gpus([gpu(13000)])
    assert not watched.acts(1000.0)
    watched.saw_gpus([gpu(13000)])
    watched.saw_lease(held=True)
    assert not watched.acts(1000.0), "a run holds the host"
    watched.saw_lease(held=False)
    assert watched.acts(1000.0)
    watched.acted(1000.0, worked=False)
    watched.saw_gpus([gpu(13000)])
    assert not watched.acts(1000.0 + 3599)
    assert watched.acts(1000.0 + 3600)
    assert watched.acts(500.0), "a clock that was set back must not stop it for years"
    assert (value(watched, "actions_total"), value(watched, "action_failures_total")) == (1, 1)
    assert value(watched, "action_last_timestamp_seconds") == 1000.0


def test_what_was_done_before_a_restart_still_counts() -> None:
    watched = Monitor(CONFIG, last_action_at=990.0)
    for _unused in range(2):
        watched.saw_gpus([gpu(13000)])
    assert not watched.acts(1000.0)


def test_without_action_or_threshold_it_never_acts() -> None:
    for config in ({"action": "none"}, {"max_used_mib": None}):
        watched = monitor(**config)
        for _unused in range(3):
            watched.saw_gpus([gpu(16000)])
        assert not watched.acts(1000.0)
    assert value(watched, "threshold_bytes") is None and value(watched, "over_threshold") is None


def test_a_gpu_that_cannot_be_read_hides_no_other() -> None:
    watched = monitor()
    watched.saw_gpus([gpu(13000), {"index": 1, "uuid": "GPU-1", "pci_bus_id": None, "error": "lost", "samples": 0}])
    assert value(watched, "nvml_up") == 0
    assert value(watched, "over_threshold", uuid="GPU-0") == 1
    assert value(watched, "used_bytes", uuid="GPU-1") is None
    watched.saw_gpus([])
    assert value(watched, "nvml_up") == 0 and value(watched, "used_bytes") is None


def test_nothing_drifts_where_all_is_as_declared() -> None:
    watched = monitor()
    watched.saw_past(
        [(1.0, SERVER.format(margin=4092, parallel=2)), (2.0, START.format(total=8192, parallel=2, cap=40))]
    )
    see(watched, "load_tensors: offloaded 33/33 layers to GPU")
    assert watched.drift() == dict.fromkeys([*ENVIRONMENT, "num_ctx", "num_parallel", "gpu_layers"], False)
    assert (value(watched, "model_gpu_layers"), value(watched, "model_layers")) == (33, 33)


@pytest.mark.parametrize(
    ("line", "drifts"),
    [
        (SERVER.format(margin=4092, parallel=4), "OLLAMA_NUM_PARALLEL"),
        (SERVER.format(margin="", parallel=2), "LLAMA_ARG_FIT_TARGET"),
        (START.format(total=16384, parallel=2, cap=40), "num_ctx"),
        (START.format(total=8192, parallel=4, cap=40), "num_parallel"),
        (START.format(total=8192, parallel=2, cap=999), "gpu_layers"),
        ("load_tensors: offloaded 20/33 layers to GPU", "gpu_layers"),
    ],
)
def test_what_is_in_effect_decides(line: str, drifts: str) -> None:
    watched = monitor()
    see(watched, line)
    assert [name for name, found in watched.drift().items() if found] == [drifts]


ON_THE_CPU = (
    "load_tensors: CPU_Mapped model buffer size = 7605.33 MiB",
    "llama_kv_cache: CPU KV buffer size = 1024.00 MiB",
)
ON_THE_GPU = (
    "load_tensors: CUDA0 model buffer size = 7605.33 MiB",
    "llama_kv_cache: CUDA0 KV buffer size = 1024.00 MiB",
)
CAME_UP = 'msg="llama-server started in 2.1 seconds"'
OVERFLOWS = (
    "common_params_fit_impl:   - CUDA0 (NVIDIA T4): 33 layers ( 7 overflowing),   8965 MiB used,   1039 MiB free"
)


@pytest.mark.parametrize("periods", [1, 3, 99])
@pytest.mark.parametrize(
    ("before", "buffers", "on_gpu"),
    [((), ON_THE_GPU, 33), ((), ON_THE_CPU, 0), ((OVERFLOWS,), ON_THE_GPU, 26), ((OVERFLOWS,), (), 26)],
)
def test_layers_are_where_buffers_are_however_many_periods_tell_of_them(
    before: Sequence[str], buffers: Sequence[str], on_gpu: int, periods: int
) -> None:
    watched = monitor(intent={**CONFIG["intent"], "gpu_layers": 33})
    layers = "load_tensors: offloaded 33/33 layers to GPU"
    lines = [START.format(total=8192, parallel=2, cap=-1), *before, layers, *buffers, CAME_UP]
    for number in range(0, len(lines), -(-len(lines) // periods)):
        see(watched, *lines[number : number + -(-len(lines) // periods)])
    assert (value(watched, "model_gpu_layers"), value(watched, "model_layers")) == (on_gpu, 33)
    assert watched.drift()["gpu_layers"] == (on_gpu < 33)


def test_the_next_load_starts_anew() -> None:
    watched = monitor()
    see(watched, START.format(total=8192, parallel=2, cap=-1), "offloaded 33/33 layers to GPU", *ON_THE_CPU, CAME_UP)
    see(watched, START.format(total=8192, parallel=2, cap=-1), "offloaded 33/33 layers to GPU", *ON_THE_GPU, CAME_UP)
    assert value(watched, "model_gpu_layers") == 33


def test_an_embedder_that_takes_less_is_no_drift() -> None:
    watched = monitor()
    see(watched, START.format(total=2048, parallel=1, cap=13), "offloaded 13/13 layers to GPU")
    assert not any(watched.drift().values())


def test_a_drop_in_that_was_changed_or_lost_is_drift_before_any_restart() -> None:
    watched = monitor()
    watched.saw_drop_in(unit_text.render_dropin({**ENVIRONMENT, "OLLAMA_NUM_PARALLEL": "3"}))
    assert watched.drift()["OLLAMA_NUM_PARALLEL"] and not watched.drift()["LLAMA_ARG_FIT_TARGET"]
    watched.saw_drop_in(None)
    assert watched.drift()["LLAMA_ARG_FIT_TARGET"]


def test_a_run_that_holds_the_host_tries_what_it_likes_and_is_no_drift() -> None:
    watched = monitor()
    watched.saw_lease(held=True)
    watched.saw_drop_in(None)
    see(watched, START.format(total=16384, parallel=2, cap=20), "offloaded 20/33 layers to GPU")
    assert watched.drift() == {} and value(watched, "drift", setting="gpu_layers") is None
    watched.saw_drop_in(unit_text.render_dropin(ENVIRONMENT))
    watched.saw_lease(held=False)
    # The last of what it loaded is logged with what comes when it has just let go.
    see(watched, START.format(total=16384, parallel=2, cap=10), "offloaded 10/33 layers to GPU")
    watched.saw_lease(held=False)
    see(watched)
    assert watched.drift() == dict.fromkeys([*ENVIRONMENT, "num_ctx", "num_parallel", "gpu_layers"], False)
    assert value(watched, "model_gpu_layers") == 10
    see(watched, START.format(total=16384, parallel=2, cap=20), "offloaded 20/33 layers to GPU")
    assert {name for name, found in watched.drift().items() if found} == {"num_ctx", "gpu_layers"}


def test_a_margin_that_requests_make_void_is_no_drift() -> None:
    watched = monitor()
    watched.saw_drop_in(unit_text.render_dropin({**ENVIRONMENT, "LLAMA_ARG_FIT_TARGET": "1"}))
    see(watched, START.format(total=8192, parallel=2, cap=-1))
    assert watched.drift()["LLAMA_ARG_FIT_TARGET"]
    see(watched, START.format(total=8192, parallel=2, cap=40))
    assert not any(watched.drift().values())


def test_a_new_start_of_the_server_forgets_the_loads_before_it() -> None:
    watched = monitor()
    see(watched, START.format(total=16384, parallel=2, cap=40))
    see(watched, SERVER.format(margin=4092, parallel=2))
    assert not any(watched.drift().values())


def test_failures_are_counted_by_severity_and_the_past_is_not() -> None:
    watched = monitor()
    watched.saw_past([(1.0, OOM)])
    assert value(watched, "journal_failures_total", severity="fatal") == 0, "counters are there from the start"
    see(watched, START.format(total=8192, parallel=2, cap=40), OOM, 'msg="truncating input prompt"')
    assert value(watched, "journal_failures_total", severity="fatal") == 1
    assert value(watched, "journal_failures_total", severity="warning") == 1
    assert value(watched, "journal_last_failure_timestamp_seconds") == 900.0
    assert value(watched, "model_loads_total") == 1


def test_what_nobody_read_has_no_number() -> None:
    watched = monitor()
    see(watched, SERVER.format(margin=4092, parallel=2), START.format(total=16384, parallel=2, cap=40))
    assert (value(watched, "log_read"), watched.drift()["num_ctx"]) == (1, True)
    watched.saw_writer(runs=False)  # the server was restarted, and its log goes elsewhere
    assert value(watched, "log_read") == 0
    assert value(watched, "journal_failures_total", severity="fatal") is None
    assert watched.drift().keys() == ENVIRONMENT.keys(), "what only the log tells is not known"
    assert value(watched, "model_loads_total") == 1, "what was counted stays"
    watched.saw_journal([(901.0, "kernel: NVRM: Xid (PCI:0000:01:00): 79")], followed=True)
    assert value(watched, "journal_failures_total", severity="fatal") == 1
    assert value(watched, "journal_failures_total", severity="warning") is None
    see(watched, SERVER.format(margin=4092, parallel=2))
    assert (value(watched, "log_read"), value(watched, "journal_failures_total", severity="warning")) == (1, 0)
    assert not watched.drift()["num_ctx"]


def test_a_journal_that_is_not_followed_is_not_read() -> None:
    watched = monitor()
    watched.saw_journal([], followed=False)
    watched.saw_writer(runs=True)
    assert (value(watched, "journal_up"), value(watched, "log_read")) == (0, 0)


def test_what_journald_dropped_is_counted() -> None:
    watched = monitor()
    see(watched, "systemd-journald: Suppressed 7 messages from ollama.service", "Suppressed 5 messages from x.service")
    see(watched, "systemd-journald: Suppressed 3 messages from nginx.service")
    assert value(watched, "journal_dropped_total") == 7


SECOND = {"index": 1, "uuid": "GPU-1", "pci_bus_id": "00000000:02:00.0"}
FOUND = 'level=INFO msg="inference compute" id={id} library=CUDA compute=8.9 pci_id={pci} type=discrete'


@pytest.mark.parametrize(
    ("config", "log", "judged"),
    [
        ({}, [], {"GPU-0", "GPU-1"}),
        ({"gpus": ["GPU-0"]}, [], {"GPU-0"}),
        ({"gpus": ["GPU-gone"]}, [], {"GPU-0", "GPU-1"}),
        ({}, [FOUND.format(id="GPU-0", pci="0000:01:00.0")], {"GPU-0"}),
        ({"gpus": ["GPU-1"]}, [FOUND.format(id="0", pci="0000:01:00.0")], {"GPU-0"}),
        ({"gpus": ["GPU-1"], "gpus_named": True}, [FOUND.format(id="GPU-0", pci="0000:01:00.0")], {"GPU-1"}),
    ],
)
def test_a_gpu_that_does_not_count_is_shown_and_judges_nothing(
    config: dict[str, Any], log: list[str], judged: set[str]
) -> None:
    watched = monitor(**config)
    see(watched, SERVER.format(margin=4092, parallel=2), *log)
    for _unused in range(2):
        watched.saw_gpus([gpu(13000), gpu(13000, **SECOND)])
    assert {uuid for uuid in ("GPU-0", "GPU-1") if value(watched, "judged", uuid=uuid)} == judged
    for uuid in ("GPU-0", "GPU-1"):
        assert value(watched, "used_bytes", uuid=uuid) == 13000 * MIB
        assert value(watched, "over_threshold", uuid=uuid) == (1 if uuid in judged else None)
        assert value(watched, "breaches_total", uuid=uuid) == (1 if uuid in judged else None)


def test_a_gpu_that_does_not_count_moves_nothing_and_blinds_nobody() -> None:
    watched = monitor(gpus=["GPU-0"])
    for _unused in range(3):
        watched.saw_gpus([gpu(100), gpu(16000, **SECOND), {**SECOND, "uuid": None, "samples": 0, "error": "lost"}])
    assert not watched.acts(1000.0) and value(watched, "nvml_up") == 1


def test_names_of_processes_make_no_series_without_end() -> None:
    processes = [{"name": f"p{number:03}", "used_mib": number} for number in range(1, 101)]
    shown = watch_rules.by_name([*processes, {"name": None, "used_mib": 5}, {"name": "p100", "used_mib": None}])
    assert len(shown) == watch_rules.PROCESSES_SHOWN + 1
    assert dict(shown)["others"] == sum(range(1, 91)) + 5 and dict(shown)["p100"] == 100


def test_every_metric_is_listed_and_shown() -> None:
    watched = monitor()
    watched.saw_gpus([gpu(13000, processes=[{"name": "ollama", "used_mib": 1}])])
    see(watched, START.format(total=8192, parallel=2, cap=40), "offloaded 33/33 layers to GPU", OOM)
    watched.acted(1.0, worked=True)
    assert {sample.metric for sample in watched.samples(1000.0)} == set(watch_rules.METRICS)
