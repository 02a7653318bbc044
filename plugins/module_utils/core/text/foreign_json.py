# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that somebody else wrote, whatever is in it: a server's answer, a row of the journal. Pure.

It may be nested without end, have numbers of a million digits or none that JSON knows, and any type in any place.
"""

from __future__ import annotations

import json
from typing import TypeVar

Kind = TypeVar("Kind")
MOST_DIGITS = 18  # of a whole number; what has more counts nothing, and the time Python takes grows with its square
LEAST, MOST = 1e-3, 10**15  # a part of a token, or of a nanosecond, is no measurement


def read(text: str | bytes) -> object:
    """The value of a text; ValueError, and nothing else, where it is no JSON. None stands for numbers beyond sense."""
    try:
        return json.loads(text, parse_int=_whole, parse_constant=_nothing)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def fields(text: str | bytes) -> dict[str, object]:
    """Those of an object; none of anything else."""
    try:
        value = read(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def of_type(value: object, kind: type[Kind]) -> Kind | None:
    """A value where it is of this type; a truth value is no number."""
    return value if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool) else None


def positive(value: object) -> float | None:
    """A number above zero that something can be counted by; None of whatever else stands there."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and LEAST <= value <= MOST else None  # type: ignore[operator, arg-type]


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= MOST_DIGITS else None


def _nothing(_constant: str) -> None:
    """NaN and Infinity, which Python's own writer writes."""
