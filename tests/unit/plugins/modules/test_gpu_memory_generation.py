"""The module: each action once and again, in check mode and for real, on real files and a fake systemd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool, own_files
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_generation
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import host_tool as glue_host_tool
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import (
    OLD_ENV,
    SERVICES,
    Managed,
)
from ansible_collections.selo.gpu_memory.tests.unit.plugins.modules.run_module import Run, snapshot

Module = Callable[..., dict[str, Any]]


@pytest.fixture
def managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Managed:
    host = Managed(tmp_path)
    monkeypatch.setattr(gpu_memory_generation, "Generations", lambda **_unused: host.store)
    return host


@pytest.fixture
def module(capsys: pytest.CaptureFixture[str]) -> Module:
    run = Run(capsys)
    return lambda **options: run(gpu_memory_generation, **options)


def keep(managed: Managed, *files: dict[str, Any], run_id: str = "run1") -> dict[str, Any]:
    return {
        "action": "keep",
        "run_id": run_id,
        "holder": "alice applies stable",
        "files": list(files or managed.files()),
        "services": SERVICES,
    }


def fresh(managed: Managed) -> None:
    pass


def with_env_kept(managed: Managed) -> None:
    managed.keep(files=managed.files()[1:])


def applied(managed: Managed) -> None:
    managed.keep()
    managed.write()


def proven(managed: Managed) -> None:
    applied(managed)
    managed.store.prove("run1", {"verdict": "pass"})


# What was before, the task, and what is so afterwards.
CASES: dict[str, tuple[Callable[[Managed], None], Callable[[Managed], dict[str, Any]], Callable[[Managed], bool]]] = {
    "create: keep": (
        fresh,
        keep,
        lambda managed: (
            managed.armed() and managed.is_old() and len(managed.store.stored.summary()["generations"]) == 1
        ),
    ),
    "modify: keep one more file": (
        with_env_kept,
        keep,
        lambda managed: (
            managed.store.stored.summary()["generations"][0]["paths"] == [str(managed.env), str(managed.drop_in)]
        ),
    ),
    "modify: renew the tool of another release": (
        proven,
        lambda _unused: {"action": "renew_tool"},
        lambda managed: (
            Path(managed.paths.tool).read_bytes() == host_tool.compiled_archive(own_files.tool(managed.paths))
            and managed.store.stored.summary()["tool"] == glue_host_tool.digest()
            and not managed.is_old()
        ),
    ),
    "delete: restore what a run has written": (
        applied,
        lambda _unused: {"action": "restore", "run_id": "run1"},
        lambda managed: managed.is_old() and not managed.armed() and len(managed.restarts()) == 3,
    ),
    "delete: restore the previous": (
        proven,
        lambda _unused: {"action": "restore", "reason": "the load test failed"},
        lambda managed: (
            managed.is_old() and managed.store.stored.summary()["last_restore"]["reason"] == "the load test failed"
        ),
    ),
    "delete: remove": (
        proven,
        lambda _unused: {"action": "remove"},
        lambda managed: managed.is_old() and not Path(managed.paths.root).exists(),
    ),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("before", "options", "is_done"), CASES.values(), ids=CASES)
def test_twelve_cases(
    managed: Managed,
    module: Module,
    tmp_path: Path,
    before: Callable[[Managed], None],
    options: Callable[[Managed], dict[str, Any]],
    is_done: Callable[[Managed], bool],
    check_mode: bool,
) -> None:
    before(managed)
    task = options(managed)
    untouched, asked = snapshot(tmp_path), list(managed.host.log)
    if check_mode:
        foretold = [module(check_mode=True, **task) for _unused in range(2)]
        assert (snapshot(tmp_path), managed.host.log) == (untouched, asked)
        assert [one["changed"] for one in foretold] == [True, True]
    done = module(**task)
    assert done["changed"] and is_done(managed)
    if check_mode:
        assert [one.get("diff") for one in foretold] == [done.get("diff")] * 2
    after, asked = snapshot(tmp_path), list(managed.host.log)
    again = module(check_mode=check_mode, **task)
    assert not again["changed"] and is_done(managed)
    assert [line for line in managed.host.log[len(asked) :] if "ollama" in line or "backend" in line] == []
    if check_mode:
        assert snapshot(tmp_path) == after


@pytest.mark.parametrize("action", ["prove", "release"])
@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_the_end_of_a_run_lets_go_of_the_host_once(
    managed: Managed, module: Module, tmp_path: Path, action: str, check_mode: bool
) -> None:
    applied(managed)
    untouched = snapshot(tmp_path)
    task = {"action": action, "run_id": "run1", "proof": {"verdict": "pass"}}
    assert module(check_mode=check_mode, **task)["changed"]
    if check_mode:
        assert snapshot(tmp_path) == untouched and managed.armed()
        return
    assert not managed.armed() and not managed.is_old()
    summary = managed.store.stored.summary()
    assert (summary["lease"], summary["previous"]) == (None, "0001")
    assert summary["proven"] == ("0002" if action == "prove" else None)
    assert "run run1 does not hold this host: nobody does" in module(**task)["msg"]


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_renewing_puts_the_restore_off_and_changes_nothing(managed: Managed, module: Module, check_mode: bool) -> None:
    managed.keep()
    managed.host.now += 100
    assert not module(check_mode=check_mode, action="renew", run_id="run1")["changed"]
    assert managed.store.stored.summary()["lease"]["left_s"] == (140 if check_mode else 240)


def test_list_shows_what_is_kept_and_no_content(managed: Managed, module: Module) -> None:
    proven(managed)
    answer = module(action="list")
    assert not answer["changed"]
    assert [one["kind"] for one in answer["state"]["generations"]] == ["kept", "proven"]
    assert (answer["state"]["previous"], answer["state"]["proven"]) == ("0001", "0002")
    assert "hunter2" not in str(answer)


def test_the_diff_of_a_restore_names_services_that_are_stopped(managed: Managed, module: Module) -> None:
    managed.host.systemctl("stop", "backend.service")
    managed.keep()
    managed.host.systemctl("start", "backend.service")
    task = {"action": "restore", "run_id": "run1"}
    for check_mode in (True, False):
        answer = module(check_mode=check_mode, **task)
        assert answer["changed"] and answer["started"] == ["backend"]
        assert answer["diff"]["before"] == "the service backend: running\n"
        assert answer["diff"]["after"] == "the service backend: stopped\n"


def test_the_diff_of_a_restore_names_files_and_what_differs_and_no_content(managed: Managed, module: Module) -> None:
    applied(managed)
    diff = module(action="restore", run_id="run1")["diff"]
    assert diff["after_header"] == "generation 0001"
    assert f"{managed.env}: content" in diff["before"] and f"{managed.env}: as kept" in diff["after"]
    assert f"{managed.drop_in}: file instead of absent" in diff["before"]
    assert "hunter2" not in str(diff)


def test_a_service_that_does_not_come_back_fails_the_restore_and_says_which(managed: Managed, module: Module) -> None:
    applied(managed)
    managed.host.broken = {"ollama.service"}
    answer = module(action="restore", run_id="run1")
    assert answer["failed"] and "ollama.service" in answer["msg"]
    assert answer["changed"] and managed.is_old()


def test_only_a_restore_waits_for_one_that_the_host_has_begun_by_itself(
    managed: Managed, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: dict[str, dict[str, Any]] = {}
    for action in ("list", "release", "remove", "restore"):
        monkeypatch.setattr(
            gpu_memory_generation,
            "Generations",
            lambda action=action, **given: waits.update({action: given}) or managed.store,
        )
        module(action=action, run_id="run1")
    assert waits == {"list": {}, "release": {}, "remove": {}, "restore": {"wait_s": 180}}


def test_a_run_is_named_where_it_must_be(managed: Managed, module: Module) -> None:
    for action in ("keep", "renew", "prove", "release"):
        assert "run_id" in module(action=action)["msg"]


@pytest.mark.parametrize(
    ("services", "words"),
    [
        ({"backend": {"kind": "unit"}}, "services: kind is unit but all of the following are missing: unit"),
        ({"restart": ["nginx"]}, "services: value of restart must be one or more of: ollama, backend"),
        (
            {"backend": {"kind": "command", "directory": "/srv", "command": "a", "process_match": "("}},
            "backend.process_match = '(': no regular expression",
        ),
    ],
)
def test_a_service_plan_that_cannot_be_is_refused_before_anything_is_kept(
    managed: Managed, module: Module, tmp_path: Path, services: dict[str, Any], words: str
) -> None:
    untouched = snapshot(tmp_path)
    answer = module(**{**keep(managed), "services": services})
    assert answer["failed"] and words in answer["msg"]
    assert {name for name in snapshot(tmp_path) if "generations" in name} == set()
    assert snapshot(tmp_path).items() >= untouched.items()


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_a_host_that_another_run_holds_is_left_alone(managed: Managed, module: Module, check_mode: bool) -> None:
    managed.keep()
    answer = module(check_mode=check_mode, **keep(managed, run_id="run2"))
    assert answer["failed"] and "held by alice applies stable (run run1)" in answer["msg"]
    assert managed.env.read_bytes() == OLD_ENV
    assert "held by alice" in module(check_mode=check_mode, action="remove")["msg"]


def test_what_the_system_says_names_the_path(managed: Managed, module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_unused: Any) -> None:
        raise OSError(28, "No space left on device", "/var/lib/gpu-memory/lock")

    monkeypatch.setattr(managed.store, "release", full)
    answer = module(action="release", run_id="run1")
    assert answer["msg"].startswith("/var/lib/gpu-memory/lock: No space left on device; see the file and the disk")


def test_while_a_run_holds_the_host_its_tool_stays(managed: Managed, module: Module) -> None:
    applied(managed)
    before = own_files.tool(managed.paths)
    assert "held by alice" in module(action="renew_tool")["msg"]
    assert own_files.tool(managed.paths) == before


@pytest.mark.parametrize(("content", "digest"), [(None, None), (b"", ""), (b"#!/usr/bin/python3\nprint()\n", "")])
def test_a_tool_that_bears_no_digest_has_none(managed: Managed, content: bytes | None, digest: str | None) -> None:
    proven(managed)
    tool = Path(managed.paths.tool)
    tool.unlink()
    if content is not None:
        tool.write_bytes(content)
    assert managed.store.stored.summary()["tool"] == digest
