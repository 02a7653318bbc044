from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _load


def run(load: _load.Load) -> dict[str, Any]:
    running = _load.LoadRun(load)
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

    found = run(_load.Load(serve(answer), bodies=[{"a": 1}, "raw"], requests=4, concurrency=1, headers={"X-Key": "k"}))
    assert seen == [(b'{"a": 1}', "application/json", "k"), (b"raw", None, "k")] * 2
    assert (found["requests"], found["ok"], found["failed"], found["errors"]) == (4, 4, 0, [])
    assert found["by_status"] == {"200": 4}
    assert found["started"].endswith("Z")
    assert found["finished_epoch"] >= found["started_epoch"]


def test_without_bodies_nothing_is_sent(serve: Any) -> None:
    seen = []
    url = serve(lambda handler, body: (seen.append((handler.command, body)), (200, b""))[1])
    assert run(_load.Load(url, method="GET", requests=2, concurrency=2))["ok"] == 2
    assert seen == [("GET", b"")] * 2


def test_as_many_at_once_as_asked_for(serve: Any) -> None:
    together = threading.Barrier(3)

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        together.wait(10)  # breaks unless three requests are here at once
        return 200, b""

    assert run(_load.Load(serve(answer), requests=6, concurrency=3))["ok"] == 6


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

    run(_load.Load(serve(answer), requests=10, concurrency=2))
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
    found = run(_load.Load(serve(lambda handler, body: next(answers)), requests=4, concurrency=1))
    assert (found["ok"], found["failed"]) == (1, 3)
    assert found["by_status"] == {"200": 2, "500": 2}
    assert found["errors"] == [
        "status 500 instead of 200: runner stopped",
        "status 200, but the answer says: out of memory",
    ]


def test_no_answer_is_a_failure() -> None:
    found = run(_load.Load("http://127.0.0.1:9/", requests=2, concurrency=2))
    assert (found["failed"], found["by_status"], found["p95_s"]) == (2, {"no answer": 2}, None)
    assert "refused" in found["errors"][0]


def test_echoed_headers_are_masked(serve: Any) -> None:
    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        return 401, json.dumps({"detail": f"bad token {handler.headers['Authorization']}"}).encode()

    found = run(_load.Load(serve(answer), requests=1, headers={"Authorization": "Bearer sesame"}))
    assert found["errors"] == ["status 401 instead of 200: bad token ***"]


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
    assert _load.answer_error(body) == error


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
    assert _load.percentile(values, percent) == expected
