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


def test_a_host_that_must_not_be_touched_has_every_reason_and_nothing_to_do(act: Act) -> None:
    """The task does not fail: the end of the role does, once, with all of them."""
    read = builders.read(
        **{
            "nvml__status": "driver_too_old",
            "nvml__message": "driver 470.256 is too old: install 510",
            "ollama__unit__load_state": "not-found",
        }
    )
    result = act("gpu_memory_decide", declared=builders.declared(), read=read, deploys=True)
    assert (result["acts"], result["load_needed"], "failed" in result) == (False, False, False)
    assert any("driver 470.256 is too old: install 510" in text for text in result["problems"])
    assert len(result["problems"]) > 1
