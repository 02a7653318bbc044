# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second Ollama server for a few minutes, as the deployed one but for some variables, on a port of its own.

What Ollama takes from its environment alone cannot be probed on the deployed server without changing it. The second one
is a transient unit of systemd with a limit to its life, so that it and its runners end even if nobody ends them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, servers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import host_read
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

UNIT = "gpu-memory-tune.service"
ENVIRONMENT_FILE = "/run/gpu-memory-tune.env"
STARTS_WITHIN_S = 60
# What belongs to the process itself, and not to how it was set up.
ITS_OWN = ("INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID", "MAINPID", "MANAGERPID", "PWD")


class CannotStart(Exception):
    """There is no second server; the text says why."""


@contextlib.contextmanager
def running(unit: str, changes: Mapping[str, str], lives_s: int) -> Iterator[str]:
    """The URL of a server like the one of `unit`, with `changes` in its environment, while the context lasts."""
    deployed = host_read.read_unit(unit)
    if deployed.get("quadlet") or deployed.get("compose_env_file"):
        raise CannotStart(f"{unit} runs Ollama in a container, and no second one is started beside it yet")
    pid = deployed.get("main_pid") or 0
    command = host_read.command_line(pid) if pid else []
    if not command or not servers.is_program(command[0]):
        shown = " ".join(command[:2]) or "nothing"
        raise CannotStart(f"{unit} runs {shown}, and how it starts Ollama is not known")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # One that starts removes what it takes for the remains of a pull; it may be under way in the other.
    given = {**changes, "OLLAMA_HOST": address, "OLLAMA_NOPRUNE": "1"}
    _write_environment({**_environment(pid), **given})
    try:
        try:
            _start(command, deployed.get("user"), lives_s)
        finally:  # it is read when the process starts, and once
            os.unlink(ENVIRONMENT_FILE)
        url = f"http://{address}"
        _wait_until_it_answers(url)
        yield url
    finally:
        host_read.run(["systemctl", "stop", UNIT], timeout_s=60)


def _environment(pid: int) -> dict[str, str]:
    try:
        found = host_read.process_environment(pid)
    except OSError as problem:
        raise CannotStart(f"the environment of the deployed server cannot be read: {problem.strerror}") from None
    return {name: value for name, value in found.items() if name not in ITS_OWN}


def _write_environment(environment: Mapping[str, str]) -> None:
    """In a file for root alone: a unit's own environment can be read by everybody."""
    lines = []
    for name, value in environment.items():
        with contextlib.suppress(dotenv.ValueNotPortable):
            lines.append(f"{name}={dotenv.encode(value, ['systemd'])}\n")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(ENVIRONMENT_FILE)
    handle = os.open(ENVIRONMENT_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.writelines(lines)


def _start(command: list[str], user: str | None, lives_s: int) -> None:
    properties = [f"EnvironmentFile={ENVIRONMENT_FILE}", f"RuntimeMaxSec={lives_s}", "Description=Ollama, being tuned"]
    properties += [f"User={user}"] if user else []
    options = [f"--property={each}" for each in properties]
    host_read.run(["systemctl", "reset-failed", UNIT])
    status, _unused = host_read.run(["systemd-run", "--quiet", "--collect", f"--unit={UNIT}", *options, "--", *command])
    if status != 0:
        raise CannotStart(f"systemd-run could not start {UNIT} (status {status}); see its journal")


def _wait_until_it_answers(url: str) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            http_client.get_json(url + endpoints.VERSION, timeout=5)
            return
        except http_client.HttpError as problem:
            if time.monotonic() > deadline:
                raise CannotStart(f"{UNIT} did not answer within {STARTS_WITHIN_S} s: {problem}") from None
        time.sleep(0.2)
