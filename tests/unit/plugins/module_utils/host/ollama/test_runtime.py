"""An Ollama that is no unit is restarted, waited for and told as a unit is."""

from __future__ import annotations

from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import service_control
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import HEALTH_URL, OLLAMA_URL
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_container import ContainerHost

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
