"""No value and no file ends otherwise than exact or refused. More of both with FUZZ_VALUES, FUZZ_FILES, FUZZ_SEED."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import fuzz

pytestmark = pytest.mark.no_cover
VALUES = int(os.environ.get("FUZZ_VALUES", "500"))
FILES = int(os.environ.get("FUZZ_FILES", "100"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


def check(what: str, number: int, counts: Counter[str], wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        if number >= 1000:  # what is shown at the end of script/test-long
            print(f"\nfigure: {number} {what}: {dict(counts)}, {len(wrong)} wrong")
    assert wrong == []
    assert counts["other"] == 0
    assert counts["exact"] + counts["refused by key"] == number
    assert min(counts["exact"], counts["refused by key"]) > number / 20, "one-sided, so it shows little"


def test_values(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check("values", VALUES, *fuzz.values(VALUES, SEED, Path(directory)), capsys)


def test_values_of_a_drop_in(capsys: pytest.CaptureFixture[str]) -> None:
    check("values of a drop-in", VALUES, *fuzz.drop_ins(VALUES, SEED), capsys)


def test_files(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        check("files", FILES, *fuzz.files(FILES, SEED, Path(directory)), capsys)
