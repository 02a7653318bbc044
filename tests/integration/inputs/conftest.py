"""One lab host for all tests of this directory; a test that changes it gets a fresh one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.inputs.real_lab import Host, lab


@pytest.fixture(scope="session")
def the_lab() -> Iterator[None]:
    lab("up", "1")
    yield
    lab("down")


@pytest.fixture
def host(the_lab: None) -> Host:
    """A fresh host with the guide's settings that crash."""
    lab("reset", "gpu01")
    return Host()
