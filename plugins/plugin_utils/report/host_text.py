# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts that come from hosts, such as names of processes and lines of journals. Pure."""

from __future__ import annotations

import shlex


def printable(text: str) -> str:
    """One line in which nothing steers a terminal or turns the order of letters around."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)


def for_host(command: str, host: str) -> str:
    """A command that has C({host}) at its end, for this host."""
    return command.removesuffix("{host}") + shlex.quote(host)
