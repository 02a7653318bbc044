"""The module: what restarts, in check mode and for real, and what is said where a service does not come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_restart
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import SERVICES, Managed
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run

Module = Callable[..., dict[str, Any]]
BOTH = ["stop backend.service", "restart ollama.service", "start backend.service"]


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Managed:
    host = Managed(tmp_path)
    monkeypatch.setattr(gpu_memory_restart, "LinuxHost", lambda _show_secrets: host.host)
    monkeypatch.setattr(gpu_memory_restart.lease_holding, "Paths", lambda: host.paths)
    return host


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Module:
    run = Run(capsys)
    return lambda **options: run(gpu_memory_restart, **{**SERVICES, **options})


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(
    ("options", "log"),
    [
        ({}, BOTH),
        ({"restart": ["ollama"]}, BOTH[1:2]),
        ({"restart": ["backend"]}, [BOTH[0], BOTH[2]]),
        ({"restart": []}, []),
        ({"restart": ["backend"], "backend": {"kind": "none"}}, []),
    ],
    ids=["both", "ollama", "backend", "none", "a backend that is not there"],
)
def test_what_is_named_restarts_in_order_each_time(
    managed: Managed, module: Module, options: dict[str, Any], log: list[str], check_mode: bool
) -> None:
    for _unused in range(2):  # a restart is asked for, not a state
        managed.host.log.clear()
        answer = module(check_mode=check_mode, **options)
        assert answer["changed"] == bool(log)
        assert managed.host.log == ([] if check_mode else log)
    if check_mode or not log:
        assert (answer["services"], answer["downtime_s"]) == ({}, 0.0)
    else:
        asked = options.get("restart", ["ollama", "backend"])
        assert sorted(answer["services"]) == sorted(asked)
        assert all(one["pid_after"] not in (None, one["pid_before"]) for one in answer["services"].values())
        assert answer["downtime_s"] > 0


def test_a_service_that_ends_again_fails_the_task_with_its_own_words(managed: Managed, module: Module) -> None:
    managed.host.broken = {"ollama.service"}
    managed.host.lines = ["Error: could not create directory /models: permission denied"]
    answer = module()
    assert answer["failed"] and answer["changed"]
    assert "ollama.service: it started, but has ended" in answer["msg"] and "permission denied" in answer["msg"]
    assert managed.host.log[-1] == "start backend.service"
    assert answer["services"]["backend"]["unit"] == "backend.service"


def test_a_slow_start_keeps_the_lease_of_its_run(managed: Managed, module: Module) -> None:
    managed.keep()
    managed.host.answers = {"http://127.0.0.1:11434/api/version": None}
    before = managed.host.now
    answer = module(run_id="run1")
    assert "did not answer 200 within 60 s" in answer["msg"]
    assert managed.host.now - before == 60
    assert managed.store.stored.summary()["lease"]["left_s"] == 180  # of 240, from its start


def test_a_run_whose_host_was_released_meanwhile_stops(managed: Managed, module: Module) -> None:
    managed.keep()
    managed.write()
    managed.store.drop()
    managed.host.log.clear()
    answer = module(run_id="run1")
    assert answer["failed"] and "run run1 does not hold this host: nobody does" in answer["msg"]
    assert managed.host.log == []


def test_a_run_whose_host_was_put_back_meanwhile_stops(managed: Managed, module: Module) -> None:
    managed.keep()
    managed.write()
    managed.host.now += 300
    managed.store.restore_if_expired()
    managed.host.log.clear()
    answer = module(run_id="run1")
    assert answer["failed"] and "this host was put back to generation 0001" in answer["msg"]
    assert managed.host.log == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"restart": ["nginx"]}, "value of restart must be one or more of: ollama, backend"),
        ({"backend": {"kind": "unit"}}, "kind is unit but all of the following are missing: unit"),
        (
            {"backend": {"kind": "command", "directory": "/srv", "command": "'", "process_match": "a"}},
            'backend.command = "\'": No closing quotation',
        ),
        (
            {"backend": {"kind": "command", "directory": "/srv", "command": " ", "process_match": "a"}},
            "backend.command is empty; it must be a program with its arguments",
        ),
    ],
)
def test_bad_input_gets_one_message_and_restarts_nothing(
    managed: Managed, module: Module, options: dict[str, Any], words: str
) -> None:
    for check_mode in (True, False):
        answer = module(check_mode=check_mode, **options)
        assert answer["failed"] and words in answer["msg"]
    assert managed.host.log == []
