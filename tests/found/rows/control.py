"""Found hosts: playbooks, inventories, sudo and what else is the controller's."""

from __future__ import annotations

from tests.found.condition import Found

ROWS: list[Found] = []
