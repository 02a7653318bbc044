"""Every selected fault is tried on a fresh host, a few at a time; a test then waits for its own."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.integration.faults.alone import Alone, is_refused, left_alone
from tests.integration.faults.fault_lab import LAB, Host, lab
from tests.integration.faults.figure import write_figure, write_longest
from tests.integration.faults.outcome import Outcome, attempt
from tests.integration.faults.table import FAULTS, Fault

Ended = TypeVar("Ended")
AT_ONCE = int(os.environ.get("FAULTS_AT_ONCE", "3"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "fault" in metafunc.fixturenames:
        rows = [
            pytest.param(fault, id=fault.name, marks=[pytest.mark.short] if fault.short else []) for fault in FAULTS
        ]
        metafunc.parametrize("fault", rows)
    if "written_fault" in metafunc.fixturenames:
        rows = [pytest.param(fault, id=fault.name) for fault in FAULTS if not is_refused(fault)]
        metafunc.parametrize("written_fault", rows)


@pytest.fixture(scope="session")
def hosts() -> Iterator[queue.Queue[Host]]:
    """Hosts that nobody uses just now; whoever takes one makes it fresh and puts it back.

    Each is a lab of its own: a lab waits until all its hosts are well.
    """
    free: queue.Queue[Host] = queue.Queue()
    for number in range(1, AT_ONCE + 1):
        lab("up", "1", name=f"{LAB}-{number}")
        free.put(Host("gpu01", f"{LAB}-{number}"))
    yield free
    for number in range(1, AT_ONCE + 1):
        lab("down", name=f"{LAB}-{number}")


@pytest.fixture
def host(hosts: queue.Queue[Host]) -> Iterator[Host]:
    host = hosts.get()
    host.reset()
    yield host
    hosts.put(host)


@pytest.fixture(scope="session")
def attempts(hosts: queue.Queue[Host], request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Outcome]]]:
    def one(fault: Fault, host: Host, directory: Path) -> Outcome:
        host.reset()
        return attempt(fault, host, directory)

    yield from _each_of("fault", one, hosts, request)


@pytest.fixture(scope="session")
def alone(hosts: queue.Queue[Host], request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Alone]]]:
    yield from _each_of("written_fault", left_alone, hosts, request)


def _each_of(
    name: str, each: Callable[[Fault, Host, Path], Ended], hosts: queue.Queue[Host], request: pytest.FixtureRequest
) -> Iterator[dict[str, Future[Ended]]]:
    """What comes of each selected row of the parameter `name`, a few of them at a time."""
    directories: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    directories.getbasetemp()  # made here: two threads that ask first get one each

    def one(fault: Fault) -> Ended:
        host = hosts.get()
        try:
            return each(fault, host, directories.mktemp(f"{name}-{fault.name}"))
        finally:
            hosts.put(host)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        selected = [item.callspec.params[name] for item in request.session.items if name in item.fixturenames]
        yield {fault.name: pool.submit(one, fault) for fault in selected}
        pool.shutdown(cancel_futures=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    write_figure(terminalreporter, "test_fault", "faults")
    write_figure(terminalreporter, "test_alone", "faults, with the controller killed at the worst moment,")
    write_longest(terminalreporter, "after_s", "hosts were alone")
    write_longest(terminalreporter, "restore_s", "restores, of each the first try")
