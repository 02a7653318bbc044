from __future__ import annotations

import base64
import functools
import html
import json
import math
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import load_test
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(autouse=True)
def _nothing_has_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_test, "SETTLE_S", 0)


def run(load: load_test.Load) -> dict[str, Any]:
    running = load_test.LoadRun(load)
    deadline = time.monotonic() + 20
    while running.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert running.done == load.requests
    return running.result()


def test_bodies_are_used_in_turn(serve: Any) -> None:
    seen = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        seen.append((body, handler.headers.get("Content-Type"), handler.headers.get("X-Key")))
        return 200, b"{}"

    found = run(
        load_test.Load(serve(answer), bodies=[{"a": 1}, "raw"], requests=4, concurrency=1, headers={"X-Key": "k"})
    )
    assert seen == [(b'{"a": 1}', "application/json", "k"), (b"raw", None, "k")] * 2
    assert (found["requests"], found["ok"], found["failed"], found["errors"]) == (4, 4, 0, [])
    assert found["by_status"] == {"200": 4}
    assert found["started"].endswith("Z")
    assert found["finished_epoch"] >= found["started_epoch"]


def test_without_bodies_nothing_is_sent(serve: Any) -> None:
    seen = []
    url = serve(lambda handler, body: (seen.append((handler.command, body)), (200, b""))[1])
    assert run(load_test.Load(url, method="GET", requests=2, concurrency=2))["ok"] == 2
    assert seen == [("GET", b"")] * 2


def test_as_many_at_once_as_asked_for(serve: Any) -> None:
    together = threading.Barrier(3)

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        together.wait(10)  # breaks unless three requests are here at once
        return 200, b""

    assert run(load_test.Load(serve(answer), requests=6, concurrency=3))["ok"] == 6


def test_never_more_at_once_than_asked_for(serve: Any) -> None:
    lock, counts = threading.Lock(), {"now": 0, "most": 0}

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        with lock:
            counts["now"] += 1
            counts["most"] = max(counts.values())
        time.sleep(0.01)
        with lock:
            counts["now"] -= 1
        return 200, b""

    run(load_test.Load(serve(answer), requests=10, concurrency=2))
    assert counts["most"] == 2


def test_failures_are_counted_and_told_apart(serve: Any) -> None:
    answers = iter(
        [
            (200, b'{"message": "fine"}'),
            (500, b'{"error": "runner stopped"}'),
            (500, b'{"error": "runner stopped"}'),
            (200, b'{"response": "a"}\n{"error": "out of memory"}\n'),
        ]
    )
    found = run(load_test.Load(serve(lambda handler, body: next(answers)), requests=4, concurrency=1))
    assert (found["ok"], found["failed"]) == (1, 3)
    assert found["by_status"] == {"200": 2, "500": 2}
    assert found["errors"] == [
        "status 500 instead of 200: runner stopped",
        "status 200, but the answer says: out of memory",
    ]


def test_no_answer_is_a_failure() -> None:
    found = run(load_test.Load("http://127.0.0.1:9/", requests=2, concurrency=2))
    assert (found["failed"], found["by_status"], found["p95_s"]) == (2, {"no answer": 2}, None)
    assert "refused" in found["errors"][0]


TOKEN = "plant/K1+ hdr'2é\\"
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "quoted": quote,
    "quoted wholly": lambda text: quote(text, safe=""),
    "quoted as by JavaScript": lambda text: quote(text, safe="!'()*"),
    "quoted as a form": quote_plus,
    "quoted in small letters": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "JSON": json.dumps,
    "JSON twice": lambda text: json.dumps(json.dumps(text)),
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    **{
        f"base64 of more, {before} before": lambda text, before=before: base64.b64encode(
            b"x" * before + text.encode() + b" and more"
        ).decode()
        for before in range(4)
    },
}


@pytest.mark.parametrize("shows_secrets", [False, True])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_a_server_echoes_of_a_header_is_masked_in_whatever_form(
    serve: Any, form: Callable[[str], str], shows_secrets: bool
) -> None:
    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        return 401, json.dumps({"detail": f"no: {form(TOKEN)} of {form('Bearer ' + TOKEN)}"}).encode()

    headers = {"Authorization": f"Bearer {TOKEN}".encode().decode("latin-1"), "X-Key": TOKEN.encode().decode("latin-1")}
    mask = secrets.Masking(shows_secrets=shows_secrets, declared=masking.secrets_in_headers({"X-Key": TOKEN}))
    found = run(load_test.Load(serve(answer), requests=1, headers=headers, mask=mask))
    (error,) = found["errors"]
    shown = error.partition("no: ")[2]
    assert error.startswith("status 401 instead of 200: no: ")
    sure = [form(TOKEN)[at : at + 6] for at in range(3, len(form(TOKEN)) - 18)]  # the end may be of what follows
    assert [piece for piece in sure if piece in shown] == []


@pytest.mark.parametrize(
    "value, secret",
    [
        ("Bearer sesame", "sesame"),
        ("sesame", "sesame"),
        (f"Basic {base64.b64encode(b'user:sesame').decode()}", "sesame"),
        ("a=1; session=sesame; b=2", "sesame"),
    ],
)
def test_the_secrets_of_a_header(value: str, secret: str) -> None:
    found = masking.secrets_in_headers({"X": value})
    assert {value, secret} <= found
    assert masking.without_known(f"it is {secret}", found) == f"it is {masking.MASK}"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", None),
        (b"plain text with error", None),
        (b'{"error": null, "message": "x"}', None),
        (b'{"message": {"content": "{\\"error\\": \\"quoted\\"}"}}', None),
        (b'[{"error": "in a list"}]', None),
        (b'{"error": "x"}', "x"),
        (b'{\n "error": {"message": "deep"}\n}', "deep"),
        (b'{"response": "a"}\n{"error": "late"}', "late"),
        (b'data: {"a": 1}\n\ndata: {"error": {"message": "sse"}}\n\ndata: [DONE]\n\n', "sse"),
    ],
)
def test_error_inside_a_good_answer(body: bytes, error: str | None) -> None:
    assert load_test.answer_error(body) == error


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 95, 3.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0], 95, 2.0),
        ([float(n) for n in range(1, 101)], 95, 95),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float | None) -> None:
    assert load_test.percentile(values, percent) == expected


def test_prompts_fill_the_context_and_are_the_same_each_time(serve: Any) -> None:
    seen: list[Any] = []
    url = serve(lambda handler, body: (seen.append(json.loads(body)), (200, b"{}"))[1])
    template = {"message": "Tell me a story", "conversation_id": "test1"}
    load = load_test.Load(
        url, bodies=[template], requests=5, concurrency=1, prompts="mixed", prompt_at="message", context_tokens=4096
    )
    run(load)
    run(load)
    assert seen[:5] == seen[5:]
    assert {body["conversation_id"] for body in seen} == {"test1"}
    lengths = [len(body["message"].split()) for body in seen[:5]]
    assert lengths[0] == lengths[4] == 3584
    assert all(64 <= length <= 3584 for length in lengths)
    assert template["message"] == "Tell me a story"


def test_another_seed_sends_other_prompts(serve: Any) -> None:
    seen: list[Any] = []
    url = serve(lambda handler, body: (seen.append(json.loads(body)["message"]), (200, b"{}"))[1])
    for prompts in ("guide", "fill"):
        for seed in (1, 2):
            load = load_test.Load(
                url,
                bodies=[{"message": "What is AI?"}],
                requests=4,
                concurrency=1,
                prompts=prompts,
                prompt_at="message",
                context_tokens=64,
                seed=seed,
            )
            found = run(load)
            assert (found["seed"], found["longest_asked_tokens"]) == (seed, 56 if prompts == "fill" else None)
    assert [len({text[:20] for text in part}) for part in (seen[:8], seen[8:])] == [8, 8]
    assert all(text.endswith(": What is AI?") for text in seen[:8])


class Ollama:
    """Answers chats and lists what is loaded: `listed`, one list an answer, the last for ever; None is no answer."""

    def __init__(self, serve: Any, *listed: Any, failing: str = "") -> None:
        self.asked: list[str] = []
        self.now, self.together = 0, 0
        self._listed, self._failing, self._lock = list(listed), failing, threading.Lock()
        self.url = serve(self._answer)

    def _answer(self, handler: Any, body: bytes) -> tuple[int, bytes]:
        if handler.path.endswith("/api/ps"):
            models = self._listed.pop(0) if len(self._listed) > 1 else self._listed[0]
            return (500, b"") if models is None else (200, json.dumps({"models": models}).encode())
        model = json.loads(body)["model"]
        with self._lock:
            self.now += 1
            self.asked.append(model)
            self.together = max(self.together, self.now if set(self.asked[-self.now :]) != {model} else 0)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        return (500, b'{"error": "no memory"}') if model == self._failing else (200, b"{}")

    def load(self, model: str | None, others: list[str], listed: bool) -> dict[str, Any]:
        def one(name: str) -> load_test.Load:
            return load_test.Load(f"{self.url}/api/chat", bodies=[{"model": name}], requests=2, concurrency=2)

        listed_at = f"{self.url}/api/ps" if listed else None
        running = load_test.LoadOfModels(
            one(model or "backend"), model, [(name, one(name)) for name in others], listed_at
        )
        deadline = time.monotonic() + 20
        while running.running:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert running.done == running.requests == len(self.asked)
        return running.result()


def one_listed(name: str, expires: str, size: int = 1) -> list[dict[str, Any]]:
    return [{"name": name, "expires_at": expires, "size": size}]


def test_models_are_asked_one_after_another(serve: Any) -> None:
    ollama = Ollama(serve, None)
    found = ollama.load("a", ["b", "c"], listed=False)
    assert ollama.asked == ["a", "a", "b", "b", "c", "c"]
    assert ollama.together == 0
    assert (found["model"], found["requests"], found["loaded"]) == ("a", 2, ["a", "b", "c"])
    assert [(one["model"], one["ok"]) for one in found["others"]] == [("b", 2), ("c", 2)]


@pytest.mark.parametrize(("model", "listed"), [(None, True), ("a", False)])
def test_after_a_load_of_which_requests_failed_nothing_more_is_asked(serve: Any, model: Any, listed: bool) -> None:
    ollama = Ollama(serve, [], failing=model or "backend")
    found = ollama.load(model, ["b"], listed)
    assert ollama.asked == [model or "backend"] * 2
    assert (found["failed"], found["others"], found["loaded"]) == (2, [], [])


def test_a_model_whose_requests_fail_is_not_loaded(serve: Any) -> None:
    found = Ollama(serve, None, failing="b").load("a", ["b", "c"], listed=False)
    assert found["failed"] == 0
    assert [one["failed"] for one in found["others"]] == [2, 0]
    assert found["loaded"] == ["a", "c"]


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        ([[], one_listed("a:latest", "1")], ["b"]),  # the backend made Ollama load it
        ([one_listed("a:latest", "1"), one_listed("a:latest", "2")], ["b"]),  # or used it
        ([one_listed("a:latest", "1")], ["a", "b"]),  # it only was there
        ([[], one_listed("a:latest", "1", size=0)], ["b"]),  # all of it on the CPU
        ([[], *(one_listed("a:latest", str(n), size=0) for n in range(99))], ["a", "b"]),  # it did not get as far
        ([[], one_listed("A", "1"), []], ["b"]),  # for a while
    ],
)
def test_what_a_backend_has_used_is_not_asked_for(serve: Any, listed: list[Any], asked: list[str]) -> None:
    ollama = Ollama(serve, *listed)
    found = ollama.load(None, ["a", "b"], listed=True)
    assert ollama.asked == ["backend"] * 2 + [name for name in asked for _unused in range(2)]
    assert found["requests"] == 2
    assert {name.lower().partition(":")[0] for name in found["loaded"]} == {"a", "b"}
    assert (found["used"] == []) is ("a" in asked)


def test_where_ollama_does_not_tell_what_it_has_loaded_nothing_is_asked(serve: Any) -> None:
    ollama = Ollama(serve, None)
    found = ollama.load(None, ["a"], listed=True)
    assert (ollama.asked, found["loaded"], found["used"]) == (["backend"] * 2, None, None)


def test_a_load_may_go_on_for_a_time(serve: Any) -> None:
    load = load_test.Load(serve(lambda handler, body: (200, b"{}")), concurrency=2, requests=1, duration=0.3)
    running = load_test.LoadRun(load)
    assert running.requests is None
    while running.running:
        time.sleep(0.01)
    found = running.result()
    assert found["ok"] == found["requests"] > 2
    assert found["wall_s"] >= 0.3


def test_senders_join_one_after_the_other(serve: Any) -> None:
    """The second may send only after half of the ramp, until when the first has sent alone."""
    lock, now, alone = threading.Lock(), [0], []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        with lock:
            now[0] += 1
            alone.append(now[0] == 1)
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return 200, b""

    run(load_test.Load(serve(answer), requests=60, concurrency=2, ramp=1.2))
    assert all(alone[:4])
    assert not all(alone)


def test_a_warm_up_is_in_no_figure_unless_it_fails(serve: Any) -> None:
    prompts: list[str] = []
    statuses = iter([200, 200, 200, 200, 500, 200])

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        prompts.append(json.loads(body)["message"])
        time.sleep(0.2 if len(prompts) <= 2 else 0)
        return next(statuses), b"{}"

    load = load_test.Load(
        serve(answer),
        bodies=[{"message": ""}],
        requests=2,
        concurrency=2,
        warm_up=2,
        prompts="fill",
        prompt_at="message",
        context_tokens=64,
    )
    found = run(load)
    assert len(set(prompts)) == len(prompts) == 4
    assert (found["requests"], found["ok"]) == (2, 2)
    assert found["max_s"] < 0.2
    assert found["wall_s"] < 0.2
    running = load_test.LoadRun(load_test.Load(load.url, bodies=[{"message": ""}], requests=1, warm_up=1))
    while running.running:
        time.sleep(0.01)
    assert running.result()["failed"] == 1


def test_the_first_token_of_an_answer_that_comes_line_by_line(serve: Any) -> None:
    last = {"done": True, "prompt_eval_count": 7, "eval_count": 20, "eval_duration": 500_000_000}

    def answer(handler: Any, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "application/x-ndjson")
        handler.end_headers()
        handler.wfile.write(b'{"response": "a", "done": false}\n')
        handler.wfile.flush()
        time.sleep(0.3)
        handler.wfile.write(json.dumps(last).encode() + b"\n")

    found = run(load_test.Load(serve(answer), requests=1))
    assert found["first_token_p50_s"] <= found["p50_s"] - 0.25
    assert (found["tokens_per_s"], found["reply_tokens"], found["longest_prompt_tokens"]) == (40, 20, 7)


def test_what_answers_do_not_tell_is_not_known(serve: Any) -> None:
    found = run(load_test.Load(serve(lambda handler, body: (200, b'{"response": "x"}')), requests=1))
    names = ("first_token_p50_s", "tokens_per_s", "reply_tokens", "longest_prompt_tokens")
    assert [found[name] for name in names] == [None] * 4


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", {}),
        (b"[1]", {}),
        (b'{"eval_count": 0}', {}),
        (b'{"eval_count": 10, "eval_duration": 2000000000}', {"reply_tokens": 10, "tokens_per_s": 5.0}),
        (b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}', {"prompt_tokens": 3, "reply_tokens": 4}),
        (b'{"usage": "much"}', {}),
    ],
)
def test_what_an_answer_tells(body: bytes, expected: dict[str, float]) -> None:
    assert load_test.told_by(body) == expected


def test_errors_that_always_differ_do_not_pile_up() -> None:
    tally = load_test.Tally()
    for number in range(load_test.COUNTED_ERRORS + 50):
        tally.add(load_test.Outcome(0.1, 500, f"error {number}"))
    found = tally.summary(0, 1)
    assert found["failed"] == load_test.COUNTED_ERRORS + 50
    assert found["errors"][0] == "other errors"


def test_chats_are_forgotten_where_there_is_an_address_for_it(serve: Any) -> None:
    seen = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        seen.append((handler.command, handler.path, handler.headers.get("X-Key")))
        return {"/gone": 404, "/bad": 500}.get(handler.path, 204), b'{"error": "token s3cret is no good"}'

    url = serve(answer).rstrip("/")
    addresses = [f"{url}/chats/gpu-memory-test1", f"{url}/gone", f"{url}/bad", "http://127.0.0.1:1/nobody"]
    mask = functools.partial(masking.without_known, known={"s3cret"})
    problems = load_test.not_forgotten(load_test.Load(url, forget=addresses, headers={"X-Key": "s3cret"}, mask=mask))
    assert seen == [("DELETE", path, "s3cret") for path in ("/chats/gpu-memory-test1", "/gone", "/bad")]
    assert len(problems) == 2
    assert "500" in problems[0] and "s3cret" not in problems[0] and "refused" in problems[1]


FOREIGN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400) | st.just("\ud800"),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=5,
)
OF_AN_ANSWER = ("eval_count", "eval_duration", "prompt_eval_count", "usage", "done", "error", "completion_tokens")


@given(
    st.dictionaries(st.sampled_from(OF_AN_ANSWER), FOREIGN | st.dictionaries(st.sampled_from(OF_AN_ANSWER), FOREIGN))
    | FOREIGN
)
def test_whatever_an_answer_says_is_read_or_left(value):
    body = json.dumps(value).encode()
    found = load_test.told_by(body)
    assert all(isinstance(figure, float) and 0 < figure < math.inf for figure in found.values())
    error = load_test.answer_error(body)
    assert error is None or error.encode().decode() == error
    tally = load_test.Tally()
    tally.add(load_test.Outcome(1.0, 200, None, None, found))
    json.dumps(tally.summary(0.0, 1.0), allow_nan=False)


@pytest.mark.parametrize(
    "figures",
    [
        b'"eval_count": "9", "eval_duration": "x"',
        b'"usage": {"prompt_tokens": {"cached": 5}}',
        b'"eval_count": 1e400, "eval_duration": NaN',
        b'"eval_count": -5, "eval_duration": 5',
        b'"eval_count": ' + b"9" * 100_000,
        b'"x": ' + b"[" * 100_000,
    ],
)
def test_a_request_counts_whatever_its_answer_says_of_itself(serve, figures):
    found = run(load_test.Load(serve(lambda handler, body: (200, b"{" + figures + b"}")), requests=3, concurrency=2))
    assert (found["wanted"], found["requests"], found["ok"]) == (3, 3, 3)
    assert found["tokens_per_s"] is None


def test_a_request_that_breaks_the_sender_has_failed(serve, monkeypatch):
    monkeypatch.setattr(load_test, "told_by", lambda _body: 1 / 0)
    found = run(load_test.Load(serve(lambda handler, body: (200, b"{}")), requests=3, concurrency=2))
    assert (found["requests"], found["ok"], found["failed"]) == (3, 0, 3)
    assert found["errors"] == ["this request could not be made, or its answer not be read: ZeroDivisionError"]


def test_a_load_that_breaks_between_its_requests_says_so(serve, monkeypatch):
    monkeypatch.setattr(load_test.UsedModels, "look", lambda _self: 1 / 0)
    url = serve(lambda handler, body: (200, b"{}"))
    running = load_test.LoadOfModels(load_test.Load(url, requests=1), None, [], url)
    deadline = time.monotonic() + 20
    while running.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert running.result()["broken"] == "the load test broke: ZeroDivisionError"
