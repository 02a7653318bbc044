# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units would be started with, as a digest for each file and for each unit in systemd's memory. Changes nothing.

A proof is of what a process was started with: where one of these is another afterwards, that will not start again.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet, start_script, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import (
    compose_files,
    host_read,
    quadlets,
    unit_files,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, held_path, service_properties

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import BackendProcess, OllamaService

PROPERTIES = (
    "Names,FragmentPath,DropInPaths,Environment,UnsetEnvironment,PassEnvironment,EnvironmentFiles,PAMName,"
    "ExecCondition,ExecStartPre,ExecStart,ExecStartPost,User,Group,WorkingDirectory,Image"
)
# What of a command is about when it ran, and how that ended.
OF_A_RUN = re.compile(
    r" ; start_time=\[[^\]]{0,64}\] ; stop_time=\[[^\]]{0,64}\] ; pid=\d+ ; code=\S{1,64} ; status=\S{1,64}"
)
# Where systemd looks for units and drop-ins, also those that it has not read yet (systemd.unit(5)).
PLACES = (
    "/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
    "/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
    "/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late",
)  # fmt: skip
# Where it looks for its own settings, such as DefaultEnvironment= (systemd-system.conf(5)).
SETTINGS = tuple(f"{place}/systemd/system.conf" for place in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))
OF_PAM = ("/etc/environment", "/etc/security/pam_env.conf")  # where a unit has PAMName=
MOST_BYTES = 1024 * 1024  # of a file whose content counts; of a larger one, and of a program, which file it is
MOST_NAMED = 500  # files of a command line and its scripts
MOST_PLACES = 20  # directories in which they are looked for
# What of a command line's files is code or settings whatever else it is called, and whoever writes it.
CODE = (
    ".py", ".pyz", ".sh", ".js", ".mjs", ".cjs", ".ts", ".rb", ".pl", ".php", ".lua", ".jar", ".toml", ".yaml", ".yml",
    ".ini", ".cfg", ".conf", ".env",
)  # fmt: skip
ENTRIES = ("__main__.py", "index.js")  # of a directory that is run
# What is there is the kernel's, or tells of what was.
FLEETING = ("/proc/", "/sys/", "/dev/", "/var/log/", "/var/cache/")
DATABASE = b"SQLite format 3\0"
MOST_DESCRIPTORS = 4096  # of a process
ABSENT = "absent"

Digests = dict[str, str]
Commands = Sequence["tuple[str, str, str]"]  # each with the directory where it works, and what its process matches


def units_of(
    ollama: OllamaService | None, backend: BackendProcess | None, names: Collection[str] = ("ollama", "backend")
) -> list[str]:
    """The units of those services that are named."""
    units = [ollama["unit"]] if ollama and "ollama" in names else []
    return [*units, *([backend["unit"]] if backend and backend["kind"] == "unit" and "backend" in names else [])]


def commands_of(backend: BackendProcess | None, names: Collection[str] = ("ollama", "backend")) -> Commands:
    """The command by which a backend runs that is no unit, if it is named."""
    by_command = backend and backend["kind"] == "command" and "backend" in names
    return [(backend["command"], backend["directory"], backend["process_match"])] if backend and by_command else []


def read(units: Iterable[str], env_files: Iterable[str], by_command: Commands = ()) -> Digests:
    """By path what is in each file, and by `UNIT in systemd's memory` what systemd would start it with now."""
    shown = _shown(units)
    return {**_files(shown, env_files, by_command), **_memory(shown)}


def files(units: Iterable[str], env_files: Iterable[str], by_command: Commands = ()) -> Digests:
    """By path: unit files and drop-ins that systemd has read or will, its own settings, EnvironmentFiles, programs with
    the files that their command lines name, and `env_files`.

    Of unit files, settings and EnvironmentFiles without the comments, which change nothing.
    """
    return _files(_shown(units), env_files, by_command)


def _shown(units: Iterable[str]) -> dict[str, str]:
    return {unit: service_properties.show(unit, PROPERTIES) for unit in units}


def _files(shown: Mapping[str, str], env_files: Iterable[str], by_command: Commands) -> Digests:
    found = {path: _digest(path) for path in env_files}
    texts = [path for place in SETTINGS for path in (place, *_conf(f"{place}.d"))]
    named: list[str] = []
    for unit, text in shown.items():
        in_compose = compose_files.read(unit)
        if in_compose:
            texts += compose_files.files(in_compose)
            continue
        properties = unit_text.parse_show(text)
        texts += [properties.get("FragmentPath") or "", *unit_files.drop_in_paths(unit, properties)]
        for name in dict.fromkeys([unit, *str(properties.get("Names") or "").split()]):
            texts += [*_unit_files(name), *_drop_ins(name)]
        made_of = quadlets.read(unit)
        lines = start_script.command_lines(text)
        if made_of:  # its unit is written anew as systemd reads it, and so is what Podman's command names of the host
            texts = [path for path in texts if path != properties.get("FragmentPath")]
            texts += [made_of.file, *made_of.drop_ins, *made_of.command.env_files]
            lines = [made_of.command.program]
        pam = properties.get("PAMName")
        texts += [*unit_files.environment_files(properties), *((*OF_PAM, f"/etc/pam.d/{pam}") if pam else ())]
        directory = str(properties.get("WorkingDirectory") or "/").lstrip("!")
        if directory == "~":
            directory = os.path.expanduser(f"~{properties.get('User') or 'root'}")
        named += _started(lines, directory)
    for command, directory, _match in by_command:
        named += _started([command], directory)
    written = _written_by(shown, by_command) if any(not _is_code(path) for path in named) else set()
    for path in named:
        found.setdefault(path, _digest_of_named(path, written))
    seen = {os.path.realpath(path) for path in found}  # /lib may be a link to /usr/lib, a unit of another name's to one
    for path in texts:
        if path and os.path.realpath(path) not in seen:
            seen.add(os.path.realpath(path))
            found[path] = _digest(path, without_comments=True)
    return {path: digest for path, digest in found.items() if digest != ABSENT or not _is_looked_for(path)}


def _started(lines: Iterable[str], directory: str) -> list[str]:
    """The programs and files that command lines name, and what of a script, or of a runner's own file, is another file.

    A name that begins with no slash is looked for where the unit works, and in each directory that stands beside it.
    """
    executed = "\n".join(lines)
    scripts = unit_files.script_texts(executed)
    places = [directory] if os.path.isabs(directory) and os.path.isdir(directory) else []
    found = dict.fromkeys(start_script.programs(executed))
    parts = [path for path in scripts if path not in found]  # these are read, whatever they are called
    texts = [executed, *map(start_script.without_what_it_writes, scripts.values())]
    for number, text in enumerate(texts):
        words = start_script.names_of_files(text)
        paths = [*start_script.programs(text), *_joined(places[:1], words)]
        places = list(dict.fromkeys([*places, *filter(os.path.isdir, paths)]))[:MOST_PLACES]
        unasked = [path for path in _joined(places, start_script.read_unasked(text)) if os.path.isfile(path)]
        found.update(dict.fromkeys([*paths, *_joined(places, [*words, *ENTRIES]), *unasked]))
        if number == 0:  # which is gone on with
            texts += [unit_files.script_text(path) for path in unasked]
    return list(dict.fromkeys([*parts, *filter(_counts, found)]))[:MOST_NAMED]


def _joined(places: Iterable[str], names: Collection[str]) -> list[str]:
    return [os.path.normpath(os.path.join(place, name)) for place in places for name in names]


def as_started(before: Mapping[str, str], after: Mapping[str, str]) -> Digests:
    """What units were started with, of digests from before a restart (`files`) and from after it (`read`).

    What was another before counts as it was then, for it may have changed after the start; so does a new drop-in.
    """
    return {name: before.get(name, ABSENT if _is_looked_for(name) else digest) for name, digest in after.items()}


def _unit_files(name: str) -> list[str]:
    """Where a unit's own file may be: one may stand before that which systemd has read, or mask it."""
    template = re.sub(r"@[^.]*", "@", name)
    return [os.path.join(place, owner) for place in PLACES for owner in dict.fromkeys((name, template))]


def _drop_ins(unit: str) -> list[str]:
    """Those that systemd finds at its next look, where it has read the others."""
    name, _dot, kind = unit.rpartition(".")
    prefixes = [f"{name[: place + 1]}.{kind}" for place, sign in enumerate(name) if sign in "-@"]
    return [path for place in PLACES for owner in (unit, *prefixes, kind) for path in _conf(f"{place}/{owner}.d")]


def _conf(directory: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(directory), "*.conf")))


def _is_looked_for(path: str) -> bool:
    """Whether systemd takes a file for what it is as soon as it is there: one that was not read was not there."""
    return path.startswith((*PLACES, *SETTINGS, *quadlet.PLACES))


def _counts(path: str) -> bool:
    """Whether a file on a command line is part of what starts: code, settings, or what may be; not what is written."""
    return os.path.isfile(path) and (_is_code(path) or not _is_fleeting(path))


def _is_code(path: str) -> bool:
    begins = held_path.beginning(path, 4)
    program = begins == b"\x7fELF" or begins[:2] == b"#!"
    # Some file systems have every file executable, as those of Windows.
    return program or path.endswith(CODE) or os.access(path, os.X_OK) and not start_script.is_written(path)


def _is_fleeting(path: str) -> bool:
    """Whether a file is by its name, place or beginning one that a program writes while it runs."""
    written = path.startswith(FLEETING) or start_script.is_written(path)
    return written or held_path.beginning(path, len(DATABASE)) == DATABASE


def _digest_of_named(path: str, written: Collection[tuple[int, int]]) -> str:
    """What a command line names, also by who may read and execute it: whoever starts it next time must be able to."""
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    if (status.st_dev, status.st_ino) in written and not _is_code(path):
        return start_script.WRITTEN
    return f"{_digest(path)} {stat.S_IMODE(status.st_mode):o} {status.st_uid}:{status.st_gid}"


def _written_by(units: Iterable[str], by_command: Commands) -> set[tuple[int, int]]:
    """The files, by device and number, that processes of services have open for writing."""
    pids: list[int] = []
    for unit in units:
        shown = service_properties.of(unit, host_read.PROCESS_PROPERTIES)
        pids += host_read.unit_pids(host_read.as_unit(unit, shown))
    for _command, directory, match in by_command:
        pids += host_read.with_descendants(host_read.find_processes(match, directory, only_readable=True))
    return {file for pid in pids for file in _open_for_writing(f"/proc/{pid}")}


def _open_for_writing(process: str) -> Iterator[tuple[int, int]]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{process}/fd")[:MOST_DESCRIPTORS]:
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"{process}/fdinfo/{name}", encoding="ascii") as file:
                    flags = int(file.read(256).partition("flags:")[2].split()[0], 8)
                if flags & os.O_ACCMODE != os.O_RDONLY:
                    status = os.stat(f"{process}/fd/{name}")
                    yield status.st_dev, status.st_ino


def _digest(path: str, without_comments: bool = False) -> str:
    """A text by what it says, a program and what is too large by which file it is, and when that was changed."""
    content = held_path.beginning(path, MOST_BYTES + 1)
    if len(content) > MOST_BYTES or b"\0" in content[: dotenv.MOST_BYTES]:
        try:
            status = os.stat(path)
        except OSError:
            return ABSENT
        return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
    if without_comments:
        lines = (line.strip() for line in content.splitlines())
        content = b"\n".join(line for line in lines if line and not line.startswith((b"#", b";")))
    return hashlib.sha256(content).hexdigest() if content or os.path.exists(path) else ABSENT


def _memory(shown: Mapping[str, str]) -> Digests:
    found, names = {}, set(settings.SHOWN)
    for unit, text in shown.items():
        names |= {*str(unit_text.parse_show(text).get("PassEnvironment") or "").split()}
        lasting = OF_A_RUN.sub("", text)
        found[f"{unit} in systemd's memory"] = hashlib.sha256(lasting.encode()).hexdigest()
    manager = commands.run(["systemctl", "show-environment"]).stdout.decode(errors="replace").splitlines()
    ours = sorted(line for line in manager if line.partition("=")[0] in names)
    return {**found, "systemd's own environment": hashlib.sha256("\n".join(ours).encode()).hexdigest()}
