"""Properties are tried with the same values each time, and may take their time: a busy machine is no failure."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "no_cover: pytest-cov, where it is there, does not measure this test")


UNIT = Path(__file__).parent / "plugins"
# The tests of the pure logic, by whose examples it is covered.
OF_PURE_LOGIC = (UNIT / "module_utils" / "core", UNIT / "plugin_utils")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What counts as covered is what examples of the pure logic's own tests cover, that say what must come of them.

    Random values do not count, nor what others call by the way: to measure it takes as long as to run it. Tests that
    try very many cases otherwise have the mark `no_cover` themselves.
    """
    for item in items:
        is_random = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if is_random or not any(place in item.path.parents for place in OF_PURE_LOGIC):
            item.add_marker(pytest.mark.no_cover)
