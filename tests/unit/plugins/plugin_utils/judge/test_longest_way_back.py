# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By the product's own defaults, a host whose controller has died is back within five minutes, as the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding, restore_timer
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import wave_gate
from ansible_collections.selo.gpu_memory.tests.unit.builders import declared

PAGE = (Path(__file__).parents[5] / "docs" / "rollback.md").read_text()
ACCURACY_S = 1  # of the timer, as its unit says
RESTART_S = 20  # of both services, that start as ever


@pytest.mark.parametrize(("hosts", "told"), [(1, "after at most {} s ("), (2, "({} in a wave of several)")])
def test_the_longest_way_back_is_within_five_minutes(hosts: int, told: str) -> None:
    lease_s = wave_gate.restore_after_s([declared(backend="guide")] * hosts, is_alone=hosts == 1)
    between_steps = lease_s
    in_a_restart = max(lease_s, lease_holding.ALONE_S)
    under_load = progress_file.RECENT_S + lease_s
    longest = max(between_steps, in_a_restart, under_load) + restore_timer.EVERY_S + ACCURACY_S
    assert f"AccuracySec={ACCURACY_S}s" in restore_timer.TIMER_TEXT
    assert longest + RESTART_S <= 300
    assert told.format(round(longest)) in PAGE
