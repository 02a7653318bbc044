"""What is added to a module's execution on a host: a word for a lost connection, and NVML's bindings."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import on_host as glue_on_host
from ansible_collections.selo.gpu_memory.tests.unit import builders
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act, plugin_of

MISSING = {"failed": True, "msg": "no NVML bindings", "nvml": {"status": "bindings_missing"}}
READ = {"changed": False, "nvml": {"status": "ok"}}


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Act:
    """As for other action plugins, with bindings on the controller and hosts whose /run is here."""
    bindings = tmp_path / "controller" / "pynvml.py"
    bindings.parent.mkdir()
    bindings.write_text("bindings = 'good'\n")
    monkeypatch.setattr(glue_on_host, "controllers_bindings", lambda: bindings)
    monkeypatch.setattr(glue_on_host, "LIBRARY", str(tmp_path / "run" / "lib"))
    found = Act(monkeypatch)
    found.connection._shell.tmpdir = str(tmp_path)

    def copied(_self: Any, local: str, remote: str) -> str:
        Path(remote).write_bytes(Path(local).read_bytes())
        return remote

    monkeypatch.setattr(glue_on_host.ActionModule, "_transfer_file", copied)
    monkeypatch.setattr(glue_on_host.ActionModule, "_tmpdir", str(tmp_path))
    monkeypatch.setattr(glue_on_host.ActionModule, "_fixup_perms2", lambda *_unused: None)
    return found


@pytest.mark.parametrize("name", ["dotenv", "gpu_memory_restart", "gpu_memory_info"])
def test_a_lost_connection_fails_the_task_so_that_rescue_runs(act: Act, name: str) -> None:
    act.answers = [AnsibleConnectionFailure("timed out")]
    assert act(name) == {
        "failed": True,
        "lost_connection": True,
        "msg": f"lost the connection to gpu01.example.net during {name}: timed out",
    }


@pytest.mark.parametrize(
    ("said", "cause", "cure"),
    [
        (AnsibleError("Missing sudo password"), "Missing sudo password", "-K"),
        (AnsibleError("Incorrect sudo password"), "Incorrect sudo password", "-K"),
        (("", "sudo: sorry, you must have a tty to run sudo\n"), "you must have a tty", "ansible_pipelining: false"),
        (("", "sudo: a password is required\n"), "a password is required", "-K"),
        (("operator is not in the sudoers file.\r\n", ""), "operator is not in the sudoers file", "ansible_user"),
        (
            ("", "Sorry, user ops is not allowed to execute '/bin/sh' as root on gpu01.\n"),
            "not allowed",
            "ansible_user",
        ),
        (("", "bash: warning\ndoas: Operation not permitted\n"), "doas: Operation not permitted", "ansible_user"),
    ],
)
def test_where_root_is_refused_the_refusal_itself_is_the_message(act: Act, said: Any, cause: str, cure: str) -> None:
    no_json = {"failed": True, "msg": "No start of json char found"}
    act.answers = [
        said if isinstance(said, Exception) else {**no_json, "module_stdout": said[0], "module_stderr": said[1]}
    ]
    message = act("gpu_memory_restart")["msg"]
    assert message.startswith("the host does not let us become root: ")
    assert cause in message.partition("; ")[0] and cure in message.partition("; ")[2]


def test_where_no_module_answered_the_hosts_last_words_are_the_message(act: Act) -> None:
    stderr = "\n".join([*(f"line {n}" for n in range(9)), "disk full\x1b[0m", "Shared connection to gpu01 closed.", ""])
    act.answers = [{"failed": True, "msg": "no json", "module_stdout": "", "module_stderr": stderr}]
    assert act("gpu_memory_restart")["msg"].endswith("it said: line 7 / line 8 / disk full[0m")


def test_the_hosts_last_words_have_no_secret(act: Act) -> None:
    act.answers = [{"failed": True, "msg": "MODULE FAILURE", "module_stdout": "API_KEY=hunter2 is bad", "rc": 1}]
    assert act("gpu_memory_restart")["msg"].endswith("it said: API_KEY=******** is bad")


def test_a_module_that_fails_by_itself_keeps_its_message(act: Act) -> None:
    act.answers = [{"failed": True, "msg": "sudo: is a word"}]
    assert act("gpu_memory_restart")["msg"] == "sudo: is a word"


def test_other_errors_of_ansible_stay_errors(act: Act) -> None:
    act.answers = [AnsibleError("cannot find the module")]
    with pytest.raises(AnsibleError, match="cannot find"):
        act("gpu_memory_restart")


def test_a_module_that_does_not_read_nvml_runs_once_with_its_own_arguments(act: Act) -> None:
    act.answers = [{"changed": True}]
    assert act("dotenv", path="/x/.env", values={"A": 1}) == {"changed": True}
    assert act.executed == [{"path": "/x/.env", "values": {"A": 1}}]


@pytest.mark.parametrize("shown", [True, "yes", False])
def test_the_switch_for_debugging_reaches_what_quotes_others(act: Act, shown: Any) -> None:
    variables = {"gpu_memory_show_secrets": shown}
    act.answers = [READ, READ, {"changed": False}]
    act("gpu_memory_restart", variables)
    act("gpu_memory_restart", variables, show_secrets=False)  # what the task says itself wins
    act("dotenv", variables)
    of_switch, of_task, of_another = (arguments.get("show_secrets") for arguments in act.executed)
    assert (of_switch, of_task, of_another) == (True if shown else None, False, None)


ASKED = ("backend", "gpus", "env_keys", "models")


@pytest.mark.parametrize("given", [{}, {"models": []}, {"models": None, "journal_since": 5.0, "gpus": ["0"]}])
def test_a_host_is_read_as_declared_but_for_what_the_task_names(act: Act, given: dict[str, Any]) -> None:
    declared = {**builders.declared(), "gpus": ["GPU-a"], "env_keys": ["CHAT_NUM_CTX"]}
    act.answers = [READ]
    act("gpu_memory_info", declared=declared, bindings_path="/here", **given)
    ollama = {name: declared["ollama"][name] for name in ("unit", "url")}
    wanted = {"ollama": ollama, **{name: declared[name] for name in ASKED}, "bindings_path": "/here", **given}
    assert act.executed == [wanted]


def test_a_host_with_bindings_is_asked_once(act: Act, tmp_path: Path) -> None:
    act.answers = [READ]
    assert act("gpu_memory_info") == READ
    assert act.connection.commands == [] and not (tmp_path / "run").exists()


def test_a_host_without_bindings_gets_them_once_at_a_place_of_their_content(act: Act, tmp_path: Path) -> None:
    act.answers = [MISSING, READ]
    assert act("gpu_memory_info", models=["a"]) == READ
    first, second = act.executed
    assert first == second and first["models"] == ["a"]
    sent = Path(first["bindings_path"]) / "pynvml.py"
    assert sent.parent.parent == tmp_path / "run" / "lib"
    assert sent.read_text() == "bindings = 'good'\n" and sent.stat().st_mode & 0o777 == 0o644


def test_check_mode_leaves_no_bindings(act: Act, tmp_path: Path) -> None:
    act.connection._shell.tmpdir = str(tmp_path / "ansible-tmp")
    Path(act.connection._shell.tmpdir).mkdir()
    act.answers = [MISSING, READ]
    assert act("gpu_memory_info", check_mode=True) == READ
    assert act.executed[1]["bindings_path"] == str(tmp_path / "ansible-tmp")
    assert not (tmp_path / "run").exists() and not (tmp_path / "ansible-tmp").exists()


def test_bindings_that_cannot_be_put_there_are_an_error_with_the_cure(act: Act, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    act.answers = [MISSING]
    with pytest.raises(AnsibleActionFail, match="cannot put the NVML bindings into .*; run as root"):
        act("gpu_memory_info")


@pytest.mark.parametrize("given", [{"bindings_path": "/opt/nvml"}, {}], ids=["the task's own", "none here"])
def test_nothing_is_sent_where_the_task_names_bindings_or_there_are_none(
    act: Act, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    if not given:
        monkeypatch.setattr(glue_on_host, "controllers_bindings", lambda: None)
    act.answers = [MISSING]
    assert act("gpu_memory_info", **given) == MISSING
    assert act.executed == [given] and act.connection.commands == []


@pytest.mark.parametrize(
    ("version", "origin", "good"),
    [
        ("12.535.108", "/lib/pynvml.py", True),
        ("13.580.65", "/lib/pynvml.py", True),
        ("12.535.107", "/lib/pynvml.py", False),
        ("11.525.131", "/lib/pynvml.py", False),
        ("12.535.108", "/lib/pynvml/__init__.py", False),  # another project's package of that name
        ("12.535.108", None, False),
        ("12.535.108", "", False),
        (None, "/lib/pynvml.py", False),
    ],
)
def test_the_controllers_bindings_must_be_nvidias_and_new_enough(
    monkeypatch: pytest.MonkeyPatch, version: str | None, origin: str | None, good: bool
) -> None:
    def said(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", said)
    spec = None if origin is None else SimpleNamespace(origin=origin or None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _unused: spec)
    assert glue_on_host.controllers_bindings() == (Path("/lib/pynvml.py") if good else None)


PLUGINS = Path(glue_on_host.__file__).parents[2]
MODULES = {path.stem: path.read_text() for path in sorted(PLUGINS.joinpath("modules").glob("*.py"))}
# These ask nothing of the driver and need no root, so that Ansible's own way to run a module does.
PLAIN = {"gpu_memory_discover", "gpu_memory_plan"}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in PLAIN])
def test_every_action_knows_check_mode_and_only_those_on_a_host_need_a_connection(name: str) -> None:
    plugin = plugin_of(name)
    on_host = issubclass(plugin, glue_on_host.ActionModule)
    assert on_host == ("def main(" in MODULES[name])
    assert plugin._supports_check_mode
    assert plugin._requires_connection == (on_host or name == "gpu_memory_wait")
    assert plugin._supports_async == on_host


HEADERS = {"Authorization": "Bearer plant-1", "X-Number": 7}
LOAD = {"url": "http://127.0.0.1:8000/api/chat", "headers": HEADERS}


@pytest.fixture
def run_dir(act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(glue_on_host, "PUT", glue_on_host.PUT.replace("/run/", f"{tmp_path}/"))
    return tmp_path


def test_headers_are_no_argument_but_a_file_for_its_reader_alone(act: Act, run_dir: Path) -> None:
    act.answers = [READ]
    act("gpu_memory_assert", load=LOAD, duration=1)
    (given,) = act.executed
    path = Path(given.pop("headers_path"))
    assert given == {"load": {"url": LOAD["url"]}, "duration": 1, "bindings_path": given["bindings_path"]}
    assert path.parent == run_dir and path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {"Authorization": "Bearer plant-1", "X-Number": "7"}
    assert not any("plant-1" in command for command in act.connection.commands)


@pytest.mark.parametrize("answer", [{"failed": True, "msg": "no such argument"}, AnsibleConnectionFailure("closed")])
@pytest.mark.parametrize("async_val", [0, 60])
def test_where_nobody_takes_the_headers_they_are_taken_away(
    act: Act, run_dir: Path, async_val: int, answer: Any
) -> None:
    act.async_val, act.answers = async_val, [answer]
    act("gpu_memory_assert", load=LOAD)
    assert not Path(act.executed[0]["headers_path"]).exists()
    assert act.removed == ([str(run_dir)] if async_val else [])


def test_who_waits_for_a_job_is_told_what_it_may_leave(act: Act, run_dir: Path) -> None:
    act.async_val, act.answers = 60, [{"started": 1, "results_file": "/x"}]
    result = act("gpu_memory_assert", load=LOAD)
    assert (result["headers_path"], result["tmpdir"]) == (act.executed[0]["headers_path"], str(run_dir))
    assert Path(result["headers_path"]).exists() and act.removed == []


@pytest.mark.parametrize("refusal", [AnsibleError("no input"), {"rc": 1, "stdout": "", "stderr": "sudo: no tty"}])
def test_headers_come_by_a_copy_where_a_command_gets_no_input(
    act: Act, run_dir: Path, monkeypatch: pytest.MonkeyPatch, refusal: Any
) -> None:
    execute = act.connection.execute

    def without_input(command: str, **options: Any) -> dict[str, Any]:
        if "in_data" not in options:
            return execute(command, **options)
        if isinstance(refusal, Exception):
            raise refusal
        return dict(refusal)

    def transferred(_self: Any, remote: str, text: str) -> str:
        Path(remote).write_text(text)
        return remote

    monkeypatch.setattr(act.connection, "execute", without_input)
    monkeypatch.setattr(glue_on_host.ActionModule, "_transfer_data", transferred)
    act.answers = [READ]
    act("gpu_memory_assert", load=LOAD)
    assert "plant-1" in Path(act.executed[0]["headers_path"]).read_text()
    assert not (run_dir / "headers").exists()


def test_check_mode_and_a_load_without_headers_send_none(act: Act, run_dir: Path) -> None:
    act.answers = [READ, READ]
    act("gpu_memory_assert", load=LOAD, check_mode=True)
    act("gpu_memory_assert", load={"url": LOAD["url"], "headers": {}})
    assert [given["load"].get("headers") for given in act.executed] == [None, {}]
    assert all("headers_path" not in given for given in act.executed)
    assert not list(run_dir.glob("gpu-memory-load*"))
