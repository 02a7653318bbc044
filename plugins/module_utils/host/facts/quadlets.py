# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of this host that Podman's generator has made of `.container` files, as they are now. Changes nothing."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import quadlet
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import held_path, service_properties

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Properties

PROPERTIES = "Id,MainPID,FragmentPath,SourcePath,DropInPaths"
MOST_FILES = 200


class Quadlet(NamedTuple):
    """A `.container` file and its drop-ins in the order in which they apply, and what the unit made of them runs."""

    file: str
    drop_ins: list[str]
    command: quadlet.Command

    def environment_by_args(self) -> dict[str, str]:
        return quadlet.environment_by_args(map(_text, (self.file, *self.drop_ins)))


def of(name: str, properties: Properties | Mapping[str, str]) -> Quadlet | None:
    """The Quadlet of a unit by its `PROPERTIES`; None of every other unit."""
    file = quadlet.file_of(properties)
    if file is None:
        return None
    texts = [properties.get("FragmentPath") or "", *(properties.get("DropInPaths") or "").split()]
    return Quadlet(file, drop_ins(file), quadlet.command(map(_text, texts), properties.get("Id") or name))


def read(name: str) -> Quadlet | None:
    return of(name, service_properties.of(name, PROPERTIES))


def drop_ins(file: str) -> list[str]:
    """The drop-ins of a `.container` file on the disk; of two with one name the first place counts."""
    found: dict[str, str] = {}
    for place in quadlet.PLACES:
        below = (os.path.normpath(path) for path in sorted(glob.glob(f"{place}/**/", recursive=True))[:MOST_FILES])
        of_users = os.path.join(place, "users")  # which their own generators read
        for directory in dict.fromkeys([place, *(path for path in below if not path.startswith(of_users))]):
            for name in quadlet.drop_in_directories(file):
                for path in sorted(glob.glob(os.path.join(glob.escape(directory), name, "*.conf")))[:MOST_FILES]:
                    found.setdefault(os.path.basename(path), path)
    return [found[name] for name in sorted(found)]


def unit_of(main_pid: int) -> str | None:
    """The unit of a Quadlet whose main process this is; None where there is none."""
    blocks = service_properties.show("*.service", PROPERTIES).split("\n\n") if main_pid else []
    for block in blocks:
        properties = dict(line.partition("=")[::2] for line in block.split("\n"))
        if properties.get("MainPID") == str(main_pid) and quadlet.file_of(properties):
            return properties.get("Id")
    return None


def _text(path: str) -> str:
    """At most what an env file may hold; nothing of what cannot be read."""
    return held_path.text(path, dotenv.MOST_READ)
