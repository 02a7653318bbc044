"""An Ollama that is no unit is restarted, waited for and told as a unit is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import service_control
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import LinuxHost
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import HEALTH_URL, OLLAMA_URL
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_container import ContainerHost
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_docker import UNIT, Docker

NAME = "the container ollama"


def plan(**found: Any) -> dict[str, Any]:
    backend = {"kind": "unit", "unit": "backend.service", "health": {"url": HEALTH_URL, "status": 200}, "timeout_s": 9}
    ollama = {"container": "ollama", "url": OLLAMA_URL, "timeout_s": 9}
    return {"ollama": ollama, "backend": backend, "restart": ["ollama", "backend"], **found}


def test_the_order_is_that_of_units() -> None:
    host = ContainerHost()
    before = host.container.pid()
    result = service_control.restart(plan(), host)
    assert host.log == ["stop backend.service", f"stop {NAME}", f"start {NAME}", "start backend.service"]
    assert result["error"] is None
    ollama = result["services"]["ollama"]
    assert (ollama["unit"], ollama["state"], ollama["active_enter_timestamp"]) == (NAME, "restarted", "start 2")
    assert (ollama["pid_before"], ollama["pid_after"]) == (before, before + 1)


def test_what_it_says_is_the_reason_where_it_ends() -> None:
    host = ContainerHost()
    host.container.ends, host.container.lines = True, ["cudaMalloc failed: out of memory"]
    error = service_control.restart(plan(), host)["error"]
    assert error == (f"{NAME}: it started, but has ended. {NAME} is failed; it said: cudaMalloc failed: out of memory")
    assert "backend.service" in host.active, "it is not left stopped"


def test_another_one_that_answers_is_no_ready_one() -> None:
    host = ContainerHost()
    host.container.stranger = "another container answers"
    error = service_control.restart(plan(), host)["error"]
    assert "did not answer within 9 s: another container answers" in error


def test_one_that_would_not_start_again_is_not_stopped() -> None:
    host = ContainerHost()
    host.container.problems = ["its image is gone"]
    assert service_control.obstacles(plan(), host) == ["its image is gone"]
    assert "It was not restarted" in service_control.restart(plan(), host)["error"]
    assert host.container.runs() and f"stop {NAME}" not in host.log


def test_it_is_left_as_it_was_found() -> None:
    host = ContainerHost()
    host.container.stop()
    found = service_control.states(plan(), host)
    assert found["ollama"] == {"active_state": "inactive", "unit_file_state": "enabled", "dependents": []}
    host.container.start()
    assert service_control.started_since(plan(found=found), host) == ["ollama"]
    result = service_control.restart(plan(found=found), host)
    assert (result["error"], result["services"]["ollama"]["state"]) == (None, "stopped")
    assert not host.container.runs()


def in_compose(recorded: Docker, monkeypatch: pytest.MonkeyPatch) -> unit_runtime.UnitRuntime:
    monkeypatch.setattr(commands, "run", recorded.run)
    found = LinuxHost(secrets.Masking(shows_secrets=True)).runtime("ollama", {"unit": UNIT})
    assert isinstance(found, unit_runtime.ComposeRuntime)
    return found


def test_a_service_of_compose_is_restarted_by_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Docker(tmp_path)
    runtime = in_compose(recorded, monkeypatch)
    assert runtime.start_problems() == [] and runtime.read_again() == []
    runtime.restart()
    assert recorded.asked[-1][-2:] == ["--force-recreate", "ollama"]
    runtime.stop()
    assert recorded.asked[-1][-2:] == ["stop", "ollama"]
    assert not any(words[0] == "systemctl" for words in recorded.asked)


def test_why_a_service_of_compose_would_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Docker(tmp_path)
    runtime = in_compose(recorded, monkeypatch)
    recorded.containers = []
    assert "has no container on this host" in runtime.start_problems()[0]
    recorded.fails = {"ps": "Cannot connect"}
    assert "Docker does not answer" in runtime.start_problems()[0]
    with pytest.raises(ServiceError, match="Cannot connect"):
        runtime.restart()


def test_what_compose_would_not_give_the_container_is_said_before_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = Docker(tmp_path)
    runtime = in_compose(recorded, monkeypatch)
    recorded.own.write_text(unit_text.render_dropin({"OLLAMA_KEEP_ALIVE": "5m"}, section=unit_text.NO_SECTION))
    assert "OLLAMA_KEEP_ALIVE is not in force: the Compose file" in runtime.read_again()[0]
    recorded.env_files = []
    assert f"no env_file of {UNIT} is {recorded.own} any more" in runtime.read_again()[0]
