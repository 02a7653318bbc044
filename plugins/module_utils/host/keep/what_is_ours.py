# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What in a file is this collection's: the keys of an env file and the variables of our drop-in that it has set."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError, read_json

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import KeysOfFile, Manifest


def manifests(paths: Paths) -> Iterator[Manifest]:
    """Those of the kept generations that can be read; nobody but root may."""
    for place in (paths.generations, paths.again(paths.generations)):
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(place)):
                with contextlib.suppress(OSError, StateError):
                    manifest: Manifest | None = read_json(os.path.join(place, name, "manifest.json"))
                    if manifest:
                        yield manifest


def keys_of(manifests: Iterable[Manifest]) -> dict[str, KeysOfFile]:
    """By path of an env file, or of our drop-in: all `keys` that this collection has set in it, oldest first, to which
    `values`; who reads it; and the profile whose own it is.
    """
    ours: dict[str, KeysOfFile] = {}
    for manifest in manifests:
        for path, env in manifest.get("env", {}).items():
            known = ours.setdefault(path, {**env, "keys": [], "values": {}})
            known["keys"] += [key for key in env["keys"] if key not in known["keys"]]
            for key, values in env.get("values", {}).items():
                all_of_key = known["values"].setdefault(key, [])
                all_of_key += [value for value in values if value not in all_of_key]
    return ours


def variables_of(manifests: Iterable[Manifest], path: str, text: str) -> Collection[str]:
    """The variables that this collection has set in its drop-in at a path, which holds a text.

    Where nothing is known of that, or an older release has kept the file: what it may set, just as it writes it.
    """
    perhaps = unit_text.as_we_write(text, settings.OURS, unit_text.section_of(path))
    found: set[str] = set()
    for manifest in manifests:
        if path in manifest.get("env", {}):
            found.update(manifest["env"][path]["keys"])
        elif any(state["path"] == path for state in manifest["files"]):
            return perhaps
    return found or perhaps


def is_drop_in(path: str) -> bool:
    return os.path.basename(path) in (unit_text.DROP_IN, unit_text.ENV_FILE)


def is_drop_in_of(path: str, unit: str) -> bool:
    """Whether a path is that of our drop-in of Ollama's unit, or of a container, whose file may have any place."""
    of_unit = os.path.basename(os.path.dirname(path)) == f"{unit}.d"
    return is_drop_in(path) and (of_unit or unit_text.section_of(path) != "Service")
