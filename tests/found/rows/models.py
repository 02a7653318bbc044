"""Found hosts: models, and how they are loaded."""

from __future__ import annotations

from tests.found.condition import Found

ROWS: list[Found] = []
