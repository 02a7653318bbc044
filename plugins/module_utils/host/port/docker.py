# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker and its Compose on this host, by their commands."""

from __future__ import annotations

import contextlib
import functools
import os

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, proc_stat

COMPOSE = ("docker", "compose")
UP_S = 100  # a container that does not stop is killed before
MOST_CONTAINERS = 20  # of one service
MOST_RUNNING = 500  # on a host


class Silent(Exception):
    """Docker does not answer; the text says how."""


def containers(unit: str) -> list[compose.Container]:
    """All containers of a service, also those that do not run."""
    name = compose.parse(unit)
    if name is None:
        return []
    labels = {"project": name.project, "service": name.service, "oneoff": "False"}
    filters = [word for key, value in labels.items() for word in ("--filter", f"label={compose.LABEL}.{key}={value}")]
    return _listed(MOST_CONTAINERS, "--all", *filters)


def running() -> list[compose.Container]:
    """All containers that run on this host."""
    return _listed(MOST_RUNNING)


def _listed(most: int, *options: str) -> list[compose.Container]:
    done = commands.run(["docker", "ps", "--quiet", "--no-trunc", *options])
    if done.status != 0:
        raise Silent(f"Docker does not answer: {_last_line(done.stderr)}")
    ids = done.stdout.decode(errors="replace").split()[:most]
    found = inspect("container", *ids) if ids else []
    if ids and not found:
        raise Silent("Docker does not say what its containers are; see: docker container inspect")
    return found


def current(unit: str) -> compose.Container | None:
    return compose.current(containers(unit))


def inspect(kind: str, *names: str) -> list[compose.Container]:
    """What Docker says of containers or images; nothing of what is not there."""
    done = commands.run(["docker", kind, "inspect", *names])
    try:
        found = foreign_json.read(done.stdout)
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


@functools.lru_cache(maxsize=64)
def service_of(container_id: str) -> str | None:
    """The service whose a container is, by the beginning of its id."""
    return next((compose.name_of(one) for one in inspect("container", container_id)), None)


def show(unit: str, names: str) -> str:
    """A service as `systemctl show` tells a unit; nothing where Docker does not answer."""
    try:
        found = current(unit)
    except Silent:
        return ""
    has_env_file = found is not None and os.path.isfile(compose.env_file(found))
    return compose.as_shown(compose.properties(unit, found, _process(found), has_env_file), names)


def _process(container: compose.Container | None) -> compose.Process:
    pid, identity = (compose.number_at(container, "State", "Pid"), compose.text_at(container, "Id"))
    with contextlib.suppress(OSError, ValueError, IndexError):
        if pid:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                paths = [line.rstrip("\n").split(":", maxsplit=2)[2] for line in file]
            group = next((path for path in paths if identity in path and ".." not in path), "")
            return compose.Process(proc_stat.start_s(pid), group)
    return compose.NO_PROCESS


def config(container: compose.Container, *options: str) -> dict[str, object]:
    """What Compose makes of the files of a container's service; Silent where it refuses them."""
    service = compose.label(container, "service")
    done = run(container, "config", "--format", "json", *options, service)
    if done.status != 0:
        raise Silent(f"docker compose config: {_last_line(done.stderr)}")
    return foreign_json.fields(done.stdout)


def run(container: compose.Container, *words: str, timeout_s: float = 30) -> commands.Done:
    """Compose with the options by which a container was made."""
    return commands.run([*COMPOSE, *compose.options(container), *words], timeout_s)


def plainly(container: compose.Container, *words: str) -> commands.Done:
    """Compose as the owner runs it in the project's directory."""
    return commands.run([*COMPOSE, *words], directory=compose.directory(container))


def log(container: compose.Container, since: float | None, most: int) -> commands.Done:
    """A container's log, each line with its time; standard error is a part of it."""
    begin = ["--since", f"{since:.3f}"] if since else []
    name = compose.text_at(container, "Id")
    return commands.run(["docker", "logs", "--timestamps", "--tail", str(most), *begin, name], 60)


def _last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it says nothing"


def failure(done: commands.Done) -> str:
    return _last_line(done.stderr)


def control(unit: str, verb: str) -> str:
    """Stop, start or restart a service; what went wrong, or nothing. A restart makes the container anew."""
    container = current(unit)
    if container is None:
        return f"{unit} has no container on this host; make it where its Compose file is: docker compose up -d"
    service = compose.label(container, "service")
    anew = ["--force-recreate"] if verb == "restart" else []
    up = ["up", "--detach", "--no-deps", "--no-build", "--pull", "never", *anew, service]
    done = run(container, *(["stop", service] if verb == "stop" else up), timeout_s=UP_S)
    return "" if done.status == 0 else f"docker compose {verb}: {_last_line(done.stderr)}"
