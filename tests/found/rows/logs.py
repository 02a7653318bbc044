"""Found hosts: where Ollama's log goes, and what it says."""

from __future__ import annotations

from tests.found.condition import Found

ROWS: list[Found] = []
