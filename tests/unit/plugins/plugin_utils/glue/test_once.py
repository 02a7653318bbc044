"""Who shows what is of all hosts, where Ansible runs the task on each of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import once


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))


def task(play: str = "a", path: str = "report.yml:2", **arguments: Any) -> Any:
    return SimpleNamespace(get_play=lambda: SimpleNamespace(_uuid=play), get_path=lambda: path, args=arguments)


def ask(host: str, batch: list[str], of: Any = None) -> bool:
    return once.is_first(of or task(), {"inventory_hostname": host, "ansible_play_batch": batch})


def test_the_first_of_a_batch_shows_all() -> None:
    assert [ask(host, ["gpu01", "gpu02", "gpu03"]) for host in ("gpu02", "gpu01", "gpu03")] == [True, False, False]


def test_a_first_host_that_fails_afterwards_leaves_the_rest_silent() -> None:
    assert [ask("gpu01", ["gpu01", "gpu02"]), ask("gpu02", ["gpu02"])] == [True, False]


def test_each_batch_has_its_first() -> None:
    assert [ask("gpu01", ["gpu01"]), ask("gpu02", ["gpu02", "gpu03"]), ask("gpu03", ["gpu03"])] == [True, True, False]


@pytest.mark.parametrize("other", [task(play="b"), task(path="report.yml:9"), task(of="recorded")])
def test_each_play_and_task_has_its_first(other: Any) -> None:
    assert ask("gpu01", ["gpu01"]) and ask("gpu01", ["gpu01"], other)
