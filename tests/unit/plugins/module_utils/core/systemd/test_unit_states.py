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


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_stopped_unit_is_told_before_it_is_started(state: str) -> None:
    unit = {"name": "chat.service", "load_state": "loaded", "active_state": state}
    assert unit_states.start_note(unit) == (
        f"chat.service is {state}: an apply starts it, and stops it again if that does not hold"
    )


def test_of_what_runs_or_is_not_there_no_start_is_told() -> None:
    for state in ("active", "activating", "deactivating"):
        assert unit_states.start_note({"name": "chat.service", "load_state": "loaded", "active_state": state}) is None
    missing = {"name": "chat.service", "load_state": "not-found", "active_state": "inactive"}
    assert unit_states.start_note(missing) is None


def test_a_unit_that_is_stopping_has_to_be_waited_for() -> None:
    unit = {"name": "chat.service", "active_state": "deactivating", "sub_state": "stop-sigterm"}
    assert unit_states.stopping_problem(unit) == (
        "chat.service is stopping just now (stop-sigterm); run again when it has stopped"
    )
    assert unit_states.stopping_problem({**unit, "active_state": "active"}) is None


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ({"active_state": "failed"}, True),
        ({"active_state": "activating", "sub_state": "auto-restart"}, True),
        ({"active_state": "activating", "sub_state": "start-pre", "restarts": 2}, True),
        ({"active_state": "active", "restarts": 2, "active_s": 3.0}, True),
        ({"active_state": "active", "restarts": 2, "active_s": 3600.0}, False),
        ({"active_state": "active", "restarts": 0, "active_s": 3.0}, False),
    ],
    ids=str,
)
def test_what_has_been_up_for_longer_than_a_start_takes_has_come_up(unit: dict[str, object], expected: bool) -> None:
    assert unit_states.does_not_come_up(unit, 60) is expected
