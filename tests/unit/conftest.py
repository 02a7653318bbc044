"""Properties are tried with the same values each time, and may take their time: a busy machine is no failure."""

from __future__ import annotations

import hypothesis
import pytest

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_cover: pytest-cov, where it is there, does not measure this test")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of random values none count as covered, which is for examples that say what must come of them; it is costly, too.

    Tests that try very many cases otherwise have the mark `no_cover` themselves.
    """
    for item in items:
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker(pytest.mark.no_cover)
