"""The architecture page lists the files that one value goes through: they are there, each by another, and few."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
MOST = 26
# What the page leaves out before a path.
BELOW = ("", "roles/gpu_memory/tasks", "plugins", "plugins/plugin_utils", "plugins/module_utils")


# What Ansible takes by its place.
LOADED_WITH_THE_ROLE = {"roles/gpu_memory/defaults/main.yml", "roles/gpu_memory/vars/main.yml", "main.yml"}


def way() -> str:
    return PAGE.read_text().partition("The files that `OLLAMA_NUM_PARALLEL` of `stable` goes through")[2]


def listed() -> dict[str, Path]:
    lists = re.search(r"^1\. (.|\n)*?\n\n", way(), re.MULTILINE)
    assert lists
    names = re.findall(r"`([^`]+\.(?:yml|py))`", lists[0])
    assert len(names) == len(set(names))
    files = {}
    for name in names:
        there = [ROOT / below / name for below in BELOW if (ROOT / below / name).is_file()]
        assert len(there) == 1, name
        if not there[0].is_symlink() and name != "meta/runtime.yml":
            files[name] = there[0]
    return files


def test_the_files_are_as_many_as_the_page_says() -> None:
    (said,) = re.findall(r"are (\d+)\.", way().partition("\n1. ")[0])
    assert len(listed()) == int(said) <= MOST


def test_each_is_named_by_one_of_them() -> None:
    """Also those that a module is sent through by `meta/runtime.yml`."""
    files = listed()
    texts = {name: path.read_text() for name, path in files.items()}
    texts["meta/runtime.yml"] = (ROOT / "meta" / "runtime.yml").read_text()
    first = next(iter(files))
    for name, path in files.items():
        by = [other for other, text in texts.items() if other != name and re.search(rf"\b{path.stem}\b", text)]
        assert by or name == first or name in LOADED_WITH_THE_ROLE, name
