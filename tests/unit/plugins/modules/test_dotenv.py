"""The module: the twelve cases, what it says, what it refuses and what it never shows."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import lease_holding
from ansible_collections.selo.gpu_memory.plugins.modules import dotenv
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.managed_host import Managed

SECRET = "s3cret"
OTHERS = f"# PASSWORD={SECRET}\nexport DATABASE_URL='postgresql://u:{SECRET}@h'\n"


def run(capsys: pytest.CaptureFixture[str], check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
    arguments |= {"_ansible_check_mode": check_mode, "_ansible_diff": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        dotenv.main()
    printed = capsys.readouterr().out
    assert SECRET not in printed
    answer: dict[str, Any] = json.loads(printed)
    return answer


# before, options, after
CASES: dict[str, tuple[str | None, dict[str, Any], str]] = {
    "create": (None, {"env": {"K": 40}}, "K=40\n"),
    "modify": (OTHERS + "K=9\n", {"env": {"K": 40}}, OTHERS + "K=40\n"),
    "delete": (OTHERS + "K=9\n", {"remove": ["K"]}, OTHERS),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("before", "options", "after"), CASES.values(), ids=CASES)
def test_twelve_cases(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: str | None,
    options: dict[str, Any],
    after: str,
    check_mode: bool,
) -> None:
    path = tmp_path / ".env"
    if before is not None:
        path.write_text(before)
    first = run(capsys, check_mode, path=str(path), **options)
    assert first["changed"]
    assert first["changed_keys"] == ["K"]
    assert first["after"] == {"K": "40" if "env" in options else None}
    assert first["sha256"] == hashlib.sha256(after.encode()).hexdigest()
    assert first["diff"]["before"] != first["diff"]["after"]
    if check_mode:
        assert (path.read_text() if path.exists() else None) == before
        again = run(capsys, check_mode, path=str(path), **options)
        assert (again["changed"], again["diff"]) == (True, first["diff"])
        real = run(capsys, False, path=str(path), **options)
        assert {name: real[name] for name in ("diff", "sha256", "after", "changed_keys")} == {
            name: first[name] for name in ("diff", "sha256", "after", "changed_keys")
        }
    assert path.read_text() == after
    status = path.stat()
    again = run(capsys, check_mode, path=str(path), **options)
    assert (again["changed"], again["changed_keys"], again["sha256"]) == (False, [], first["sha256"])
    assert again["diff"]["before"] == again["diff"]["after"]
    assert path.stat() == status or path.stat().st_mtime_ns == status.st_mtime_ns


def test_the_diff_shows_structure_and_masks_what_is_not_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".env"
    path.write_text(OTHERS + f"K=9 # {SECRET}\n\n")
    answer = run(capsys, path=str(path), env={"K": 40}, readers=["python-dotenv"])
    assert answer["diff"]["before"] == "# ********\nexport DATABASE_URL=********\nK=9 ********\n\n"
    assert answer["diff"]["after"] == "# ********\nexport DATABASE_URL=********\nK=40 ********\n\n"
    assert answer["before"] == {"K": "9"}


def test_nothing_to_do_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, path=str(tmp_path / ".env"), remove=["K"], create=False)
    assert (answer["changed"], answer["sha256"]) == (False, None)
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_is_private_and_belongs_to_the_owner_of_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner = 1234 if os.geteuid() == 0 else os.geteuid()
    os.chown(tmp_path, owner, -1)
    run(capsys, path=str(tmp_path / ".env"), env={"K": 40})
    status = (tmp_path / ".env").stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, owner)


def test_a_new_file_starts_from_the_initial_text_and_one_that_is_there_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".env"
    options = {"path": str(path), "env": {"K": "a b"}, "initial": "# ours\nK=a b\nL=1\n"}
    foretold = run(capsys, check_mode=True, **options)
    answer = run(capsys, **options)
    assert path.read_text() == "# ours\nK='a b'\nL=1\n"
    assert foretold.items() <= answer.items()
    assert answer["diff"]["after"] == path.read_text()
    path.write_text("# mine\nK=1\n")
    run(capsys, **options)
    assert path.read_text() == "# mine\nK='a b'\n"


def test_mode_and_owner_are_for_a_new_file_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".env"
    options = {"path": str(path), "owner": str(os.geteuid()), "group": str(os.getegid())}
    run(capsys, **options, env={"K": 40}, mode="0640")
    assert path.stat().st_mode & 0o777 == 0o640
    run(capsys, **options, env={"K": 41}, mode="0600")
    assert path.stat().st_mode & 0o777 == 0o640


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a boolean": ({"env": {"K": True}}, "env.K: the boolean True is written differently by every program; quote it"),
    "null": ({"env": {"K": None}}, "env.K: must be text or a number, not NoneType"),
    "a list": ({"env": {"K": [1], "L": False}}, "env.K: must be text or a number, not list"),
    "two lines": ({"env": {"K": "a\nB=1"}}, "K: the control character U+000A is not allowed"),
    "an interpolation": ({"env": {"K": "${A}"}}, "K: python-dotenv replaces"),
    "a bad name": ({"env": {"K L": 1}}, "'K L' is no name of a variable; allowed: letters, digits and _"),
    "both": ({"env": {"K": 1}, "remove": ["K"]}, "K is to be set and to be removed; choose one"),
    "an unknown reader": ({"env": {"K": 1}, "readers": ["zsh"]}, "python-dotenv, bash, systemd, docker"),
    "a bad mode": ({"env": {"K": 1}, "mode": "rw", "path": "new"}, "mode: 'rw' is no mode of a file"),
    "mode without quotes": ({"env": {"K": 1}, "mode": 640, "path": "new"}, "mode: 640 is no mode of a file"),
    "an unknown owner": ({"env": {"K": 1}, "owner": "nobody-here", "path": "new"}, "there is no nobody-here on this"),
    "no create": ({"env": {"K": 1}, "create": False, "path": "new"}, "is missing; create it, or allow create=true"),
    "no directory": ({"env": {"K": 1}, "path": "no/.env"}, "is missing; create it, or correct the path"),
    "a directory": ({"env": {"K": 1}, "path": "."}, "no regular file; move it away"),
}


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_gets_one_message_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], message: str, check_mode: bool
) -> None:
    (tmp_path / ".env").write_text(OTHERS)
    answer = run(capsys, check_mode, **{**options, "path": str(tmp_path / options.get("path", ".env"))})
    assert answer["failed"]
    assert message in answer["msg"]
    assert [path.name for path in tmp_path.iterdir()] == [".env"]
    assert (tmp_path / ".env").read_text() == OTHERS


def test_all_values_that_are_wrong_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = run(capsys, path=str(tmp_path / ".env"), env={"A": True, "B": None})["msg"]
    assert "env.A" in message
    assert "env.B" in message


def test_what_is_not_utf_8_stays_and_can_be_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / ".env"
    path.write_bytes(b"A=\xff\nK=\xfe\n")
    answer = run(capsys, path=str(path), env={"K": "é"}, readers=["bash"])
    assert answer["before"] == {"K": "?"}
    assert path.read_bytes() == "A=\udcff\nK='é'\n".encode("utf-8", "surrogateescape")


def test_a_run_writes_only_while_it_holds_the_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    managed, path = Managed(tmp_path), tmp_path / "file"
    managed.keep()
    monkeypatch.setattr(lease_holding, "Paths", lambda: managed.paths)
    monkeypatch.setattr(lease_holding, "SystemClock", lambda: managed.host)
    assert run(capsys, path=str(path), env={"K": 1}, run_id="run1")["changed"]
    managed.store.drop()
    answer = run(capsys, path=str(path), env={"K": 2}, run_id="run1")
    assert answer["msg"] == "run run1 does not hold this host: nobody does; start a new run"
    assert path.read_text() == "K=1\n"
