"""What of a tuning run needs no host; tests/integration/tune has it on a lab host."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import tune_search
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import tune_run

SERVER = tune_run.Server("http://127.0.0.1:9", "u", 1, "f16")


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        ("llama-server process has terminated: exit status 1: cudaMalloc failed: out of memory", True),
        ("memory layout cannot be allocated with num_gpu = 26", True),
        ("model failed to load, this may be due to resource limitations", True),
        ("model 'x' not found", False),
        ("connection refused, so nothing listens there", False),
        ("no complete answer within 600 s", False),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(error: str, memory: bool) -> None:
    errors = tune_run.JudgedErrors(lambda text: text.replace("memory", "********").replace("resource", "********"))
    assert "memory" not in errors(error)  # which may be somebody's password
    assert errors.tell_of_no_memory is memory


def test_the_journal_may_say_it_where_the_answer_does_not() -> None:
    line = "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1 MiB on device 0: cudaMalloc failed: out of memory"
    fatal = {"failures": [{"severity": "fatal", "line": line}]}
    recovered = {"failures": [{"severity": "recovered", "line": line}]}
    assert tune_run._tells_of_no_memory(fatal)
    assert not tune_run._tells_of_no_memory(recovered)


def in_seconds(seconds: float, zone: timezone = timezone.utc) -> str:
    return (datetime.now(zone) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("write", "keep_alive", "least", "most"),
    [
        (lambda: in_seconds(6000), "5m", 5000, 6000),
        (lambda: in_seconds(6000, timezone(timedelta(hours=-5))), "5m", 5000, 6000),
        (lambda: "2318-11-26T13:10:14.244690000Z", "5m", -1, -1),
        # What the server itself gives is not sent: it would be that of all later requests.
        (lambda: in_seconds(6000), "2h", None, None),
        (lambda: "2318-11-26T13:10:14.244690000Z", "-1", None, None),
        (lambda: in_seconds(200), "5m", None, None),
        (lambda: in_seconds(-5), "5m", None, None),
        (lambda: None, "5m", None, None),
    ],
    ids=["longer", "another zone", "for ever", "server's", "server's, for ever", "default", "over", "not said"],
)
def test_a_model_gets_back_the_time_that_a_request_has_given_it(
    write: Any, keep_alive: str, least: int | None, most: int | None
) -> None:
    found = tune_run._kept(write(), {"OLLAMA_KEEP_ALIVE": keep_alive})
    if least is None or most is None:
        assert found == {}
    else:
        assert least <= found["keep_alive"] <= most


@pytest.mark.parametrize(
    ("total", "version", "batch"), [(8192, (0, 32, 15), 1024), (4096, None, 512), (8192, (0, 24, 0), None)]
)
def test_a_batch_that_ollama_chose_is_not_sent_as_a_number(total: int, version: Any, batch: int | None) -> None:
    assert tune_run._chosen_batch(total, version) == batch


def test_unloading_waits_until_nothing_is_loaded(serve: Any) -> None:
    loaded, asked = ["a:latest", "embedder:latest"], []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        if handler.path == "/api/ps":
            return 200, json.dumps({"models": [{"name": name} for name in loaded]}).encode()
        asked.append((handler.path, json.loads(body)["model"], json.loads(body)["keep_alive"]))
        if handler.path == "/api/generate" and asked[-1][1] == "embedder:latest":
            return 400, b'{"error": "does not support generate"}'
        loaded.remove(asked[-1][1])
        return 200, b"{}"

    tune_run.unload_all(serve(answer))
    assert loaded == []
    assert asked == [
        ("/api/generate", "a:latest", 0),
        ("/api/generate", "embedder:latest", 0),
        ("/api/embed", "embedder:latest", 0),
    ]


def test_two_runs_do_not_send_the_same_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that outlives the first would have them in its cache. Within a run all probes are compared with them."""
    show = {"model_info": {"general.architecture": "llama"}}
    monkeypatch.setattr(tune_run, "_ask", lambda url, body=None: {"version": "0.32.15"})
    monkeypatch.setattr(tune_run.shown, "with_arrays", lambda url, model: show)
    monkeypatch.setattr(tune_run, "_deployed", lambda wanted: (SERVER, {}, 0))
    monkeypatch.setattr(tune_run.planner.Model, "from_show", lambda show: SimpleNamespace(embedder=False))
    wanted: Any = SimpleNamespace(url=SERVER.url, unit="u", model="m", load_timeout=1.0, beside=())
    setting = tune_search.Setting(num_gpu=1, num_ctx=64, num_parallel=1, num_batch=512, kv_cache_type="f16")

    def prompts() -> list[str]:
        tuning = tune_run.Tuning(wanted, {}, str, lambda figures: None)
        loads = [tuning._chats(SERVER, setting, context) for context in (None, 64)]
        first, again = ([load.body(index)["messages"][0]["content"] for index in range(2)] for load in loads)
        assert first == again
        return first

    assert not set(prompts()) & set(prompts())


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(tune_run.CannotTune, match=r"127\.0\.0\.1:9.*refused.*correct gpu_memory_ollama\.url"):
        tune_run.unload_all("http://127.0.0.1:9")


def test_more_models_than_the_server_keeps_loaded_are_refused_before_anything_is_unloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tune_run, "_ask", lambda url, body=None: {"version": "0.32.15"})
    monkeypatch.setattr(tune_run.shown, "with_arrays", lambda url, model: {})
    monkeypatch.setattr(tune_run, "_deployed", lambda wanted: (SERVER, {}, 1))
    monkeypatch.setattr(tune_run, "loaded_models", lambda wanted: [])
    monkeypatch.setattr(tune_run.planner.Model, "from_show", lambda show: SimpleNamespace(embedder=False))
    wanted: Any = SimpleNamespace(url=SERVER.url, unit="u", model="m", beside=["embedder"])
    with pytest.raises(tune_run.CannotTune, match="2 models .* OLLAMA_MAX_LOADED_MODELS is 1; .*max_loaded_models 2"):
        tune_run.Tuning(wanted, {}, str, lambda _unused: None)


@pytest.mark.parametrize(
    ("baseline", "peak", "words"),
    [
        (800, 900, None),
        (800, 935, "GPU 1 came to hold 135 MiB more"),
        (0, 8000, "GPU 1 came to hold 8000 MiB more"),
        (9500, 9500, "GPU 1 holds 9500 MiB without the model"),
    ],
)
def test_a_model_that_goes_to_another_gpu_ends_the_run(baseline: int, peak: int, words: str | None) -> None:
    other = {"index": 1, "baseline_mib": baseline, "peak_used_mib": peak}
    found = tune_run.elsewhere([other], 9000)
    assert (found is None) if words is None else words in found
    assert tune_run.elsewhere([], 9000) is None
