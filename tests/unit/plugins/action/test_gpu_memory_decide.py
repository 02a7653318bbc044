"""What would be done with a host, or every reason why nothing is."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import host_tool
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


GENERATION = {"id": "0001", "at": 1.0, "kind": "kept", "holder": "alice", "run_id": "run1", "paths": []}


@pytest.mark.parametrize(
    ("state", "renews"),
    [
        ({"generations": [GENERATION], "tool": host_tool.digest()}, False),
        ({"generations": [GENERATION], "tool": "of another release"}, True),
        ({"generations": [GENERATION], "tool": None}, True),
        ({"generations": [GENERATION]}, True),
        ({"generations": [], "tool": None}, False),
    ],
    ids=["ours", "another", "gone", "not told", "nothing is kept"],
)
def test_a_host_tool_of_another_release_is_renewed_where_anything_may_be_written(
    act: Act, state: dict[str, Any], renews: bool
) -> None:
    given = {"declared": builders.declared(), "read": builders.read()}
    given["read"]["state"].update(state)
    result = act("gpu_memory_decide", deploys=True, **given)
    assert (result["renews_tool"], result["acts"], result["restart"]) == (renews, False, [])
    assert "renews_tool" not in act("gpu_memory_decide", deploys=False, **given)
    given["declared"]["problems"].append("it is wrong")
    assert not act("gpu_memory_decide", deploys=True, **given)["renews_tool"]
