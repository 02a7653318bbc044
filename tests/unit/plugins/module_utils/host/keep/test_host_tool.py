# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tool on a host: that it stands alone, and what it says."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import tool_parts
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd.unit_text import HEADER
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import (
    going_back,
    host_tool,
    state,
    state_files,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.generations import Generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, begun
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost

SERVICES = {
    "ollama": {"unit": "ollama.service", "url": "http://127.0.0.1:11434", "timeout_s": 60},
    "restart": ["ollama"],
}

# Runs the tool as the restore timer does, and says whether it came to the part that acts.
LOOK = f"""
import runpy, sys, types
tool, root = sys.argv[1:]
sys.path.insert(0, tool)
from {tool_parts.PACKAGE}.host.keep.state import Paths
Paths.__new__.__defaults__ = (root, *Paths.__new__.__defaults__[1:])
acts = []
whole = sys.modules["{tool_parts.PACKAGE}.host.keep.host_tool"] = types.ModuleType("whole")
whole.main = lambda: acts.append(True)
sys.argv = [tool, "restore", "--if-expired"]
try:
    runpy.run_path(tool, run_name="__main__")
except SystemExit as end:
    print(bool(acts))
    raise
"""


# Imports each part of the tool, and nothing but what is in it.
IMPORT_ALL = f"""
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in {tool_parts.PACKED!r}:
    importlib.import_module("{tool_parts.PACKAGE}." + name)
"""

# Runs the tool where a source that has to be compiled is an error.
WITHOUT_COMPILER = """
import builtins, runpy, sys
of_python = compile
def expressions_only(source, name, mode, *more, **named):
    if mode == "exec":
        raise TypeError(name)
    return of_python(source, name, mode, *more, **named)
builtins.compile = expressions_only
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""

MAIN_PATH = f"{tool_parts.PACKAGE}.host.keep.host_tool".replace(".", "/") + ".py"


def changed(tool: bytes, tmp_path: Path, change: Callable[[dict[str, bytes]], object]) -> bytes:
    """A tool with other content that is whole as a file."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(tool)
    new.write_bytes(tool.partition(b"\n")[0] + b"\n")
    with zipfile.ZipFile(old) as packed, zipfile.ZipFile(new, "a") as out:
        content = {name: packed.read(name) for name in packed.namelist()}
        change(content)
        for name, data in content.items():
            out.writestr(name, data)
        out.comment = packed.comment
    return new.read_bytes()


@pytest.fixture(scope="module")
def compiled() -> bytes:
    return host_tool.compiled_archive(None)


@pytest.fixture
def store(tmp_path: Path) -> Generations:
    for name in ("units", "run"):
        (tmp_path / name).mkdir()
    return Generations(
        Paths(*(str(tmp_path / name) for name in ("state", "units", "tool", "run", "second", "jobs"))), FakeHost()
    )


@pytest.fixture
def held(store: Generations, tmp_path: Path) -> Path:
    """A file that a run holds and has written."""
    path = tmp_path / "zz-gpu-memory.conf"
    files = [{"path": str(path), "sha256": None}]
    store.keep(
        run_id="run1", holder="alice applies stable", files=files, services=SERVICES, restore_after_s=60, tool=b"tool"
    )
    path.write_text(f"{HEADER}\n[Service]\n")
    return path


def test_it_stands_alone_and_is_the_same_every_time(tmp_path: Path) -> None:
    tool = tmp_path / "gpu-memory"
    tool.write_bytes(host_tool.archive())
    assert tool.read_bytes() == host_tool.archive()
    # Isolated, and without site-packages: neither Ansible nor this collection can be found.
    done = subprocess.run(
        [sys.executable, "-I", "-S", tool, "--help"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    for command in ("status", "list", "rollback", "restore", "release"):
        assert command in done.stdout


def test_status_names_the_holder_and_then_the_last_restore(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host_tool.main(["status"], store) == 0
    text = capsys.readouterr().out
    assert "alice applies stable, run run1" in text and "restore timer armed" in text
    assert host_tool.main(["restore"], store) == 0
    text = capsys.readouterr().out
    assert f"{held}: removed\n" in text and "ollama.service: restarted" in text
    assert not held.exists()
    assert host_tool.main(["status"], store) == 0
    text = capsys.readouterr().out
    assert "nobody holds this host" in text and "restore timer not armed (only during a run)" in text
    assert "generation 0001 (by hand on the host): done" in text


def test_restore_tells_what_it_has_stopped(
    store: Generations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = store.host
    assert isinstance(host, FakeHost)
    host.systemctl("stop", "backend.service")
    files = [{"path": str(tmp_path / "zz-gpu-memory.conf"), "sha256": None}]
    services = {**SERVICES, "backend": {"kind": "unit", "unit": "backend.service"}, "restart": ["backend"]}
    store.keep(run_id="run1", holder="alice", files=files, services=services, restore_after_s=60, tool=b"tool")
    host.systemctl("start", "backend.service")
    assert host_tool.main(["restore"], store) == 0
    assert "backend.service: stopped, as it was found" in capsys.readouterr().out


def test_remove_does_not_call_a_unit_stopped_that_is_gone(
    store: Generations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = store.host
    assert isinstance(host, FakeHost)
    drop_in = tmp_path / "ollama.service.d" / "zz-gpu-memory.conf"
    services = {**SERVICES, "restart": ["ollama"]}
    files = [{"path": str(drop_in), "sha256": None}]
    store.keep(run_id="run1", holder="alice", files=files, services=services, restore_after_s=60, tool=b"tool")
    drop_in.parent.mkdir()
    drop_in.write_text(f"{HEADER}\n")
    store.release("run1")
    host.systemctl("stop", "ollama.service")
    host.load_states["ollama.service"] = "not-found"
    code, out, _unused = said(store, capsys, "remove")
    assert code == 0 and "ollama.service: not on this host any more" in out


def test_rollback_is_refused_while_a_run_holds_the_host(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host_tool.main(["rollback"], store) == 1
    assert "this host is held by alice applies stable" in capsys.readouterr().err
    assert held.exists()


def test_rollback_goes_to_the_previous_generation(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.prove("run1", {})
    assert host_tool.main(["list"], store) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["previous" in line for line in lines] == [True, False] and "proven" in lines[1]
    assert host_tool.main(["rollback"], store) == 0
    assert not held.exists()
    assert host_tool.main(["rollback", "proven"], store) == 0
    assert held.exists()


def test_the_timers_command_is_silent_while_a_run_lives(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host_tool.main(["restore", "--if-expired"], store) == 0
    assert capsys.readouterr() == ("", "")
    assert held.exists()


@pytest.mark.parametrize("live", [True, False])
def test_the_timers_look_loads_the_whole_tool_only_where_something_is_due(
    store: Generations, held: Path, tmp_path: Path, live: bool
) -> None:
    tool, lease = tmp_path / "gpu-memory", state.read_json(store.paths.lease)
    tool.write_bytes(host_tool.archive())
    now = SystemClock().boot_time()
    lease |= {"boot": now.boot, "deadline_s": now.seconds + 60 if live else 0}
    state_files.write_json(store.paths.lease, lease)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOOK, tool, store.paths.root], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{not live}\n"), done.stderr


def test_a_service_that_does_not_come_back_is_an_error(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.host.broken = {"ollama.service"}  # type: ignore[attr-defined]
    assert host_tool.main(["restore"], store) == 1
    shown = capsys.readouterr()
    assert "generation 0001 is back" in shown.out and "not running as it should" in shown.out
    assert "ollama.service" in shown.err


def said(store: Generations, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = host_tool.main(list(words), store)
    out, error = capsys.readouterr()
    return code, out, error


def test_release_ends_a_run_and_puts_back_what_it_has_written(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _unused = said(store, capsys, "release")
    assert code == 0 and out.startswith("generation 0001 is back (released by hand on the host)")
    assert store.stored.summary()["lease"] is None and not held.exists()
    assert said(store, capsys, "release") == (0, "nobody holds this host any more\n", "")


def test_release_of_a_host_that_does_not_come_back_leaves_it_as_it_is(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.host.broken = {"ollama.service"}  # type: ignore[attr-defined]
    code, _unused, error = said(store, capsys, "release")
    assert code == 1 and "tried again by itself" in error and begun(store.paths)
    code, out, error = said(store, capsys, "release")
    assert code == 0 and out == "nobody holds this host any more\n" and "left so: ollama" in error
    assert not begun(store.paths) and store.stored.summary()["lease"] is None


def test_release_of_a_host_whose_copies_are_damaged_leaves_it_as_it_is(store: Generations, held: Path) -> None:
    for root in (store.paths.root, store.paths.second):
        for path in Path(root).glob("generations/*/*"):
            path.write_text("damage")
    assert host_tool.main(["release"], store) == 0
    assert store.stored.summary()["lease"] is None and held.exists()


def test_restore_by_hand_and_once_more(store: Generations, held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _unused = said(store, capsys, "restore")
    assert code == 0 and out.startswith("generation 0001 is back (by hand on the host)") and not held.exists()
    assert "ollama.service: restarted" in out
    code, out, _unused = said(store, capsys, "restore")
    assert (code, out) == (0, "no apply holds this host; nothing to put back\n")


def test_a_rollback_to_what_is_in_place_says_so(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.prove("run1", {"verdict": "pass"})
    code, out, _unused = said(store, capsys, "rollback", "proven")
    assert (code, out) == (0, "generation 0002 is in place already; nothing was restarted\n")


def test_list_names_what_each_generation_is_for(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _unused, out, _unused_too = said(store, capsys, "list")
    assert "0001" in out and "held" in out and f"before: alice applies stable: {held}" in out
    store.prove("run1", {"verdict": "pass"})
    _unused, out, _unused_too = said(store, capsys, "list")
    assert [line.split()[0] for line in out.splitlines()] == ["0001", "0002"]
    assert "previous" in out.splitlines()[0] and "proven" in out.splitlines()[1]


def test_remove_says_what_is_gone_and_then_that_nothing_is_here(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _unused, error = said(store, capsys, "remove")
    assert code == 1 and "held by alice applies stable" in error
    store.prove("run1", {"verdict": "pass"})
    code, out, _unused = said(store, capsys, "remove")
    assert code == 0 and f"{store.paths.root}: gone" in out and not held.exists()
    code, out, _unused = said(store, capsys, "remove")
    assert (code, out) == (0, "nothing of this collection is on this host\n")
    _unused, out, _unused_too = said(store, capsys, "list")
    assert out == "no generation is kept on this host\n"


def test_status_says_that_the_host_is_going_back(
    store: Generations, held: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"generation": "0001", "reason": "a test", "run_id": "run1", "since": 0.0}
    state_files.write_json(store.paths.restoring, about)
    _unused, out, _unused_too = said(store, capsys, "status")
    assert "going back    to generation 0001 since 1970-01-01 00:00:00 UTC" in out and "tried" not in out
    state_files.write_json(store.paths.restoring, {**about, "error": "x.service is failed"})
    going_back.add_try(store.paths, store.host, {})
    _unused, out, _unused = said(store, capsys, "status")
    assert "UTC (a test); x.service is failed\ntried so far  1, again in 10 s" in out
    code, out, error = said(store, capsys, "release")
    assert (code, out, error) == (0, "nobody holds this host any more\n", "")


def test_what_the_system_says_names_the_path(
    store: Generations, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "/var/lib/gpu-memory/lock")

    monkeypatch.setattr(store, "drop", full)
    assert said(store, capsys, "release") == (
        1,
        "",
        "/var/lib/gpu-memory/lock: No space left on device; see the file and the disk that it is on (dmesg), "
        "mend that, and run this again\n",
    )


def test_no_part_of_it_needs_what_is_not_in_it(tmp_path: Path) -> None:
    tool = tmp_path / "gpu-memory"
    tool.write_bytes(host_tool.archive())
    subprocess.run([sys.executable, "-I", "-S", "-c", IMPORT_ALL, tool], check=True)


def test_anybody_may_plan_with_it(tmp_path: Path) -> None:
    tool, model = tmp_path / "gpu-memory", tmp_path / "model"
    tool.write_bytes(host_tool.archive())
    model.write_text("{}")
    command = [sys.executable, "-I", str(tool), "plan", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.strip()) == (1, f"{model}: the /api/show answer has no model_info")


def test_the_tool_that_is_kept_starts_from_bytecode(tmp_path: Path, compiled: bytes) -> None:
    tool = tmp_path / "gpu-memory"
    command = [sys.executable, "-I", "-S", "-c", WITHOUT_COMPILER, str(tool), "status", "--help"]
    tool.write_bytes(compiled)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "usage: gpu-memory status" in done.stdout
    tool.write_bytes(host_tool.archive())
    assert "TypeError" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_another_python_takes_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bytes) -> None:
    magic = importlib.util.MAGIC_NUMBER
    other = bytes([magic[0] ^ 1]) + magic[1:]
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "MAGIC_NUMBER", other)
        of_another = host_tool.compiled_archive(compiled)
    assert of_another != compiled
    tool = tmp_path / "gpu-memory"
    tool.write_bytes(of_another)
    done = subprocess.run([sys.executable, "-I", "-S", tool, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "rollback" in done.stdout
    assert host_tool.compiled_archive(of_another) != of_another


def test_a_tool_in_place_stays_where_it_is_whole_and_the_same(compiled: bytes) -> None:
    assert host_tool.compiled_archive(compiled) is compiled
    with zipfile.ZipFile(io.BytesIO(compiled)) as tool, zipfile.ZipFile(io.BytesIO(host_tool.archive())) as sources:
        assert tool.comment == sources.comment


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update({MAIN_PATH: b"# mine"}),
        lambda content: content.update({f"{MAIN_PATH}c": b"mine"}),
        lambda content: content.update({"sitecustomize.py": b"# mine"}),
        lambda content: content.pop(f"{MAIN_PATH}c"),
    ],
)
def test_a_tool_of_other_content_is_made_again(
    tmp_path: Path, compiled: bytes, change: Callable[[dict[str, bytes]], object]
) -> None:
    other = changed(compiled, tmp_path, change)
    assert host_tool.compiled_archive(other) != other
    same = changed(compiled, tmp_path, len)
    assert same != compiled and host_tool.compiled_archive(same) is same


@pytest.mark.parametrize("at", [0.01, 0.5, 0.9999])
def test_a_damaged_tool_is_made_again(compiled: bytes, at: float) -> None:
    place = int(at * len(compiled))
    for damaged in (compiled[:place], compiled[:place] + bytes(64) + compiled[place + 64 :], b""):
        assert host_tool.compiled_archive(damaged) != damaged
