# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit's environment on this host: what systemd has in memory of it, and what its files say. Changes nothing."""

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    quadlet,
    start_script,
    unit_states,
    unit_text,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import compose_files, quadlets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import (
    atomic_files,
    commands,
    held_path,
    service_properties,
)

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import (
        Properties,
        Source,
        StartScript,
        Unit,
        UnitEnvironment,
    )

PROPERTIES = "Id,LoadState,NeedDaemonReload,FragmentPath,SourcePath,DropInPaths,Environment,EnvironmentFiles,Transient"
# What `missing` goes by.
NEEDS = (
    "EnvironmentFiles,WorkingDirectory,ExecStart,ExecStartPre,User,Group,SupplementaryGroups,DynamicUser,RootDirectory,"
    "RootImage,BindPaths,BindReadOnlyPaths,MountImages,ExtensionImages,ExtensionDirectories"
)
_CONDITIONAL = re.compile(r"^\s*(?:Condition|Assert)\w+\s*=\s*\S", re.MULTILINE)
_OUTPUT_FILE = re.compile(r"(?:append|file|truncate):(/[^%]*)")
_MAKES_DIRECTORIES = ("LogsDirectory", "StateDirectory", "CacheDirectory", "RuntimeDirectory")
# A unit with one of these sees other directories than this host has.
_OWN_TREE = (
    "RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "MountImages", "ExtensionImages",
    "ExtensionDirectories",
)  # fmt: skip
UNITS = "/etc/systemd/system"
IMMUTABLE = (
    "{units} is read-only, as on an immutable system or NixOS, and this collection's drop-in and restore timer belong "
    "there; mount it read-write, or set the variables that plan.yml shows where the system's image is made (NixOS: "
    "services.ollama.environmentVariables). In /run/systemd/system they would be lost at the next boot"
)
MOST_FILES = 200  # that one pattern of EnvironmentFile= is followed to
MOST_LINKS = 40
MOST_SCRIPTS = 10
MOST_SCRIPT_BYTES = 64 * 1024
MOST_FIRST_LINE = 256  # as Linux reads it


def drop_in_paths(name: str, properties: Properties, directory: str = UNITS) -> list[str]:
    """The drop-ins that systemd has in memory of a unit, each where its owner has put it.

    systemd names the directory that a link leads to (`/etc/systemd/system/ollama.service.d` of one's dotfiles).
    """
    own = os.path.join(directory, f"{name}.d")
    leads_to = os.path.realpath(own)
    found = map(os.path.split, (properties.get("DropInPaths") or "").split())
    return [os.path.join(own if os.path.realpath(place) == leads_to else place, file) for place, file in found]


def own_drop_in(unit: Unit, name: str = unit_text.DROP_IN) -> str:
    """Where this collection's drop-in of a unit is, or of the `.container` file of which Podman makes it.

    For a service of Docker Compose that is an env file.
    """
    file, env_file = unit.get("quadlet"), unit.get("compose_env_file")
    if env_file:
        return env_file
    return quadlet.drop_in(file, name) if file else os.path.join(UNITS, f"{unit['name']}.d", name)


def environment_files(properties: Properties) -> list[str]:
    """The files that a unit's `EnvironmentFiles` name, patterns resolved, in the order in which systemd reads them.

    `properties`: as `unit_text.parse_show` gives them. A file that is not there yet is named all the same.
    """
    found: list[str] = []
    for path in (named["path"] for named in properties.get("EnvironmentFiles") or []):
        matching = sorted(glob.glob(path))[:MOST_FILES] if glob.has_magic(path) else [path]
        found += matching or [path]
    return found


def missing(properties: Properties, made_of: quadlets.Quadlet | None = None) -> dict[str, list[str]]:
    """By directive, what systemd does not start the unit without, and that is not there; `made_of`: its Quadlet.

    And what else is in the way, as `unit_states.IN_THE_WAY` has it. `properties`: `PROPERTIES` and `NEEDS`. What may be
    missing (`-`, in systemd's words `!` or ignore_errors) is not named.
    """
    files = [one["path"] for one in properties.get("EnvironmentFiles") or [] if not one["optional"]]
    texts = [_text(path) for path in (properties.get("FragmentPath"), *(properties.get("DropInPaths") or "").split())]
    found = {
        "EnvironmentFile": [
            path for path in files if not (glob.glob(path) if glob.has_magic(path) else os.path.isfile(path))
        ],
        unit_states.CONDITION: _unmet(properties.get("Id") or "") if any(map(_CONDITIONAL.search, texts)) else [],
    }
    found["--env-file"] = [path for path in (made_of.command.env_files if made_of else []) if not os.path.isfile(path)]
    if not any(properties.get(name) for name in _OWN_TREE):
        directory = properties.get("WorkingDirectory") or ""  # also `~`
        found["WorkingDirectory"] = [directory] if directory.startswith("/") and not os.path.isdir(directory) else []
        started = {
            name: start_script.started(value or "")
            for name, value in (
                ("ExecStartPre", properties.get("ExecStartPre")),
                ("ExecStart", properties.get("ExecStart")),
            )
        }
        found.update({name: [path for path in paths if not os.path.isfile(path)] for name, paths in started.items()})
        there = [path for paths in started.values() for path in paths if os.path.isfile(path)]
        found[unit_states.NOT_EXECUTABLE] = list(filter(_nobody_may_execute, there))
        found[unit_states.INTERPRETER] = list(filter(_has_no_interpreter, there))
        found.update(_output_directories(texts))
        if properties.get("DynamicUser") != "yes":
            found["User"] = _unknown(pwd.getpwnam, properties.get("User"))
            found["Group"] = _unknown(grp.getgrnam, properties.get("Group"))
        found["SupplementaryGroups"] = _unknown(grp.getgrnam, properties.get("SupplementaryGroups"))
    return {name: values for name, values in found.items() if values}


def _unmet(unit: str) -> list[str]:
    """Which of a unit's conditions and asserts do not hold now; nothing before systemd 250, which cannot be asked.

    What must not be there (`!`) may be the running service's own, as a lock is, and is not named.
    """
    done = commands.run(["systemd-analyze", "condition", f"--unit={unit}"])
    said = (done.stdout + done.stderr).decode(errors="replace")
    return re.findall(r": (\w+=\|?[^|!].*) failed\.$", said, re.MULTILINE) if done.status else []


def _nobody_may_execute(path: str) -> bool:
    """Not even root. Whether the unit's user may, an ACL may say."""
    try:
        return not os.stat(path).st_mode & 0o111 or bool(os.statvfs(path).f_flag & os.ST_NOEXEC)
    except OSError:
        return False


def _has_no_interpreter(path: str) -> bool:
    """Whether a script's first line names a program that is not there."""
    first = held_path.beginning(path, MOST_FIRST_LINE).partition(b"\n")[0]
    interpreter = os.fsdecode(next(iter(first[2:].split()), b"")) if first.startswith(b"#!") else ""
    return interpreter.startswith("/") and not os.path.isfile(interpreter)


def _output_directories(texts: Iterable[str]) -> dict[str, list[str]]:
    """Directories that a unit's output goes to and that are not there, unless it makes some itself."""
    found: dict[str, list[str]] = {}
    for text in texts:
        if any(value for name in _MAKES_DIRECTORIES for value in unit_text.values_of(text, "Service", name)):
            return {}
        for name in ("StandardOutput", "StandardError"):
            for value in unit_text.values_of(text, "Service", name):
                file = _OUTPUT_FILE.fullmatch(value)
                directory = os.path.dirname(file[1]) if file else ""
                found[name] = [directory] if directory and not os.path.isdir(directory) else []
    return found


def _unknown(look_up: Callable[[str], object], names: str | None) -> list[str]:
    """Which names of users or groups this host does not know; numbers need not be known."""
    found = []
    for name in (names or "").split():
        try:
            if not name.isdigit():
                look_up(name)
        except KeyError:
            found.append(name)
    return found


def refusals(drop_in: str, kept: str = Paths().root) -> list[str]:
    """Why an apply could not write what it needs: a drop-in, the units of the restore timer, and what it keeps."""
    directory = os.path.dirname(drop_in)
    of_container = unit_text.section_of(drop_in) != "Service"
    units = UNITS if of_container else os.path.dirname(directory)
    places = [drop_in] if os.path.lexists(directory) else [directory] if of_container else []
    found = []
    for path in [*places, os.path.join(units, "gpu-memory-restore.timer")]:
        try:
            check_links(os.path.dirname(path))
            atomic_files.check(path)
        except atomic_files.CannotWrite as problem:
            if os.path.isdir(units) and os.statvfs(units).f_flag & os.ST_RDONLY:
                return [IMMUTABLE.format(units=units)]
            found.append(str(problem))
    try:
        atomic_files.check(os.path.join(kept, "lease.json") if os.path.isdir(kept) else kept)
    except atomic_files.CannotWrite as problem:
        found.append(f"{problem}; what was before an apply is kept there")
    return found


def check_links(directory: str) -> None:
    """CannotWrite where the links to a directory are of somebody who could lead root elsewhere, or lead nowhere."""
    if os.path.realpath(directory) == directory:
        return
    for path in _on_the_way(directory):
        try:
            status = os.lstat(path)
        except OSError as problem:
            if not os.path.islink(directory):
                return  # it is yet to be created
            raise atomic_files.CannotWrite(
                f"{directory} is a link to a directory that is not there ({path}: {problem.strerror}); create that, or "
                "take the link away"
            ) from problem
        linked = stat.S_ISLNK(status.st_mode)
        free_for_all = not linked and status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in {0, os.geteuid()} or free_for_all:
            who = "others than its owner may write to it" if free_for_all else f"it belongs to uid {status.st_uid}"
            raise atomic_files.CannotWrite(
                f"{directory} leads through {path}, and {who}, who could lead root elsewhere; make {directory} a "
                f"directory of root's with copies of its files, or give {path} to root alone (chown root, chmod go-w)"
            )


def _on_the_way(path: str) -> Iterator[str]:
    """Every directory and link that a path leads through, links followed; the last one is where it ends."""
    at, ahead, links = "/", path.split("/")[::-1], 0
    yield at
    while ahead and links <= MOST_LINKS:
        name = ahead.pop()
        if name in ("", "."):
            continue
        at = os.path.normpath(os.path.join(at, name))
        yield at
        if os.path.islink(at):
            links += 1
            ahead += os.readlink(at).split("/")[::-1]
            at = "/" if os.readlink(at).startswith("/") else os.path.dirname(at)


def read(name: str, directory: str = UNITS, also: Iterable[str] = ()) -> UnitEnvironment:
    """A unit as `core.systemd.unit_environment` judges it. `directory`: where its own drop-ins are kept.

    Of its EnvironmentFiles the variables that its other files set, and those that are named in `also`.
    """
    if compose.is_one(name):
        return _of_compose(name, also)
    properties = unit_text.parse_show(service_properties.show(name, f"{PROPERTIES},{NEEDS}"))
    made_of = quadlets.of(name, properties)
    if made_of:
        drop_ins, environment = made_of.drop_ins, made_of.command.environment
        own = [path for path in drop_ins if _is_ours(path)]
    else:
        drop_ins, environment = drop_in_paths(name, properties, directory), properties.get("Environment") or {}
        own = [path for path in _drop_ins_in(os.path.join(directory, f"{name}.d")) if _is_ours(path)]
    fragment = properties.get("FragmentPath") or None
    sources = [source("unit", fragment)] if fragment and not made_of else []
    sources += [source("Quadlet", made_of.file)] if made_of else []
    sources += [source("drop-in", path) for path in sorted({*drop_ins, *own}, key=os.path.basename)]
    names = {*also, *(variable for one in sources for variable in one["environment"])}
    sources = env_file_sources(made_of, names) + sources
    sources += [] if made_of else [_environment_file(path, names) for path in environment_files(properties)]
    return {
        "name": name,
        "load_state": properties.get("LoadState"),
        "need_daemon_reload": properties.get("NeedDaemonReload") == "yes",
        "fragment_path": fragment,
        "drop_in_paths": drop_ins,
        "environment": environment,
        "own": own,
        "gone": [path for path in drop_ins if not os.path.exists(path)],
        "sources": sources,
        "missing": missing(properties, made_of),
        "transient": properties.get("Transient") == "yes",
    }


def _of_compose(name: str, also: Iterable[str]) -> UnitEnvironment:
    """The same of a service of Docker Compose, whose files say what the next container has: none is out of date."""
    properties = service_properties.of(name, PROPERTIES)
    found = compose_files.read(name)
    own = [found.env_file] if found and _is_ours(found.env_file) else []
    of_own = [source("env file", path) for path in own]
    names = {*also, *(variable for one in of_own for variable in one["environment"])}
    winning = compose_files.winning(found, names) if found else []
    merged = found.merged() if found else {}
    return {
        "name": name,
        "load_state": properties.get("LoadState"),
        "need_daemon_reload": False,
        "fragment_path": properties.get("FragmentPath") or None,
        "drop_in_paths": own if found and found.declared.names_ours else [],
        "environment": {
            name: merged[name] for one in (*of_own, *winning) for name in one["environment"] if name in merged
        },
        "own": own,
        "gone": [],
        "sources": [*(compose_files.losing(found, names) if found else []), *of_own, *winning],
        "missing": {},
        "transient": False,
    }


def source(kind: str, path: str) -> Source:
    """A unit file or drop-in as a source of its unit's environment; nothing of one that cannot be read."""
    return {"kind": kind, "path": path, **unit_text.parse_service(_text(path), unit_text.section_of(path))}


def env_file_sources(made_of: quadlets.Quadlet | None, names: Collection[str]) -> list[Source]:
    """The env files of a Quadlet's container, whose other files win over them: Podman reads them as Docker does."""
    files = made_of.command.env_files if made_of else []
    return [_environment_file(path, names, "docker") for path in files]


def start_scripts(exec_start: str) -> list[StartScript]:
    """The shell scripts that an ExecStart names, and the files that those read, as `start_script.together` has them."""
    found = start_script.together(script_texts(exec_start))
    return [script for script in found if any(says for name, says in script.items() if name not in ("path", "keeps"))]


def script_texts(exec_start: str) -> dict[str, str]:
    """The text files by whose paths a command line starts something, and the files that those read as their parts."""
    found = {path: script_text(path) for path in start_script.programs(exec_start)[:MOST_SCRIPTS]}
    parts = [part for path, text in found.items() for part in start_script.says(text, path).reads]
    own = [path for path in parts if not path.startswith(("/lib/", "/usr/lib/"))]  # of a package, as init-functions
    return {**found, **{path: script_text(path) for path in own[:MOST_SCRIPTS] if path not in found}}


def script_text(path: str) -> str:
    """A text file; nothing of a program or of what is no file."""
    content = held_path.beginning(path, MOST_SCRIPT_BYTES)
    return "" if b"\0" in content else content.decode(errors="replace")


def written(path: str) -> tuple[str | None, str]:
    """Who has written a drop-in of our name (`unit_text.writer_of`), and its text."""
    text = _text(path)
    return unit_text.writer_of(text) if text else None, text


def strays(units: str, known: Collection[str] = ()) -> list[str]:
    """Our drop-ins, by their header, that are none of the `known` paths, and how to be rid of them."""
    known = {os.path.realpath(path) for path in known}
    problems = []
    places = (units, quadlet.DIRECTORY)
    paths = [one for place in places for one in glob.glob(os.path.join(glob.escape(place), "*.d", unit_text.DROP_IN))]
    for path in sorted(paths):
        writer, text = written(path)
        if os.path.realpath(path) in known or writer is not None:
            continue
        unit = os.path.basename(os.path.dirname(path))[: -len(".d")].replace(unit_text.CONTAINER, ".service")
        names = [name for name in unit_text.directives(text, unit_text.section_of(path)) if not name.endswith("=")]
        problems.append(
            f"{path} is this collection's and stays in force, as what was before it is not kept on this host; it sets "
            f"{', '.join(names) or 'nothing'}. Delete it, then: systemctl daemon-reload; systemctl restart {unit}. The "
            "backend's env file may have the profile's keys as well"
        )
    return problems


def values_in(path: str, names: Iterable[str], reader: str = "systemd") -> dict[str, str]:
    """Those `names` that an EnvironmentFile sets, as systemd reads it; nothing of one that cannot be read."""
    found = dotenv.get_keys(held_path.beginning(path, dotenv.MOST_READ), sorted(names), readers=[reader])
    return {name: value for name, value in found.items() if value is not None}


def _environment_file(path: str, names: Iterable[str], reader: str = "systemd") -> Source:
    environment = values_in(path, names, reader)
    return {"kind": "EnvironmentFile", "path": path, "environment": environment, "resets": False, "unsets": []}


def _drop_ins_in(directory: str) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".conf"))
    except OSError:
        return []
    return [os.path.join(directory, name) for name in names]


def _is_ours(path: str) -> bool:
    return _text(path).partition("\n")[0] == unit_text.HEADER


def _text(path: str | None) -> str:
    """At most what an env file may hold; nothing of what cannot be read."""
    return held_path.text(path, dotenv.MOST_READ)
