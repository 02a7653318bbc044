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


LONGEST = 8  # named


def write_longest(reporter: pytest.TerminalReporter, name: str, what: str) -> None:
    """Write which of the tests that recorded seconds under `name` took the longest."""
    took = {
        report.nodeid.partition("[")[2].rstrip("]"): value
        for outcome in ("passed", "failed")
        for report in reporter.getreports(outcome)
        for key, value in report.user_properties
        if key == name and value
    }
    if took:
        longest = sorted(took, key=lambda one: -took[one])[:LONGEST]
        named = ", ".join(f"{one} {took[one]:.0f} s" for one in longest)
        reporter.write_line(f"figure: {len(took)} {what}; the longest: {named}")
