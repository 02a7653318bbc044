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
        self._before = self._last = self._listed() or {}

    def look(self) -> None:
        listed = self._listed()
        if listed is None:
            return
        before = {name: expires for name, (expires, _sized) in self._before.items()}
        changed = {name for name, (expires, _sized) in listed.items() if before.get(name) != expires}
        # One without a size is all on the CPU, or is still being loaded: then Ollama makes up its time at each look
        # (server/sched.go, loadedModels).
        used = {name for name in changed if listed[name][1] or self._last.get(name) == listed[name]}
        self.names, self._last = (self.names or set()) | used, listed

    def _listed(self) -> dict[str, tuple[object, bool]] | None:
        """When each model expires, and whether it has a size. None where Ollama does not tell."""
        try:
            models = http_client.get_json(self._url, timeout=ANSWER_S)["models"] or []
            return {str(model["name"]): (model.get("expires_at"), bool(model.get("size"))) for model in models}
        except (http_client.HttpError, KeyError, TypeError, AttributeError):
            return None
