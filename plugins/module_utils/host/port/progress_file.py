# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file with the figures of the moment, for those who watch a module that takes long: a module cannot print."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping


def problem_of(path: str | None) -> str | None:
    """What is wrong with `progress_path`, if it is given."""
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        return f"progress_path is {path}, its directory must exist"
    return None


def write(path: str, figures: Mapping[str, object]) -> None:
    """Replace the file. A full disk must not end what is being watched."""
    with contextlib.suppress(OSError):
        handle, new = tempfile.mkstemp(prefix=".progress-", dir=os.path.dirname(path) or ".")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(figures, file)
            os.replace(new, path)
        except OSError:
            os.unlink(new)
