# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host tool is made of, and the digest that tells one from another."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import tool_parts


def test_every_part_has_its_packages() -> None:
    files = tool_parts.files(lambda name: f"# {name}")
    assert files[f"{tool_parts.PACKAGE.replace('.', '/')}/core/text/utc.py"] == "# core.text.utc"
    assert "ansible_collections/__init__.py" in files and "__main__.py" in files
    assert all(f"{path.rpartition('/')[0]}/__init__.py" in files for path in files if "/" in path)


@pytest.mark.parametrize("other", [{"a": "1", "b": "3"}, {"a": "1"}, {"a": "1", "c": "2"}, {"a": "1b", "": "2"}])
def test_another_content_is_another_digest(other: dict[str, str]) -> None:
    assert tool_parts.digest({"b": "2", "a": "1"}) == tool_parts.digest({"a": "1", "b": "2"})
    assert tool_parts.digest(other) != tool_parts.digest({"a": "1", "b": "2"})
