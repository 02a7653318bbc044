"""Check mode said what the real run then did: the same tasks changed, with the same text before and after."""

from __future__ import annotations

from typing import Any

from tests.integration.scenarios import lab_host


def changes(run: dict[str, Any]) -> list[Any]:
    return [(change["host"], change["task"], texts(change["diff"])) for change in run["changes"]]


def texts(diff: Any) -> list[Any]:
    """Before and after of each part of a diff; headers may name a temporary file."""
    parts = diff if isinstance(diff, list) else [diff or {}]
    return [(part.get("before"), part.get("after"), part.get("prepared")) for part in parts]


def test_check_mode_foretold_the_real_run() -> None:
    check, real = (run for run in lab_host.runs() if run["playbook"] == "apply-stable.yml")
    assert (check["check"], real["check"]) == (True, False)
    assert real["changes"]
    assert changes(check) == changes(real)
