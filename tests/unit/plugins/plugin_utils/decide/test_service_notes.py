"""What is told of a host's services before an apply."""

from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import service_notes


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_stopped_unit_is_told_before_it_is_started(state: str) -> None:
    unit = {"name": "chat.service", "load_state": "loaded", "active_state": state}
    assert service_notes.start_note(unit) == (
        f"chat.service is {state}: an apply starts it, and stops it again if that does not hold"
    )


def test_of_what_runs_or_is_not_there_no_start_is_told() -> None:
    for state in ("active", "activating", "deactivating"):
        assert service_notes.start_note({"name": "chat.service", "load_state": "loaded", "active_state": state}) is None
    missing = {"name": "chat.service", "load_state": "not-found", "active_state": "inactive"}
    assert service_notes.start_note(missing) is None


def test_a_unit_that_is_stopping_has_to_be_waited_for() -> None:
    unit = {"name": "chat.service", "active_state": "deactivating", "sub_state": "stop-sigterm"}
    assert service_notes.stopping_problem(unit) == (
        "chat.service is stopping just now (stop-sigterm); run again when it has stopped"
    )
    assert service_notes.stopping_problem({**unit, "active_state": "active"}) is None


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
    assert service_notes.does_not_come_up(unit, 60) is expected


def test_a_note_names_them_all_or_is_none() -> None:
    those = [{"unit": "a.service", "why": "PartOf=x.service"}, {"unit": "b.service", "why": "PartOf=a.service"}]
    told = service_notes.dependents_note("x.service", those)
    assert told
    assert "restarting x.service also restarts a.service (PartOf=x.service), b.service (PartOf=a.service)" in told
    assert service_notes.dependents_note("x.service", []) is None


def test_the_note_names_three_at_most_and_how_it_is_prevented() -> None:
    note = service_notes.reload_note([f"docker {number}" for number in range(4)])
    assert note.startswith("docker 0, docker 1, docker 2 and more uses the GPU here")
    for words in ("CDI", "native.cgroupdriver=cgroupfs", "/dev/char", "48, 251, 1227"):
        assert words in note
