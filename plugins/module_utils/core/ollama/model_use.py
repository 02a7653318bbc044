# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which model is meant, and whether it is somewhere else than on this host. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import model_name, settings

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import ListedModel

CLOUD_TAG = re.compile(r":([^:/]*-)?cloud\Z", re.IGNORECASE)


def listed(model: str, models: Sequence[ListedModel]) -> ListedModel | None:
    """The model in what /api/tags lists, by its name as Ollama reads it."""
    return next((one for one in models if model_name.same(model, str(one["name"]))), None)


def is_elsewhere(model: str, models: Sequence[ListedModel], version: settings.Version | None) -> bool:
    """Whether requests to a model leave the host: it is listed as remote, or its tag is that of Ollama's cloud.

    Since such a tag needs no listing, a model of this host that has one cannot be asked for any more.
    """
    found = listed(model, models)
    if found and found.get("remote"):
        return True
    by_tag = CLOUD_TAG.search(model) is not None
    return by_tag and (found is None or version is None or version >= settings.CLOUD_BY_TAG)


def blob_of(command: Sequence[str]) -> str | None:
    """The model's file on a runner's command line."""
    return next((value for name, value in zip(command, command[1:]) if name == "--model"), None)


def blob_in(show: Mapping[str, object]) -> str | None:
    """The model's file, as /api/show tells it."""
    lines = str(show.get("modelfile") or "").splitlines()
    return next((line[5:] for line in lines if line.startswith("FROM /") and "/sha256-" in line), None)
