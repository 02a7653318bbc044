# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files on this host that somebody wrote for a service and that systemd does not read for it. Changes nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_oddities, unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Oddity

MOST_BYTES, MOST_FILES = 64 * 1024, 100
# Read at a login or by a shell, or by a unit that names them: by no service of itself.
FOR_LOGINS = (
    "/etc/environment", "/etc/environment.d/*.conf", "/etc/profile", "/etc/profile.d/*.sh", "/etc/bash.bashrc",
    "/root/.bashrc", "/root/.profile",
)  # fmt: skip
FOR_THE_UNIT = ("/etc/default/{name}", "/etc/sysconfig/{name}", "/etc/{name}.conf", "/etc/{name}.env")


def read(
    unit: str, files: Sequence[str], environment_files: Sequence[str], root: str = "/", quadlet: str | None = None
) -> list[Oddity]:
    """[{path, problem, cure}]. `files`: the unit's own file and drop-ins; `environment_files`: what it names.

    `quadlet`: the `.container` file of which Podman makes the unit; `files` are then that one and its drop-ins.
    """
    found: list[Oddity] = []

    def add(path: str, told: unit_oddities.Oddity | None) -> None:
        if told:
            found.append({"path": path, "problem": told[0], "cure": told[1]})

    name = unit.rpartition(".")[0]
    units = os.path.join(root, "etc/systemd/system")
    for path in files[:MOST_FILES]:
        for told in unit_oddities.in_unit_file(_text(path), unit_text.section_of(path)):
            add(path, told)
    for path in _matching(os.path.join(units, glob.escape(f"{unit}.d"), "*.conf")) if quadlet else []:
        for told in unit_oddities.for_podman(_text(path), quadlet or ""):
            add(path, told)
    for path in environment_files[:MOST_FILES]:
        for told in unit_oddities.in_environment_file(_text(path)):
            add(path, told)
    for path in _matching(os.path.join(units, f"{glob.escape(unit)}.d", "*")):
        if "=" in _text(path):
            add(path, unit_oddities.of_name(os.path.basename(path)))
    for directory in (f"{name}.d", f"{name}.conf.d", f"{unit}.conf.d"):
        for path in _matching(os.path.join(units, glob.escape(directory), "*.conf")):
            add(path, (f"systemd does not read the directory {directory} for {unit}", f"move it to {units}/{unit}.d"))
    for pattern in FOR_LOGINS + FOR_THE_UNIT:
        for path in _matching(os.path.join(root, pattern.format(name=glob.escape(name)).lstrip("/"))):
            names = unit_oddities.names_set_in(_text(path)) if path not in environment_files else []
            if names:
                for_login = "it is for logins, and " if pattern in FOR_LOGINS else ""
                problem = f"{', '.join(names[:5])} is set here, but {for_login}{unit} does not read it"
                add(path, (problem, "set it in a drop-in of the unit, or take it out"))
    return found


def _matching(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern))[:MOST_FILES]


def _text(path: str) -> str:
    """The beginning of a regular file; nothing of what cannot be read."""
    return held_path.text(path, MOST_BYTES)
