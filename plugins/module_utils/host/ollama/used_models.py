# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models Ollama uses while a backend is loaded: what /api/ps lists, looked at again and again."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

ANSWER_S = 2


class UsedModels:
    """`names`: those seen so far, None while no look has succeeded.

    A model that was there before counts once its time to expire changes, as each use makes it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.names: set[str] | None = None
        self._before = self._listed() or {}

    def look(self) -> None:
        listed = self._listed()
        if listed is not None:
            used = {name for name, expires in listed.items() if self._before.get(name) != expires}
            self.names = (self.names or set()) | used

    def _listed(self) -> dict[str, object] | None:
        """When each loaded model expires; one without a size is not loaded yet. None where Ollama does not tell."""
        try:
            models = http_client.get_json(self._url, timeout=ANSWER_S)["models"] or []
            return {str(model["name"]): model.get("expires_at") for model in models if model.get("size")}
        except (http_client.HttpError, KeyError, TypeError, AttributeError):
            return None
