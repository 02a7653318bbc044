# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a value of a variable may be, by the form that its row in the table of settings names."""

from __future__ import annotations

import re

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings

# strconv.ParseBool
GO_BOOLEANS = ("1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False")
GO_DURATION = re.compile(r"[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+\Z|[+-]?\d+\Z")
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?\Z", re.IGNORECASE)
LONGEST = 40  # digits
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def malformed(variable: settings.Variable, value: str) -> str | None:
    """What is allowed, where a value is not of the variable's form; None where it is. An empty one counts as none."""
    value = settings.as_ollama_reads(value)
    if not value:
        return None
    cache_types = settings.CACHE_TYPES if variable.last == settings.NEWEST else settings.CACHE_TYPES_UNTIL_029
    count = value.isascii() and value.isdigit() and len(value) <= LONGEST and int(value) < 1 << 64
    allowed = {
        settings.COUNT: count,
        settings.BYTES: count,
        settings.SWITCH: value in GO_BOOLEANS,
        settings.DURATION: GO_DURATION.match(value) is not None,
        settings.CACHE_TYPE: value.lower() in cache_types,
        settings.TEXT: True,
    }
    if allowed[variable.form]:
        return None
    if variable.form == settings.CACHE_TYPE:
        return "one of " + ", ".join(cache_types)
    meant = size_in_bytes(value) if variable.form == settings.BYTES else None
    return variable.form if meant is None else f"{variable.form}: {meant} for {value}"


def size_in_bytes(text: str) -> int | None:
    """What whoever wrote `8G` or `1.5 GiB` means; None for what is no size with a unit."""
    size = SIZE.match(text.strip())
    return int(float(size.group(1)) * 1024 ** POWERS[size.group(2).lower()]) if size else None
