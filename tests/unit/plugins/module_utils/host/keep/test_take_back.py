"""What an env file goes back to: ours as it was, everybody else's as it is now."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import take_back

KEYS, READERS = ["K", "NEW"], ["python-dotenv", "bash"]


def state(content: bytes | None) -> tuple[dict[str, Any], bytes]:
    if content is None:
        return {"path": "/x/.env", "kind": "absent", "parent_absent": False}, b""
    return {"path": "/x/.env", "kind": "file", "sha256": str(hash(content)), "mtime_ns": 1}, content


CASES: dict[str, tuple[bytes | None, bytes | None, bytes | None]] = {
    # now, kept, goal
    "only ours was changed": (b"A=1\nK='40'\nNEW=1\n", b"A=1\nK='9'\n", b"A=1\nK='9'\n"),
    "somebody has written since": (b"A=2\nK=40\nB=3\nNEW=1\n", b"A=1\nK=9\n", b"A=2\nK=9\nB=3\n"),
    "nothing was changed": (b"A=1\nK=9\n", b"A=1\nK=9\n", b"A=1\nK=9\n"),
    "a line that only bash understands": (
        b"source x.env\nK=40\nB=3\nNEW=1\n",
        b"A=1\nK=9\n",
        b"source x.env\nK=9\nB=3\n",
    ),
    "a line that bash does not": (b"MSG=it's\nK=40\nB=3\n", b"K=9\n", b"MSG=it's\nK=9\nB=3\n"),
    "a command in a file that was made by us": (b"A=`hostname`\nK=40\nB=3\n", None, b"A=`hostname`\nB=3\n"),
    "the file was made by us": (b"K=40\nNEW=1\n", None, None),
    "the file was made by us, and somebody uses it": (b"K=40\nB=3\n", None, b"B=3\n"),
}


@pytest.mark.parametrize(("now", "kept", "goal"), CASES.values(), ids=CASES)
def test_our_keys_go_back_and_the_others_stay(now: bytes | None, kept: bytes | None, goal: bytes | None) -> None:
    found, content = take_back.goal(state(now), state(kept), KEYS, READERS)
    assert (found["kind"], content) == (("absent", b"") if goal is None else ("file", goal))
    if goal == kept and kept is not None:
        assert found["mtime_ns"] == 1  # the very file, time included


def test_the_keys_of_a_file_are_those_of_every_run() -> None:
    env = {"keys": ["K"], "readers": READERS}
    more = {"keys": ["K", "NEW"], "readers": ["docker"]}
    found = take_back.keys_of([{"env": {"/x/.env": env}}, {}, {"env": {"/x/.env": more, "/y/.env": more}}])
    assert found["/x/.env"]["keys"] == ["K", "NEW"]
    assert found["/y/.env"] == more
