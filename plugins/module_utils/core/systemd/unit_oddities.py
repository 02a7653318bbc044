# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody wrote for a service and systemd does not read, by name and place; no value is ever told. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text

Oddity = tuple[str, str]  # what is wrong, and the cure

DIRECTIVES = ("Environment", "EnvironmentFile", "UnsetEnvironment", "PassEnvironment")
BY_LOWER_CASE = {name.lower(): name for name in DIRECTIVES}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,80}")
ASSIGNED = re.compile(r"(?:export[ \t]{1,8})?([A-Za-z_][A-Za-z0-9_]{0,80})[ \t]{0,8}=")
KEPT_ASIDE = (".bak", ".orig", ".old", ".save", "~", ".swp", ".disabled", ".rpmsave", ".rpmnew", ".new")


def in_unit_file(text: str, wanted: str = "Service") -> Iterator[Oddity]:
    """Lines about the environment in a unit file or drop-in that set nothing.

    `wanted`: the section whose environment is the server's, as `unit_text.section_of` has it.
    """
    section = ""
    for line in unit_text.logical_lines(text):
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
        if "=" not in line:
            continue
        name, _equals, value = (part.strip() for part in line.partition("="))
        known = BY_LOWER_CASE.get(name.lower())
        if known is None:
            continue
        if not section:
            yield f"{known}= stands above every section, where systemd ignores it", f"write [{wanted}] above it"
        elif section != wanted:
            ignored = "where systemd ignores it" if wanted == "Service" else "and does not reach the container"
            yield f"{known}= stands in [{section[:40]}], {ignored}", f"move it below [{wanted}]"
        elif name != known:
            yield f"{name}= is no directive of systemd, which ignores it", f"write {known}="
        elif known == "Environment":
            yield from _in_assignments(value)
        elif known == "EnvironmentFile" and wanted == "Service" and value.lstrip("-")[:1] not in ("", "/", "%"):
            quoted = value.lstrip("-").startswith(("'", '"'))
            cause = "in quotes" if quoted else "that is not absolute"
            yield f"EnvironmentFile= has a path {cause}, which systemd ignores", "write EnvironmentFile=/the/path"


def for_podman(text: str, file: str) -> Iterator[Oddity]:
    """Settings of Ollama in a drop-in of the unit that Podman makes of a `.container` file."""
    for name in unit_text.parse_environment_directives(text):
        if name.startswith("OLLAMA_") or name in settings.SHOWN:
            yield f"{name} is set here for Podman, and does not reach the container", f"set it in [Container] of {file}"


def _in_assignments(value: str) -> Iterator[Oddity]:
    words = list(unit_text.words(value))
    wrong = [
        word for word in words if not (NAME.match(word) and ASSIGNED.match(word) and not word.startswith("export "))
    ]
    if wrong:
        name = _name_first(words)
        yield (
            f"Environment= for {name or 'a variable'} has a word that is no NAME=value, which systemd ignores",
            f'write Environment="{name or "NAME"}=value", without blanks around =',
        )


def _name_first(words: list[str]) -> str | None:
    """The variable that these words begin with; a word without a = may be a value, or a part of one."""
    text = " ".join(words[:3] if words[:1] == ["export"] else words[:2])
    assigned = ASSIGNED.match(text)
    return assigned[1] if assigned else None


def in_environment_file(text: str) -> Iterator[Oddity]:
    """Lines of a file for EnvironmentFile= that a shell would take and systemd does not."""
    names = [found[1] for found in map(ASSIGNED.match, text.splitlines()) if found and found[0].startswith("export")]
    if names:
        yield f"systemd ignores the lines with `export` ({', '.join(names[:5])})", "take the word export out"


def names_set_in(text: str) -> list[str]:
    """Settings of Ollama and of GPU memory that a file for shells or logins gives values."""
    found = (ASSIGNED.match(line.strip()) for line in text.splitlines())
    names = (match[1] for match in found if match)
    return list(dict.fromkeys(name for name in names if name.startswith("OLLAMA_") or name in settings.SHOWN))


def of_name(name: str) -> Oddity | None:
    """A file in a unit's directory of drop-ins that systemd does not read for its name."""
    if name.endswith((".conf", *KEPT_ASIDE)) or name.startswith("."):
        return None
    return "systemd reads only drop-ins whose names end in .conf", f"rename it to {name[:80]}.conf"
