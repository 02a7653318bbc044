"""Found hosts: who serves Ollama's API, and who else holds memory."""

from __future__ import annotations

from tests.found.condition import Found

ROWS: list[Found] = []
