# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Podman's Quadlets: a `.container` file of which a generator makes a unit that runs `podman run`. Pure.

The server's environment stands in the section [Container] of that file and of its drop-ins, and reaches the container
as `--env` of the unit's ExecStart. What [Service] sets is Podman's own environment, and never the container's.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text

DIRECTORY = "/etc/containers/systemd"
# Where the system's generator looks for files and drop-ins; of two with one name the first counts.
PLACES = ("/run/containers/systemd", DIRECTORY, "/usr/share/containers/systemd")
GENERATED = "/run/systemd/generator"
CONMON = "conmon"  # Podman's monitor of a container: the main process of such a unit, and the parent of the container's
JOURNALD = "journald"


class Command(NamedTuple):
    """What a unit's `podman run` gives its container: environment, env files, and a name, where that can be told.

    `program`: Podman itself.
    """

    program: str
    environment: dict[str, str]
    env_files: list[str]
    name: str | None


def file_of(properties: Mapping[str, object]) -> str | None:
    """The `.container` file of which a unit was made, by its FragmentPath and SourcePath; None of every other unit.

    Not that of a template: its drop-ins would be those of all its instances.
    """
    fragment, source = (str(properties.get(name) or "") for name in ("FragmentPath", "SourcePath"))
    name = posixpath.basename(source)
    made = fragment.startswith(GENERATED) and source.endswith(unit_text.CONTAINER)
    return source if made and "@" not in name else None


def drop_in(file: str, name: str = unit_text.DROP_IN) -> str:
    """Where this collection's drop-in of a `.container` file is, wherever that file itself is."""
    return posixpath.join(DIRECTORY, f"{posixpath.basename(file)}.d", name)


def drop_in_directories(file: str) -> list[str]:
    """The names of the directories with drop-ins of a `.container` file, the most specific first."""
    name = posixpath.basename(file)
    stem = name[: -len(unit_text.CONTAINER)]
    shorter = [f"{stem[: at + 1]}{unit_text.CONTAINER}.d" for at, sign in enumerate(stem) if sign == "-"]
    return [f"{name}.d", *reversed(shorter), f"{unit_text.CONTAINER[1:]}.d"]


def command(texts: Iterable[str], unit: str) -> Command:
    """What the last ExecStart= of a unit's file and drop-ins says, in the order in which they apply."""
    words: list[str] = []
    for text in texts:
        for value in unit_text.values_of(text, "Service", "ExecStart"):
            words = list(unit_text.words(value))
    found = Command(next(iter(words), ""), {}, [], None)
    for option, value in _options(words):
        if option == "--env":
            name, equals, content = value.partition("=")
            found.environment.update({name: content.replace("%%", "%").replace("$$", "$")} if equals else {})
        elif option == "--env-file":
            found.env_files.append(value)
        elif option == "--name":
            found = found._replace(name=_resolved(value, unit))
    return found


def environment_by_args(texts: Iterable[str]) -> dict[str, str]:
    """What a `.container` file and its drop-ins set by `PodmanArgs=`, which stands behind all else and so wins."""
    values = [value for text in texts for value in unit_text.values_of(text, "Container", "PodmanArgs")]
    given = [value for option, value in _options(["", *unit_text.words(" ".join(values))]) if option == "--env"]
    return {name: value for name, equals, value in (one.partition("=") for one in given) if equals}


def _options(words: list[str]) -> Iterable[tuple[str, str]]:
    """The options of a `podman run` with their values, as two words or as one with a `=` in it."""
    following = [*words[1:], ""]
    for word, value in zip(words, following):
        option, equals, content = word.partition("=")
        if option in ("--env", "--env-file", "--name"):
            yield option, content if equals else value


def _resolved(name: str, unit: str) -> str | None:
    """A name with the specifiers of a unit's name in it; None where it has others."""
    stem = unit.rpartition(".")[0]
    for specifier in ("%N", "%p"):
        name = name.replace(specifier, stem)
    name = name.replace("%n", unit)
    return None if "%" in name else name


def log_driver(conmon: Iterable[str]) -> str:
    """Where Podman's monitor of a container writes what that says, by its command line: a driver, or DRIVER:PATH."""
    words = list(conmon)
    drivers = [value for word, value in zip(words, words[1:]) if word in ("-l", "--log-path")]
    return next((one for one in drivers if one.partition(":")[0] == JOURNALD), next(iter(drivers), "none"))
