"""The last line of a table's tests: how many of its rows ended as promised."""

from __future__ import annotations

import pytest


def write_figure(reporter: pytest.TerminalReporter, test: str, rows: str) -> None:
    """Write the figure of the test function `test`, whose cases are `rows`; nothing where none of them ran."""
    passed, failed = (
        sum(f"::{test}[" in report.nodeid for report in reporter.getreports(outcome))
        for outcome in ("passed", "failed")
    )
    if passed + failed:
        reporter.write_line(f"figure: {passed} of {passed + failed} {rows} ended as promised")
