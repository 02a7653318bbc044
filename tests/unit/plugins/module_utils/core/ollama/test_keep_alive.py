"""How long a loaded model stays, against what its server says."""

from __future__ import annotations

import math

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import keep_alive

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 300),
        ("5m", 300),
        ('"30m"', 1800),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("90", 90),
        ("0", 0),
        ("-1", math.inf),
        ("-1m", math.inf),
        ("100ms", 0.1),
        ("soon", 300),
        ("5 m", 300),
        ("-", 300),
    ],
)
def test_what_the_server_gives(text: str, seconds: float) -> None:
    assert keep_alive.of_server({"OLLAMA_KEEP_ALIVE": text}) == pytest.approx(seconds)
    assert keep_alive.of_server({}) == 300


@pytest.mark.parametrize(
    ("expires_at", "left"),
    [
        ("2026-09-21T14:14:20Z", 60),
        ("2026-09-21T14:14:20.123456789Z", 60),  # nanoseconds, as Go writes them
        ("2026-09-21T16:14:20+02:00", 60),
        ("2026-09-21T14:12:20Z", -60),
        ("2318-12-01T00:00:00.5+01:00", math.inf),  # keep_alive: -1
        ("2036-09-21T14:14:20Z", math.inf),
        ("2026-13-21T14:14:20Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("soon", None),
        (None, None),
        (5, None),
    ],
)
def test_what_a_model_has_left(expires_at: object, left: float | None) -> None:
    assert keep_alive.left_s(expires_at, NOW) == left


@pytest.mark.parametrize(
    ("expires_at", "usual", "words"),
    [
        ("2026-09-21T14:18:20Z", "5m", None),
        ("2026-09-21T14:14:00Z", "5m", None),
        ("2026-09-21T14:13:00Z", "5m", None),
        ("2026-09-21T14:23:20Z", "5m", "m stays loaded for 600 s, by the keep_alive of some request; requests without"),
        ("2026-09-21T14:23:20Z", "10m", None),
        ("2026-09-22T14:13:20Z", "5m", "for 24.0 h,"),
        ("2318-12-01T00:00:00Z", "5m", "for ever,"),
        ("2318-12-01T00:00:00Z", "-1", None),
        ("2026-09-21T14:10:00Z", "5m", "m should be unloaded since 200 s"),
        (None, "5m", None),
    ],
)
def test_what_stands_out_is_told(expires_at: str | None, usual: str, words: str | None) -> None:
    told = keep_alive.told("m", expires_at, NOW, {"OLLAMA_KEEP_ALIVE": usual})
    assert (told is None) == (words is None)
    assert (words or "") in (told or "")
