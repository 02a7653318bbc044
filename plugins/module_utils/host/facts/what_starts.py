# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What units would be started with, as a digest for each file and for each unit in systemd's memory. Changes nothing.

A proof is of what a process was started with: where one of these is another afterwards, that will not start again.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import start_script, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import unit_files
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import commands, held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import BackendProcess, OllamaService

PROPERTIES = (
    "FragmentPath,DropInPaths,Environment,UnsetEnvironment,PassEnvironment,EnvironmentFiles,ExecStartPre,ExecStart,"
    "User,Group,WorkingDirectory"
)
# What of a command is about when it ran, and how that ended.
OF_A_RUN = re.compile(
    r" ; start_time=\[[^\]]{0,64}\] ; stop_time=\[[^\]]{0,64}\] ; pid=\d+ ; code=\S{1,64} ; status=\S{1,64}"
)
PLACES = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
ABSENT = "absent"

Digests = dict[str, str]


def units_of(
    ollama: OllamaService | None, backend: BackendProcess | None, names: Collection[str] = ("ollama", "backend")
) -> list[str]:
    """The units of those services that are named."""
    units = [ollama["unit"]] if ollama and "ollama" in names else []
    return [*units, *([backend["unit"]] if backend and backend["kind"] == "unit" and "backend" in names else [])]


def read(units: Iterable[str], env_files: Iterable[str]) -> Digests:
    """By path what is in each file, and by `UNIT in systemd's memory` what systemd would start it with now."""
    shown = _shown(units)
    return {**_files(shown, env_files), **_memory(shown)}


def files(units: Iterable[str], env_files: Iterable[str]) -> Digests:
    """By path: unit files, drop-ins that systemd has read or will, EnvironmentFiles, programs, and `env_files`.

    Of unit files and EnvironmentFiles without the comments, which change nothing.
    """
    return _files(_shown(units), env_files)


def _shown(units: Iterable[str]) -> dict[str, str]:
    return {unit: commands.show(unit, PROPERTIES) for unit in units}


def _files(shown: Mapping[str, str], env_files: Iterable[str]) -> Digests:
    found = {path: _digest(held_path.beginning(path, dotenv.MOST_BYTES), path) for path in env_files}
    for unit, text in shown.items():
        properties = unit_text.parse_show(text)
        drop_ins = [*unit_files.drop_in_paths(unit, properties), *_drop_ins(unit)]
        texts = [properties.get("FragmentPath") or "", *drop_ins, *unit_files.environment_files(properties)]
        found.update({path: _digest(_says(path), path) for path in texts if path and path not in found})
        exec_start = properties.get("ExecStart") or ""
        scripts, named = unit_files.script_texts(exec_start), start_script.programs(exec_start)
        found.update({path: _script(path, scripts[path]) for path in scripts if path not in named or _runs(path)})
    return found


def as_started(before: Mapping[str, str], after: Mapping[str, str]) -> Digests:
    """What units were started with, of digests from before a restart (`files`) and from after it (`read`).

    What was another before counts as it was then, for it may have changed after the start; so does a new drop-in.
    """
    return {
        name: before.get(name, ABSENT if re.search(r"\.d/[^/]+\.conf\Z", name) else digest)
        for name, digest in after.items()
    }


def _drop_ins(unit: str) -> list[str]:
    """Those that systemd finds at its next look, where it has read the others."""
    name, _dot, kind = unit.rpartition(".")
    prefixes = [f"{name[: place + 1]}.{kind}" for place, sign in enumerate(name) if sign == "-"]
    return [
        path
        for place in PLACES
        for owner in (unit, *prefixes, kind)
        for path in sorted(glob.glob(os.path.join(place, glob.escape(owner) + ".d", "*.conf")))
    ]


def _says(path: str) -> bytes:
    lines = (line.strip() for line in held_path.beginning(path, dotenv.MOST_BYTES).splitlines())
    return b"\n".join(line for line in lines if line and not line.startswith((b"#", b";")))


def _runs(path: str) -> bool:
    """Whether a path on a command line is started, and not merely given: it may be a log that is written to."""
    return os.path.isfile(path) and (os.access(path, os.X_OK) or held_path.beginning(path, 2) == b"#!")


def _script(path: str, text: str) -> str:
    """A script by what it says, a program by which file it is."""
    if text or not os.path.isfile(path):
        return _digest(text.encode(), path)
    status = os.stat(path)
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def _digest(content: bytes, path: str) -> str:
    return hashlib.sha256(content).hexdigest() if content or os.path.exists(path) else ABSENT


def _memory(shown: Mapping[str, str]) -> Digests:
    found = {}
    for unit, text in shown.items():
        lasting = OF_A_RUN.sub("", text)
        found[f"{unit} in systemd's memory"] = hashlib.sha256(lasting.encode()).hexdigest()
    manager = commands.run(["systemctl", "show-environment"]).stdout.decode(errors="replace").splitlines()
    ours = sorted(line for line in manager if line.partition("=")[0] in settings.SHOWN)
    return {**found, "systemd's own environment": hashlib.sha256("\n".join(ours).encode()).hexdigest()}
