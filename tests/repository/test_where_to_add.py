"""The architecture page says which files a thing of each kind is added in: they are there, and few."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
# The most files of the product that one may need.
MOST = {
    "a setting of a release": 1,
    "a setting of its llama-server": 1,
    "a preset of a backend": 1,
    "an architecture": 2,
    "a verdict rule": 1,
    "a lint rule": 2,
    "a second GPU library": 6,
    "a container runtime": 6,
    "a module": 3,
    "a fault row": 0,
    "a found row": 0,
}


def rows() -> dict[str, tuple[str, str]]:
    section = PAGE.read_text().partition("## To add X, edit Y\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {what: (edit, beside) for what, edit, beside in cells[2:]}


def paths(text: str) -> list[str]:
    return [word for word in re.findall(r"`([^`]+)`", text) if "/" in word]


def test_the_page_has_every_kind() -> None:
    assert set(rows()) == set(MOST)


@pytest.mark.parametrize("what", MOST)
def test_what_is_named_is_there_and_little(what: str) -> None:
    edit, beside = rows()[what]
    named = paths(edit)
    assert [path for path in [*named, *paths(beside)] if not (ROOT / path).exists()] == []
    assert named
    assert sum(not path.startswith(("tests/", "docs/")) for path in named) <= MOST[what]
