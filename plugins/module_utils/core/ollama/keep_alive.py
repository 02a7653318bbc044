# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a model stays loaded, and whether the `keep_alive` of some request says so. Pure.

It is sticky: a request without one leaves a loaded model what an earlier request gave it (server/sched.go).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings

DEFAULT_S = 300.0
SLACK_S = 60.0
FOR_EVER_S = 365 * 86400
RFC3339 = re.compile(r"(\d{4})(-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,12})?(Z|[+-]\d\d:\d\d)\Z")  # as Go writes it
PART = re.compile(r"(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(ns|us|µs|ms|s|m|h)")
SECONDS_IN = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def of_server(environment: Mapping[str, str]) -> float:
    """What a model gets without any request's keep_alive, in seconds (envconfig/config.go); infinite if negative."""
    text = settings.as_ollama_reads(environment.get("OLLAMA_KEEP_ALIVE", ""))[:64]
    number = text.lstrip("+-")
    if number.isascii() and number.isdigit():
        seconds = float(number)
    elif number and not PART.sub("", number):
        seconds = sum(float(part[1]) * SECONDS_IN[part[2]] for part in PART.finditer(number))
    else:
        return DEFAULT_S
    return math.inf if text.startswith("-") and seconds else seconds


def left_s(expires_at: object, now: float) -> float | None:
    """Seconds that a model has left by `/api/ps`, below 0 in the past; infinite for ever, None where it is not told."""
    found = RFC3339.match(str(expires_at or ""))
    if not found or int(found[1]) < 1970:  # Go's zero: a model that is being loaded
        return None
    if int(found[1]) > 2200:
        return math.inf
    try:
        left = datetime.fromisoformat(found[1] + found[2] + found[3].replace("Z", "+00:00")).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return math.inf if left > FOR_EVER_S else left


def told(model: str, expires_at: object, now: float, environment: Mapping[str, str]) -> str | None:
    """What stands out of a loaded model's time; None where it is as the server has it."""
    left = left_s(expires_at, now)
    if left is None:
        return None
    if left < -SLACK_S:
        return f"{model} should be unloaded since {-left:.0f} s: a request is under way, or a keep_alive has ended"
    if left <= of_server(environment) + SLACK_S:
        return None
    span = "for ever" if left == math.inf else f"for {left / 3600:.1f} h" if left >= 3600 else f"for {left:.0f} s"
    return (
        f"{model} stays loaded {span}, by the keep_alive of some request; requests without one inherit it, until the "
        "model is unloaded"
    )
