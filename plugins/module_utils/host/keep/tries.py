# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a restore was tried whose files are back and whose services are not, and when it is again.

It lies in /run: a start of the host begins anew, and a full disk does not make the pauses short. The monitor, which may
not read what is kept, sees it there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import (
    Paths,
    StateError,
    read_json,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import Clock, SystemClock

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Tries

LONGEST_PAUSE_S = 600


def of(paths: Paths) -> Tries:
    with contextlib.suppress(StateError, OSError, KeyError):
        found = read_json(paths.tries)
        if found:
            # An older release has noted one of each service.
            old = {name: one if isinstance(one, list) else [one] for name, one in found["old"].items()}
            return {"count": found["count"], "again_s": found["again_s"], "old": old}
    return {"count": 0, "again_s": 0.0, "old": {}}


def wait(paths: Paths | None = None, clock: Clock | None = None) -> bool:
    """Whether nothing is due yet."""
    return left_s(of(paths or Paths()), clock or SystemClock()) > 0


def left_s(tries: Tries, clock: Clock) -> float:
    left = tries["again_s"] - clock.boot_time().seconds
    return left if 0 < left <= LONGEST_PAUSE_S else 0.0  # of another boot, where /run has outlived it
