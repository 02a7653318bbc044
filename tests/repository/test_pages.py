"""What the pages say of the code is so: links lead somewhere, and messages are the ones that the code gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.tests.repository.documented import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
MESSAGE = re.compile(r"^\| (`.*?`) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_links_lead_somewhere(page: Path) -> None:
    lost = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    # What is no part of the artifact is there in a clone.
    assert not [link for link in lost if (ROOT / "script").exists() or link.startswith("docs/")]


def test_messages_in_troubleshooting_are_the_code_s() -> None:
    # A message that goes over several lines of code is one text.
    code = "".join(re.sub(r'"\n\s+f?"', "", path.read_text()) for path in sorted((ROOT / "plugins").rglob("*.py")))
    rows = MESSAGE.findall((ROOT / "docs" / "troubleshooting.md").read_text())
    parts = [part for row in rows for part in re.findall(r"`([^`]+)`", row)]
    assert len(parts) > 20
    assert [part for part in parts if part not in code] == []
