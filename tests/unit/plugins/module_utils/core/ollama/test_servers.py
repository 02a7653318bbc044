# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a process is, who listens where, and what is said where another than the declared unit answers."""

from __future__ import annotations

import sys

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import servers

ID = "3f1c2ab90d5e" + "0" * 52
URL = "http://127.0.0.1:11434"


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("/system.slice/ollama.service", "unit", "ollama.service"),
        ("/gpu.slice/gpu-llm.slice/ollama.service", "unit", "ollama.service"),
        ("/system.slice/system-ollama.slice/ollama@1.service", "unit", "ollama@1.service"),
        (f"/system.slice/docker-{ID}.scope", "container", "docker 3f1c2ab90d5e"),
        (f"/docker/{ID}", "container", "docker 3f1c2ab90d5e"),
        (f"/system.slice/ollama.service/libpod-payload-{ID}", "container", "podman 3f1c2ab90d5e"),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service",
            "user unit",
            "ollama.service of uid 1000",
        ),
        ("/user.slice/user-1000.slice/session-3.scope", "session", None),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope", "session", None),
        ("/system.slice/ollama.service/runner", "unit", "ollama.service"),
        ("/lxc.payload.ai/system.slice/ollama.service", "container", "lxc ai"),
        ("", "process", None),
        ("junk", "process", None),
        ("/", "process", None),
    ],
)
def test_whose_a_process_is(path, kind, name):
    assert servers.owner(servers.paths_here({"": path}, {"": "/init.scope"})) == {"kind": kind, "name": name}


def test_a_host_that_is_itself_a_container():
    begin = {"": f"/machine.slice/libpod-{ID}.scope"}
    paths = servers.paths_here({"": f"{begin['']}/system.slice/ollama.service"}, begin)
    assert servers.owner(paths)["name"] == "ollama.service"
    legacy = servers.paths_here(
        {"cpu": "/", "name=systemd": "/system.slice/x.service"}, {"name=systemd": "/init.scope"}
    )
    assert servers.owner(legacy)["name"] == "x.service"


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is one of a little-endian machine")
def test_what_listens():
    table = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 4711 1 0 100 0 0 10 0
   1: 0100007F:2CAA 0100007F:D431 01 00000000:00000000 00:00000000 00000000   998        0 4712 1 0 20 4 30 10 -1
"""
    assert servers.listeners(table) == [("127.0.0.1", 11434, "4711")]
    six = "head\n 0: 00000000000000000000000000000000:2CAA 0:0 0A 0:0 00:0 0 998 0 4713 1\n"
    assert servers.listeners(six) == [("::", 11434, "4713")]
    assert servers.listeners("") == []


@pytest.mark.parametrize(
    ("url", "port"),
    [
        (URL, ("127.0.0.1", 11434)),
        ("http://gpu", ("gpu", 80)),
        ("https://gpu/x", ("gpu", 443)),
        ("http://[::1]:1", ("::1", 1)),
        ("http://h:x", None),
        ("", None),
    ],
)
def test_the_place_of_an_address(url, port):
    assert servers.place_of(url) == port


@pytest.mark.parametrize(
    ("peer", "inodes"),
    [("127.0.0.1", {"1"}), ("127.0.0.2", {"2"}), ("192.0.2.1", {"3", "4"}), ("::ffff:127.0.0.2", {"2"})],
)
def test_which_socket_takes_a_connection(peer, inodes):
    table = [("127.0.0.1", 7, "1"), ("::ffff:127.0.0.2", 7, "2"), ("0.0.0.0", 7, "3"), ("::", 7, "4"), ("::", 8, "5")]
    assert servers.listening_at(table, peer, 7) == inodes


@pytest.mark.parametrize(
    ("source", "peer", "here"),
    [
        ("127.0.0.1", "127.0.0.2", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::1", "::1", True),
    ],
)
def test_whether_a_connection_stays_here(source, peer, here):
    assert servers.stays_here(source, peer) is here


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0", URL),
        ("::", URL),
        ("::ffff:127.0.0.1", URL),
        ("192.0.2.1", "http://192.0.2.1:11434"),
        ("::1", "http://[::1]:11434"),
    ],
)
def test_an_address_as_the_host_sees_it(address, url):
    assert servers.url_of(address, 11434) == url


def server(**changes):
    return {
        "pid": 7,
        "command": "ollama",
        "user": "joe",
        "kind": "unit",
        "name": "x.service",
        "ours": False,
        "serves": True,
        **changes,
    }


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (server(), ["the unit x.service", "gpu_memory_ollama.unit=x.service"]),
        (server(kind="container", name="docker 3f"), ["the container docker 3f", "stop it and start ollama.service"]),
        (server(kind="user unit", name="o.service of uid 7"), ["user unit o.service of uid 7", "units of the system"]),
        (server(kind="session", name=None), ["process 7 (ollama, user joe), started by hand", "stop it"]),
        (server(kind="process", name=None, user=None), ["process 7 (ollama), which is of no unit", "stop it"]),
        (server(command="docker-proxy", name="docker.service"), ["a container whose port process 7", "not served yet"]),
        (server(command="nginx", serves=False), ["the unit x.service", "may pass requests on"]),
        (server(command="nginx", serves=False, kind="session"), ["started by hand", "may pass requests on"]),
        (
            server(kind="namespace", name="x.service"),
            ["in a PID namespace of its own", "a container is not served yet"],
        ),
        (server(kind="started", name="cron.service"), ["which cron.service started", "have ollama.service run it"]),
        (server(pid=1, command="systemd", kind="process", serves=False), ["systemctl list-sockets", "set gpu_memory"]),
        (server(pid=None), ["no process of this host listens", "gpu_memory_ollama.url"]),
    ],
)
def test_another_server_is_named_with_the_cure(answers, says):
    text = servers.mismatch("ollama.service", URL, answers)
    for words in says:
        assert words in text


def test_a_unit_that_does_not_run_listens_nowhere():
    text = servers.mismatch("ollama.service", URL, server(), runs=False)
    assert text.endswith("set gpu_memory_ollama.unit=x.service, or stop it and start ollama.service")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (server(), "at http://127.0.0.1:11434 the unit x.service answers: set gpu_memory_ollama.unit=x.service"),
        (server(kind="user unit"), "move it there, or stop it and give Ollama a unit, as its install script does"),
        (server(kind="session"), "started by hand answers: stop it and give Ollama a unit, as its install script does"),
        (
            server(kind="container", name="c"),
            "move one to Compose): move it there, or stop it and give Ollama a unit, as its",
        ),
        (server(kind="started", name="cron.service"), "have a unit of its own run it instead, or, if cron.service is"),
        (server(serves=False), "set gpu_memory_ollama.unit to the unit that runs Ollama on this host"),
        (server(pid=None), "So set gpu_memory_ollama.unit to the unit that runs Ollama on this host"),
    ],
)
def test_a_unit_that_is_not_there_is_not_to_be_started(answers, says):
    text = servers.mismatch("ollama.service", URL, answers, runs=False, exists=False)
    assert says in text and "ollama.service" not in text


def test_where_the_unit_listens_is_the_cure_for_what_passes_requests_on():
    text = servers.mismatch("ollama.service", URL, server(command="nginx", serves=False), ["http://127.0.0.1:1"])
    assert "set gpu_memory_ollama.url=http://127.0.0.1:1, where ollama.service listens" in text


def test_the_unit_itself_is_no_mismatch():
    assert servers.mismatch("ollama.service", URL, server(ours=True)) is None
    assert servers.mismatch("ollama.service", URL, None) is None


@pytest.mark.parametrize(
    ("unit", "main", "exec_start", "so"),
    [
        ("llm.service", 7, "/opt/start", True),
        ("ollama-gpu1.service", 6, "/bin/sh -c /opt/start", True),
        ("llm.service", 6, "/bin/sh -c ollama serve | tee /var/log/x", True),
        ("cron.service", 6, "/usr/sbin/cron -f", False),
        ("supervisor.service", 6, "/usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf", False),
        ("ssh.service", 6, "", False),
    ],
)
def test_whether_a_unit_is_there_for_ollama(unit, main, exec_start, so):
    assert servers.is_for_ollama(unit, main, exec_start, 7) is so


@pytest.mark.parametrize(
    ("peer", "so"),
    [("10.200.0.2", True), ("127.0.0.1", True), ("10.200.0.0", False), ("10.200.0.1", False), ("fe80::1", True)],
)
def test_whether_an_address_is_of_a_network_namespace(peer, so):
    trie = """Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.200.0.0/24 2 0 2
        |-- 10.200.0.0
           /24 link UNICAST
        |-- 10.200.0.2
           /32 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
"""
    if_inet6 = "fe800000000000000000000000000001 02 40 20 80     eth0\n"
    assert servers.is_of_network(peer, trie, if_inet6) is so


@pytest.mark.parametrize(
    ("command", "runner", "is_server"),
    [
        (["/usr/local/lib/ollama/llama-server", "--model", "x"], True, False),
        (["ollama-runner", "--port", "1"], True, False),
        (["/tmp/ollama_llama_server", "--ctx-size", "8192"], True, False),
        (["/usr/bin/python3", "/usr/bin/ollama", "runner"], True, False),
        (["/opt/backend", "runner"], False, False),
        (["python3", "main.py", "--token", "secret", "llama-server"], False, False),
        (["/usr/bin/python3", "/usr/local/lib/ollama/llama-server"], True, False),
        (["/usr/bin/ollama", "runner", "--ollama-engine"], True, False),
        (["/usr/bin/ollama", "serve"], False, True),
        (["python3", "/usr/bin/ollama", "serve"], False, True),
        (["ollama", "start"], False, True),
        (["ollama", "run", "x"], False, False),
        (["vim", "llama-server"], False, False),
        ([], False, False),
    ],
)
def test_what_a_command_line_is(command, runner, is_server):
    assert servers.is_runner(command) is runner
    assert servers.is_server(command) is is_server


def test_only_a_runner_of_a_blob_is_an_ollamas():
    assert servers.is_ollamas_runner(["llama-server", "--model", "/m/blobs/sha256-1"])
    assert servers.is_ollamas_runner(["/usr/bin/ollama", "runner", "--port", "1"])
    assert not servers.is_ollamas_runner(["llama-server", "--model", "/srv/model.gguf"])


def test_the_quadlet_of_another_unit_is_named_by_its_unit():
    monitor = server(kind="unit", name="llm.service", command="conmon", serves=False)
    text = servers.mismatch("ollama.service", URL, monitor, runs=False)
    assert "the unit llm.service" in text and "set gpu_memory_ollama.unit=llm.service" in text
    by_hand = servers.mismatch("ollama.service", URL, server(kind="container", command="conmon", serves=False))
    assert "a container whose port" in by_hand and "a container is not served yet" in by_hand


def test_whose_a_users_container_is():
    path = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{'a' * 64}.scope"
    assert servers.owner([path]) == {"kind": "container", "name": f"podman {'a' * 12} of uid 1000"}


def test_a_service_of_compose_is_named_and_one_by_hand_can_be_moved_there() -> None:
    proxy = server(command="docker-proxy", name="compose:llm/ollama", serves=False)
    told = str(servers.mismatch("ollama.service", URL, proxy, exists=False))
    assert "the service compose:llm/ollama of Docker Compose answers: set gpu_memory_ollama.unit=compose:llm/" in told
    by_hand = server(command="docker-proxy", kind="container", name="docker abc", serves=False)
    assert "docs/containers.md says how to move one to Compose" in str(servers.mismatch("ollama.service", URL, by_hand))
