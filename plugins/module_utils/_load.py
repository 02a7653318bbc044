# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load of concurrent HTTP requests, and what became of them."""

from __future__ import annotations

import itertools
import json
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils import _http

NO_ANSWER = "no answer"
DISTINCT_ERRORS = 20


@dataclass(frozen=True)
class Load:
    """What to send. A body that is a dict goes as JSON; bodies are used in turn."""

    url: str
    method: str = "POST"
    bodies: Sequence[Any] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    expect_status: int = 200
    concurrency: int = 3
    requests: int = 3
    timeout: float = 300


class Outcome(NamedTuple):
    """One request: seconds it took, the answer's status if there was one, and what was wrong if anything was."""

    elapsed_s: float
    status: int | None
    error: str | None


class LoadRun:
    """A load on its way: `concurrency` threads send until `requests` are sent."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.requests = load.requests
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        bodies = itertools.cycle([_encode(body) for body in load.bodies] or [(None, {})])
        self._waiting: queue.SimpleQueue[tuple[bytes | None, dict[str, str]]] = queue.SimpleQueue()
        for body in itertools.islice(bodies, load.requests):
            self._waiting.put(body)
        self._threads = [
            threading.Thread(target=self._send_all, daemon=True) for _ in range(min(load.concurrency, load.requests))
        ]
        self._started = time.time()
        self._began = self._ended = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return self._outcomes.qsize()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def result(self) -> dict[str, Any]:
        """The figures; call it once, when the load no longer runs."""
        outcomes = [self._outcomes.get() for _ in range(self._outcomes.qsize())]
        return summary(outcomes, self._started, self._ended - self._began)

    def _send_all(self) -> None:
        while True:
            try:
                body, headers = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._outcomes.put(_send(self._load, body, {**headers, **self._load.headers}))
            self._ended = time.monotonic()


def summary(outcomes: Sequence[Outcome], started: float, wall_s: float) -> dict[str, Any]:
    """Counts, latencies of the requests that succeeded (null without any), distinct errors, and when it was."""
    good = sorted(outcome.elapsed_s for outcome in outcomes if outcome.error is None)
    errors = Counter(outcome.error for outcome in outcomes if outcome.error is not None)
    return {
        "requests": len(outcomes),
        "ok": len(good),
        "failed": len(outcomes) - len(good),
        "by_status": dict(Counter(str(outcome.status or NO_ANSWER) for outcome in outcomes)),
        "errors": [error for error, _ in errors.most_common(DISTINCT_ERRORS)],
        "p50_s": percentile(good, 50),
        "p95_s": percentile(good, 95),
        "max_s": percentile(good, 100),
        "wall_s": round(wall_s, 3),
        "started": _iso(started),
        "finished": _iso(started + wall_s),
        "started_epoch": round(started, 3),
        "finished_epoch": round(started + wall_s, 3),
    }


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Nearest rank: the smallest of the sorted values that `percent` of them do not exceed."""
    return round(values[max(0, math.ceil(len(values) * percent / 100) - 1)], 3) if values else None


def answer_error(body: bytes) -> str | None:
    """The error inside an answer of a good status: servers that stream can only say it there.

    Looked for as a true `error` key of the JSON object, or of a line of a stream of them (after `data:` or bare).
    """
    lines = (line.strip() for line in body.splitlines() if b'"error"' in line)
    for text in (body, *(line[5:] if line.startswith(b"data:") else line for line in lines)):
        try:
            value = json.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("error"):
            return _http.error_text(text)
    return None


def _send(load: Load, body: bytes | None, headers: Mapping[str, str]) -> Outcome:
    started = time.monotonic()
    try:
        answer = _http.request(load.url, method=load.method, body=body, headers=headers, timeout=load.timeout)
    except _http.HttpError as problem:
        return Outcome(time.monotonic() - started, None, str(problem))
    error = None
    if answer.status != load.expect_status:
        error = f"status {answer.status} instead of {load.expect_status}: {_http.error_text(answer.body)}"
    elif answer_error(answer.body):
        error = f"status {answer.status}, but the answer says: {answer_error(answer.body)}"
    return Outcome(answer.elapsed_s, answer.status, error and _without_secrets(error, load.headers))


def _without_secrets(text: str, headers: Mapping[str, str]) -> str:
    """A server may echo a header; its value must not come out with the error."""
    for value in headers.values():
        for secret in (value, value.rpartition(" ")[2]):
            if secret:
                text = text.replace(secret, "***")
    return text


def _encode(body: Any) -> tuple[bytes, dict[str, str]]:
    if isinstance(body, str):
        return body.encode(), {}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
