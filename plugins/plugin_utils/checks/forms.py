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
POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def malformed(variable: settings.Variable, value: str) -> str | None:
    """What is allowed, where a value is not of the variable's form; None where it is.

    Ollama strips spaces and quotes, and takes an empty value for none; llama-server takes neither.
    """
    if not variable.name.startswith("LLAMA_ARG_"):
        value = value.strip().strip("\"'").strip()
        if not value:
            return None
    elif not value:
        return variable.form
    cache_types = settings.CACHE_TYPES if variable.last == settings.NEWEST else settings.CACHE_TYPES_UNTIL_029
    allowed = {
        settings.COUNT: value.isascii() and value.isdigit(),
        settings.BYTES: value.isascii() and value.isdigit(),
        settings.MIB_EACH: re.fullmatch(r"\d+(,\d+)*", value) is not None,
        settings.SWITCH: value in GO_BOOLEANS,
        settings.DURATION: GO_DURATION.match(value) is not None,
        settings.CACHE_TYPE: value in cache_types,
        settings.LAYERS: re.fullmatch(r"-?\d+|auto|all", value) is not None,
        settings.FIT: value in ("on", "off", "enabled", "disabled", "true", "false", "1", "0"),
        settings.TEXT: True,
    }
    if allowed[variable.form]:
        return None
    if variable.form == settings.CACHE_TYPE:
        return "one of " + ", ".join(cache_types)
    size = SIZE.match(value) if variable.form in (settings.BYTES, settings.MIB_EACH) else None
    if size:
        in_bytes = float(size.group(1)) * 1024 ** POWERS[size.group(2).lower()]
        meant = int(in_bytes if variable.form == settings.BYTES else in_bytes / settings.MIB)
        return f"{variable.form}: {meant} for {value}"
    return variable.form
