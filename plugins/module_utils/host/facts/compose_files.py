# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What gives a service of Docker Compose its environment, and what stands in the way of changing it. Changes nothing.

Compose reads its files at each `up`, so that what `docker compose config` says takes the place of systemd's memory.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import docker, held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Source

READER = "docker"
RECIPE = (
    "add to the service {service} in {file}: `env_file: [{{path: gpu-memory.env, required: false}}]` (Compose 2.24 or "
    "later; before that, `env_file: [gpu-memory.env]` and an empty file of that name), after any other env file, and "
    "run: docker compose up -d"
)


class Service(NamedTuple):
    """A service whose container is there. `problem`: why nothing of its files is known."""

    container: compose.Container
    service: str
    env_file: str
    declared: compose.Declared
    of_image: dict[str, str]
    problem: str | None = None

    def merged(self) -> dict[str, str]:
        """What a container that is made now would be given."""
        given = compose.environment(compose.at(self.container, "Config", "Env"))
        return given if self.problem else {**self.of_image, **self.declared.resolved}


def read(unit: str) -> Service | None:
    """None of what is no service of Compose, has no container, or where Docker is silent."""
    container = _container_of(unit)
    if container is None:
        return None
    service, own = compose.label(container, "service"), compose.env_file(container)
    images = docker.inspect("image", compose.text_at(container, "Image"))
    of_image = compose.environment(compose.at(images[0], "Config", "Env")) if images else {}
    nothing = compose.Declared(False, [], [], {}, {})
    gone = [path for path in compose.files(container) if not os.path.isfile(path)]
    if gone:
        problem = (
            f"{unit} was made of {', '.join(gone)}, which is not there any more; put it back, or make the container "
            "anew of what is there: docker compose up -d"
        )
        return Service(container, service, own, nothing, of_image, problem)
    try:
        as_written = docker.config(container, "--no-interpolate")
        declared = compose.declared(service, own, as_written, docker.config(container))
    except docker.Silent as silent:
        return Service(container, service, own, nothing, of_image, f"{unit}: {masking.without_secrets(str(silent))}")
    return Service(container, service, own, declared, of_image)


def own_env_file(unit: str) -> str | None:
    """Where this collection's file of a service of Compose is; None of a unit, and where there is no container."""
    container = _container_of(unit)
    return compose.env_file(container) if container else None


def _container_of(unit: str) -> compose.Container | None:
    """None of what is no service of Compose, has no container, or where Docker is silent."""
    try:
        return docker.current(unit) if compose.is_one(unit) else None
    except docker.Silent:
        return None


def losing(found: Service, names: Collection[str]) -> list[Source]:
    """The env files that lose to this collection's."""
    return [_source("EnvironmentFile", path, _values(path, names)) for path in found.declared.before]


def winning(found: Service, names: Collection[str]) -> list[Source]:
    """What wins over this collection's file: later env files, and then `environment:`, each variable by its line."""
    files = [_source("env file", path, _values(path, names)) for path in found.declared.after]
    pinned = {name: value for name, value in found.declared.pinned.items() if name in names}
    return files + [
        _source("Compose file", _place(name, compose.files(found.container)), {name: value})
        for name, value in pinned.items()
    ]


def files(found: Service) -> list[str]:
    """All that Compose makes a container of: its files, the project's `.env`, and the env files."""
    of_project = os.path.join(compose.directory(found.container), ".env")
    declared = found.declared
    return [*compose.files(found.container), of_project, *declared.before, found.env_file, *declared.after]


def refusals(unit: str) -> list[str]:
    """Why an apply to a service of Compose would not last, or would take more than its environment."""
    found = read(unit)
    if found is None:
        return [f"{unit} has no container on this host, or Docker does not answer"] if compose.is_one(unit) else []
    if found.problem:
        return [found.problem]
    problems = []
    if not found.declared.names_ours:
        file = next(iter(compose.files(found.container)), "the Compose file")
        problems.append(
            f"no env file of {unit} is this collection's: {RECIPE.format(service=found.service, file=file)}"
        )
    return problems + _would_not_last(unit, found) + _would_be_lost(unit, found)


def _would_not_last(unit: str, found: Service) -> list[str]:
    """What the owner's next `docker compose up -d` would do to the container, asked of Compose itself."""
    words = ("--dry-run", "up", "--detach", "--no-deps", "--no-build", "--pull", "never", found.service)
    plain = docker.plainly(found.container, *words)
    place = compose.directory(found.container)
    if plain.status == 0 and not compose.is_made_anew((plain.stderr + plain.stdout).decode(errors="replace")):
        return []
    by_label = docker.run(found.container, *words)
    if by_label.status == 0 and not compose.is_made_anew((by_label.stderr + by_label.stdout).decode(errors="replace")):
        named = " ".join(compose.options(found.container))
        return [
            f"{unit} was made with {named}, and a plain `docker compose up -d` in {place} would make another one of "
            "it, without what an apply sets: name these files in COMPOSE_FILE of the .env there and the project in "
            "COMPOSE_PROJECT_NAME, or give them the names that Compose looks for, and run: docker compose up -d"
        ]
    if by_label.status != 0:
        return [f"{unit}: docker compose up --dry-run: {masking.without_secrets(docker.failure(by_label))}"]
    differing = compose.differing(found.container, found.declared.resolved, found.of_image)
    if differing and all(name in settings.OURS for name in differing):
        return []  # our own file was changed or lost, which an apply mends
    what = f" ({', '.join(differing)} of its environment, at least)" if differing else ""
    return [
        f"{unit} does not run as its files or its image say now{what}: the next `docker compose up -d` in {place} "
        "would make it anew, and so would an apply; run that, see that all is well, and apply then"
    ]


def _would_be_lost(unit: str, found: Service) -> list[str]:
    """What is in the container alone, or lives in its network, and would be gone with it."""
    given, problems = compose.environment(compose.at(found.container, "Config", "Env")), []
    models = given.get("OLLAMA_MODELS") or f"{given.get('HOME') or '/root'}/.ollama/models"
    if not compose.is_mounted(models, found.container):
        problems.append(
            f"the models of {unit} are in the container itself ({models}), and would be lost as it is made anew: give "
            f"it a volume there, such as `volumes: [ollama:{os.path.dirname(models)}]`, and pull them again"
        )
    try:
        of_service, all_that_run = docker.containers(unit), docker.running()
    except docker.Silent as silent:
        return [*problems, str(silent)]
    running = sum(compose.at(one, "State", "Running") is True for one in of_service)
    if running > 1:
        problems.append(f"{unit} has {running} containers, and one of them is served: take `scale` or `replicas` away")
    identity = compose.text_at(found.container, "Id")
    within = sorted(
        compose.text_at(one, "Name").lstrip("/")
        for one in all_that_run
        for mode in ("NetworkMode", "PidMode", "IpcMode")
        if compose.text_at(one, "HostConfig", mode) == f"container:{identity}"
    )
    if within:
        problems.append(
            f"{', '.join(dict.fromkeys(within))} lives in the network or a namespace of {unit} (as by network_mode), "
            "and would be cut off as that is made anew: give it a network of its own"
        )
    return problems


def _place(name: str, paths: Iterable[str]) -> str:
    """The last Compose file, with the line, that sets a variable."""
    found = next(iter(paths), "")
    for path in paths:
        line = compose.line_that_sets(name, held_path.text(path, dotenv.MOST_READ))
        found = f"{path}, line {line}," if line else found
    return found


def _values(path: str, names: Iterable[str]) -> dict[str, str]:
    """Those variables that an env file sets as Docker reads it; nothing of one that cannot be read."""
    values = dotenv.get_keys(held_path.beginning(path, dotenv.MOST_READ), sorted(names), readers=[READER])
    return {name: value for name, value in values.items() if value is not None}


def _source(kind: str, path: str, environment: dict[str, str]) -> Source:
    return {"kind": kind, "path": path, "environment": environment, "resets": False, "unsets": []}
