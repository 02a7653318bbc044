# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd's words for a unit's state, and what is said of each."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_states


@pytest.mark.parametrize(
    ("state", "stopped"),
    [
        ("inactive", True),
        ("failed", True),
        ("active", False),
        ("reloading", False),
        ("activating", False),  # also auto-restart
        ("deactivating", False),
        (None, False),  # kept by a release that did not ask
    ],
)
def test_what_is_stopped(state: str | None, stopped: bool) -> None:
    assert unit_states.is_stopped(state) == stopped
