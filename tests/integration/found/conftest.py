"""Every selected row is tried on a fresh host, a few at a time; a test then waits for its own."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.faults.fault_lab import Host, lab
from tests.integration.faults.figure import write_figure
from tests.integration.found.condition import Found
from tests.integration.found.found_host import Outcome, attempt
from tests.integration.found.table import FOUND

LAB = os.environ.get("FOUND_LAB_NAME", "found-test")
AT_ONCE = int(os.environ.get("FOUND_AT_ONCE", "2"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "found" in metafunc.fixturenames:
        rows = [pytest.param(found, id=found.name, marks=[pytest.mark.short] if found.short else []) for found in FOUND]
        metafunc.parametrize("found", rows)


@pytest.fixture(scope="session")
def attempts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """What came of each selected row, in the order of the suites and backends that its hosts need."""
    free: queue.Queue[str] = queue.Queue()
    for number in range(1, AT_ONCE + 1):
        free.put(f"{LAB}-{number}")

    def one(found: Found, directory: Path) -> Outcome:
        name = free.get()
        host = Host("gpu01", name, LAB_BACKEND=found.backend, LAB_SUITE=found.suite)
        try:
            host.fresh()
            return attempt(found, host, directory)
        finally:
            free.put(name)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = [item.callspec.params["found"] for item in request.session.items if "found" in item.fixturenames]
        yield {row.name: pool.submit(one, row, tmp_path_factory.mktemp(row.name)) for row in rows}
        pool.shutdown(cancel_futures=True)
    while not free.empty():
        lab("down", name=free.get())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write_figure(terminalreporter, "test_found", "found hosts")
