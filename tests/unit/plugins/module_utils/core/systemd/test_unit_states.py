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


def test_why_a_unit_would_not_start() -> None:
    loaded = {"name": "x.service", "load_state": "loaded"}
    assert unit_states.start_problems(loaded) == []
    (masked,) = unit_states.start_problems({**loaded, "load_state": "masked"})
    assert masked.endswith("run: systemctl unmask x.service")
    (gone,) = unit_states.start_problems({**loaded, "load_state": "not-found"})
    assert gone.startswith("the unit x.service is not-found on this host")
    user, transient = unit_states.start_problems({**loaded, "missing": {"User": ["joe"]}, "transient": True})
    assert "User=joe, which is not there" in user and "useradd --system joe" in user
    assert "is a transient unit" in transient
    in_the_way = {
        unit_states.CONDITION: ["ConditionPathExists=/a"],
        unit_states.NOT_EXECUTABLE: ["/b"],
        unit_states.INTERPRETER: ["/c"],
        "StandardOutput": ["/d"],
    }
    condition, not_executable, interpreter, output = unit_states.start_problems({**loaded, "missing": in_the_way})
    assert "x.service has ConditionPathExists=/a, which does not hold now, so that it would not start" in condition
    assert "x.service starts /b, which nobody may execute" in not_executable and "chmod a+x /b" in not_executable
    assert "x.service starts /c, whose interpreter" in interpreter
    assert "x.service names StandardOutput=/d, which is not there" in output


@pytest.mark.parametrize(("state", "in_trouble"), [("failed", True), ("activating", True), ("inactive", False)])
def test_what_is_in_trouble(state: str, in_trouble: bool) -> None:
    assert unit_states.is_in_trouble(state) is in_trouble


@pytest.mark.parametrize(
    ("verb", "facts", "came"),
    [
        ("restart", {"ActiveState": "activating", "SubState": "start-pre", "InvocationID": "b"}, "done"),
        ("restart", {"ActiveState": "active", "InvocationID": "b"}, "done"),
        ("restart", {"ActiveState": "active", "InvocationID": "a"}, "nothing"),
        ("restart", {"ActiveState": "inactive", "InvocationID": "a"}, "nothing"),
        ("restart", {"ActiveState": "inactive", "InvocationID": "b"}, "failed"),
        ("start", {"ActiveState": "failed", "InvocationID": "b"}, "failed"),
        ("start", {"ActiveState": "activating", "SubState": "auto-restart", "InvocationID": "b"}, "failed"),
        ("start", {"ActiveState": "activating", "SubState": "start", "NRestarts": "2", "InvocationID": "b"}, "failed"),
        ("start", {"ActiveState": "active", "Job": "9", "InvocationID": "b"}, "nothing"),
        ("stop", {"ActiveState": "failed"}, "done"),
        ("stop", {"ActiveState": "active"}, "nothing"),
        ("stop", {"ActiveState": "deactivating"}, "nothing"),
    ],
)
def test_what_has_come_of_a_command_is_told_by_the_unit(verb: str, facts: dict[str, str], came: str) -> None:
    assert unit_states.came_of(verb, "a", {"LoadState": "loaded", **facts}) == came
    assert unit_states.came_of(verb, "a", {}) == "nothing"
