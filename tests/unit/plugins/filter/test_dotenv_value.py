# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filter writes behind an equals sign."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.selo.gpu_memory.plugins.filter.dotenv_value import FilterModule

dotenv_value = FilterModule().filters()["dotenv_value"]


@pytest.mark.parametrize(
    ("value", "readers", "written"),
    [("4096", None, "4096"), (40, ["docker"], "40"), ("hello, #1", ["bash", "python-dotenv"], "'hello, #1'")],
)
def test_each_reader_sees_the_value(value: Any, readers: list[str] | None, written: str) -> None:
    assert dotenv_value(value, readers) == written


@pytest.mark.parametrize("value", [True, "two\nlines", None])
def test_what_no_form_carries_is_an_error(value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="dotenv_value: "):
        dotenv_value(value)
