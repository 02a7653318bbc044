# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of Docker Compose: what they are called here, and what Docker and Compose say of them. Pure.

`compose:PROJECT/SERVICE` stands where a unit's name stands, and a container is told in the words of `systemctl show`,
so that whoever judges a unit judges a service of Compose as well. This collection sets the environment of one by a file
of its own, which the owner's Compose file names as an `env_file`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json

LABEL = "com.docker.compose"
PORT_HOLDER = "docker-proxy"  # holds the port that a container publishes, on the host
# What Docker says of a container that runs, or may run again by itself.
_ACTIVE = {"running": "active", "paused": "active", "restarting": "activating"}
_STOPPED_BY_SIGNAL = (0, 2, 130, 137, 143)  # as `docker stop` leaves a server
_NAME = re.compile(r"compose:([a-z0-9][a-z0-9_-]{0,99})/([A-Za-z0-9][A-Za-z0-9._-]{0,99})\Z")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z")
_TO_QUOTE = re.compile(r'["\\`$]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What Compose says that an `up` would do to a container, besides leaving or starting it as it is.
_MADE_ANEW = ("Recreate", "Creating")
MOST_LINES = 10_000  # of a Compose file

Container = Mapping[str, object]


class Name(NamedTuple):
    project: str
    service: str


def parse(name: str | None) -> Name | None:
    """The project and service of `compose:PROJECT/SERVICE`; None of every other name."""
    found = _NAME.match(name or "")
    return Name(*found.groups()) if found else None


def is_one(name: str | None) -> bool:
    return parse(name) is not None


def at(value: object, *keys: str) -> object:
    """What stands in objects of JSON, one within the other; None where nothing does."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text_at(value: object, *keys: str) -> str:
    return foreign_json.of_type(at(value, *keys), str) or ""


def number_at(value: object, *keys: str) -> int:
    return foreign_json.of_type(at(value, *keys), int) or 0


def label(container: Container, name: str) -> str:
    labels = at(container, "Config", "Labels")
    return text_at(labels, f"{LABEL}.{name}") if labels else ""


def name_of(container: Container) -> str | None:
    """What a container is called here; None where Compose has not made it."""
    name = f"compose:{label(container, 'project')}/{label(container, 'service')}"
    return name if is_one(name) else None


def current(containers: Sequence[Container]) -> Container | None:
    """The container of a service: the one that runs, or the newest. A recreation that is cut off leaves two."""
    by_age = sorted(containers, key=lambda one: text_at(one, "Created"))
    running = [one for one in by_age if at(one, "State", "Running") is True]
    return next(reversed(running or by_age), None)


def directory(container: Container) -> str:
    return label(container, "project.working_dir")


def files(container: Container) -> list[str]:
    """The Compose files that a container was made of."""
    return [path for path in label(container, "project.config_files").split(",") if path]


def env_file(container: Container) -> str:
    """Where this collection's file for the service is."""
    return posixpath.join(directory(container), unit_text.ENV_FILE)


def options(container: Container) -> list[str]:
    """Compose's options by which a container was made, for all that is done to it."""
    found = ["--project-name", label(container, "project"), "--project-directory", directory(container)]
    for path in files(container):
        found += ["--file", path]
    for path in filter(None, label(container, "project.environment_file").split(",")):
        found += ["--env-file", path]
    return found


def environment(items: object) -> dict[str, str]:
    """The environment of a container or image, as Docker has it."""
    pairs = (str(item).partition("=") for item in (items if isinstance(items, list) else []))
    return {name: value for name, equals, value in pairs if equals}


def moment(text: str) -> float | None:
    """A time of Docker's as Unix time; None of what is none, and of the year 1, which stands for never."""
    found = _TIME.match(text)
    if not found or text.startswith("0001"):
        return None
    whole = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc).timestamp()
    return whole + float(found[2] or 0)


def line_of_log(line: str) -> tuple[float, str] | None:
    """When a line of `docker logs --timestamps` was written, and what it says."""
    stamp, blank, text = line.partition(" ")
    at_s = moment(stamp) if blank else None
    return (at_s, text) if at_s is not None else None


class Process(NamedTuple):
    """What only the host knows of a container's first process: when it started, since boot, and its control group."""

    started_s: float = 0
    control_group: str = ""


NO_PROCESS = Process()


def properties(name: str, container: Container | None, process: Process, has_env_file: bool) -> dict[str, str]:
    """A service as `systemctl show` tells a unit; `container`: its own, if there is one."""
    if container is None:
        return {"Id": name, "Names": name, "LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
    status, code = text_at(container, "State", "Status"), number_at(container, "State", "ExitCode")
    began = moment(text_at(container, "State", "StartedAt"))
    shown = f"{datetime.fromtimestamp(began, timezone.utc):%a %Y-%m-%d %H:%M:%S} UTC" if began else ""
    by_itself = text_at(container, "HostConfig", "RestartPolicy", "Name") in ("always", "unless-stopped")
    is_well = code in _STOPPED_BY_SIGNAL and at(container, "State", "OOMKilled") is not True
    active_state = _ACTIVE.get(status) or ("inactive" if is_well else "failed")
    given = environment(at(container, "Config", "Env"))
    return {
        "Id": name,
        "Names": name,
        "LoadState": "loaded",
        "ActiveState": active_state,
        "SubState": {"restarting": "auto-restart"}.get(status, status),
        "Result": "success" if is_well else "exit-code",
        "MainPID": str(number_at(container, "State", "Pid")),
        "NRestarts": str(number_at(container, "RestartCount")),
        "ExecMainStatus": str(code),
        "ExecMainStartTimestamp": shown,
        "InactiveExitTimestamp": shown,
        "ActiveEnterTimestamp": shown,
        "ActiveEnterTimestampMonotonic": f"{process.started_s * 1e6:.0f}",
        "ExecMainStartTimestampMonotonic": f"{process.started_s * 1e6:.0f}" if process.started_s else "",
        "FragmentPath": next(iter(files(container)), ""),
        "DropInPaths": env_file(container) if has_env_file else "",
        "Environment": " ".join(_quoted(f"{variable}={value}") for variable, value in given.items()),
        "ControlGroup": process.control_group,
        "UnitFileState": "enabled" if by_itself else "disabled",
        "InvocationID": f"{text_at(container, 'Id')} {text_at(container, 'State', 'StartedAt')}",
        "Image": text_at(container, "Image"),
        "Job": "",
    }


def as_shown(values: Mapping[str, str], names: str) -> str:
    """The same as text, of the properties that are asked for."""
    return "".join(f"{name}={values[name]}\n" for name in names.split(",") if name in values)


def _quoted(word: str) -> str:
    """A word as `systemctl show` writes it."""
    if _CONTROL.search(word):
        escaped = word.replace("\\", "\\\\").replace("'", "\\'")
        return "$'" + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"
    return '"' + _TO_QUOTE.sub(r"\\\g<0>", word) + '"'


class Declared(NamedTuple):
    """What Compose files say of a service's environment.

    `before`, `after`: env files before and after this collection's, in their order, if the service `names_ours`.
    `pinned`: what `environment:` sets, which wins over every env file. `resolved`: what Compose gives the container.
    """

    names_ours: bool
    before: list[str]
    after: list[str]
    pinned: dict[str, str]
    resolved: dict[str, str]


def declared(service: str, own: str, as_written: object, as_resolved: object) -> Declared:
    """`as_written`, `as_resolved`: what `docker compose config` says with `--no-interpolate`, and without."""
    paths = [posixpath.normpath(path) for path in _env_files(at(as_written, "services", service, "env_file"))]
    names_ours = own in paths
    place = len(paths) - 1 - paths[::-1].index(own) if names_ours else len(paths)
    resolved_map = at(as_resolved, "services", service, "environment")
    resolved = {
        str(name): str(value).replace("$$", "$")
        for name, value in (resolved_map.items() if isinstance(resolved_map, Mapping) else ())
        if value is not None
    }
    pinned = _names(at(as_written, "services", service, "environment"))
    return Declared(
        names_ours,
        [path for path in paths[:place] if path != own],
        paths[place + 1 :],
        {name: resolved[name] for name in pinned if name in resolved},
        resolved,
    )


def _env_files(written: object) -> Iterable[str]:
    for one in written if isinstance(written, list) else [written]:
        path = text_at(one, "path") if isinstance(one, Mapping) else one
        if path:
            yield str(path)


def _names(written: object) -> list[str]:
    """The variables of an `environment:`, which is a list or a mapping."""
    return [str(item).partition("=")[0] for item in written] if isinstance(written, (list, Mapping)) else []


def line_that_sets(name: str, text: str) -> int | None:
    """The line of a Compose file that sets a variable, as far as its text tells."""
    sets = re.compile(rf"[\s\-'\"{{,]*{re.escape(name)}['\"]?\s*[=:]")
    lines = text.splitlines()[:MOST_LINES]
    return next((number for number, line in enumerate(lines, 1) if sets.match(line[:200])), None)


def is_made_anew(said: str) -> bool:
    """Whether an `up` would make a container anew, by what Compose says with `--dry-run`."""
    lines = (line.split() for line in said.splitlines())
    return any("Container" in words and words[-1] in _MADE_ANEW for words in lines)


def is_mounted(path: str, container: Container) -> bool:
    """Whether a path in a container is on a volume or a directory of the host, which outlives the container."""
    mounts = at(container, "Mounts")
    places = [text_at(mount, "Destination") for mount in (mounts if isinstance(mounts, list) else [])]
    return any(f"{path}/".startswith(f"{place.rstrip('/')}/") for place in places if place)


def differing(container: Container, resolved: Mapping[str, str], of_image: Mapping[str, str]) -> Collection[str]:
    """The variables that a container has otherwise than Compose would give them now."""
    now, then = environment(at(container, "Config", "Env")), {**of_image, **resolved}
    return sorted(name for name in {*now, *then} if now.get(name) != then.get(name))
