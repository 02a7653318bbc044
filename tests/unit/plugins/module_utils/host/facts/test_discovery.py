from __future__ import annotations

import os

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import discovery


@pytest.mark.parametrize(
    "command, is_server",
    [
        (["/usr/local/bin/ollama", "serve"], True),
        (["ollama", "serve"], True),
        (["/usr/bin/python3", "/opt/x/ollama", "serve"], True),
        (["ollama", "run", "serve"], False),
        (["ollama", "runner", "--port", "1"], False),
        (["nano", "ollama", "x", "serve"], False),
        (["my-ollama", "serve"], False),
        ([], False),
    ],
)
def test_what_is_a_server(command, is_server):
    assert discovery._servers.is_server(command) is is_server


NO_SUCH_PID = 2**22 + 1  # above the kernel's limit


@pytest.fixture
def host(monkeypatch):
    """A host of processes that do not exist: {pid: (command, unit)}; Ollama's API is a fake that knows one model."""
    processes: dict[int, tuple[list[str], str | None]] = {}
    published = {NO_SUCH_PID + 7: "http://127.0.0.1:8080"}
    api = {"models": [{"name": "a:7b"}], "error": None}
    monkeypatch.setattr(discovery.host_read, "all_pids", lambda: sorted(processes))
    monkeypatch.setattr(discovery.host_read, "command_line", lambda pid: processes[pid][0])
    monkeypatch.setattr(discovery.host_read, "read_ollama_api", lambda url, models, mask: api)
    monkeypatch.setattr(discovery.server_process, "published_at", published.get)
    monkeypatch.setattr(
        discovery.server_process,
        "whose",
        lambda pid: {"kind": "unit" if processes[pid][1] else "process", "name": processes[pid][1]},
    )
    return processes, api


def test_ollama_as_a_unit(host):
    host[0][NO_SUCH_PID] = (["ollama", "serve"], "ollama.service")
    assert discovery.discover() == {
        "ollama": {"unit": "ollama.service", "url": "http://127.0.0.1:11434"},
        "models": ["a:7b"],
        "backends": [],
        "notes": [],
    }


def test_what_runs_in_the_cloud_is_no_model_of_this_host(host):
    processes, api = host
    processes[NO_SUCH_PID] = (["ollama", "serve"], "ollama.service")
    api["models"] += [{"name": "stub:latest", "remote": True}, {"name": "own:8b-cloud", "remote": False}]
    assert discovery.discover()["models"] == ["a:7b"]
    api["version"] = "0.17.5"
    assert discovery.discover()["models"] == ["a:7b", "own:8b-cloud"]


def test_ollama_in_the_container_of_a_quadlet(host):
    host[0][NO_SUCH_PID + 7] = (["/bin/ollama", "serve"], "llm.service")
    assert discovery.discover()["ollama"] == {"unit": "llm.service", "url": "http://127.0.0.1:8080"}


def test_nothing_runs(host):
    found = discovery.discover()
    assert (found["ollama"], found["models"], found["notes"]) == (None, [], ["no Ollama server runs here"])


def test_ollama_in_a_container_cannot_be_managed(host):
    host[0][NO_SUCH_PID] = (["ollama", "serve"], None)
    found = discovery.discover()
    assert found["ollama"] is None
    assert "which is of no unit, and only a unit" in found["notes"][0]


def test_two_servers_and_one_that_does_not_answer(host):
    processes, api = host
    processes[NO_SUCH_PID] = (["ollama", "serve"], None)
    processes[NO_SUCH_PID + 1] = (["ollama", "serve"], "snap.ollama.listener.service")
    api.update(models=[], error="connection refused")
    found = discovery.discover()
    assert found["ollama"]["unit"] == "snap.ollama.listener.service"
    assert [words in note for words, note in zip(("2 Ollama servers", "refused"), found["notes"])] == [True, True]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_backend_is_known_by_the_env_file_where_it_runs(host, here):
    (here / ".env").write_text("CHAT_NUM_CTX=4096\nAPI_KEY=s3cret\nOLLAMA_GPU_LAYERS=40\n")
    host[0][os.getpid()] = (["python3", "my main.py", "--token", "s3cret"], None)
    (backend,) = discovery.discover()["backends"]
    assert backend == {
        "kind": "command",
        "command": "python3 'my main.py'",
        "process_match": r"my\ main\.py( |$)",
        "directory": str(here),
        "env_files": [{"path": ".env"}],
        "keys_found": ["CHAT_NUM_CTX", "OLLAMA_GPU_LAYERS"],
    }


def test_a_backend_that_is_a_unit(host, here):
    (here / ".env").write_text("OLLAMA_HOST=x\n")
    host[0][os.getpid()] = (["python3", "main.py"], "backend.service")
    (backend,) = discovery.discover()["backends"]
    assert (backend["kind"], backend["unit"]) == ("unit", "backend.service")
    assert "command" not in backend


@pytest.mark.parametrize("text", ["API_KEY=1\n", ""])
def test_another_env_file_is_no_backends(host, here, text):
    (here / ".env").write_text(text)
    host[0][os.getpid()] = (["python3"], "x.service")
    assert discovery.discover()["backends"] == []


def test_ollama_itself_is_no_backend(host, here):
    (here / ".env").write_text("OLLAMA_HOST=x\n")
    host[0][os.getpid()] = (["ollama", "serve"], "ollama.service")
    assert discovery.discover()["backends"] == []


def test_two_backends_need_a_human(host, here, monkeypatch):
    backend = {"kind": "unit"}
    monkeypatch.setattr(discovery, "_backends", lambda units: [backend, backend])
    assert any("more than one backend" in note for note in discovery.discover()["notes"])


def test_a_process_of_ones_own_is_of_no_unit_or_of_one():
    unit = discovery._unit_of_process(os.getpid())
    assert unit is None or unit.endswith(".service")
    assert discovery._unit_of_process(NO_SUCH_PID) is None
    gone = discovery._server(NO_SUCH_PID)
    assert (gone.unit, gone.url) == (None, "http://127.0.0.1:11434")


def test_who_calls_ollama_by_its_environment_is_named_without_any_value():
    found = discovery.callers(
        [
            (1, "open-webui.service", ["/usr/bin/python3", "x"], ["OLLAMA_BASE_URL"]),
            (2, "open-webui.service", ["/usr/bin/python3", "y"], ["OLLAMA_BASE_URL"]),
            (3, None, ["/opt/bin/aider"], ["OLLAMA_API_BASE", "OLLAMA_HOST"]),
            (4, None, ["/usr/local/bin/ollama", "run"], ["OLLAMA_HOST"]),
            (5, "selo-backend.service", ["python3"], ["OLLAMA_HOST"]),
            (6, "cron.service", ["cron"], []),
        ],
        {"selo-backend.service"},
    )
    assert [note.partition(" and no .env")[0] for note in found] == [
        "open-webui.service seems to call Ollama, with OLLAMA_BASE_URL in its environment",
        "aider (process 3) seems to call Ollama, with OLLAMA_API_BASE, OLLAMA_HOST in its environment",
    ]


def test_only_names_are_read_from_an_environment():
    assert set(discovery._caller_keys(os.getpid())) <= set(discovery.CALLER_KEYS)
