"""Which processes are the backend's: those of its unit's control group, or a command's with what it has started."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import proc_stat

HOST = "0::/init.scope\n"
CONTAINER = "9:name=systemd:/machine.slice/libpod-1/init.scope\n0::/init.scope\n"
UNIT = "/system.slice/selo-ai.service"


@pytest.mark.parametrize(
    ("cgroup", "of_init", "belongs"),
    [
        (f"0::{UNIT}\n", HOST, True),
        (f"0::{UNIT}/workers\n", HOST, True),
        (f"0::{UNIT[:-8]}-two.service\n", HOST, False),
        (f"0::{UNIT}2\n", HOST, False),
        ("0::/system.slice/ollama.service\n", HOST, False),
        ("0::/\n", HOST, False),
        ("", HOST, False),
        (f"9:name=systemd:/machine.slice/libpod-1{UNIT}\n0::/\n", CONTAINER, True),
        # a unit of the same name inside a container that runs on this host
        (f"0::/machine.slice/libpod-1{UNIT}\n", HOST, False),
        (f"9:name=systemd:/machine.slice/libpod-2{UNIT}\n", CONTAINER, False),
    ],
)
def test_the_processes_of_a_control_group(cgroup: str, of_init: str, belongs: bool) -> None:
    assert host_read.in_control_group(cgroup, of_init, UNIT) is belongs


@pytest.mark.parametrize(("name", "belongs"), [("selo-ai", True), ("ollama", False)])
def test_a_control_group_that_systemd_gives_from_the_machines_root_on(name: str, belongs: bool) -> None:
    below = "/machine.slice/libpod-1/system.slice/"
    cgroup = f"9:name=systemd:{below}{name}.service\n8:pids:/machine.slice/libpod-1\n"
    of_init = f"{CONTAINER}8:pids:/machine.slice/libpod-1\n"
    assert host_read.in_control_group(cgroup, of_init, f"{below}selo-ai.service") is belongs


def test_only_models_of_this_host_are_shown_and_by_the_name_that_ollama_lists(serve: Any) -> None:
    """What is asked of a cloud's tag leaves the host, even a look at it."""
    tags = [{"name": name} for name in ("qwen3:8b", "own:8b-cloud")] + [{"name": "stub:latest", "remote_host": "x"}]
    asked: list[str] = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        if handler.path.endswith("/api/show"):
            asked.append(json.loads(body)["model"])
        answers = {"/api/version": {"version": "0.32.15"}, "/api/tags": {"models": tags}, "/api/ps": {"models": []}}
        return 200, json.dumps(answers.get(handler.path, {})).encode()

    names = ["library/Qwen3:8B", "own:8b-cloud", "stub", "gone"]
    facts = host_read.read_ollama_api(serve(answer), names, str)
    assert (facts["error"], asked, list(facts["show"])) == (None, ["qwen3:8b"], ["library/Qwen3:8B"])


FOREIGN: list[Any] = [[], {}, None, "x", 7, True, {"models": {}}, {"models": [1, [], {"name": 1}]}, {"version": []}]


@pytest.mark.parametrize("foreign", FOREIGN, ids=json.dumps)
def test_what_answers_may_be_no_ollama(serve: Any, foreign: Any) -> None:
    facts = host_read.read_ollama_api(serve(lambda handler, body: (200, json.dumps(foreign).encode())), ["a"], str)
    assert (facts["version"], facts["models"], facts["loaded"], facts["show"]) == (None, [], [], {})


def test_what_ollama_says_of_a_model_in_other_types_is_not_said(serve: Any) -> None:
    model = {"name": "a:latest", "size": "7", "size_vram": True, "digest": 7, "context_length": 4096, "expires_at": 7}
    shown = {"details": [], "model_info": 7, "tensors": {}, "capabilities": "x", "parameters": {}, "modelfile": []}

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        return 200, json.dumps(shown if handler.path.endswith("/api/show") else {"models": [model]}).encode()

    facts = host_read.read_ollama_api(serve(answer), ["a"], str)
    known = {"name": "a:latest", "context_length": 4096}
    assert facts["loaded"] == [{**known, **dict.fromkeys(("digest", "size", "size_vram", "expires_at"))}]
    found = facts["show"]["a"]
    assert {found.get(name) for name in shown if name not in ("parameters", "modelfile")} == {None}
    assert (found.get("modelfile"), found.get("size")) == ("", None)


def test_files_beside_a_models_own_are_told_and_nothing_else_of_the_modelfile(serve: Any) -> None:
    model = {"name": "a:latest", "size": 7_000_000_000}
    written = f"FROM /b/sha256-{'a' * 64}\nADAPTER /b/sha256-{'b' * 64}\nSYSTEM secret words\nADAPTER is a word\n"
    shown = {"modelfile": written, "projector_info": {"clip.vision.block_count": 27}}

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        return 200, json.dumps(shown if handler.path.endswith("/api/show") else {"models": [model]}).encode()

    found = host_read.read_ollama_api(serve(answer), ["a"], str)["show"]["a"]
    assert found["modelfile"] == f"ADAPTER sha256-{'b' * 64}\n"
    assert (found["projector_info"], found["size"]) == ({"clip.vision.block_count": 27}, 7_000_000_000)


def test_the_files_of_loads_are_named_by_the_models_that_ollama_lists(serve: Any) -> None:
    asked: list[str] = []

    def answer(handler: Any, body: bytes) -> tuple[int, bytes]:
        asked.append(json.loads(body)["model"])
        return 200, json.dumps({"modelfile": f"FROM {file_of(asked[-1])}\n"}).encode()

    def file_of(model: str) -> str:
        return "/m/blobs/sha256-" + model[0] * 64

    models = [{"name": name, "remote": name == "cloud"} for name in ("cloud", "a", "b", "c")]
    api = {"models": models, "show": {"a:latest": {"blob": file_of("a")}}}
    assert host_read.read_names(serve(answer), api, [file_of("a"), file_of("b")]) == {file_of("b"): "b"}
    assert asked == ["a", "b"], "no cloud model, and no more than needed"
    assert host_read.read_names("http://127.0.0.1:1", api, [file_of("b")]) == {}


WANTED = {"A": "1", "B": "x y"}


def env_file(path: Path, **changes: Any) -> dict[str, Any]:
    given = {"keys": ["A", "B"], "readers": ["python-dotenv", "bash"], "wanted": WANTED, **changes}
    return host_read.read_env_file(str(path), **given)


def test_an_env_file_says_its_values_and_what_would_keep_it_from_an_edit(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert env_file(path)["refusals"] == []
    assert env_file(tmp_path / "no" / ".env")["refusals"] == [
        f"the directory {tmp_path}/no is missing; create it, or correct the path"
    ]
    assert env_file(tmp_path / "no" / ".env", add_keys=False)["refusals"] == []
    path.write_text("A=9\nOTHER=s3cret\n")
    found = env_file(path)
    assert (found["values"]["A"], found["values"]["B"], found["refusals"], found["error"]) == ("9", None, [], None)
    assert "s3cret" not in str(found)
    assert path.read_text() == "A=9\nOTHER=s3cret\n"
    assert "U+000A" in env_file(path, wanted={"A": "x\ny"})["refusals"][0]
    assert env_file(path, wanted={"B": "x\ny"}, add_keys=False)["refusals"] == []
    path.write_text("if x; then\n")
    assert "bash: from line 1 on" in env_file(path)["refusals"][0]
    path.write_text("A=1\n" * 300_000)
    assert "larger than 128 KiB" in env_file(path)["error"]
    path.unlink()
    path.symlink_to(".env")
    assert "loop of symbolic links; take it away" in env_file(path)["error"]
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in env_file(path)["refusals"][0]


def test_a_command_s_children_are_its_own() -> None:
    shell = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", shell], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout and parent.stdout.readline() == b"1\n"
        family = host_read.with_descendants([parent.pid])
        assert len(family) == 2
        assert parent.pid in family
        assert os.getpid() not in family
        assert proc_stat.start_s(parent.pid) <= proc_stat.start_s((set(family) - {parent.pid}).pop())
        parent.communicate(b"\n")


def test_only_who_works_in_the_directory_is_compared_and_by_a_beginning(tmp_path: Path) -> None:
    """A stranger writes into his command line what takes an expression long; only the first 32768 bytes count."""
    words = [sys.executable, "-c", "print(1, flush=True); input()"]
    pipe, (here, elsewhere) = subprocess.PIPE, (tmp_path / "here", tmp_path / "elsewhere")
    here.mkdir()
    elsewhere.mkdir()
    found = []
    for place, arguments in ((here, ["main.py"]), (here, ["x" * 40000, "main.py"]), (elsewhere, ["main.py"])):
        with subprocess.Popen([*words, *arguments], stdin=pipe, stdout=pipe, cwd=place) as process:
            assert process.stdout and process.stdout.readline() == b"1\n"
            found.append(host_read.find_processes(r"python.*main\.py", str(here)) == [process.pid])
            process.communicate(b"\n")
    assert found == [True, False, False]


def test_of_a_variable_that_stands_twice_the_first_counts_and_all_are_seen() -> None:
    # Not by execve() of Python, which takes a mapping: the items are put there as they are.
    start = "import ctypes; ctypes.CDLL(None).execve(b'/bin/cat', (ctypes.c_char_p * 2)(b'cat'), ENV)"
    items = "(ctypes.c_char_p * 5)(b'A=1', b'A=2', b'B=\\xff', b'C')"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", start.replace("ENV", items)], stdin=pipe, stdout=pipe) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"\n")  # cat answers once it is there
        process.stdin.flush()
        process.stdout.readline()
        assert host_read.process_environment(process.pid) == {"A": "1", "B": "\ufffd", "C": ""}
        items_of = host_read.environment_items(process.pid, "surrogateescape")
        process.stdin.close()
    assert items_of == [("A", "1"), ("A", "2"), ("B", "\udcff"), ("C", "")]
    with pytest.raises(OSError):
        host_read.process_environment(process.pid)


def test_a_file_that_was_put_in_place_with_an_old_time_was_written_now(tmp_path: Path) -> None:
    """As `cp -p`, `rsync -a` and `tar` do it; a time of the future says nothing, as after a clock was set back."""
    file = tmp_path / ".env"
    for modified in (1_600_000_000, 4_000_000_000):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        file.write_text("A=1\n")
        os.utime(file, (modified, modified))
        written = host_read.read_file(str(file))["modified_s"]
        assert written is not None and before - 1 < written < time.clock_gettime(time.CLOCK_BOOTTIME) + 1
