# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking keys of an env file back to what they were, and nothing else, whatever an owner has written since."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import readings


def taken_back(text: str, before: str, ours: Mapping[str, Sequence[str]], readers: Sequence[str]) -> dotenv.Edit:
    """`text` with the keys of `ours` as `before` has them; `problems`: what stays, and why.

    `ours`: the values that this collection has given each key. A line just as this collection has written it goes back
    to the one that was there, be it in what no reader understands any more: below a quote that is not closed, say.
    Else the readers tell where a key is, unless the file has become too large for them.
    """
    old = {key: _line(before, key, readers) for key in ours}
    owners = {line.rstrip("\r") for line in before.split("\n")}
    for key, values in ours.items():
        kept = old[key]
        for written in _written(key, kept, values, readers):
            number = _only(text, written - owners, readers)
            if number is not None:
                lines = text.split("\n")
                lines[number : number + 1] = [kept] if kept is not None and _lacks(text, before, kept) else []
                text = "\n".join(lines)
    unsettled = {key: line for key, line in old.items() if _naming(text, key) != _naming(before, key)}
    if len(text) > dotenv.MOST_BYTES:
        return dotenv.Edit(text, problems=[f"{key}: {dotenv.TOO_LARGE}" for key in unsettled])
    return _by_readers(text, before, unsettled, readers)


def _by_readers(text: str, before: str, old: Mapping[str, str | None], readers: Sequence[str]) -> dotenv.Edit:
    """As all readers take it; where the owner has written what not all of them understand, as the first that does."""
    values = {key: value for key, value in dotenv.get_keys(before, old, readers).items() if value is not None}
    absent = [key for key, line in old.items() if line is None]
    problems = []
    for key, line in old.items():
        if line is not None and key not in values:  # computed, or with a comment that systemd takes for the value
            candidate = _with_line(text, key, line, readers)
            if dotenv.all_but(candidate, key, readers) == dotenv.all_but(text, key, readers):
                text = candidate
            else:
                problems.append(
                    f"{key}: its line was changed since, beside something else; put it in a line of its own"
                )
    edit = dotenv.set_keys(text, values, absent, readers)
    if edit.problems:
        edits = [dotenv.set_keys(text, values, absent, [reader]) for reader in readers] if old else [dotenv.Edit(text)]
        edit = next((one for one in edits if not one.problems), edit)
    return dotenv.Edit(edit.text, edit.changed_keys, [*edit.problems, *problems])


def _with_line(text: str, key: str, line: str, readers: Sequence[str]) -> str:
    """A text with a line for a key, in the place of the one that counts."""
    now = _line(text, key, readers)
    if now is None:
        return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{line}\n"
    start, _unused, end = f"\n{text}\n".rpartition(f"\n{now}\n")
    return f"{start}\n{line}\n{end}"[1:-1]


def _naming(text: str, key: str) -> list[str]:
    """The lines of a text that may set a key."""
    return [line for line in text.split("\n") if re.search(rf"\b{key}\s*=", line)]


def _line(text: str, key: str, readers: Sequence[str]) -> str | None:
    """The line that gives a key its value, or the lines; None where it has none."""
    found = [reading.last(key) for reader in readers for reading in readings(text, reader)]
    last = max((one for one in found if one), key=lambda one: (one.start, one.end), default=None)
    if last is None:
        return None
    end = text.find("\n", last.end)
    return text[text.rfind("\n", 0, last.start) + 1 : end if end >= 0 else len(text)]


def _written(key: str, old: str | None, values: Sequence[str], readers: Sequence[str]) -> list[set[str]]:
    """The lines that this collection makes of a key's old one; and those that it adds."""
    changed, added = set(), set()
    for value in values:
        first, *more = dotenv.set_keys(old or "", {key: value}, (), readers).text.splitlines() or [""]
        changed |= {first} if old is not None else set()
        added |= {*more, *dotenv.set_keys("", {key: value}, (), readers).text.splitlines()}
    return [changed - {""}, added - changed - {""}]


def _lacks(text: str, before: str, lines: str) -> bool:
    """Whether a text has some lines less often than it had."""
    return _count(text, lines) < _count(before, lines)


def _count(text: str, lines: str) -> int:
    text, lines = f"\n{text}\n", f"\n{lines}\n"
    at, count = text.find(lines), 0
    while at >= 0:
        at, count = text.find(lines, at + 1), count + 1
    return count


def _only(text: str, written: Collection[str], readers: Sequence[str]) -> int | None:
    """Where the one line is that has been written so; None where there is none, or it is not to be told which."""
    found = {number for number, line in enumerate(text.split("\n")) if line.rstrip("\r") in written}
    found -= _quoted(text, readers) if found and len(text) <= dotenv.MOST_BYTES else set()
    return found.pop() if len(found) == 1 else None


def _quoted(text: str, readers: Sequence[str]) -> set[int]:
    """The lines, from 0, that every reader takes for a later one of a value of several."""
    found = []
    for reader in readers:
        for reading in readings(text, reader):
            found.append(dotenv.later_lines(text, reading.assignments) if not reading.stopped else set())
    return set.intersection(*found)
