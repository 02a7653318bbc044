"""The page on rollback has the table of faults as it is tried."""

from __future__ import annotations

from pathlib import Path

from tests.integration.faults.as_text import table
from tests.integration.faults.table import FAULTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rollback.md"


def test_the_page_has_the_table_of_faults() -> None:
    assert table() in PAGE.read_text(), "put the output of python -m tests.integration.faults.as_text there"


def test_there_are_as_many_as_promised() -> None:
    assert len(FAULTS) >= 32
    assert sum(fault.short for fault in FAULTS) == 8
