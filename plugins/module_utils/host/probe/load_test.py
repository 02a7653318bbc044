# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load generator: concurrent HTTP requests for a proof, a tuning probe or a soak, and what became of them."""

from __future__ import annotations

import itertools
import json
import math
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name, prompt_texts
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.used_models import UsedModels
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock, WallClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures, ModelFigures

NO_ANSWER = "no answer"
DISTINCT_ERRORS = 20  # told
FORGET_S = 10
SETTLE_S = 0.5
LOOK_EVERY_S = 1
GONE = 404
COUNTED_ERRORS = 1000  # kept apart; they may name what differs at each request


@dataclass(frozen=True)
class Load:
    """What to send. A body that is a dict goes as JSON; bodies are used in turn.

    With `prompts` other than `guide` each body is a template: its text at `prompt_at` is replaced by one that fills a
    slot's context of `context_tokens`, or a part of it (see `prompt_texts`), always the same for the same `seed`; with
    `guide` a few words of its own go before it. Either way no server has it in its cache, unless the seed was sent.
    `warm_up` requests go first, one by one, and count only if they fail; then senders join over `ramp` seconds, and
    send until `requests` are sent, or with `duration` for so many seconds.
    `forget`: addresses that a DELETE makes forget the chats of the load.
    `mask`: what may be shown of an answer's error. A server may echo a header, or say what it was configured with.
    """

    url: str
    method: str = "POST"
    bodies: Sequence[Any] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    expect_status: int = 200
    concurrency: int = 3
    requests: int = 3
    timeout: float = 300
    prompts: str = prompt_texts.GUIDE
    prompt_at: str | None = None
    context_tokens: int = 0
    seed: int = 1
    warm_up: int = 0
    ramp: float = 0
    duration: float | None = None
    forget: Sequence[str] = ()
    mask: Callable[[str], str] = masking.without_secrets

    def body(self, index: int) -> object:
        """The body of the request number `index`."""
        body = self.bodies[index % len(self.bodies)] if self.bodies else None
        tokens = prompt_texts.tokens_of(self.prompts, self.context_tokens, index, self.seed)
        if body is None or self.prompt_at is None:
            return body
        seed = f"{self.seed}/{index}"
        return prompt_texts.with_prompt(
            body,
            self.prompt_at,
            lambda words: prompt_texts.told_apart(words, seed) if tokens is None else prompt_texts.text(tokens, seed),
        )

    @property
    def longest_asked(self) -> int | None:
        """Tokens of the longest prompt, which is the first; None where bodies keep their words."""
        return prompt_texts.tokens_of(self.prompts, self.context_tokens, 0, self.seed) if self.prompt_at else None


class Outcome(NamedTuple):
    """One request: seconds it took, the answer's status if there was one, and what was wrong if anything was.

    `first_s`: seconds until the first token, of an answer that comes line by line. `told`: tokens of prompt and reply
    and the reply's tokens/s, as far as the answer tells them.
    """

    elapsed_s: float
    status: int | None
    error: str | None
    first_s: float | None = None
    told: Mapping[str, float] = {}


class Tally:
    """Outcomes added up, in 24 bytes a request, so that a load may go on for hours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        self._by_status: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._elapsed_s, self._first_s, self._speeds = array("d"), array("d"), array("d")
        self._reply_tokens = self._longest_prompt = 0

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            self.requests += 1
            self._by_status[str(outcome.status or NO_ANSWER)] += 1
            if outcome.error is not None:
                known = outcome.error in self._errors or len(self._errors) < COUNTED_ERRORS
                self._errors[outcome.error if known else "other errors"] += 1
                return
            self._elapsed_s.append(outcome.elapsed_s)
            if outcome.first_s is not None:
                self._first_s.append(outcome.first_s)
            if "tokens_per_s" in outcome.told:
                self._speeds.append(outcome.told["tokens_per_s"])
            self._reply_tokens += int(outcome.told.get("reply_tokens", 0))
            self._longest_prompt = max(self._longest_prompt, int(outcome.told.get("prompt_tokens", 0)))

    @property
    def failed(self) -> int:
        return self.requests - len(self._elapsed_s)

    def summary(self, started: float, wall_s: float) -> Figures:
        """Counts, latencies of the requests that succeeded (null without any), distinct errors, and when it was.

        What only answers can tell (tokens, their speed, the first token) is null where they do not.
        """
        with self._lock:
            good, first = sorted(self._elapsed_s), sorted(self._first_s)
            speed = sum(self._speeds) / len(self._speeds) if self._speeds else None
            return {
                "requests": self.requests,
                "ok": len(good),
                "failed": self.failed,
                "by_status": dict(self._by_status),
                "errors": [error for error, _unused in self._errors.most_common(DISTINCT_ERRORS)],
                "p50_s": percentile(good, 50),
                "p95_s": percentile(good, 95),
                "max_s": percentile(good, 100),
                "first_token_p50_s": percentile(first, 50),
                "first_token_p95_s": percentile(first, 95),
                "reply_tokens": self._reply_tokens or None,
                "longest_prompt_tokens": self._longest_prompt or None,
                "tokens_per_s": None if speed is None else round(speed, 2),
                "wall_s": round(wall_s, 3),
                "started": _iso(started),
                "finished": _iso(started + wall_s),
                "started_epoch": round(started, 3),
                "finished_epoch": round(started + wall_s, 3),
            }


class LoadRun:
    """A load on its way: `concurrency` threads send until `requests` are sent, or for `duration` seconds."""

    def __init__(self, load: Load, clock: WallClock | None = None) -> None:
        """`clock`: by which its times are told."""
        self._load = load
        self.requests = None if load.duration else load.requests
        self._tally = Tally()
        self._indices, self._lock = itertools.count(), threading.Lock()
        self._warm = threading.Event()
        senders = load.concurrency if load.duration else min(load.concurrency, load.requests)
        self._threads = [
            threading.Thread(target=self._send_all, args=(place, load.ramp * place / senders), daemon=True)
            for place in range(senders)
        ]
        self._clock = clock or SystemClock().wall()
        self._began = self._ended = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return self._tally.requests

    @property
    def failed(self) -> int:
        return self._tally.failed

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended, or for so long."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def result(self) -> Figures:
        """The figures; call it when the load no longer runs. The time of a warm-up is not in `wall_s`."""
        figures = self._tally.summary(self._clock.at(self._began), self._ended - self._began)
        figures["clock"] = {"boot": self._clock.boot, "ahead_s": self._clock.ahead_s}
        figures["wanted"] = self.requests
        figures["seed"], figures["longest_asked_tokens"] = self._load.seed, self._load.longest_asked
        return figures

    def _send_all(self, place: int, delay_s: float) -> None:
        if place == 0:
            self._warm_up()
        self._warm.wait()
        time.sleep(delay_s)
        while (index := self._next()) is not None:
            self._tally.add(_outcome(self._load, index))
            self._ended = time.monotonic()

    def _warm_up(self) -> None:
        for number in range(self._load.warm_up):
            outcome = _outcome(self._load, -1 - number)  # a prompt that does not come again
            if outcome.error is not None:
                self._tally.add(outcome)
        if self._load.warm_up:
            self._began = time.monotonic()
        self._ended = self._began
        self._warm.set()

    def _next(self) -> int | None:
        """The number of the next request, None when the load is over."""
        with self._lock:
            if self._load.duration and time.monotonic() >= self._began + self._load.duration:
                return None
            index = next(self._indices)
        return index if self.requests is None or index < self.requests else None


class LoadOfModels:
    """A load, and when it has ended further ones for single models of Ollama, one after another.

    `model`: the one that the load itself asks Ollama for; None where a backend chooses. `others`: the further models,
    each with its load. `listed_at`: where Ollama lists what is loaded, of which those that the load made it use need no
    further one; where it does not tell, none is sent. Nor is one after a load of which requests have failed: that host
    fails, and what Ollama does when it is asked without the backend's options would only hide why.
    """

    def __init__(
        self, load: Load, model: str | None, others: Sequence[tuple[str, Load]], listed_at: str | None
    ) -> None:
        self._model, self._others = model, others
        self._used = UsedModels(listed_at) if listed_at else None
        self._clock = SystemClock().wall()
        self._run, self._more = LoadRun(load, self._clock), list[tuple[str, LoadRun]]()
        self._broken: str | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def done(self) -> int:
        return sum(run.done for run in self._runs())

    @property
    def requests(self) -> int | None:
        """Of the loads that have begun; None where one goes by time."""
        counts = [run.requests for run in self._runs()]
        return None if None in counts else sum(filter(None, counts))

    def result(self) -> Figures:
        """The figures of the load, with `model`; `others`: those of each further model.

        `broken`: what ended it too early, None where nothing did.
        `used`: the models that the load made Ollama use, as far as that was looked at; `loaded`: those and the models
        that answered for themselves. Both are None where Ollama did not tell.
        """
        figures = cast("Figures", {"model": self._model, **self._run.result()})
        others = cast("list[ModelFigures]", [{"model": model, **run.result()} for model, run in self._more])
        loaded = {model for one in [figures, *others] if (model := one["model"]) and one["ok"]}
        used = set() if self._used is None else self._used.names
        return {
            **figures,
            "broken": self._broken,
            "others": others,
            "used": None if used is None else sorted(used),
            "loaded": None if used is None else sorted(loaded | used),
        }

    def _runs(self) -> list[LoadRun]:
        return [self._run, *(run for _model, run in self._more)]

    def _go_on(self) -> None:
        try:
            self._go_through()
        except Exception as problem:
            self._broken = f"the load test broke: {type(problem).__name__}"

    def _go_through(self) -> None:
        while self._run.running:
            if self._used:
                self._used.look()
            self._run.wait(LOOK_EVERY_S)
        used: set[str] | None = set()
        if self._used:
            time.sleep(SETTLE_S)  # Ollama notes shortly after an answer that a model was used
            self._used.look()
            used = self._used.names
        for model, load in self._others if used is not None and not self._run.failed else ():
            if not model_name.listed(model, used or ()):
                self._more.append((model, LoadRun(load, self._clock)))
                self._more[-1][1].wait()


def not_forgotten(load: Load) -> list[str]:
    """Ask for the chats of a load to be forgotten; what went wrong. One that is not there is forgotten."""
    problems = []
    for url in load.forget:
        try:
            answer = http_client.request(url, method="DELETE", headers=load.headers, timeout=FORGET_S)
        except http_client.HttpError as problem:
            problems.append(str(problem))
            continue
        if not 200 <= answer.status < 300 and answer.status != GONE:
            problems.append(load.mask(f"status {answer.status}: {http_client.error_text(answer.body)}"))
    return problems


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Nearest rank: the smallest of the sorted values that `percent` of them do not exceed."""
    return round(values[max(0, math.ceil(len(values) * percent / 100) - 1)], 3) if values else None


def answer_error(body: bytes) -> str | None:
    """The error inside an answer of a good status: servers that stream can only say it there.

    Looked for as a true `error` key of the JSON object, or of a line of a stream of them (after `data:` or bare).
    """
    lines = (line.strip() for line in body.splitlines() if b'"error"' in line)
    for text in (body, *(line[5:] if line.startswith(b"data:") else line for line in lines)):
        if foreign_json.fields(text).get("error"):
            return http_client.error_text(text)
    return None


def told_by(body: bytes) -> dict[str, float]:
    """What an answer of Ollama's, or of OpenAI's kind, says of itself at its end: tokens, and tokens/s of the reply.

    Whatever else than a number stands where one is looked for, tells nothing.
    """
    last = body.rstrip().rpartition(b"\n")[2]
    value = foreign_json.fields(last if b'"done"' in last else body)
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    number = foreign_json.positive
    evaluated, took_ns = number(value.get("eval_count")), number(value.get("eval_duration"))
    found = {
        "prompt_tokens": number(value.get("prompt_eval_count")) or number(usage.get("prompt_tokens")),
        "reply_tokens": evaluated or number(usage.get("completion_tokens")),
        "tokens_per_s": evaluated / took_ns * 1e9 if evaluated and took_ns else None,
    }
    return {name: figure for name, figure in found.items() if figure}


def _outcome(load: Load, index: int) -> Outcome:
    """One request's; what breaks here is no reason to count one less: a request that has no outcome proves nothing."""
    started = time.monotonic()
    try:
        return _send(load, index)
    except Exception as problem:
        error = f"this request could not be made, or its answer not be read: {type(problem).__name__}"
        return Outcome(time.monotonic() - started, None, error)


def _send(load: Load, index: int) -> Outcome:
    body, headers = _encode(load.body(index))
    headers = {**headers, **load.headers}
    started = time.monotonic()
    try:
        answer = http_client.request(load.url, method=load.method, body=body, headers=headers, timeout=load.timeout)
    except http_client.HttpError as problem:
        return Outcome(time.monotonic() - started, None, str(problem))
    error = None
    if answer.status != load.expect_status:
        error = f"status {answer.status} instead of {load.expect_status}: {http_client.error_text(answer.body)}"
    elif answer_error(answer.body):
        error = f"status {answer.status}, but the answer says: {answer_error(answer.body)}"
    error = error and load.mask(error)
    return Outcome(answer.elapsed_s, answer.status, error, answer.first_s, {} if error else told_by(answer.body))


def _encode(body: object) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    if isinstance(body, str):
        return body.encode(), {}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
