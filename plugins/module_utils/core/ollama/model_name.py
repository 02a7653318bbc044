# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of models as Ollama reads them (types/model/name.go, internal/modelref). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

REGISTRY, LIBRARY, TAG = "registry.ollama.ai", "library", "latest"
HERE = re.compile(r":local\Z", re.IGNORECASE)  # not a tag, but says that no cloud is meant


def full(name: str) -> str:
    """As Ollama lists a model: with its tag, and without the parts that stand for Ollama's own library."""
    place, _slash, model = HERE.sub("", name.rpartition("://")[2]).rpartition("/")
    host, _slash, namespace = place.rpartition("/")
    if host.lower() in ("", REGISTRY):
        place = "" if namespace.lower() == LIBRARY else namespace
    return "/".join(filter(None, (place, model if ":" in model else f"{model}:{TAG}")))


def same(one: str, other: str) -> bool:
    """Whether two names are of one model: Ollama does not tell upper from lower case."""
    return full(one).lower() == full(other).lower()


def listed(name: str, names: Iterable[str]) -> str | None:
    """The one of the names that is of the same model."""
    return next((each for each in names if same(name, each)), None)
