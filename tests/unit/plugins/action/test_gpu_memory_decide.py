"""What would be done with a host, or every reason why nothing is."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act


def test_a_host_that_is_as_declared_needs_nothing(act: Act) -> None:
    result = act("gpu_memory_decide", declared=builders.declared(), read=builders.read(), deploys=True)
    assert (result["problems"], result["changed"], result["acts"], result["restart"]) == ([], False, False, [])
    assert "failed" not in result


def test_a_host_that_is_not_gets_the_files_and_restarts(act: Act) -> None:
    read = builders.read(**{"backend__env_files__0__values__CHAT_NUM_CTX": "8192"})
    result = act("gpu_memory_decide", declared=builders.declared(), read=read, deploys=True)
    assert result["acts"] and builders.ENV_PATH in [file["path"] for file in result["files"]]
    assert result["restart"] == ["backend"]


def test_one_problem_fails_the_task_before_anything_is_written(act: Act) -> None:
    read = builders.read(
        **{"nvml__status": "driver_too_old", "nvml__message": "driver 470.256 is too old: install 510"}
    )
    result = act("gpu_memory_decide", declared=builders.declared(), read=read, deploys=True)
    assert result["failed"]
    assert result["msg"].startswith("refused before anything was written, 1 problem:\n- ")
    assert "driver 470.256 is too old: install 510" in result["msg"]


def test_all_problems_are_said_at_once(act: Act) -> None:
    read = builders.read(
        **{
            "nvml__status": "driver_too_old",
            "nvml__message": "driver 470.256 is too old: install 510",
            "ollama__unit__load_state": "not-found",
        }
    )
    result = act("gpu_memory_decide", declared=builders.declared(), read=read, deploys=True)
    head, *problems = result["msg"].splitlines()
    assert head == f"refused before anything was written, {len(problems)} problems:" and len(problems) > 1
    assert [f"- {text}" for text in result["problems"]] == problems
