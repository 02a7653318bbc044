# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units would start with: every file of theirs, and what systemd has in memory, as digests."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import what_starts
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands

UNIT = "chat-api.service"
MEMORY = f"{UNIT} in systemd's memory"


class FakeSystem:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.unit, self.program, self.environment, self.env = (
            root / name for name in ("units/chat-api.service", "bin/server", "default", ".env")
        )
        for path in (self.unit, self.program, self.env):
            path.parent.mkdir(exist_ok=True)
        self.unit.write_text("[Service]\nExecStart=/bin/server\n")
        self.program.write_bytes(b"\x7fELF\0")
        self.program.chmod(0o755)
        self.env.write_text("KEY=1\n")
        self.log = root / "server.log"
        self.line = f"serve main.py app:run data.db >> {self.log} 2>&1"
        self.works = str(root)
        self.pid, self.more, self.manager = 41, "", "PATH=/bin\nOLLAMA_NUM_PARALLEL=0\nGIVEN=1\n"
        self.main, self.app = root / "main.py", root / "app.py"
        for path in (self.main, self.app):
            path.write_text("import sys\n")

    def run(self, arguments: Sequence[str], *_rest: Any) -> commands.Done:
        if arguments[1] == "show-environment":
            return commands.Done(0, self.manager.encode(), b"")
        text = (
            f"Names={UNIT} llm.service\nWorkingDirectory={self.works}\nPassEnvironment=GIVEN\n"
            f"FragmentPath={self.unit}\nEnvironmentFiles={self.environment} (ignore_errors=yes)\n{self.more}"
            f"MainPID={os.getpid()}\n"
            f"ExecStart={{ path={self.program} ; argv[]={self.program} {self.line} ; ignore_errors=no ; "
            "start_time=[Mon "
            f"2026-11-30 16:53:{self.pid} UTC] ; stop_time=[n/a] ; pid={self.pid} ; code=(null) ; status=0/0 }}\n"
        )
        return commands.Done(0, text.encode(), b"")

    def read(self) -> dict[str, str]:
        return what_starts.read([UNIT], [str(self.env)])


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    fake = FakeSystem(tmp_path)
    monkeypatch.setattr(commands, "run", fake.run)
    monkeypatch.setattr(what_starts, "PLACES", (str(tmp_path / "units"), str(tmp_path / "packaged")))
    monkeypatch.setattr(what_starts, "FLEETING", (f"{tmp_path}/log/",))
    monkeypatch.setattr(what_starts, "SETTINGS", (str(tmp_path / "system.conf"),))
    return fake


def drop_in(system: FakeSystem, owner: str, text: str = "[Service]\nNice=5\n") -> Path:
    path = system.root / "units" / f"{owner}.d" / "50-owner.conf"
    return written(path, text)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def linked(path: Path, target: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)
    return path


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


CHANGES: dict[str, Callable[[FakeSystem], str | Path]] = {
    "unit": lambda system: system.unit.write_text("[Service]\nExecStart=/bin/other\n") and system.unit,
    "env file": lambda system: system.env.write_text("KEY=2\n") and system.env,
    "EnvironmentFile": lambda system: system.environment.write_text("A=1\n") and system.environment,
    "program": lambda system: system.program.write_bytes(b"\x7fELF\0more") and system.program,
    "who may execute it": lambda system: system.program.chmod(0o644) or system.program,
    "script": lambda system: system.program.write_text("#!/bin/sh\nexec server\n") and system.program,
    "drop-in": lambda system: drop_in(system, UNIT),
    "drop-in of a prefix": lambda system: drop_in(system, "chat-.service"),
    "drop-in of a kind": lambda system: drop_in(system, "service"),
    "drop-in of an alias": lambda system: drop_in(system, "llm.service"),
    "another unit of that name": lambda system: written(system.root / "packaged" / UNIT, "[Service]\nExecStart=/x\n"),
    "mask": lambda system: linked(system.root / "packaged" / UNIT, "/dev/null"),
    "alias": lambda system: written(system.root / "packaged" / "llm.service", "[Service]\nExecStart=/x\n"),
    "systemd's settings": lambda system: written(system.root / "system.conf", "DefaultEnvironment=A=1\n"),
    "systemd's settings in a part": lambda system: written(
        system.root / "system.conf.d" / "a.conf", "DefaultEnvironment=A=1\n"
    ),
    "relative argument": lambda system: system.main.write_text("import os\n") and system.main,
    "module": lambda system: system.app.write_text("import os\n") and system.app,
    "memory": lambda system: setattr(system, "more", "User=other\n") or MEMORY,
    "manager": lambda system: (
        setattr(system, "manager", "OLLAMA_NUM_PARALLEL=1\nGIVEN=1\n") or "systemd's own environment"
    ),
    "what a unit lets pass": lambda system: (
        setattr(system, "manager", system.manager.replace("GIVEN=1", "GIVEN=2")) or "systemd's own environment"
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen_under_its_name(change: Callable[[FakeSystem], str | Path], system: FakeSystem) -> None:
    before = system.read()
    name = str(change(system))
    assert differing(before, system.read()) == {name}


def test_what_changes_nothing_is_no_change(system: FakeSystem) -> None:
    before = system.read()
    system.unit.write_text("# mine\n[Service]\n\n; too\nExecStart=/bin/server\n")
    system.log.write_text("level=INFO msg=started\n")
    for name in ("data.db", "data.db-journal", "app.pyc", "__pycache__.pyc", "other.py"):
        (system.root / name).write_text("written by itself")
    system.pid, system.manager = 57, "PATH=/sbin\nOLLAMA_NUM_PARALLEL=0\nGIVEN=1\n"
    assert system.read() == before


# A command line, and the file that it starts next time.
READ = (
    ("python run", "run"),
    ("python -m pkg", "pkg/__main__.py"),
    ("python -m pkg.sub", "pkg/sub/__init__.py"),
    ("python -mpkg", "pkg.py"),
    ("python site", "site/__main__.py"),
    ("python -c 'import app; app.run()'", "app.py"),
    ("gunicorn pkg:app", "pkg/__init__.py"),
    ("gunicorn 'app:create_app()'", "app.py"),
    ("gunicorn -capp.conf.py app:run", "app.conf.py"),
    ("gunicorn app:run", "gunicorn.conf.py"),
    ("uvicorn --app-dir src app:run", "src/app.py"),
    ("uvicorn --env-file production app:run", "production"),
    ("uvicorn app:run --log-config log-config.json", "log-config.json"),
    ("flask run", ".flaskenv"),
    ("serve --settings settings.json", "settings.json"),
    ("serve --settings=conf/settings.json", "conf/settings.json"),
    ("serve @arguments", "arguments"),
    ("serve -Dconfig=file:settings", "settings"),
    ("env CONFIG=settings.json python run", "settings.json"),
    ("node .", "package.json"),
    ("node .", "index.js"),
    ("node server", "server.js"),
    ("node lib", "lib/index.js"),
    ("/usr/bin/npm run serve", "package.json"),
    ("npm start", "main-of-package"),
    ("yarn --cwd web start", "web/package.json"),
    ("pnpm start", "lib/of-package.js"),
    ("poetry run serve", "pyproject.toml"),
    ("make run", "Makefile"),
    ("serve --templates a,b", "b"),
)


@pytest.mark.parametrize(("line", "name"), READ, ids=[f"{line}: {name}" for line, name in READ])
def test_what_a_command_line_names_starts_next_time(line: str, name: str, system: FakeSystem) -> None:
    system.line = line
    if "of-package" in name:
        written(
            system.root / "package.json", '{"main": "lib/of-package.js", "scripts": {"start": "node main-of-package"}}'
        )
    path = system.root / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("one\n")
    before = system.read()
    assert system.read() == before
    path.write_text("another\n")
    assert differing(before, system.read()) == {str(path)}


# A command line, and a file that it writes.
WRITES = (
    ("serve --log-file a.log", "a.log"),
    ("serve --access-log access_log", "access_log"),
    ("serve --log-file log.txt", "log.txt"),
    ("serve --log-file a.log.1", "a.log.1"),
    ("serve --pid-file serve.pid", "serve.pid"),
    ("serve --pid pid", "pid"),
    ("serve --lock serve.lock", "serve.lock"),
    ("serve --db chat.db", "chat.db"),
    ("serve chat.sqlite3-wal", "chat.sqlite3-wal"),
    ("serve --prompt-cache prompt-cache.bin", "prompt-cache.bin"),
    ("serve --state=state.json", "state.json"),
    ("serve --metrics metrics.prom", "metrics.prom"),
    ("serve --to other", "not-named"),
    ("python -m pkg", "pkg/__pycache__/app.cpython-311.pyc"),
)


@pytest.mark.parametrize("mode", [0o644, 0o755], ids=["", "as all files of Windows"])
@pytest.mark.parametrize(("line", "name"), WRITES, ids=[f"{line}: {name}" for line, name in WRITES])
def test_what_a_service_writes_by_its_name_does_not(line: str, name: str, mode: int, system: FakeSystem) -> None:
    system.line = line
    path = system.root / name
    path.parent.mkdir(exist_ok=True, parents=True)
    before = system.read()
    path.write_text("written\n")
    path.chmod(mode)
    assert system.read() == before


def test_what_lies_among_logs_does_not(system: FakeSystem) -> None:
    system.line = "serve --answers=log/answers"
    answers = written(system.root / "log" / "answers", "one\n")
    assert str(answers) not in system.read()


def test_what_a_start_script_reads_counts_whatever_it_is_called(system: FakeSystem) -> None:
    state = written(system.root / "state", "A=1\n")
    system.program.write_text(f"#!/bin/sh\n. {state}\nexec server\n")
    before = system.read()
    state.write_text("A=2\n")
    assert differing(before, system.read()) == {str(state)}


def test_what_a_start_script_names_starts_next_time_and_what_it_writes_does_not(system: FakeSystem) -> None:
    names = ("settings", "run", "started", "note")
    settings, run, started, note = (written(system.root / name, "one\n") for name in names)
    system.program.write_text(
        f"#!/bin/sh\n# a note\ndate > {started}; date >>started\nexec python run --with {settings} 2>&1\n"
    )
    before = system.read()
    for path in (settings, run, started, note):
        path.write_text("another\n")
    assert differing(before, system.read()) == {str(settings), str(run)}


def test_a_unit_may_work_in_its_users_home_or_in_the_root(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", {"~selo": str(system.root)}.__getitem__)
    system.works, system.more = "!~", "User=selo\n"
    assert str(system.main) in system.read()
    system.works, system.line = "", f"python {str(system.main)[1:]}"
    assert str(system.main) in system.read()


def test_a_database_under_any_name_is_written(system: FakeSystem) -> None:
    system.line = "serve --store chats"
    sqlite3.connect(system.root / "chats").execute("create table a (b)")
    assert str(system.root / "chats") not in system.read()


def test_what_a_service_has_open_for_writing_is_its_own(system: FakeSystem) -> None:
    system.line = "serve --answers given --questions asked"
    given, asked = written(system.root / "given", "one\n"), written(system.root / "asked", "one\n")
    before = system.read()
    with given.open("a"), asked.open():
        now = system.read()
    assert differing(before, now) == {str(given)}
    assert now[str(given)] == start_script.WRITTEN


def test_code_that_its_owner_has_open_for_writing_is_code(system: FakeSystem) -> None:
    before = system.read()
    with system.main.open("a"):
        assert system.read() == before


def test_so_many_files_of_a_command_line_count(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_starts, "MOST_NAMED", 2)
    system.line = " ".join(written(system.root / f"named{number}", "one\n").name for number in range(9))
    assert len([path for path in system.read() if path.startswith(str(system.root / "named"))]) < 3


def test_a_digest_tells_nothing_of_what_is_in_a_file(system: FakeSystem) -> None:
    system.env.write_text("KEY=correct-horse\n")
    assert "correct-horse" not in str(system.read())


def test_what_changes_during_a_restart_counts_as_changed_since(system: FakeSystem) -> None:
    before = what_starts.files([UNIT], [str(system.env)])
    system.env.write_text("KEY=2\n")
    added = drop_in(system, UNIT)
    system.more = "EnvironmentFiles=/read/only/now (ignore_errors=yes)\n"  # what systemd had not read yet
    after = system.read()
    started = what_starts.as_started(before, after)
    assert differing(started, after) == {str(system.env), str(added)}


def test_the_end_of_a_long_script_counts(system: FakeSystem) -> None:
    system.main.write_text("#" * 100_000 + "\n")
    before = system.read()
    system.main.write_text("#" * 100_000 + "x\n")
    assert differing(before, system.read()) == {str(system.main)}


def test_of_a_file_beyond_all_measure_counts_which_it_is(system: FakeSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what_starts, "MOST_BYTES", 3)
    before = system.read()
    assert system.read() == before
    system.main.write_text("longer than three\n")
    assert differing(before, system.read()) == {str(system.main)}


def test_what_a_backend_without_a_unit_is_started_by(system: FakeSystem) -> None:
    backend: Any = {"kind": "command", "command": "python main.py --log a.log", "directory": str(system.root)}
    backend["process_match"] = "nothing that runs"
    command = what_starts.commands_of(backend)
    before = what_starts.files([], [], command)
    assert str(system.main) in before
    system.main.write_text("import os\n")
    (system.root / "a.log").write_text("started\n")
    assert differing(before, what_starts.files([], [], command)) == {str(system.main)}
    assert what_starts.commands_of(backend, ["ollama"]) == what_starts.commands_of(None) == []


def test_a_unit_that_comes_to_stand_before_another_in_a_restart_counts_as_changed_since(system: FakeSystem) -> None:
    before = system.read()
    shadow = written(system.root / "packaged" / UNIT, "[Service]\nExecStart=/x\n")
    after = system.read()
    assert differing(what_starts.as_started(before, after), after) == {str(shadow)}


def test_the_units_of_services() -> None:
    ollama: Any = {"unit": "ollama.service"}
    backend: Any = {"kind": "unit", "unit": UNIT}
    assert what_starts.units_of(ollama, backend) == ["ollama.service", UNIT]
    assert what_starts.units_of(ollama, backend, ["backend"]) == [UNIT]
    assert what_starts.units_of(ollama, {"kind": "command"}) == ["ollama.service"]
    assert what_starts.units_of(None, None) == []
