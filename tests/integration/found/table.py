"""The conditions that hosts are found in, and what an apply of the profile stable must make of each."""

from __future__ import annotations

from tests.integration.found.condition import Found
from tests.integration.found.rows import control, gpus, logs, models, servers, units, who_answers

FOUND: list[Found] = [
    *units.ROWS,
    *servers.ROWS,
    *who_answers.ROWS,
    *gpus.ROWS,
    *models.ROWS,
    *logs.ROWS,
    *control.ROWS,
]
