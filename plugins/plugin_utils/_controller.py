# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action plugins of this collection share on the controller."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.utils.vars import load_extra_vars


def set_in_inventory(names: tuple[str, ...], task_vars: Mapping[str, Any], loader: Any) -> list[str]:
    """Those of the names that some variable file sets. Play keywords cannot see them there; only `-e` reaches both."""
    extra = load_extra_vars(loader)
    return [name for name in names if name in task_vars and name not in extra]


def given_on_the_command_line(name: str, loader: Any) -> bool:
    return name in load_extra_vars(loader)


def absolute(declared: str) -> Path:
    """Relative to where the user stands."""
    return Path(os.path.expanduser(declared)).absolute()


def report_directory(declared: str) -> Path:
    return absolute(declared)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_text(path: Path, content: str) -> None:
    """Replace a report as a whole, so that nobody reads half of one. Readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
