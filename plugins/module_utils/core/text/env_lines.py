# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking keys of an env file back to what they were, and nothing else, whatever an owner has written since."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import (
    Assignment,
    lines_of,
    readings,
)


def taken_back(text: str, before: str, ours: Mapping[str, Sequence[str]], readers: Sequence[str]) -> dotenv.Edit:
    """`text` with the keys of `ours` as `before` has them; `problems`: what stays, and why.

    `ours`: the values that this collection has given each key. A line just as this collection has written it goes back
    to the one that was there, be it in what no reader understands any more: below a quote that is not closed, say.
    Else the readers tell where a key is, unless the file has become too large for them.
    """
    old = {key: _line(before, key, readers) for key in ours}
    owners = {line.rstrip("\r") for line in before.split("\n")}
    written = {
        key: [lines - owners for lines in _written(key, old[key], values, readers)] for key, values in ours.items()
    }
    for key, kept in old.items():
        for lines in written[key]:
            text = _lines_taken_back(text, before, key, lines, kept, readers)
    unsettled = {key: line for key, line in old.items() if _naming(text, key) != _naming(before, key)}
    if len(text) > dotenv.MOST_BYTES:
        return dotenv.Edit(text, problems=[f"{key}: {dotenv.TOO_LARGE}" for key in unsettled])
    edit = _by_readers(text, before, unsettled, readers)
    problems = [*edit.problems, *_left(edit.text, edit.problems, written, readers)]
    return dotenv.Edit(edit.text, edit.changed_keys, problems)


def _lines_taken_back(
    text: str, before: str, key: str, written: Collection[str], kept: str | None, readers: Sequence[str]
) -> str:
    """`text` with the line that counts, of those that this collection has written so, as it was; without the others.

    What a line goes on from may go on to the next one: there an empty line takes its place.
    """
    places = _places_of(text, written, readers)[::-1][: dotenv.MOST_LINES_OF_A_KEY]
    if kept is not None and _lacks(text, before, kept):
        for number in places:
            new = _with_lines(text, number, kept)
            if _others_stay(text, new, key, number, readers):
                return _lines_taken_back(new, before, key, written, kept, readers)
        return text
    for number in places:
        empty, without = _with_lines(text, number, ""), _with_lines(text, number)
        goes_on = empty.split("\n")[number - 1].rstrip("\r").endswith("\\") if number else False
        candidates = (empty, without) if goes_on else (without, empty)
        text = next((new for new in candidates if _others_stay(text, new, key, number, readers)), text)
    return text


def _with_lines(text: str, number: int, *instead: str) -> str:
    """A text with these instead of one of its lines."""
    lines = text.split("\n")
    lines[number : number + 1] = instead
    return "\n".join(lines)


def _others_stay(text: str, new: str, key: str, number: int, readers: Sequence[str]) -> bool:
    """Whether a change of a line runs nothing new and leaves every other key its value, but for one that it is in."""
    if len(text) > dotenv.MOST_BYTES:
        return True
    line_of = lines_of(text)
    for reader in readers:
        for reading, then in zip(readings(text, reader), readings(new, reader)):
            was, now = reading.but([key]), then.but([key])
            if (
                not set(then.runs) <= set(reading.runs)
                or [one.key for one in was] != [one.key for one in now]
                or any(
                    one.value != other.value and not line_of(one.start) <= number <= line_of(one.end)
                    for one, other in zip(was, now)
                )
            ):
                return False
    return True


def _left(
    text: str, problems: Sequence[str], written: Mapping[str, Sequence[Collection[str]]], readers: Sequence[str]
) -> list[str]:
    """The lines of this collection that are still there, where no problem has named their key."""
    named = {problem.partition(":")[0] for problem in problems}
    places = {key: _places_of(text, set().union(*lines), readers) for key, lines in written.items() if key not in named}
    return [
        f"{key}: line {found[0] + 1}, which this collection has written, has become a part of something else (look for "
        "a quote that is not closed, or a backslash at the end of a line); correct that"
        for key, found in places.items()
        if found
    ]


def _by_readers(text: str, before: str, old: Mapping[str, str | None], readers: Sequence[str]) -> dotenv.Edit:
    """As all readers take it; where the owner has written what not all of them understand, as the first that does."""
    values = {key: value for key, value in dotenv.get_keys(before, old, readers).items() if value is not None}
    absent = [key for key, line in old.items() if line is None]
    problems = []
    for key, line in old.items():
        if line is not None and key not in values:  # computed, or with a comment that systemd takes for the value
            candidate = _with_line(text, key, line, readers)
            seen = [
                (dotenv.all_but(one, [key], readers), dotenv.lines_setting_others(one, key))
                for one in (text, candidate)
            ]
            if seen[0] == seen[1]:
                text = candidate
            else:
                problems.append(
                    f"{key}: its line was changed since, beside something else; put it in a line of its own"
                )
    edit = dotenv.set_keys(text, values, absent, readers)
    if edit.problems:
        edits = [dotenv.set_keys(text, values, absent, [reader]) for reader in readers] if old else [dotenv.Edit(text)]
        edits = [one for one in edits if not one.problems and dotenv.leaves_the_rest(text, one.text, old, readers)]
        edit = next(iter(edits), edit)
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


def _places_of(text: str, written: Collection[str], readers: Sequence[str]) -> list[int]:
    """The lines, from 0, that have been written so, but for those in what somebody quotes."""
    found = {number for number, line in enumerate(text.split("\n")) if line.rstrip("\r") in written}
    return sorted(found - _quoted(text, readers) if found and len(text) <= dotenv.MOST_BYTES else found)


def _quoted(text: str, readers: Sequence[str]) -> set[int]:
    """The lines, from 0, that every reader takes for a later one of a value of several in quotes."""
    found = []
    for reader in readers:
        for reading in readings(text, reader):
            values = [one for one in reading.assignments if _is_in_quotes(text, one)]
            found.append(dotenv.later_lines(text, values) if not reading.stopped else set())
    return set.intersection(*found)


def _is_in_quotes(text: str, one: Assignment) -> bool:
    """Whether a value of several lines is meant to be one: two quotes that were left open pair up as well."""
    value = text[one.start : one.end]
    if value[:1] not in ("'", '"') or value[-1] != value[0]:
        return False
    last, line_end = value[value.rfind("\n") + 1 :], text.find("\n", one.end)
    rest = text[one.end : line_end if line_end >= 0 else len(text)].strip()
    return rest[:1] in ("", "#") and not dotenv.lines_setting_others(last, "")
