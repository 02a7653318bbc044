# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers at an address, tried on sockets of this very process."""

from __future__ import annotations

import os
import socket

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import server_process

NO_UNIT = {"main_pid": 0, "active_state": "inactive", "control_group": None}


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def test_who_listens_is_found(listening):
    found = server_process.read(NO_UNIT, f"http://127.0.0.1:{listening}", answers=True)
    assert found["server"]["pid"] == os.getpid()
    assert not found["server"]["ours"]


def test_the_units_own_process_is_ours(listening):
    unit = {**NO_UNIT, "main_pid": os.getpid(), "active_state": "active"}
    assert server_process.read(unit, f"http://127.0.0.1:{listening}", answers=True)["server"]["ours"]


def test_a_process_that_takes_connections(listening):
    assert server_process.listening([os.getpid(), 1, 2**22 + 1]) == [os.getpid()]


def test_nobody_listens(listening):
    found = server_process.read(NO_UNIT, "http://127.0.0.1:1", answers=True)["server"]
    assert found["pid"] is None
    assert server_process.read(NO_UNIT, "http://127.0.0.1:1", answers=False)["server"] is None


def test_where_a_silent_unit_listens(listening):
    unit = {**NO_UNIT, "main_pid": os.getpid(), "active_state": "active"}
    assert f"http://127.0.0.1:{listening}" in server_process.read(unit, "http://127.0.0.1:1", answers=False)["listens"]


def test_only_ollamas_are_other_ollamas():
    assert server_process.others([], [{"pid": os.getpid()}]) == []


@pytest.fixture
def container(monkeypatch):
    """Process 30 of a container, whose monitor 20 is the main process of the Quadlet llm.service; 21 is another one."""
    commands = {30: ["/bin/ollama", "serve"], 31: ["/bin/ollama", "serve"], 20: ["conmon", "-n", "x"], 21: ["conmon"]}
    monkeypatch.setattr(server_process.host_read, "command_line", lambda pid: commands.get(pid, []))
    monkeypatch.setattr(server_process.host_read, "parent", {30: 20, 31: 21, 20: 1, 21: 1}.get)
    monkeypatch.setattr(
        server_process.host_read, "groups_of", lambda pid: {"": f"/libpod-{'a' * 64}"} if pid != 1 else {}
    )
    monkeypatch.setattr(server_process.quadlets, "unit_of", {20: "llm.service"}.get)
    monkeypatch.setattr(server_process, "_apart", lambda pid, kind: None)


@pytest.mark.parametrize(("pid", "kind", "name"), [(30, "unit", "llm.service"), (20, "unit", "llm.service")])
def test_a_quadlets_container_is_its_units(container, pid, kind, name):
    assert server_process.whose(pid) == {"kind": kind, "name": name}


@pytest.mark.parametrize("pid", [31, 21])
def test_any_other_container_is_nobodys(container, pid):
    assert server_process.whose(pid) == {"kind": "container", "name": f"podman {'a' * 12}"}


@pytest.mark.parametrize("pid", [31, 21])
def test_in_the_group_of_a_unit_that_somebody_wrote_it_is_still_a_container(container, monkeypatch, pid):
    monkeypatch.setattr(server_process.host_read, "groups_of", lambda pid: {"": "/system.slice/llm.service/supervisor"})
    assert server_process.whose(pid) == {"kind": "container", "name": "podman"}


def test_what_serves_in_a_container_is_not_its_monitor(container, monkeypatch):
    unit = {"main_pid": 20, "active_state": "active", "control_group": None, "quadlet": "/x/llm.container"}
    monkeypatch.setattr(server_process.host_read, "with_descendants", lambda pids: [20, 29, 30])
    assert server_process.server_of(unit) == 30
    monkeypatch.setattr(server_process.host_read, "with_descendants", lambda pids: [20, 29])
    assert server_process.server_of(unit) == 29  # whatever its image starts
    monkeypatch.setattr(server_process.host_read, "with_descendants", lambda pids: [20])
    assert server_process.server_of(unit) is None


def test_where_a_container_is_published(container, monkeypatch):
    monkeypatch.setattr(server_process, "_sockets", lambda pids: {"7"} if pids == [20] else set())
    monkeypatch.setattr(server_process, "_listeners", lambda: [("0.0.0.0", 22, "6"), ("0.0.0.0", 8080, "7")])
    assert server_process.published_at(30) is None, "it is in this host's own network"
    monkeypatch.setattr(server_process, "_apart", lambda pid, kind: "net:[1]")
    assert server_process.published_at(30) == "http://127.0.0.1:8080"
    assert server_process.published_at(31) is None


@pytest.fixture
def in_docker(monkeypatch):
    """Process 30 of a container of Compose, whose port 40 holds; 31 is of one by `docker run`, 41 holds its port."""
    served = ["/bin/ollama", "serve"]
    proxies = {40: "172.18.0.2", 41: "172.18.0.3", 42: "172.18.0.4"}
    commands = {30: served, 31: served, **{pid: ["docker-proxy", "-container-ip", ip] for pid, ip in proxies.items()}}
    monkeypatch.setattr(server_process.host_read, "command_line", lambda pid: commands.get(pid, []))
    monkeypatch.setattr(server_process.host_read, "all_pids", lambda: sorted(commands))
    monkeypatch.setattr(server_process.host_read, "parent", lambda pid: 1)
    groups = {30: f"/docker/{'a' * 64}", 31: f"/docker/{'b' * 64}"}
    of_proxy = "/system.slice/docker.service"
    monkeypatch.setattr(
        server_process.host_read, "groups_of", lambda pid: {"": groups.get(pid, of_proxy)} if pid != 1 else {}
    )
    monkeypatch.setattr(server_process.docker, "service_of", {"a" * 12: "compose:llm/ollama"}.get)
    monkeypatch.setattr(server_process, "_apart", lambda pid, kind: f"net:{pid}" if pid in (30, 31) else None)
    monkeypatch.setattr(server_process, "_net", lambda pid, name: f"{pid} {name}")
    of_network = {("172.18.0.2", "30 fib_trie"), ("172.18.0.3", "31 fib_trie")}
    monkeypatch.setattr(server_process.servers, "is_of_network", lambda ip, trie, _six: (ip, trie) in of_network)


@pytest.mark.parametrize("pid", [30, 40])
def test_what_compose_has_made_has_its_name_there(in_docker, pid):
    assert server_process.whose(pid) == {"kind": "unit", "name": "compose:llm/ollama"}


@pytest.mark.parametrize("pid", [31, 41])
def test_what_docker_run_has_made_is_a_container(in_docker, pid):
    assert server_process.whose(pid) == {"kind": "container", "name": f"docker {'b' * 12}"}


def test_a_port_of_something_else_is_dockers_own(in_docker):
    assert server_process.whose(42) == {"kind": "unit", "name": "docker.service"}


def test_what_holds_the_port_of_our_container_is_ours(in_docker, monkeypatch):
    monkeypatch.setattr(server_process, "_sockets_of", lambda url, pids: {"7"})
    monkeypatch.setattr(server_process, "_sockets", lambda pids: {"7"} & ({"7"} if 40 in pids else set()))
    ours = {"name": "compose:llm/ollama", "main_pid": 30, "active_state": "active", "control_group": None}
    assert server_process.read(ours, "http://127.0.0.1:11434", answers=True)["server"]["ours"]
    other = {**ours, "name": "compose:other/ollama", "main_pid": 0}
    found = server_process.read(other, "http://127.0.0.1:11434", answers=True)["server"]
    assert not found["ours"] and found["name"] == "compose:llm/ollama"
