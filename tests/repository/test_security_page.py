"""SECURITY.md names a test in each line of its table of attackers, and what it says of packages holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def test_each_attacker_has_a_test() -> None:
    rows = re.findall(r"^\| .+", PAGE.partition("## What an attacker could try")[2].partition("\n## ")[0], re.MULTILINE)
    assert len(rows) > 8
    for row in rows[2:]:
        tests = re.findall(r"`(tests/[^`]+\.py)`", row)
        assert tests, row
        assert all((ROOT / test).is_file() for test in tests), row


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_package_is_pinned_with_its_hashes(name: str) -> None:
    packages = re.split(r"^(?=[A-Za-z])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    assert packages
    assert [one for one in packages if not re.match(r"\S+==\S+ .*--hash=sha256:[0-9a-f]{64}", one, re.DOTALL)] == []
