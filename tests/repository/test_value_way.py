"""The architecture page lists the files that one value goes through: they are there, as many as it says, and few."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
MOST = 22
# What the page leaves out before a path.
BELOW = ("", "roles/gpu_memory/tasks", "plugins", "plugins/plugin_utils", "plugins/module_utils")


def test_the_files_are_there_and_as_many_as_the_page_says() -> None:
    way = PAGE.read_text().partition("The files that `OLLAMA_NUM_PARALLEL` of `stable` goes through")[2]
    listed = re.search(r"^1\. (.|\n)*?\n\n", way, re.MULTILINE)
    assert listed
    names = [name for name in re.findall(r"`([^`]+\.(?:yml|py))`", listed[0]) if not (ROOT / name).is_symlink()]
    assert [name for name in names if not any((ROOT / below / name).is_file() for below in BELOW)] == []
    (said,) = re.findall(r"are (\d+)\.", way.partition("\n1. ")[0])
    assert len(names) == len(set(names)) == int(said) <= MOST
