# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which host tool this collection would put on a host."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import tool_parts

MODULE_UTILS = Path(tool_parts.__file__).parents[1]


def digest() -> str:
    return tool_parts.digest(tool_parts.files(_source))


def _source(name: str) -> str:
    return (MODULE_UTILS / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
