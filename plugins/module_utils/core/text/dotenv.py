# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Setting keys in a `.env` file so that every program that reads it sees them, and nothing else changes for any.

Every step is proven by reading the result as each reader would (`_dotenv_readers`): a way of writing a value, or a
place for it, that any of them takes differently is not used; where none is left, the key is refused with the reason.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv_readers
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.dotenv_readers import (
    NAME,
    READERS,
    Assignment,
    Reading,
    lines_of,
    readings,
)

DEFAULT_READERS = ("python-dotenv", "bash", "systemd")  # where nobody says who reads a file, each of these may
MASK = "********"
MOST_BYTES, TOO_LARGE = dotenv_readers.MOST_BYTES, dotenv_readers.TOO_LARGE
MOST_READ = 1024 * 1024  # of what is only looked at, such as a process' environment
MOST_LINES_OF_A_KEY = 20  # that are taken out of one file, each for itself
MOST_NOTES_OF_A_KEY = 10

# Means the same to every reader, and to most programs that are no declared readers, without quotes.
_PLAIN = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")


class ValueNotPortable(ValueError):
    """No way of writing a value arrives exactly in every reader; the text says why and what is allowed."""


@dataclass(frozen=True)
class Edit:
    """An edited text, the keys whose value changed, why nothing was edited (`problems`), and what is worth knowing."""

    text: str
    changed_keys: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def canonical(value: object) -> str:
    """The text of a value that came as text or a number; ValueError for all else, with the cure."""
    if isinstance(value, bool):
        raise ValueError(f'the boolean {value} is written differently by every program; quote it ("true" or "True")')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number; quote it if this text is meant")
    if not isinstance(value, (str, int, float)):
        raise ValueError(f"must be text or a number, not {type(value).__name__} (for no value, quote it: '')")
    return str(value)


def decode(content: bytes) -> str:
    """A file's content as text that `content_of` turns back into the same bytes, whatever they are."""
    return content.decode("utf-8", "surrogateescape")


def content_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def encode(value: str, readers: Sequence[str], quote: str = "") -> str:
    """The value part of `key=value` that arrives as `value` in each of `readers`; ValueNotPortable if there is none.

    `quote` is the style to keep if it carries the value. Control characters are never portable.
    """
    for char in value:
        if unicodedata.category(char) in ("Cc", "Cs"):
            raise ValueNotPortable(f"the control character U+{ord(char):04X} is not allowed; use plain text")
    for form in _forms(value, quote):
        if all(_carries(form, value, reader) for reader in readers):
            return form
    alone = [reader for reader in readers if not any(_carries(form, value, reader) for form in _forms(value))]
    if "python-dotenv" in alone:
        raise ValueNotPortable("python-dotenv replaces ${…} even in single quotes; leave it out")
    if alone:
        raise ValueNotPortable(f"{_and(alone)} cannot be given this value; leave out what is no ordinary text")
    raise ValueNotPortable(
        f"no way of writing it means the same to {_and(readers)}; leave out blanks, quotes, backslashes, $, ` or #"
    )


def _forms(value: str, quote: str = "") -> Iterator[str]:
    """Ways of writing a value, best first."""
    double = '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    shell = '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
    forms = [f"'{value}'", double, shell]
    if quote:
        yield from (form for form in forms if form[0] == quote)
    if _PLAIN.fullmatch(value):
        yield value
    yield from forms
    yield value


def _carries(form: str, value: str, reader: str) -> bool:
    # Quotes further down must not pair with those of the value.
    lines = "Y='y'\nZ=\"z\"\n"
    wanted = [("K", value), *((one.key, one.value) for one in readings(lines, reader)[0].assignments)]
    return all(
        [(one.key, one.value) for one in reading.assignments] == wanted
        for reading in readings(f"K={form}\n{lines}", reader)
    )


def get_keys(text: str | bytes, keys: Iterable[str], readers: Sequence[str] | None = None) -> dict[str, str | None]:
    """The value of each key where all readers agree on one; None where it is not set, computed, or read differently."""
    text = decode(text) if isinstance(text, bytes) else text
    result: dict[str, str | None] = {}
    for key in keys:
        values = {reading.value(key) for _unused, reading in _all(text, readers)}
        result[key] = values.pop() if len(values) == 1 and "\0" not in text else None
    return result


def set_keys(
    text: str, values: Mapping[str, str], remove: Iterable[str] = (), readers: Sequence[str] | None = None
) -> Edit:
    """Set `values` and take the keys of `remove` out; all else stays as it is, byte for byte.

    Of a key that is there, the value of the line that counts is replaced (the last one, for all readers); spacing,
    `export`, a comment and, if possible, the quotes stay. New keys, and keys whose line one of the readers does not
    understand, go to the end. On any problem nothing is edited.
    """
    problems = _problems(text, values, list(remove), readers)
    if problems:
        return Edit(text, problems=problems)
    edited = text
    changed = []
    refused: dict[str, list[str]] = {}
    for key, value in {**dict.fromkeys(remove), **values}.items():
        step = _without(edited, key, readers) if value is None else _with(edited, key, value, readers)
        if isinstance(step, ValueNotPortable):
            refused.setdefault(str(step), []).append(key)
        elif step != edited:
            changed.append(key)
            edited = step
    if refused:
        return Edit(text, problems=[f"{', '.join(keys)}: {reason}" for reason, keys in refused.items()])
    return Edit(edited, changed, notes=[note for key in values for note in _overruled(edited, key, readers)])


def _problems(text: str, values: Mapping[str, str], remove: Sequence[str], readers: Sequence[str] | None) -> list[str]:
    unknown = [reader for reader in readers or () if reader not in READERS]
    if unknown:
        return [f"readers: {unknown} is not known; allowed: {', '.join(READERS)}"]
    if len(text) > MOST_BYTES:
        return [TOO_LARGE]
    problems = ["the file holds a NUL byte, so it is no .env file"] if "\0" in text else []
    for key in [*values, *remove]:
        if not NAME.fullmatch(key):
            problems.append(f"{key!r} is no name of a variable; allowed: letters, digits and _, no digit first")
    problems += [f"{key} is to be set and to be removed; choose one" for key in remove if key in values]
    for key, value in values.items():
        try:
            encode(value, readers or DEFAULT_READERS)
        except ValueNotPortable as problem:
            problems.append(f"{key}: {problem}")
    return problems


def _all(text: str, readers: Sequence[str] | None) -> list[tuple[str, Reading]]:
    return [(reader, reading) for reader in readers or DEFAULT_READERS for reading in readings(text, reader)]


def all_but(text: str, keys: Collection[str], readers: Sequence[str] | None) -> list[list[object]]:
    """All that the readers take from a text but for these keys, and what may be code."""
    return [
        [
            *((one.key, one.value, text[one.start : one.end]) for one in reading.but(keys)),
            reading.unread,
        ]
        for _unused, reading in _all(text, readers)
    ]


def leaves_the_rest(text: str, edited: str, keys: Collection[str], readers: Sequence[str] | None) -> bool:
    """Whether an edit leaves all but these keys as it was, and nothing is run that was not run before."""
    return all_but(text, keys, readers) == all_but(edited, keys, readers) and all(
        set(now.runs) <= set(was.runs)
        for (_unused, was), (_unused, now) in zip(_all(text, readers), _all(edited, readers))
    )


def _readers_without(text: str, key: str, value: str, readers: Sequence[str] | None) -> dict[str, str | None]:
    """Readers that do not see the value, with the reason why they stopped reading, if they did."""
    return {reader: reading.stopped for reader, reading in _all(text, readers) if reading.value(key) != value}


def _with(text: str, key: str, value: str, readers: Sequence[str] | None) -> str | ValueNotPortable:
    if not _readers_without(text, key, value, readers):
        return text
    base = text
    places = _places(text, key, readers)
    for start, end in places:
        swallowed = _swallowed(text, key, start, end)
        if swallowed:
            return swallowed
    for start, end in places:
        form = encode(value, readers or DEFAULT_READERS, text[start : start + 1])
        candidate = text[:start] + form + text[end:]
        if leaves_the_rest(text, candidate, [key], readers):
            without = _readers_without(candidate, key, value, readers)
            if not without:
                return candidate
            if base is text and len(without) < len(set(readers or DEFAULT_READERS)):
                base = candidate
    form = encode(value, readers or DEFAULT_READERS)
    line_end = "\r\n" if "\r\n" in text else "\n"
    gap = "" if base.endswith("\n") or base in ("", "\ufeff") else line_end
    gaps = (gap, gap + line_end)  # an empty line ends what a backslash carries on, also for who is no declared reader
    candidates = [
        f"{base}{before}{key}={form}{after}"
        for before in (gaps[::-1] if base.rstrip("\r\n").endswith("\\") else gaps)
        for after in (line_end, "\n")  # bash takes a carriage return into the value
    ]
    for candidate in candidates:
        if leaves_the_rest(text, candidate, [key], readers) and not _readers_without(candidate, key, value, readers):
            return candidate
    return _cannot(candidates[0], key, value, readers)


def _places(text: str, key: str, readers: Sequence[str] | None) -> list[tuple[int, int]]:
    """Where the readers find the value that counts, the tightest first; a wider one may only drop blanks."""
    found = {reading.last(key) for _unused, reading in _all(text, readers)}
    spans = sorted({(one.start, one.end) for one in found if one}, key=lambda span: (span[1] - span[0], -span[0]))
    return [
        (start, end)
        for start, end in spans
        if not any(begin == start and text[tight:end].strip() for begin, tight in spans if tight < end)
    ]


def _cannot(text: str, key: str, value: str, readers: Sequence[str] | None) -> ValueNotPortable:
    without = _readers_without(text, key, value, readers)
    reasons = sorted({f"{reader}: {reason}" for reader, reason in without.items() if reason})
    if reasons:
        return ValueNotPortable(f"{'; '.join(reasons)}; correct that line, or take the reader out of the list")
    if not without:
        return ValueNotPortable(
            "no place for it changes nothing else that is read or run; look for a backslash at the end of a line"
        )
    return ValueNotPortable(
        f"{_and(list(without))} would not read it from this file; look for a quote "
        "that is not closed, or for a name that the reader keeps for itself"
    )


def _without(text: str, key: str, readers: Sequence[str] | None) -> str | ValueNotPortable:
    while True:
        found = [one for _unused, reading in _all(text, readers) for one in reading.of([key])]
        if not found:
            return text
        if len(set(map(lines_of(text), (one.start for one in found)))) > MOST_LINES_OF_A_KEY:
            return ValueNotPortable(f"it stands in more than {MOST_LINES_OF_A_KEY} lines; take them out by hand")
        last = max(one.start for one in found)
        ends = sorted({one.end for one in found if one.start == last})
        swallowed = _swallowed(text, key, last, ends[-1])
        if swallowed:
            return swallowed
        for end in ends:
            line_end = text.find("\n", end)
            candidate = text[: text.rfind("\n", 0, last) + 1] + (text[line_end + 1 :] if line_end >= 0 else "")
            if leaves_the_rest(text, candidate, [key], readers):
                text = candidate
                break
        else:
            return ValueNotPortable(f"line {text.count(chr(10), 0, last) + 1} also holds something else; take it out")


def _swallowed(text: str, key: str, start: int, end: int) -> ValueNotPortable | None:
    """Why a value cannot go: it holds a line that sets another key for whoever reads lines, and for its owner."""
    _unused, *later = text[start:end].split("\n")
    inside = lines_setting_others("\n".join(later), key)
    if not inside:
        return None
    line = text.count("\n", 0, start) + 1
    return ValueNotPortable(
        f"its value begins in line {line} and ends in line {line + len(later)}, so that the setting in line "
        f"{line + 1 + later.index(inside[0])} would be lost with it; end the value in line {line} (look for a quote "
        "that is not closed, or a backslash at the end)"
    )


def lines_setting_others(text: str, key: str) -> list[str]:
    """The lines that set another key for whoever reads lines, be they a part of a value for all others."""
    named = ((line, _ASSIGNMENT.match(line)) for line in text.split("\n"))
    return [line for line, name in named if name and name[2] != key]


def _overruled(text: str, key: str, readers: Sequence[str] | None) -> Iterator[str]:
    found = [one for _unused, reading in _all(text, readers) for one in reading.of([key])]
    line_of = lines_of(text)
    *lines, last = sorted({line_of(one.start) + 1 for one in found}) or [0]
    for line in lines[:MOST_NOTES_OF_A_KEY]:
        yield f"{key}: line {last} wins over line {line}"
    if len(lines) > MOST_NOTES_OF_A_KEY:
        yield f"{key}: line {last} wins over {len(lines) - MOST_NOTES_OF_A_KEY} more lines"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


# A line may be named by its key only if it cannot be a piece of a key file or the like: those mix cases.
_ASSIGNMENT = re.compile(r"(\ufeff?\s*(?:export\s+)?)([A-Za-z_][A-Za-z0-9_]*)(\s*=[^\S\n]*)(?!=)")
_SHOWN_NAME = re.compile(r"[A-Z0-9_]+|[a-z0-9_]+")


def masked(text: str, own: Iterable[str]) -> str:
    """The text with its lines, but of values only those of the keys `own`; comments are masked as a whole."""
    if len(text) > MOST_BYTES:
        return f"{MASK} ({TOO_LARGE})"
    own = set(own)
    found = [one for _unused, reading in _all(text, list(READERS)) for one in reading.assignments]
    inside = later_lines(text, found)
    ends: dict[int, int] = {}  # of the values that begin at a place, the first
    for one in found:
        ends[one.start] = min(one.end, ends.get(one.start, one.end))
    result = []
    at = 0
    for number, line in enumerate(text.split("\n")):
        body = line.rstrip("\r")
        name = _ASSIGNMENT.match(body)
        if not body.strip():
            result.append(line)
        elif number in inside or not name or not (name[2] in own or _SHOWN_NAME.fullmatch(name[2])):
            result.append(f"# {MASK}" if body.lstrip().startswith("#") and number not in inside else MASK)
        else:
            is_whole = name[2] in own and number + 1 not in inside
            end = ends.get(at + name.end(), at + name.end()) - at if is_whole else name.end()
            rest = body[end:]
            blanks = rest[: len(rest) - len(rest.lstrip())]
            result.append(body[:end] + (blanks + MASK if rest.strip() else ""))
        at += len(line) + 1
    return "\n".join(result)


def later_lines(text: str, assignments: Iterable[Assignment]) -> set[int]:
    """The lines that values reach into, but for their first ones; counted from 0."""
    line_of = lines_of(text)
    return {line for one in assignments for line in range(line_of(one.start) + 1, line_of(one.end) + 1)}
