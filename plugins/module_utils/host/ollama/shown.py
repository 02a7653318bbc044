# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ollama shows of a model, as a plan needs it."""

from __future__ import annotations

import json

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, shown_arrays
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

WITHIN_S = 20  # each of two answers


def terse(url: str, model: str) -> dict[str, object]:
    """The answer of /api/show as it is; HttpError where there is none."""
    shown = http_client.post_json(url + endpoints.SHOW, endpoints.named(model), timeout=WITHIN_S)
    return foreign_json.of_type(shown, dict) or {}


def with_arrays(url: str, model: str) -> dict[str, object]:
    """The answer of /api/show with those arrays that it holds back and a plan needs; HttpError where there is none.

    A server that does not give the arrays leaves them as they are: the plan then says that they are missing.
    """
    answer = terse(url, model)
    keys = shown_arrays.wanted(answer)
    if keys:
        info = foreign_json.of_type(answer.get("model_info"), dict) or {}
        answer["model_info"] = {**info, **_arrays(url, model, keys)}
    return answer


def _arrays(url: str, model: str, keys: list[str]) -> dict[str, object]:
    picked = shown_arrays.Picked(keys)
    body, headers = json.dumps(endpoints.verbose(model)).encode(), {"Content-Type": "application/json"}
    try:
        http_client.request(
            url + endpoints.SHOW, method="POST", body=body, headers=headers, timeout=WITHIN_S, take=picked.take
        )
    except http_client.HttpError:
        return {}
    return picked.found()
