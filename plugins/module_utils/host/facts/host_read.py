# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a managed host: units, processes, files, Ollama's API and journal. Nothing here changes anything.

Each function answers with plain data and puts what it could not read into an `error` text instead of raising: a host
that lacks something is a finding, not a failure of the reader.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import compose
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    log_lines,
    model_use,
    modelfile,
    servers,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet, start_script, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, foreign_json, masking
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import (
    compose_files,
    dependents,
    quadlets,
    unit_files,
    unit_oddities,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import what_is_ours
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import shown
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import (
    atomic_files,
    clock,
    commands,
    held_path,
    http_client,
    proc_stat,
    service_properties,
)

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Backend, ProfileFile
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        Answer,
        Api,
        BackendFacts,
        HostSystem,
        ListedModel,
        LoadedModel,
        Process,
        Runner,
        Show,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Manifest
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import (
        DropIns,
        EnvFile,
        File,
        Oddity,
        OwnDropIn,
        Properties,
        SetBy,
        Source,
        StartScript,
        Unit,
    )

UNIT_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,MainPID,NRestarts,ActiveEnterTimestamp,ActiveEnterTimestampMonotonic,"
    "FragmentPath,DropInPaths,Environment,EnvironmentFiles,NeedDaemonReload,Transient,User,ControlGroup,ExecStart,"
    "SourcePath"
)
PROCESS_PROPERTIES = "ActiveState,MainPID,ControlGroup,FragmentPath,SourcePath"
MOST_OF_COMMAND = 32768  # of a command line that is compared
# What is read of a model in Ollama's answers, by type: who answers may be no Ollama.
MODEL = {"name": str, "digest": str, "size": int}
LOADED_MODEL = {**MODEL, "size_vram": int, "context_length": int, "expires_at": str}
SHOWN = {"details": dict, "model_info": dict, "tensors": list, "capabilities": list, "projector_info": dict}

Mask = Callable[[str], str]


def run(arguments: list[str], timeout_s: float = 30) -> tuple[int, str]:
    """Exit status and standard output of a command, as `commands.run` has them."""
    done = commands.run(arguments, timeout_s)
    return done.status, done.stdout.decode(errors="replace")


def read_host() -> HostSystem:
    """Boot id, the host's own time (Unix), architecture and systemd's version."""
    status, text = run(["systemctl", "--version"])
    version = re.match(r"systemd (\d+)", text)
    wall = clock.SystemClock().wall()
    return {
        "boot_id": wall.boot,
        "time": time.time(),
        "clock": {"boot": wall.boot, "ahead_s": wall.ahead_s},
        "machine": os.uname().machine,
        "systemd": int(version.group(1)) if status == 0 and version else None,
    }


def read_unit(name: str, keys: Iterable[str] = ()) -> Unit:
    """A unit as systemd has merged it, and what each of its files says: `sources`, in the order in which they apply.

    `id`: what the journal knows it by, which is another name where `name` is an alias.
    Of all environments only what may be shown is read: settings of GPU memory, and `keys`.
    """
    names = settings.SHOWN | set(keys)
    text = service_properties.show(name, f"{UNIT_PROPERTIES},{unit_files.NEEDS}")
    if not text:
        return {"name": name, "id": name, "error": _silent(name)}
    properties = unit_text.parse_show(text)
    made_of, in_compose = quadlets.of(name, properties), compose_files.read(name)
    of_server = _of_compose(in_compose, names) if in_compose else _environment_of(name, properties, made_of, names)
    exec_start = "" if made_of else properties.get("ExecStart") or ""
    by_itself = start_script.of_exec_start(exec_start)
    return {
        "name": name,
        "id": properties.get("Id") or name,
        "error": None,
        "load_state": properties.get("LoadState"),
        "active_state": properties.get("ActiveState"),
        "sub_state": properties.get("SubState"),
        "result": properties.get("Result"),
        "main_pid": int(properties.get("MainPID") or 0),
        "restarts": int(properties.get("NRestarts") or 0),
        "active_s": _active_s(properties),
        "active_enter_timestamp": properties.get("ActiveEnterTimestamp") or None,
        "fragment_path": properties.get("FragmentPath") or None,
        "drop_in_paths": of_server.drop_ins,
        "environment_files": [{"path": one["path"], "environment": one["environment"]} for one in of_server.last],
        "environment": _only(names, of_server.merged),
        "sources": [*of_server.first, *(_unit_file(path, names) for path in of_server.files), *of_server.last],
        # A wrapper such as `env NAME=value ollama serve` has the last word.
        "exec_environment": _only(names, made_of.environment_by_args() if made_of else by_itself.sets),
        "exec": {
            "strips": by_itself.strips,
            "keeps": _of(names, by_itself.keeps),
            "unsets": _of(names, by_itself.unsets),
        },
        "programs": start_script.programs(exec_start)[: unit_files.MOST_SCRIPTS],
        "start_scripts": [_script(script, names) for script in unit_files.start_scripts(exec_start)],
        "source_path": properties.get("SourcePath") or None,
        "quadlet": made_of.file if made_of else None,
        "compose_env_file": in_compose.env_file if in_compose else None,
        # Others do not see everything that is there.
        "missing": unit_files.missing(properties, made_of) if os.geteuid() == 0 and not in_compose else {},
        "dependents": dependents.read(properties.get("Id") or name),
        "transient": properties.get("Transient") == "yes",
        "need_daemon_reload": properties.get("NeedDaemonReload") == "yes",
        "user": properties.get("User") or None,
        "control_group": properties.get("ControlGroup") or None,
    }


class _Environment(NamedTuple):
    """What gives a server its environment: `merged` as systemd has it, and the files, of which `first` lose to all and
    `last` win over all.
    """

    merged: dict[str, str]
    files: list[str]
    drop_ins: list[str]
    first: list[Source]
    last: list[Source]


def _environment_of(
    name: str, properties: Properties, made_of: quadlets.Quadlet | None, names: Collection[str]
) -> _Environment:
    if made_of:  # what stands in the unit itself is Podman's
        first = unit_files.env_file_sources(made_of, names)
        of_files = {variable: value for source in first for variable, value in source["environment"].items()}
        merged = {**of_files, **made_of.command.environment}
        return _Environment(merged, [made_of.file, *made_of.drop_ins], made_of.drop_ins, first, [])
    drop_ins = unit_files.drop_in_paths(name, properties)
    paths = unit_files.environment_files(properties)
    last = [_source("EnvironmentFile", path, unit_files.values_in(path, names)) for path in paths]
    files = [path for path in (properties.get("FragmentPath") or "", *drop_ins) if path]
    return _Environment(properties.get("Environment") or {}, files, drop_ins, [], last)


def _of_compose(found: compose_files.Service, names: Collection[str]) -> _Environment:
    own = [found.env_file] if os.path.isfile(found.env_file) else []
    return _Environment(
        found.merged(), own, own, compose_files.losing(found, names), compose_files.winning(found, names)
    )


def _silent(name: str) -> str:
    """Why nothing is known of a service."""
    if not compose.is_one(name):
        return "systemctl show failed; is systemd the init system here?"
    return "Docker does not answer; see: docker ps"


def _script(script: StartScript, names: Collection[str]) -> StartScript:
    """What may be shown of a start script."""
    return {
        **script,
        "environment": _only(names, script["environment"]),
        "perhaps": _only(names, script["perhaps"]),
        "keeps": _of(names, script["keeps"]),
        "unsets": _of(names, script["unsets"]),
        "computes": [masking.without_secrets(word) for word in script["computes"]],
    }


def _active_s(properties: Properties) -> float | None:
    """For how long a unit is active; None where it is not."""
    since = int(properties.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return time.monotonic() - since if since and properties.get("ActiveState") == "active" else None


def _unit_file(path: str, names: Iterable[str]) -> Source:
    """A unit file or drop-in as a source of its unit's environment."""
    kind = "drop-in" if path.endswith(".conf") else "Quadlet" if path.endswith(unit_text.CONTAINER) else "unit"
    kind = "env file" if unit_text.section_of(path) == unit_text.NO_SECTION else kind
    source = unit_files.source(kind, path)
    unsets = [word for word in source["unsets"] if word.partition("=")[0] in names]
    return {**source, "environment": _only(names, source["environment"]), "unsets": unsets}


def _source(kind: str, path: str, environment: dict[str, str]) -> Source:
    return {"kind": kind, "path": path, "environment": environment, "resets": False, "unsets": []}


def _only(names: Iterable[str], environment: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in environment.items() if name in names}


def _of(names: Iterable[str], found: Iterable[str]) -> list[str]:
    return sorted(set(found) & set(names))


def read_process(pid: int, keys: Iterable[str] = ()) -> Process | None:
    """What a process was started with; None where there is none. Environment: what may be shown, and `keys`."""
    try:
        shown = _only(settings.SHOWN | set(keys), process_environment(pid))
        return {"pid": pid, "started_s": proc_stat.start_s(pid), "environment": shown}
    except OSError:
        return None


def process_environment(pid: int) -> dict[str, str]:
    """What a process was started with, OSError where that cannot be read.

    Of a name that stands twice the first counts, as for Go, C and Python.
    """
    return dict(reversed(environment_items(pid)))


def environment_items(pid: int, errors: str = "replace") -> list[tuple[str, str]]:
    """The same with every item of it; `errors`: what becomes of bytes that are no UTF-8."""
    with open(f"/proc/{pid}/environ", "rb") as file:
        items = file.read(dotenv.MOST_READ).decode(errors=errors).split("\0")
    return [item.partition("=")[::2] for item in items if item]


def command_line(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [word.decode(errors="replace") for word in file.read().split(b"\0")[:-1]]
    except OSError:
        return []


def all_pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def read_runners(family: Collection[int] | None = None) -> list[Runner]:
    """The runner processes of an Ollama with what may be shown of their command lines; `family`: which may be its."""
    runners: list[Runner] = []
    for pid in all_pids() if family is None else family:
        command = command_line(pid)
        process = read_process(pid) if servers.is_runner(command) else None
        if process is not None:
            shown = masking.shown_command(command)
            runners.append({**process, "command": shown, "settings": log_lines.runner_settings(command)})
    return runners


def _readers_of(path: str, declared: list[str] | None, unit: Unit | None) -> list[str] | None:
    """Who reads an env file: those who are declared, and systemd where the backend's unit names it."""
    named = {os.path.realpath(file["path"]) for file in (unit or {}).get("environment_files") or []}
    if os.path.realpath(path) not in named:
        return declared
    return list(dict.fromkeys([*(declared or dotenv.DEFAULT_READERS), "systemd"]))


def read_env_file(
    path: str, keys: list[str], readers: list[str] | None, wanted: Mapping[str, str], add_keys: bool = True
) -> EnvFile:
    """An env file as `read_file`, and `refusals`: what would keep `wanted` from being set in it, as far as can be seen.

    Without `add_keys` only those of the keys are wanted that the file has.
    """
    facts = cast("EnvFile", {**read_file(path, sorted({*keys, *settings.SHOWN}), readers), "refusals": []})
    has = facts.get("values") or {}
    wanted = {name: value for name, value in wanted.items() if add_keys or has.get(name) is not None}
    if wanted and not facts["error"] and (facts["exists"] or add_keys):
        try:
            text = dotenv.decode(atomic_files.read(path) or b"")
            edit = dotenv.set_keys(text, wanted, readers=readers)
            facts["refusals"] = [f"{path}: {problem}" for problem in edit.problems]
            if edit.text != text:
                atomic_files.check(path)
        except atomic_files.CannotWrite as problem:
            facts["refusals"].append(str(problem))
    return facts


def read_file(path: str, keys: list[str] | None = None, readers: list[str] | None = None) -> File:
    """A file's identity, and of a `.env` file the values of `keys` alone."""
    facts: File = {"path": path, "exists": False, "sha256": None, "error": None}
    try:
        with held_path.hold(path) as place:
            status = place.status()
            if status is None:
                facts["parent_exists"] = True
                return facts
            facts["exists"], facts["regular"] = True, stat.S_ISREG(status.st_mode)
            facts["mode"] = f"{stat.S_IMODE(status.st_mode):04o}"
            facts["owner"], facts["group"] = _name(pwd.getpwuid, status.st_uid), _name(grp.getgrgid, status.st_gid)
            facts["modified_s"] = _written_s(status)
            if keys is not None and status.st_size > dotenv.MOST_BYTES:
                facts["error"] = dotenv.TOO_LARGE
            elif facts["regular"]:
                content = place.read()[0]
                facts["sha256"] = hashlib.sha256(content).hexdigest()
                if keys is not None:
                    facts["values"] = dotenv.get_keys(content, keys, readers=readers)
    except FileNotFoundError:
        facts["parent_exists"] = os.path.isdir(os.path.dirname(path))
    except held_path.Misleading as problem:
        facts["error"] = problem.strerror
    except (OSError, ValueError) as problem:
        facts["error"] = str(problem)
    return facts


def _written_s(status: os.stat_result) -> float | None:
    """When a file was last written or put in place: `cp -p`, `mv` and `tar` give one of now an old time of its own."""
    times = filter(None, map(_seconds_since_boot, (status.st_mtime, status.st_ctime)))
    return max(times, default=None)


def _seconds_since_boot(epoch: float) -> float | None:
    """A wall-clock time on the clock of `proc_stat.start_s`, so that the two can be compared; None for the future."""
    now = time.time()
    return None if epoch > now else epoch - (now - time.clock_gettime(time.CLOCK_BOOTTIME))


def _name(lookup: Callable[[int], Sequence[object]], number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def read_drop_ins(unit: Unit, own_name: str, manifests: Iterable[Manifest]) -> DropIns:
    """Our drop-in's identity, who has written it and what would be lost with it; and the others.

    `manifests`: of the kept generations. Of each those of its variables that may be shown; of what would be lost the
    names.
    """
    own_path = unit_files.own_drop_in(unit, own_name)
    section = unit_text.section_of(own_path)
    environment = _unit_file(own_path, settings.SHOWN)["environment"]
    own = cast("OwnDropIn", {**read_file(own_path), "environment": environment})
    others: list[SetBy] = [
        {"path": path, "environment": _unit_file(path, settings.SHOWN)["environment"]}
        for path in unit.get("drop_in_paths") or []
        if path != own_path
    ]
    own_file = unit.get("quadlet") or unit.get("fragment_path")
    files = [path for path in (own_file, *(unit.get("drop_in_paths") or [])) if path]
    named = [file["path"] for file in unit.get("environment_files") or []]
    if own["exists"]:
        elsewhere = {name for path in files if path != own_path for name in unit_files.source("", path)["environment"]}
        own["writer"], text = unit_files.written(own_path)
        # What somebody has added to ours is lost with it, be it set elsewhere as well, with another value.
        own["alone"] = (
            [name for name in unit_text.directives(text, section) if name not in elsewhere]
            if own["writer"]
            else unit_text.foreign(text, what_is_ours.variables_of(manifests, own_path, text), section)
        )
    return {
        "own": own,
        "others": others,
        "oddities": _oddities(unit, files, named),
        # Who is not root is told so by whatever fails first.
        "refusals": _refusals(unit, own_path) if os.geteuid() == 0 else [],
    }


def _oddities(unit: Unit, files: Sequence[str], named: Sequence[str]) -> list[Oddity]:
    """Files for a unit that systemd does not read; Compose says by itself what it does not understand."""
    if unit.get("compose_env_file"):
        return []
    return unit_oddities.read(unit["name"], files, named, quadlet=unit.get("quadlet"))


def _refusals(unit: Unit, own_path: str) -> list[str]:
    return [*unit_files.refusals(own_path), *compose_files.refusals(unit["name"])]


def read_ollama_api(url: str, models: list[str] | None, mask: Mask) -> Api:
    """Version, models with digests, loaded models and, for `models` (None: the loaded ones), `/api/show`.

    `error` where it does not answer.
    """
    facts: Api = {"error": None, "version": None, "models": [], "loaded": [], "show": {}}
    try:
        facts["version"] = foreign_json.of_type(_get(url + endpoints.VERSION).get("version"), str)
        for model in _named(_get(url + endpoints.MODELS)):
            remote = bool(model.get("remote_host") or model.get("remote_model"))
            facts["models"].append(cast("ListedModel", {**_typed(model, MODEL), "remote": remote}))
        facts["loaded"] = [
            cast("LoadedModel", _typed(model, LOADED_MODEL)) for model in _named(_get(url + endpoints.LOADED))
        ]
        version = settings.parse_version(facts["version"])
        for name in [str(model["name"]) for model in facts["loaded"]] if models is None else models:
            listed = model_use.listed(name, facts["models"])
            if listed and not model_use.is_elsewhere(name, facts["models"], version):
                asked = str(listed["name"])
                answer = shown.with_arrays(url, asked)
                parameters = foreign_json.of_type(answer.get("parameters"), str) or ""
                told = {
                    **_typed(answer, SHOWN),
                    "size": listed["size"],
                    # Of free text only what is of use here: options of memory, and which files it is.
                    "modelfile": modelfile.files_apart(foreign_json.of_type(answer.get("modelfile"), str) or ""),
                    "parameters": modelfile.memory_options(parameters),
                    "as_text": modelfile.as_text(parameters),
                    "blob": model_use.blob_in(answer),
                }
                facts["show"][name] = cast("Show", told)
    except http_client.HttpError as problem:
        facts["error"] = mask(str(problem))
    return facts


def _get(url: str) -> Answer:
    return foreign_json.of_type(http_client.get_json(url, timeout=10), dict) or {}


def _typed(answer: Answer, kinds: Mapping[str, type]) -> dict[str, object]:
    """What stands there of these types; None for whatever else does."""
    return {name: foreign_json.of_type(answer.get(name), kind) for name, kind in kinds.items()}


def _named(answer: Answer) -> list[dict[str, object]]:
    """The models of a list, each of which has a name."""
    models = foreign_json.of_type(answer.get("models"), list) or []
    return [model for model in models if isinstance(model, dict) and isinstance(model.get("name"), str)]


def read_names(url: str, api: Api, blobs: Collection[str]) -> dict[str, str]:
    """Of these files the models that Ollama lists, without those that were read already; none where it is silent."""
    names: dict[str, str] = {}
    wanted = set(blobs) - {show["blob"] for show in api["show"].values()}
    with contextlib.suppress(http_client.HttpError):
        for model in api["models"]:
            if wanted <= set(names):
                break
            if not model["remote"]:
                blob = model_use.blob_in(shown.terse(url, str(model["name"])))
                names.update({blob: str(model["name"])} if blob in wanted else {})
    return names


def find_processes(match: str, directory: str, only_readable: bool = False) -> list[int]:
    """Processes whose command line matches and whose working directory is `directory`; not this one.

    OSError where that of one that matches cannot be read, but for `only_readable`, which leaves it out. The expression
    is somebody's own: only who works there is compared with it, by the beginning of his command line.
    """
    pattern, wanted = re.compile(match), os.path.realpath(directory)
    found = []
    for pid in all_pids():
        try:
            works_there: bool | None = os.readlink(f"/proc/{pid}/cwd") == wanted
        except PermissionError:
            works_there = None
        except OSError:
            continue  # it ended while we looked
        try:
            if works_there is not False and is_command(pattern, _beginning_of_command(pid)):
                if works_there:
                    found.append(pid)
                elif not only_readable:
                    os.readlink(f"/proc/{pid}/cwd")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [pid for pid in found if pid != os.getpid()]


def is_command(pattern: re.Pattern[str], content: bytes) -> bool:
    """Whether a command line, as /proc has it, matches; everybody may write into his what he likes, at any length."""
    return bool(pattern.search(content[:MOST_OF_COMMAND].replace(b"\0", b" ").decode(errors="replace").strip()))


def _beginning_of_command(pid: int) -> bytes:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read(MOST_OF_COMMAND)


def control_groups(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as {controllers: path}; `9:name=systemd:/system.slice` has the controllers `name=systemd`."""
    lines = (line.partition(":")[2].partition(":") for line in text.splitlines())
    return {controllers: path for controllers, _unused, path in lines}


def groups_of(pid: int | str, proc: str = "/proc") -> dict[str, str]:
    """A process' control groups, as `control_groups` has them; none of one that is gone."""
    with contextlib.suppress(OSError), open(f"{proc}/{pid}/cgroup", encoding="utf-8", errors="replace") as file:
        return control_groups(file.read())
    return {}


def roots(of_init: str) -> dict[str, str]:
    """Where the control groups of this host begin, by controllers: it may itself be a container.

    `of_init`: /proc/1/cgroup.
    """
    return {names: path.removesuffix("/init.scope").rstrip("/") for names, path in control_groups(of_init).items()}


def in_control_group(cgroup: str, of_init: str, control_group: str) -> bool:
    """Whether a process (`cgroup`: its /proc/PID/cgroup) is in a unit's control group or in one below it.

    On a host that is a container, systemd gives the unit's group from the container's root on, or from the machine's.
    """
    begin = roots(of_init)
    return any(
        f"{path}/".startswith((f"{begin.get(names, '')}{control_group}/", f"{control_group}/"))
        for names, path in control_groups(cgroup).items()
    )


def as_unit(name: str, properties: Mapping[str, str]) -> Unit:
    """What tells the processes of a unit, of its `PROCESS_PROPERTIES`."""
    main = properties.get("MainPID") or ""
    return {
        "name": name,
        "active_state": properties.get("ActiveState"),
        "main_pid": int(main) if main.isdigit() else 0,
        "control_group": properties.get("ControlGroup"),
        "quadlet": quadlet.file_of(properties),
    }


def unit_pids(unit: Unit) -> list[int]:
    """The processes of an active unit: the main one, which may be a mere shell, and whatever it has started.

    Those of a Quadlet's container may be in a control group of its own.
    """
    pids = {unit["main_pid"]} - {0}
    pids |= set(with_descendants([*pids])) if unit.get("quadlet") else set()
    control_group = unit.get("control_group")
    if control_group:
        with open("/proc/1/cgroup", encoding="utf-8") as file:
            of_init = file.read()
        for pid in all_pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
                if in_control_group(file.read(), of_init, control_group):
                    pids.add(pid)
    return sorted(pids)


def parent(pid: int) -> int | None:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(proc_stat.fields(pid)[4 - 3])
    return None


def with_descendants(pids: list[int]) -> list[int]:
    """Processes and all that they have started."""
    parents = {pid: parent(pid) for pid in all_pids()}
    family = set(pids)
    while more := {pid for pid, its_parent in parents.items() if its_parent in family} - family:
        family |= more
    return sorted(family)


def read_backend(
    backend: Backend, keys: list[str], env: Mapping[str, str], profile_file: ProfileFile | None
) -> BackendFacts:
    """The backend's unit, all its processes, when the first of them started, its health and its files.

    `env`: what is to be set in the env files; `profile_file`: {path, read_by, env} of the profile's own file.
    `started_s` is in seconds since boot. It is the first process that counts: where it is a shell, that shell has read
    the env files for the others.
    """
    facts: BackendFacts = {
        "kind": backend["kind"],
        "unit": None,
        "pids": [],
        "started_s": None,
        "health": None,
        "processes": [],
        "env_files": [],
        "profile_file": None,
        "directory_exists": None,
    }
    if backend["kind"] == "unit":
        facts["unit"] = unit = read_unit(backend["unit"], keys)
        if unit.get("active_state") == "active":
            facts["pids"] = unit_pids(unit)
    elif backend["kind"] == "command":
        own = find_processes(backend["process_match"], backend["directory"], only_readable=True)
        facts["pids"] = with_descendants(own)
    started = []
    for pid in facts["pids"]:
        with contextlib.suppress(OSError):  # it ended while we looked
            started.append(proc_stat.start_s(pid))
    facts["started_s"] = min(started, default=None)
    processes = filter(None, (read_process(pid, keys) for pid in facts["pids"]))
    facts["processes"] = [{"pid": one["pid"], "environment": one["environment"]} for one in processes]
    health = backend.get("health") or {}
    if backend["kind"] != "none" and health.get("url"):
        try:
            answered = http_client.request(health["url"], timeout=5).status
            facts["health"] = {"ok": answered == int(health.get("status") or 200), "status": answered, "error": None}
        except http_client.HttpError as problem:
            facts["health"] = {"ok": False, "status": None, "error": str(problem)}
    for file in backend.get("env_files") or []:
        readers, add_keys = _readers_of(file["path"], file.get("read_by"), facts["unit"]), file.get("add_keys", True)
        found = read_env_file(file["path"], keys, readers, env, add_keys)
        facts["env_files"].append({**found, "read_by": readers, "add_keys": add_keys})
    facts["profile_file"] = profile_file and read_env_file(
        profile_file["path"], sorted(profile_file["env"]), profile_file["read_by"], profile_file["env"]
    )
    facts["directory_exists"] = os.path.isdir(backend["directory"]) if backend.get("directory") else None
    return facts
