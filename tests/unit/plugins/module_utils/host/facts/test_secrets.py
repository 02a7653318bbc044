"""What a host keeps in its env files, units and processes that must not be shown, and is not."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import state, state_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands


def test_the_values_of_an_env_file_are_known_as_any_reader_takes_them(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text('export A=\'first value\'\nB="second \\"value\\""\nC=third\\ value # note\n')
    known = secrets.secrets_in_file(str(path))
    assert {"first value", 'second "value"', "third value"} <= known
    assert secrets.secrets_in_file(str(tmp_path)) == secrets.secrets_in_file("/nonexistent") == set()


def test_the_units_and_files_of_a_host_tell_what_must_not_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / ".env", tmp_path / "default"
    ours.write_text("API=of the backend\n")
    theirs.write_text("API=of the unit\n")
    said = {
        "ollama.service": f'Environment="A=from the unit" HOME=/root\nEnvironmentFiles={theirs} (ignore_errors=no)\n',
        "--property": 'Environment=LANG=C "A=from systemd"\n',
    }
    asked = []

    def run(words: list[str]) -> commands.Done:
        asked.append(words[2])
        return commands.Done(0, said[words[2]].encode(), b"") if words[2] in said else commands.Done(1, b"", b"")

    monkeypatch.setattr(commands, "run", run)
    pipe, environment = subprocess.PIPE, {**os.environ, "B": "of the process"}
    with subprocess.Popen(["cat"], env=environment, stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"!")
        assert process.stdout.read(1) == b"!"  # before it runs, its environment may be empty yet
        said["ollama.service"] += f"MainPID={process.pid}\n"
        known = secrets.secrets_of_host(["ollama.service", "gone.service"], [str(ours), "/no/such/file"])
    assert known >= {"from systemd", "from the unit", "of the process", "of the unit", "of the backend"}
    assert asked == ["--property", "ollama.service", "gone.service"]


def test_every_process_below_a_units_main_one_tells_its_environment_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "start"
    script.write_text("export C='of the script'\n")
    inner = "A=\\$(echo of the inner shell); export A; cat"  # which no text says
    command = ["sh", "-c", f'sh -c "{inner}"; true', "sh", "--vendor-key", "of the command"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        run = {"ExecStartPre": "/bin/a --api-key=first", "ExecStopPost": "/bin/b", "ExecStart": script}
        shown = f"MainPID={process.pid}\n" + "".join(
            f"{name}={{ path=/x ; argv[]={argv} ; ignore_errors=no ; pid=7 ; code=exited ; status=3 }}\n"
            for name, argv in run.items()
        )
        monkeypatch.setattr(commands, "run", lambda words: commands.Done(0, shown.encode(), b""))
        assert process.stdin and process.stdout
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"  # all of them run
        known = secrets.secrets_of_host(["ollama.service"], [])
    assert known >= {"of the inner shell", "of the command", "of the script", "first"}
    assert "exited" not in known


def test_a_file_that_may_not_be_read_hides_nothing_and_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".env"
    path.write_text("API=hidden value\n")

    def denied(*_unused: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert secrets.secrets_in_file(str(path)) == set()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> state.Paths:
    """Of a host whose systemd says nothing."""
    monkeypatch.setattr(commands, "run", lambda words: commands.Done(1, b"", b""))
    return state.Paths(root=str(tmp_path / "kept"))


SAID = "Error: no, not with memory of vault-word"


def test_what_the_kept_generations_name_is_known_without_being_told(tmp_path: Path, paths: state.Paths) -> None:
    for name in ("keys", "private"):
        (tmp_path / name).write_text(f"A=vault-word-of-{name}\n")
    generation = Path(paths.generations) / "0001"
    generation.mkdir(parents=True)
    services = {"ollama": {"unit": "ollama.service"}, "private_files": [str(tmp_path / "private")]}
    manifest = {"services": services, "env": {str(tmp_path / "keys"): {"keys": ["CHAT_NUM_CTX"]}}}
    state_files.write_json(str(generation / "manifest.json"), manifest)
    (generation.parent / "0002").mkdir()
    (generation.parent / "0002" / "manifest.json").write_text("damaged")
    mask = secrets.Masking(paths=paths)
    assert mask("use vault-word-of-keys, vault-word-of-private") == "use ********, ********"


def test_what_was_seen_once_stays_masked_when_it_is_gone(tmp_path: Path, paths: state.Paths) -> None:
    path = tmp_path / ".env"
    path.write_text("A=vault-word\n")
    mask = secrets.Masking(paths=paths)
    assert mask(SAID) == SAID
    mask.look({"backend": {"kind": "none"}, "restart": [], "private_files": [str(path)]})
    path.write_text("A=another-word\n")
    mask.look()
    assert mask(f"{SAID}, another-word") == "Error: no, not with memory of ********, ********"


def test_the_processes_of_a_command_tell_what_must_not_be_shown(tmp_path: Path, paths: state.Paths) -> None:
    pipe, environment = subprocess.PIPE, {**os.environ, "A": "vault-word"}
    words = ["sh", "-c", "echo !; read -r a", "gpu-memory-test-backend"]
    with subprocess.Popen(words, env=environment, stdin=pipe, stdout=pipe, bufsize=0, cwd=tmp_path) as process:
        assert process.stdin and process.stdout
        assert process.stdout.read(1) == b"!"
        mask = secrets.Masking(paths=paths)
        command = {"kind": "command", "process_match": "gpu-memory-test-backend", "directory": str(tmp_path)}
        mask.look({"backend": command, "restart": []})  # type: ignore[typeddict-item]
        process.stdin.write(b"\n")
    assert mask(SAID) == "Error: no, not with memory of ********"


def test_names_that_were_declared_stay_readable_and_all_does_where_that_is_asked_for(
    tmp_path: Path, paths: state.Paths
) -> None:
    path = tmp_path / ".env"
    path.write_text("A=vault-word\nB=my-ollama\nC=my-own-model\n")
    said = "my-ollama.service: my-own-model: vault-word"
    declared = (["my-ollama.service"], [str(path)], ["my-own-model"])
    assert secrets.Masking(*declared, paths=paths)(said) == "my-ollama.service: my-own-model: ********"
    assert secrets.Masking(*declared, shows_secrets=True, paths=paths)(said) == said
