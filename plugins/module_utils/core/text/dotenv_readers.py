# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each program that reads a `.env` file makes of it. There is no standard: each has rules of its own.

A reader is a function from text to `Reading`: the assignments with the place of each value in the text. Where a value
depends on more than the text (an expansion, the reader's version) it is None; where a reader stops, it is said why.
Each character is read a bounded number of times, whatever the text is; nothing nests, so there is no depth to bound.
The tests hold these against bash, python-dotenv and systemd's own parser; a long one against all of these programs.
"""

from __future__ import annotations

import bisect
import functools
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What Linux gives a program as one variable, and what a reader needs much less than a second for.
MOST_BYTES = 128 * 1024
TOO_LARGE = f"it is larger than {MOST_BYTES // 1024} KiB, so it is no .env file; move it away, or give another path"


class Assignment(NamedTuple):
    """One `key=value` as a reader sees it; `text[start:end]` is its value part, quotes included."""

    key: str
    value: str | None
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """All that a reader is known to take from a text.

    `stopped` says why no more is known (None: it reads to the end); what `unread` names may have changed there.
    `runs`: the commands that are known to be run. `folded`: names are the same whatever their case.
    """

    assignments: tuple[Assignment, ...]
    stopped: str | None = None
    unread: str = ""
    runs: tuple[str, ...] = ()
    folded: bool = False

    def of(self, keys: Collection[str]) -> list[Assignment]:
        """The assignments of some keys."""
        named = {self._name(key) for key in keys}
        return [one for one in self.assignments if self._name(one.key) in named]

    def but(self, keys: Collection[str]) -> list[Assignment]:
        """The assignments of all other keys."""
        named = {self._name(key) for key in keys}
        return [one for one in self.assignments if self._name(one.key) not in named]

    def last(self, key: str) -> Assignment | None:
        """The assignment that counts: every reader lets a later line win."""
        return next(reversed(self.of([key])), None)

    def value(self, key: str) -> str | None:
        last = self.last(key)
        return last.value if last and self._name(key) not in self._name(self.unread) else None

    def _name(self, text: str) -> str:
        return text.lower() if self.folded else text


def readings(text: str, reader: str) -> list[Reading]:
    """What `reader` makes of `text`, once for each family of its versions that differs."""
    if len(text) > MOST_BYTES:
        return [Reading((), TOO_LARGE, text) for _unused in READERS[reader]]
    return [read(text) for read in READERS[reader]]


def lines_of(text: str) -> Callable[[int], int]:
    """The line, counted from 0, that a place in the text is in."""
    ends = [end.start() for end in re.finditer("\n", text)]
    return functools.partial(bisect.bisect_left, ends)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    """The match of a pattern that always matches."""
    return cast("re.Match[str]", pattern.match(text, at))


def _end(pattern: re.Pattern[str], text: str, at: int, limit: int = sys.maxsize) -> int:
    return cast("re.Match[str]", pattern.match(text, at, limit)).end()


_SPACE = re.compile(r"\s*")
# A line that means the same to python-dotenv, systemd and bash, wherever one begins.
_IN_QUOTES = r"[\w./:,@%+=; #&|()<>?*^{}\[\]-]*"
_PLAIN_LINE = re.compile(
    rf"""([A-Za-z_][A-Za-z0-9_]*)=(?:([\w./:,@%+=-]*)|"({_IN_QUOTES})"|'({_IN_QUOTES})')\n""", re.ASCII
)


def _plain_lines(text: str, at: int, found: list[Assignment]) -> int:
    """Read lines as long as they are plain, which most are; where the first other one begins."""
    line = _PLAIN_LINE.match(text, at)
    while line:
        plain, double, single = line.group(2, 3, 4)
        value = plain if plain is not None else double if double is not None else single
        found.append(Assignment(line[1], value, line.end(1) + 1, line.end() - 1))
        at = line.end()
        line = _PLAIN_LINE.match(text, at)
    return at


# python-dotenv -------------------------------------------------------------------------------------------------------
# Its parser.py, 0.21 to 1.2. `modern` is 1.2.3 and later: a byte order mark is skipped, and in quotes a backslash
# escapes any character, so that two of them before a quote let it end the value.

_PD_BLANK = r"[^\S\r\n]*"
_PD_BEFORE_NAME = re.compile(r"(?:export[^\S\r\n]+)?")
_PD_NAME = re.compile(rf"(?:'([^']+)'|(?!')([^=#\s]+)|(?=#)){_PD_BLANK}")
_PD_EQUALS = re.compile(rf"={_PD_BLANK}")
_PD_QUOTED = {
    True: {"'": re.compile(r"'((?:\\.|[^'\\])*)'", re.S), '"': re.compile(r'"((?:\\.|[^"\\])*)"', re.S)},
    False: {"'": re.compile(r"'((?:\\'|[^'])*)'"), '"': re.compile(r'"((?:\\"|[^"])*)"')},
}
_PD_ESCAPES = {"'": re.compile(r"\\([\\'])"), '"': re.compile(r"\\([\\'\"abfnrtv])")}
_PD_ESCAPED = dict(zip("abfnrtv", "\a\b\f\n\r\t\v"))
_PD_LINE_END = re.compile(rf"(?:{_PD_BLANK}#[^\r\n]*)?{_PD_BLANK}(?:\r\n|\n|\r|\Z)")
_PD_LINE = re.compile(r"[^\r\n]*")
_PD_REST = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)?")
_PD_COMMENT = re.compile(r"(?<!\s)\s+#.*")
# `${[^}:]*(:-[^}]*)?}` where a } is known to follow; of several that begin before the same colon, the last one.
_PD_INTERPOLATION = re.compile(r"\$\{(?:[^}:$]|\$(?!\{))*(?:\}|:-)")


def _python_dotenv(text: str, modern: bool) -> Reading:
    if re.search("[\ud800-\udfff]", text):
        return Reading((), "the file is not UTF-8, which python-dotenv does not read")
    if not modern and not re.search("[\ufeff'\"]", text):
        return READERS["python-dotenv"][0](text)  # it makes no difference
    found: list[Assignment] = []
    at = 1 if modern and text.startswith("\ufeff") else 0
    while True:
        at = _end(_SPACE, text, _plain_lines(text, _end(_SPACE, text, at), found))
        if at >= len(text):
            return Reading(tuple(found))
        at = _end(_PD_BEFORE_NAME, text, at)
        name = _PD_NAME.match(text, at)
        at = name.end() if name else at
        equals = _PD_EQUALS.match(text, at) if name else None
        assignment = None
        if name:
            assignment = Assignment(name[1] or name[2] or "", None, at, at)  # a name alone unsets what was set before
            if equals and equals[0] != "=" and text.startswith("#", equals.end()):
                # `KEY= # comment`: a comment since 1.2.4, a value before.
                assignment = Assignment(assignment.key, None, at + 1, at + 1)
            elif equals:
                at = equals.end()
                assignment = _python_dotenv_value(text, at, assignment.key, modern)
            at = assignment.end if assignment else at
        line_end = _PD_LINE_END.match(text, at) if assignment else None
        if line_end and assignment and assignment.key:
            found.append(assignment)
        # A line that it cannot parse is skipped from where the parser got stuck.
        at = line_end.end() if line_end else _end(_PD_REST, text, at)


def _python_dotenv_value(text: str, at: int, key: str, modern: bool) -> Assignment | None:
    quote = text[at : at + 1]
    if quote in ("'", '"'):
        match = _PD_QUOTED[modern][quote].match(text, at)
        if match is None:
            return None
        # The file is opened as text, so that every kind of line end arrives as one.
        raw = re.sub("\r\n?", "\n", match[1])
        value = _PD_ESCAPES[quote].sub(lambda escape: _PD_ESCAPED.get(escape[1], escape[1]), raw)
        end = match.end()
    else:
        line = text[at : _end(_PD_LINE, text, at)]
        value = _PD_COMMENT.sub("", line).rstrip()
        end = at + len(value)
    interpolated = _PD_INTERPOLATION.search(value, 0, value.rfind("}") + 1)
    return Assignment(key, None if interpolated else value, at, end)


# systemd, EnvironmentFile= -------------------------------------------------------------------------------------------
# src/basic/env-file.c. Before 254 a backslash at the end of a comment carried the comment on to the next line.

_SD_SPACE = re.compile(r"[ \t\n\r]*")
_SD_KEY = re.compile(r"([^\n\r][^=\n\r]*)(=?)")
_NONCHARACTERS = "".join(chr(plane + low) for plane in range(0, 0x110000, 0x10000) for low in (0xFFFE, 0xFFFF))
_SD_BAD = re.compile(f"[\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
# What holds nothing special, in these quotes; `plain`: after the first unquoted character, quotes are ordinary.
_SD_RUN = {"'": re.compile("[^']+"), '"': re.compile(r'[^"\\]+'), "plain": re.compile(r"[^ \t\n\r\\]+")}
_SD_COMMENT = {
    True: re.compile(r"(?:\\[^\n\r]|[^\\\n\r])*(?:\\?[\n\r]|\\?\Z)"),
    False: re.compile(r"(?:\\.|[^\\\n\r])*(?:[\n\r]|\\?\Z)", re.S),
}


def _systemd(text: str, modern: bool) -> Reading:
    if not modern and not re.search(r"\\[\n\r]", text):
        return READERS["systemd"][0](text)  # it makes no difference
    found: list[Assignment] = []
    at = 0
    while True:
        at = _end(_SD_SPACE, text, _plain_lines(text, _end(_SD_SPACE, text, at), found))
        if at >= len(text):
            return Reading(tuple(found))
        if text[at] in "#;":
            at = _end(_SD_COMMENT[modern], text, at)
            continue
        key = _match(_SD_KEY, text, at)
        at = key.end()
        if key[2]:
            value, start, end, at, closed = _systemd_value(text, at)
            if _SD_BAD.search(key[1] + value):
                return Reading((), f"line {_line(text, start)} is not UTF-8, for which systemd rejects the whole file")
            name = key[1].rstrip(" \t")
            if NAME.fullmatch(name):
                found.append(Assignment(name, value, start, end))
            if not closed:
                return Reading(tuple(found), f"the quote that opens in line {_line(text, start)} is never closed")


def _systemd_value(text: str, at: int) -> tuple[str, int, int, int, bool]:
    """Value, its start and end in the text, where the next line begins, and whether all quotes are closed."""
    value: list[str] = []
    kept = 0  # up to here trailing blanks belong to the value
    start = None
    quote = ""
    plain = ""
    end = at
    while at < len(text) and (quote or text[at] not in "\n\r"):
        char = text[at]
        if start is None and char not in " \t":
            start = at
        run = _SD_RUN[quote or plain].match(text, at) if quote or plain else None
        at = run.end() if run else at + 1
        if run:
            value.append(run[0])
        elif quote:
            if char == quote:
                quote = ""
            elif at < len(text):  # a backslash
                value.append(text[at] if text[at] in '"\\`$' else "" if text[at] == "\n" else "\\" + text[at])
                at += 1
        elif char in "'\"" and not plain:
            quote = char
        elif char == "\\":
            plain = "plain"
            value.append(text[at] if at < len(text) and text[at] not in "\n\r" else "")
            at += 1
        elif char not in " \t" or plain:
            plain = "plain"
            value.append(char)
        if quote or char not in " \t":
            kept = len(value)
            end = min(at, len(text))
    return "".join(value[:kept]), end if start is None else start, end, at + 1, not quote


# docker and podman, --env-file ---------------------------------------------------------------------------------------
# docker/cli, pkg/kvfile, and podman, pkg/env: lines as they are, no quotes and no escapes. docker refuses a whole file
# for one bad line; podman takes blanks into a name, and a byte order mark.

_GO_SPACE = re.compile("[\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*")
_PM_SPACE = re.compile("[ \t]*")
_GO_LONGEST_LINE = 64 * 1024


def _docker(text: str, podman: bool) -> Reading:
    who = "podman" if podman else "docker"
    if re.search("[\ud800-\udfff]", text):
        return Reading((), f"the file is not UTF-8, which {who} does not read", text if podman else "")
    found = []
    at = 0
    for number, line in enumerate(text.split("\n"), 1):
        end = at + len(line) - line.endswith("\r")
        begin = at + (number == 1 and line.startswith("\ufeff") and not podman)
        key, equals, value = text[_end(_PM_SPACE if podman else _GO_SPACE, text, begin, end) : end].partition("=")
        if len(line) * 4 >= _GO_LONGEST_LINE and len(line.encode()) >= _GO_LONGEST_LINE:
            return Reading((), f"line {number} is too long, for which {who} refuses the whole file")
        if key + equals and not key.startswith("#"):
            if not key or (not podman and (" " in key or "\t" in key)):
                return Reading((), f"line {number} has no plain name, for which {who} refuses the whole file")
            if podman and not equals and key.endswith("*"):
                return Reading((), f"line {number} takes any number of variables from podman's own environment", text)
            # A name alone takes the value from the program's own environment.
            found.append(Assignment(key, value if equals else None, end - len(value), end))
        at += len(line) + 1
    return Reading(tuple(found))


# Dialects -------------------------------------------------------------------------------------------------------------
# The many that take `NAME=value`, `NAME='value'` and `NAME="value"` line by line. What they make of anything else, such
# as a value of several lines, differs from release to release, and most reject the whole file: there nothing is known.


class _Dialect(NamedTuple):
    """`computed`: by the quotes of a value (or ""), the characters that make more of it than what is written."""

    computed: Mapping[str, str]
    hash_ends_word: bool = True  # `a#b` is `a`; else a comment needs a blank before it
    shell_words: bool = False  # knows no `export`, and `NAME=` sets nothing


_DL_BREAK = re.compile("\r(?!\n)|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|\\A\ufeff")
_DL_HEAD = re.compile(r" *(export )? *([A-Za-z_][A-Za-z0-9_]*) *= *", re.ASCII)
_DL_NOTHING = re.compile(r"[ \t]*(?:#.*)?")
_DL_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")
_DL_ODD = re.compile("[^\\S ]|['\"`\ufeff]")


def _dialect(text: str, dialect: _Dialect) -> Reading:
    broken = _DL_BREAK.search(text)
    if broken:
        return _dialect_stopped(text, broken.start())
    found: list[Assignment] = []
    at = 0
    for line in text.split("\n"):
        body = line[:-1] if line.endswith("\r") else line
        head = _DL_HEAD.match(body)
        if head and head[2] != "export":
            one = _dialect_value(body, head, dialect)
            if one is None:
                return _dialect_stopped(text, at)
            if not (dialect.shell_words and (head[1] or one.start == one.end)):
                found.append(one._replace(start=at + one.start, end=at + one.end))
        elif not _DL_NOTHING.fullmatch(body):
            return _dialect_stopped(text, at)
        at += len(line) + 1
    return Reading(tuple(found))


def _dialect_stopped(text: str, at: int) -> Reading:
    return Reading((), f"line {_line(text, at)} is none of NAME=value, NAME='value' and NAME=\"value\"", text)


def _dialect_value(line: str, head: re.Match[str], dialect: _Dialect) -> Assignment | None:
    """The assignment of a line (its value None: more is made of it); None where nothing is certain."""
    start = head.end()
    quote = line[start : start + 1]
    if quote in ("'", '"'):
        close = line.find(quote, start + 1)
        comment = line[close + 1 :].lstrip(" ")
        if close < 0 or line[close - 1] == "\\" or comment[:1] not in ("", "#"):
            return None
        value = line[start + 1 : close]
        known = quote not in comment
        end = close + 1
    else:
        quote = ""
        mark = line.find("#" if dialect.hash_ends_word else " #", start)
        value = (line[start:mark] if mark >= 0 else line[start:]).rstrip(" ")
        if _DL_ODD.search(value) or dialect.shell_words and value.endswith("\\"):
            return None
        known = "  " not in value and (dialect.hash_ends_word or " #" not in line[mark + 1 :] or mark < 0)
        end = start + len(value)
    computed = set(value) & set(dialect.computed[quote])
    if "$" in computed and "$" in _DL_VARIABLE.sub("", value):
        return None  # a command, or what is rejected with the whole file
    known = known and not computed
    return Assignment(head[2], value if known else None, start, end)


# bash, `source` ------------------------------------------------------------------------------------------------------
# Plain commands cannot change the shell's variables, so they are passed over. Anything that may (keywords, builtins,
# substitutions over several lines, redirections, syntax errors) ends what can be said about the file.


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SH_SPACE = re.compile(r"(?:[ \t]|\\\n)*(?:#[^\n]*)?")
_SH_BLANK_LINES = re.compile(r"(?:[ \t]*\n)*")
_SH_OPERATOR = re.compile(r"&&|\|\||\|&|[&|;\n]?")
_SH_TARGET = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\[[^][\s'\"\\$`]*\])?(\+?)=")
_SH_NO_TARGET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[|\+?=)")
_SH_SUBSTITUTION = re.compile(r"\$\{#?\w+\}|\$\w|\$[@*#?$!-]")
_SH_COMMAND_SUBSTITUTION = re.compile(r"\$\(([\w./-]+)(?: +[\w./:=-]+)*\)")
_SH_ANSI_C = re.compile(r"\$'(?:\\.|[^'\\])*'", re.S)
# What holds nothing special, in these quotes or in none.
_SH_RUN = {"": re.compile(r"[^\s;&|()<>'\"\\$`~{]+"), "'": re.compile("[^']+"), '"': re.compile(r'[^"\\$`]+')}
_SH_CHANGES = _words(
    ". [[ ! { } alias bind break builtin case command continue coproc declare do done elif else enable esac eval exec "
    "exit fc fi for function getopts hash if in let local logout mapfile popd printf pushd read readarray "
    "readonly return select set shift shopt source suspend then time trap typeset ulimit unalias unset until wait "
    "while"
)
# bash gives these a value of its own, or does not let them be set.
_SH_OWN = _words(
    "_ BASHOPTS BASHPID BASH_ALIASES BASH_ARGC BASH_ARGV BASH_ARGV0 BASH_CMDS BASH_COMMAND BASH_LINENO BASH_SOURCE "
    "BASH_SUBSHELL BASH_VERSINFO DIRSTACK EPOCHREALTIME EPOCHSECONDS EUID FUNCNAME GROUPS HISTCMD LINENO PIPESTATUS "
    "PPID RANDOM SECONDS SHELLOPTS SRANDOM UID"
)


class _Stop(Exception):
    """From here on nothing is certain."""


def _bash(text: str) -> Reading:
    found: list[Assignment] = []
    runs: list[str] = []
    at = begin = 0
    try:
        while at < len(text):
            begin = at = _end(_SH_BLANK_LINES, text, at)
            plain: list[Assignment] = []
            at = _plain_lines(text, at, plain)
            found += [one._replace(value=None) if one.key in _SH_OWN else one for one in plain]
            if at == begin:
                assigned, commands, at = _bash_line(text, at)
                found += assigned
                runs += commands
    except _Stop:
        stopped = f"from line {_line(text, begin)} on it is shell code that bash runs or rejects"
        return Reading(tuple(found), stopped, text[begin:], tuple(runs))
    return Reading(tuple(found), runs=tuple(runs))


def _bash_line(text: str, at: int) -> tuple[list[Assignment], list[str], int]:
    """A line, which bash takes in as a whole before it runs it: what it assigns (None: perhaps), runs, and its end."""
    line: list[Assignment] = []
    runs: list[str] = []
    assigned: list[Assignment] = []  # since the last `;`
    command: list[tuple[Assignment | None, str | None]] = []
    words: list[str] = []  # of the command, as they are written
    certain = only_assignments = True
    wants_more = False
    while True:
        at = _end(_SH_SPACE, text, at)
        char = text[at : at + 1]
        if char in ("", "\n", ";", "&", "|"):
            if not command and (wants_more or char not in ("", "\n")):
                raise _Stop
            assigned += _bash_assigned(command)
            runs += [" ".join(words)] if words and words != ["export"] else []
            command, words, only_assignments = [], [], True
            operator = text[at : _end(_SH_OPERATOR, text, at)]
            at += len(operator)
            # Pipelines and background jobs assign in a shell of their own, && and || only if.
            certain = certain and operator in ("", "\n", ";")
            wants_more = operator not in ("", "\n", ";", "&")
            if operator in ("", "\n", ";"):
                line += assigned if certain else [Assignment(one.key, None, one.start, one.end) for one in assigned]
                if operator != ";":
                    return line, runs, at
                assigned, certain = [], True
        elif char in "()<>":
            raise _Stop
        else:
            exported = bool(command) and command[0][1] == "export"
            target = _SH_TARGET.match(text, at) if only_assignments or exported else None
            begin = target.end() if target else at
            value, end = _bash_word(text, begin, exported)
            if target:
                if target[2] or target[3] or target[1] in _SH_OWN:
                    value = None
                command.append((Assignment(target[1], value, begin, end), None))
            elif only_assignments and _SH_NO_TARGET.match(text[at:end] if value is None else value):
                raise _Stop  # quoted, split over lines, or an index that does not end here
            else:
                words.append(text[begin:end])
                command.append((None, value))
                only_assignments = False
            at = end


def _bash_assigned(command: list[tuple[Assignment | None, str | None]]) -> Iterator[Assignment]:
    """What a simple command leaves behind in the shell's variables."""
    words = [(position, word) for position, (assignment, word) in enumerate(command) if assignment is None]
    if not words:
        yield from (assignment for assignment, _unused in command if assignment)
    elif words[0] == (0, "export"):
        if any(word is None or not NAME.fullmatch(word) for _unused, word in words[1:]):
            raise _Stop
        yield from (assignment for assignment, _unused in command if assignment)
    elif [word for _unused, word in words] not in (["set", "-a"], ["set", "+a"], ["set", "-o", "allexport"]):
        name = words[0][1]
        if name is None or name in _SH_CHANGES or name == "export":
            raise _Stop


def _bash_word(text: str, at: int, exported: bool) -> tuple[str | None, int]:
    """A word's value after quote removal (None where bash would expand something) and its end."""
    value: list[str] = []
    computed = False
    begin = at
    quote = ""
    while at < len(text):
        run = _SH_RUN[quote].match(text, at)
        if run:
            value.append(run[0])
            at = run.end()
            continue
        char = text[at]
        after = text[at + 1 : at + 2]
        if not quote and char in " \t\n;&|()<>":
            break
        if char == quote:
            quote = ""
        elif char == "\\":
            if not after:
                raise _Stop
            if after != "\n":
                value.append(after if not quote or after in '"\\`$' else "\\" + after)
            at += 1
        elif char in "$`":
            ansi_c = None if quote else _SH_ANSI_C.match(text, at)
            command = _SH_COMMAND_SUBSTITUTION.match(text, at)
            substitution = ansi_c or _SH_SUBSTITUTION.match(text, at) or command
            if substitution and not (command and command[1] in _SH_CHANGES):
                computed = True
                at = substitution.end() - 1
            elif char == "`" or (after and after in ("{([" if quote else "{(['")):
                raise _Stop
            elif after == '"' and not quote:
                computed = True  # $"…" is translated
            else:
                value.append(char)
        elif char in "'\"":
            quote = char
        else:
            computed |= char == "~" and (at == begin or text[at - 1] in ":=")
            computed |= char == "{" and exported
            value.append(char)
        at += 1
    if quote or (at < len(text) and text[at] == "("):
        raise _Stop
    return None if computed else "".join(value), at


_kept = functools.lru_cache(maxsize=64)  # one edit reads the same text many times

_PYTHON_DOTENV = tuple(_kept(functools.partial(_python_dotenv, modern=modern)) for modern in (True, False))
_LINES_OF_GO = _kept(
    functools.partial(_dialect, dialect=_Dialect({"": "$", "'": "", '"': "$\\"}, hash_ends_word=False))
)
_LINES_OF_NODE = _kept(functools.partial(_dialect, dialect=_Dialect({"": "", "'": "", '"': "\\"})))


def _folded(read: Callable[[str], Reading]) -> Callable[[str], Reading]:
    return _kept(lambda text: replace(read(text), folded=True))


READERS: dict[str, tuple[Callable[[str], Reading], ...]] = {
    "python-dotenv": _PYTHON_DOTENV,
    "bash": (_kept(_bash),),
    "systemd": tuple(_kept(functools.partial(_systemd, modern=modern)) for modern in (True, False)),
    "docker": (_kept(functools.partial(_docker, podman=False)),),
    "podman": (_kept(functools.partial(_docker, podman=True)),),
    "compose": (_LINES_OF_GO,),
    "godotenv": (_LINES_OF_GO,),
    "node": (_LINES_OF_NODE,),
    "npm-dotenv": (_LINES_OF_NODE,),
    "ruby-dotenv": (_kept(functools.partial(_dialect, dialect=_Dialect({"": "$", "'": "", '"': "$\\"}))),),
    "honcho": (
        _kept(functools.partial(_dialect, dialect=_Dialect({"": " \\", "'": "\\", '"': "\\"}, shell_words=True))),
    ),
    "dynaconf": (
        _kept(functools.partial(_dialect, dialect=_Dialect({"": "$", "'": "$\\", '"': "$\\"}, hash_ends_word=False))),
    ),
    "environs": _PYTHON_DOTENV,
    "pydantic-settings": tuple(_folded(read) for read in _PYTHON_DOTENV),
}
# These leave what the process was started with as it is.
OVERRIDE_NOTHING = _words("python-dotenv environs pydantic-settings dynaconf node npm-dotenv godotenv ruby-dotenv")
