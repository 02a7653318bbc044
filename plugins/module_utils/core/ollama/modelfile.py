# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Modelfile of a model sets, as /api/show tells it. Pure."""

from __future__ import annotations

import re

# Options that are numbers or switches (`Options` in api/types.go). Ollama keeps text as it is, and refuses every load.
NO_TEXT = (
    "num_gpu", "num_ctx", "num_batch", "main_gpu", "num_thread", "use_mmap", "num_keep", "num_predict", "seed",
    "temperature", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "repeat_penalty", "presence_penalty",
    "frequency_penalty",
)  # fmt: skip
_AS_TEXT = re.compile(rf"""^({"|".join(NO_TEXT)})[ \t]+"([^"\n]{{0,32}})"[ \t]*$""", re.MULTILINE)

_OF_MEMORY = re.compile(r"^(num_ctx|num_gpu|num_batch|draft_num_predict)[ \t]+(-?[0-9]{1,12})[ \t]*$", re.MULTILINE)


def as_text(shown: str) -> dict[str, str]:
    """The options in the `parameters` of /api/show that are text and must not be; Go prints text in quotes."""
    return dict(_AS_TEXT.findall(shown))


def memory_options(shown: str) -> dict[str, int]:
    """The options in the same that take memory (server/routes.go, modelOptions)."""
    return {name: int(number) for name, number in _OF_MEMORY.findall(shown)}


_BLOB = re.compile(r"sha256[-:][0-9a-f]{64}")
_LONGEST_BLOB = 71


def files_apart(shown: str) -> str:
    """Of the `modelfile` of /api/show the lines with files that are loaded beside the model's, without their places.

    Ollama writes them with the places of its own blobs; what else begins like that is a line of free text.
    """
    lines = (line.strip().partition(" ") for line in shown.split("\n"))
    files = ((word, place[-_LONGEST_BLOB:]) for word, _blank, place in lines if word in ("ADAPTER", "DRAFT"))
    return "".join(f"{word} {blob}\n" for word, blob in files if _BLOB.fullmatch(blob))
