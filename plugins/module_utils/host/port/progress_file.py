# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file with the figures of the moment, for those who watch a module that takes long: a module cannot print."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting

RECENT_S = 5.0  # longer than whoever waits for one host takes from one look to the next


def problem_of(path: str | None) -> str | None:
    """What is wrong with `progress_path`, if it is given."""
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        return f"progress_path is {path}, its directory must exist"
    return None


class Waiting:
    """Whether somebody waits, by signs that no clock can move: each is seen once, as soon as it was given."""

    def __init__(self, path: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path, self._monotonic = waiting.sign(path), monotonic
        self._seen = self._now()
        self._at = float("-inf")

    def has_come(self) -> bool:
        now = self._now()
        if now == self._seen:
            return False
        self._seen, self._at = now, self._monotonic()
        return now is not None

    def is_recent(self) -> bool:
        self.has_come()
        return self._monotonic() - self._at <= RECENT_S

    def _now(self) -> int | None:
        try:
            return os.stat(self._path, follow_symlinks=False).st_mtime_ns
        except OSError:
            return None


def remove(path: str) -> None:
    """Take the file away, with the sign of who waited: nobody does any more."""
    for left in (path, waiting.sign(path)):
        with contextlib.suppress(OSError):
            os.unlink(left)


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
