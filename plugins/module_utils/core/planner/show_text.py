# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ollama show --verbose MODEL` prints, as /api/show answers it (cmd/cmd.go, showInfo). Pure."""

from __future__ import annotations

import re

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.gguf import ModelUnreadable

METADATA, TENSORS, PARAMETERS = "Metadata", "Tensors", "Parameters"
_HEADER, _ROW = re.compile(r" {1,3}(\S[^\n]{0,40})"), re.compile(r" {4,}(\S{1,4096})(?: {1,}(\S[^\n]*))?")
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_REAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:e[+-]?[0-9]{1,3})?")
_NUMBER = re.compile(r"[0-9]{1,18}")


def show(text: str) -> dict[str, object]:
    """`model_info`, `tensors` and `parameters` of a dump. Raises ModelUnreadable where it has no tensors.

    Of an array it shows the beginning: it counts as withheld.
    """
    section, info, tensors, parameters = "", {}, [], []
    for line in text.splitlines():
        row = _ROW.fullmatch(line.rstrip())
        header = None if row else _HEADER.fullmatch(line.rstrip())
        if header:
            section = header[1]
        elif row and section == METADATA:
            info[row[1]] = _value((row[2] or "").strip())
        elif row and section == TENSORS and row[2]:
            kind, _blank, shape = row[2].partition(" ")
            tensors.append({"name": row[1], "type": kind, "shape": [int(each) for each in _NUMBER.findall(shape)]})
        elif row and section == PARAMETERS:
            parameters.append(f"{row[1]} {(row[2] or '').strip()}")
    if not tensors:
        raise ModelUnreadable("the text has no tensors: ollama show --verbose MODEL prints them")
    return {"model_info": info, "tensors": tensors, "parameters": "\n".join(parameters)}


def _value(text: str) -> object:
    if text.startswith("[") or text == "<nil>":
        return None
    if text in ("true", "false"):
        return text == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text
