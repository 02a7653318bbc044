"""The module: the twelve cases, and that systemd's own verdict comes before use."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands
from ansible_collections.selo.gpu_memory.plugins.modules import systemd_dropin
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import Managed

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
UNIT = "[Service]\nExecStart=/bin/true\nNonsense=1\n"
FILE = "try.service.d/zz-gpu-memory.conf"


@pytest.fixture
def units(tmp_path: Path) -> Path:
    directory = tmp_path / "units"
    directory.mkdir()
    (directory / "try.service").write_text(UNIT)
    return directory


def run(capsys: pytest.CaptureFixture[str], units: Path, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    arguments = {"unit": "try.service", "directory": str(units), "_ansible_check_mode": check_mode, **options}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        systemd_dropin.main()
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def snapshot(directory: Path) -> dict[str, str | None]:
    found = directory.rglob("*")
    return {str(path.relative_to(directory)): path.read_text() if path.is_file() else None for path in found}


OLD = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "0"}, "a task")
NEW = unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "1", "B": "x y"}, "a task")
PRESENT: dict[str, Any] = {"environment": {"OLLAMA_NUM_PARALLEL": 1, "B": "x y"}}
CASES: dict[str, tuple[str | None, dict[str, Any], str | None]] = {
    "create": (None, PRESENT, NEW),
    "modify": (OLD, PRESENT, NEW),
    "delete": (OLD, {"state": "absent"}, None),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("before", "options", "after"), CASES.values(), ids=CASES)
def test_twelve_cases(
    units: Path,
    capsys: pytest.CaptureFixture[str],
    before: str | None,
    options: dict[str, Any],
    after: str | None,
    check_mode: bool,
) -> None:
    path = units / FILE
    if before is not None:
        path.parent.mkdir()
        path.write_text(before)
    untouched = snapshot(units)
    first = run(capsys, units, check_mode, **options)
    assert first["changed"]
    assert first["path"] == str(path)
    assert first["sha256"] == (hashlib.sha256(after.encode()).hexdigest() if after else None)
    assert (first["diff"]["before"], first["diff"]["after"]) == (before or "", after or "")
    if check_mode:
        assert snapshot(units) == untouched
        again = run(capsys, units, check_mode, **options)
        assert (again["changed"], again["diff"]) == (True, first["diff"])
        assert run(capsys, units, False, **options)["diff"] == first["diff"]
    assert (path.read_text() if path.exists() else None) == after
    assert path.parent.exists() == (after is not None)
    if after:
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    again = run(capsys, units, check_mode, **options)
    assert (again["changed"], again["sha256"]) == (False, first["sha256"])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert (units / "try.service").read_text() == UNIT


def test_absent_leaves_the_drop_ins_of_others(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, units, **PRESENT)
    other = units / "try.service.d" / "override.conf"
    other.write_text("[Service]\n")
    assert run(capsys, units, state="absent")["changed"]
    assert snapshot(units)["try.service.d/override.conf"] == "[Service]\n"
    assert FILE not in snapshot(units)


def test_of_what_somebody_else_wrote_into_it_secrets_are_masked(
    units: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (units / FILE).parent.mkdir()
    (units / FILE).write_text(
        '[Service]\nEnvironment="B=old" "HF_TOKEN=s3cret"\nEnvironment=API=s3cret\n# s3cret\nEnvironment="B=old"\n'
    )
    answer = run(capsys, units, **PRESENT)
    assert answer["diff"]["before"] == (
        '[Service]\nEnvironment="B=old" HF_TOKEN=********\nEnvironment=API=********\n********\nEnvironment="B=old"\n'
    )
    assert "s3cret" not in json.dumps(answer)


@needs_systemd
def test_what_systemd_quotes_of_others_is_masked(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (units / "try.service.d").mkdir()
    (units / "try.service.d" / "override.conf").write_text("[Service]\nEnvironment=hf_s3cret\nNice=s3cret\n")
    answer = run(capsys, units, **PRESENT)
    assert any("override.conf:2" in line for line in answer["verify_output"])
    assert "s3cret" not in json.dumps(answer)


@needs_systemd
def test_only_what_the_drop_in_adds_counts(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (units / "try.service.d").mkdir()
    (units / "try.service.d" / "override.conf").write_text("[Service]\nAlsoNonsense=1\n")
    answer = run(capsys, units, **PRESENT)
    assert answer["verified"]
    assert any("Nonsense" in line for line in answer["verify_output"])
    assert any("AlsoNonsense" in line for line in answer["verify_output"])


@pytest.mark.parametrize("named", [False, True])
def test_it_is_blamed_for_what_names_it_alone(
    units: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """Which of a host's ordering cycles systemd finds, and where it breaks one, differs from run to run."""

    def says(arguments: list[str], *_rest: object, environment: Mapping[str, str] | None = None) -> commands.Done:
        first = (environment or {}).get("SYSTEMD_UNIT_PATH", "").partition(":")[0]
        where = f"{first}/{FILE}:2" if named else "try.service"
        return commands.Done(0, b"", f"{where}: Found ordering cycle on x.service/start\n".encode())

    monkeypatch.setattr(shutil, "which", str)
    monkeypatch.setattr(commands, "run", says)
    answer = run(capsys, units, **PRESENT)
    assert answer.get("failed", False) is named and (units / FILE).exists() is not named


@needs_systemd
def test_what_systemd_rejects_is_not_put_in_place(
    units: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, units, environment={"A": 0})
    untouched = snapshot(units)
    monkeypatch.setattr(
        unit_text, "render_dropin", lambda *_unused: "[Service]\nEnvironment=A\nFoo=1\n"
    )  # were it ever wrong
    answer = run(capsys, units, **PRESENT)
    assert answer["failed"]
    assert f"{units / FILE}:2: Invalid environment assignment" in answer["msg"]
    assert "Nonsense" not in answer["msg"]
    assert snapshot(units) == untouched


@needs_systemd
def test_a_unit_that_is_not_there_is_not_verified(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, units, unit="try-missing.service", **PRESENT)
    assert answer["changed"]
    assert not answer["verified"]
    assert answer["verify_output"] == ["try-missing.service is not there, so the drop-in is not verified"]


def test_without_the_tool_it_says_so(
    units: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _unused: None)
    answer = run(capsys, units, **PRESENT)
    assert answer["changed"]
    assert not answer["verified"]
    assert "systemd-analyze is missing" in answer["verify_output"][0]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no suffix": ({"unit": "ollama"}, "unit: 'ollama' is no name of a service; allowed: such as ollama.service"),
    "a path": ({"unit": "../x.service"}, "unit: '../x.service' is no name of a service"),
    "no .conf": ({"name": "zz"}, "name: 'zz' is no name of a drop-in"),
    "a path as name": ({"name": "../zz.conf"}, "name: '../zz.conf' is no name of a drop-in"),
    "a boolean": ({"environment": {"A": True}}, "environment.A: the boolean True"),
    "a second directive": ({"environment": {"A": "1\nExecStart=/bin/sh"}}, "environment: A: the character U+000A"),
    "a bad name": ({"environment": {"A B": 1}}, "environment: 'A B' is no name of a variable"),
    "no directory": ({"directory": "/no/such"}, "the directory /no/such is missing; create it"),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_changes_nothing(
    units: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str, check_mode: bool
) -> None:
    untouched = snapshot(units)
    answer = run(capsys, units, check_mode, **options)
    assert answer["failed"]
    assert message in answer["msg"]
    assert snapshot(units) == untouched


def test_a_masked_drop_in_is_not_written_through(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (units / "try.service.d").mkdir()
    (units / FILE).symlink_to("/dev/null")
    assert "no regular file" in run(capsys, units, **PRESENT)["msg"]


def test_who_writes_it_stands_in_its_second_line(units: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for writer, line in (("", "[Service]"), ("the role ollama", "# Written by the role ollama")):
        assert run(capsys, units, written_by=writer)["changed"]
        assert (units / FILE).read_text().splitlines()[1] == line
    assert "written_by: 'a\\nb': allowed" in run(capsys, units, written_by="a\nb")["msg"]


def test_a_run_writes_only_while_it_holds_the_host(
    units: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "host").mkdir()
    managed, before = Managed(tmp_path / "host"), snapshot(units)
    managed.keep()
    monkeypatch.setattr(lease_holding, "Paths", lambda: managed.paths)
    monkeypatch.setattr(lease_holding, "SystemClock", lambda: managed.host)
    managed.store.drop()
    answer = run(capsys, units, environment={"B": "x"}, run_id="run1")
    assert answer["msg"] == "run run1 does not hold this host: nobody does; start a new run"
    assert snapshot(units) == before
    managed.keep("run2")
    assert run(capsys, units, environment={"B": "x"}, run_id="run2")["changed"]


def test_the_drop_in_of_a_quadlet(
    units: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of = systemd_dropin.quadlets.Quadlet("/x/try.container", [], systemd_dropin.quadlet.Command("", {}, [], None))
    monkeypatch.setattr(systemd_dropin.quadlets, "read", lambda unit: made_of)
    monkeypatch.setattr(systemd_dropin.quadlet, "DIRECTORY", str(units))
    path = units / "try.container.d" / "zz-gpu-memory.conf"
    answer = run(capsys, units, **PRESENT)
    assert (answer["path"], answer["verified"]) == (str(path), False)
    assert "systemd-analyze does not read it" in answer["verify_output"][0]
    assert path.read_text() == unit_text.render_dropin({"OLLAMA_NUM_PARALLEL": "1", "B": "x y"}, "a task", "Container")
    assert answer["diff"]["after"] == path.read_text()
    assert not run(capsys, units, **PRESENT)["changed"]
    assert run(capsys, units, state="absent")["changed"] and not path.parent.exists()


def test_the_env_file_of_a_service_of_compose(
    units: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    path = project / "gpu-memory.env"
    monkeypatch.setattr(systemd_dropin.compose_files, "own_env_file", lambda unit: str(path))
    unit = {**PRESENT, "unit": "compose:llm/ollama"}
    answer = run(capsys, units, **unit)
    assert (answer["path"], answer["verified"]) == (str(path), False)
    assert path.read_text() == unit_text.render_dropin(
        {"OLLAMA_NUM_PARALLEL": "1", "B": "x y"}, "a task", unit_text.NO_SECTION
    )
    assert not run(capsys, units, **unit)["changed"]
    assert run(capsys, units, unit="compose:llm/ollama", state="absent")["changed"] and not path.exists()
    assert project.is_dir(), "it is its owner's"
    monkeypatch.setattr(systemd_dropin.compose_files, "own_env_file", lambda unit: None)
    assert "has no container on this host" in run(capsys, units, **unit)["msg"]
