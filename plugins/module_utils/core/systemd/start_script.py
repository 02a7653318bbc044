# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands between systemd and the server and changes its environment: scripts and wrappers. Pure.

A text says some of it for sure. What it does in a branch, or computes, it may do.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import StartScript


_COMMENT = re.compile(r"(?:^|(?<=[ \t;]))#.*", re.MULTILINE)
_TOKEN = re.compile(
    r"""(?:[^\s"'`;&|(){}\\$]|\\.|"(?:[^"\\]|\\.)*"|'[^']*'|\$\([^()]{0,1024}(?:\([^()]{0,256}\)[^()]{0,256}){0,4}\)"""
    r"""|\$\{[^}]{0,128}\}|\$|`[^`]{0,1024}`)+|\n|;;|[;(){}]|&&|\|\|?|&|."""
)
_ASSIGNMENT = re.compile(r"""["']?([A-Za-z_]\w{0,63})=(.*)\Z""", re.S)
_PATH = re.compile(r"(?<![^\s=<\"'(])/[^\s;\"'()|`]+")
_VARIABLE = re.compile(r"\$(?:\{(\w{1,64})\}|(\w{1,64}))")
_DEFAULT = re.compile(r"\$\{(\w{1,64}):?[-=]")
_OWN_DIRECTORY = re.compile(r"""\$\(dirname (?:-- )?"?\$(?:0|\{BASH_SOURCE(?:\[0\])?\}|BASH_SOURCE)"?\)|\$\{0%/\*\}""")
_TESTED = re.compile(r"(?:-[nzv]|printenv)[ \t]+[\"']?\$?\{?([A-Za-z_]\w{0,63})")
_BEGINS, _ENDS = {"if", "case", "for", "while", "until", "select"}, {"fi", "esac", "done"}
_INSIDE = {"then", "else", "elif", "do", "!", "time"}
_EXPORTS = {"export", "declare", "typeset", "readonly", "local"}
# Programs that run another one in the same environment, or with more in it.
_RUNS_ANOTHER = {
    "exec", "command", "nohup", "nice", "ionice", "chrt", "taskset", "numactl", "setsid", "stdbuf", "timeout", "env",
    "sudo", "doas", "setpriv", "runuser", "su", "chroot", "start-stop-daemon", "daemon",
}  # fmt: skip
MOST_WORDS = 512  # of one command
LONGEST_NAME, LONGEST_PATH = 255, 4095  # of a file
WRITTEN = "written by the service itself"  # instead of a file's digest: it has that open for writing
_MODULE = re.compile(r"[A-Za-z_][\w.]{0,254}")  # of Python's
_PARTS = re.compile(r"[=:,]")  # between the parts of a word: `--env-file=.env`, `main:app`, `./conf:/etc/app`
# What a program reads of the directory where it works without being told so.
_READ_UNASKED = {
    **dict.fromkeys(("node", "npm", "npx", "yarn", "pnpm", "bun", "corepack"), ("package.json",)),
    **dict.fromkeys(("poetry", "pdm", "uv", "hatch", "pipenv"), ("pyproject.toml", "Pipfile")),
    **dict.fromkeys(("honcho", "foreman"), ("Procfile", ".env")),
    **dict.fromkeys(("bundle", "rackup", "puma", "rails"), ("Gemfile", "config.ru", "config/puma.rb")),
    **dict.fromkeys(
        ("docker", "docker-compose", "podman-compose"),
        ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml", ".env"),
    ),
    "deno": ("deno.json", "deno.jsonc"),
    "pm2": ("ecosystem.config.js", "package.json"),
    "gunicorn": ("gunicorn.conf.py",),
    "flask": (".flaskenv", ".env", "app.py", "wsgi.py"),
    "streamlit": (".streamlit/config.toml",),
    "make": ("Makefile", "makefile", "GNUmakefile"),
    "just": ("justfile", "Justfile"),
    "cargo": ("Cargo.toml",),
    "go": ("go.mod", "main.go"),
}
_REDIRECTED = re.compile(r">{1,2}[ \t]{0,8}[^\s;&|()]{1,4096}")
# The names of what a program writes itself: `access_log`, `chat.db-wal`, `app.log.1`, `prompt-cache.bin`, `state.json`.
_NAME_OF_WRITTEN = re.compile(
    r"(?:^|[._-])(?:logs?|out|output|err|pid|lock|sock|socket|db|sqlite3?|rdb|aof|cache|state|history|sessions?|stats|"
    r"metrics|usage|tmp|jsonl|csv|prom)(?:\.(?:\d{1,9}|json|txt|bin|dat))?(?:-(?:wal|shm|journal))?$",
    re.IGNORECASE,
)
# The parts of a command in `systemctl show`: what begins one, and what ends it.
_ARGV, _AFTER_ARGV = re.compile(r"argv\[\]="), re.compile(r" ; (?:ignore_errors|flags|start_time)=")
_PATH_OF_IT, _AFTER_PATH = re.compile(r"\{ path=(?=/)"), re.compile(r" ; argv\[\]=")
_IGNORED = re.compile(r" ; ignore_errors=(yes|no) ")
_SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash"}


@dataclass
class Says:
    """What a text does to the environment.

    `sets`: for sure, to a fixed value; `perhaps`: in a branch, with the values that it may give, as far as they are
    fixed; `unsets`; `reads`: files that are parts of it; `computes`: words of it that no text decides.
    """

    sets: dict[str, str] = field(default_factory=dict)
    perhaps: dict[str, list[str]] = field(default_factory=dict)
    unsets: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    computes: list[str] = field(default_factory=list)
    strips: str | None = None
    keeps: list[str] = field(default_factory=list)


def programs(exec_start: str) -> list[str]:
    """The paths that an `ExecStart` of `systemctl show` names: its program, and the files that it may be given."""
    return list(dict.fromkeys(_PATH.findall(exec_start)))


def names_of_files(text: str) -> list[str]:
    """What the words of a command line or script may name where it runs: `run`, `--settings=a.json`, `main:app`.

    A word counts with its parts, and as a module: Python's file or package, or Node's file without its ending.
    """
    words = [word.strip("\"'(){}[];&|,@") for word in text.split(None, MOST_WORDS)[:MOST_WORDS]]
    words += [word[2:] for word in words if word[:1] == "-" != word[1:2]]  # `-cgunicorn.conf.py`, `-mapp`
    words = [part for word in words for part in (word, *(_PARTS.split(word) if len(word) <= LONGEST_PATH else ()))]
    words = [word for word in dict.fromkeys(words) if word and word[0] not in "-$~#" and len(word) <= LONGEST_NAME]
    words = words[: 2 * MOST_WORDS]
    modules = [word.replace(".", "/") for word in words if _MODULE.fullmatch(word)]
    ends = (".py", ".js", "/__main__.py", "/__init__.py")
    return list(dict.fromkeys([*words, *(f"{module}{end}" for module in modules for end in ends)]))


def read_unasked(text: str) -> list[str]:
    """The files that the programs of a command line read where they work: `npm start` runs what is in package.json."""
    programs_of_it = dict.fromkeys(
        posixpath.basename(word.strip("\"'(){}[];&|")) for word in text.split(None, MOST_WORDS)[:MOST_WORDS]
    )
    return [file for program in programs_of_it for file in _READ_UNASKED.get(program, ())]


def without_what_it_writes(text: str) -> str:
    """A script without the names of what it writes, as in `date > last-start`, and without its comments."""
    return _REDIRECTED.sub(" ", _COMMENT.sub("", text))


def is_written(path: str) -> bool:
    """Whether a file's name is that of what a program writes while it runs: a log, a database, a pid file, a cache."""
    return bool(_NAME_OF_WRITTEN.search(posixpath.basename(path)[-LONGEST_NAME:]))


def command_lines(executed: str) -> list[str]:
    """What is run, of the commands that `systemctl show` tells: it also says when, and how that ended."""
    lines: list[str] = []
    begin = _ARGV.search(executed)
    while begin:
        end = _AFTER_ARGV.search(executed, begin.end())
        if not end:
            break
        lines.append(executed[begin.end() : end.start()])
        begin = _ARGV.search(executed, end.end())
    return lines


def started(executed: str) -> list[str]:
    """The programs of such a property by which a unit starts, or does not: not those whose errors are ignored."""
    paths: list[str] = []
    begin = _PATH_OF_IT.search(executed)
    while begin:
        end = _AFTER_PATH.search(executed, begin.end())
        ignored = end and _IGNORED.search(executed, end.end())
        if not end or not ignored:
            break
        paths += [executed[begin.end() : end.start()]] if ignored[1] == "no" else []
        begin = _PATH_OF_IT.search(executed, ignored.end())
    return paths


def of_exec_start(exec_start: str) -> Says:
    """What the last command of an `ExecStart` of `systemctl show`, which has no quotes, itself does."""
    found = Says()
    words = (command_lines(exec_start) or [""])[-1].split()
    by_shell = next(
        (at for at, word in enumerate(words) if posixpath.basename(word) in _SHELLS | {"su", "runuser"}), None
    )
    if by_shell is not None:
        options = (at for at in range(by_shell + 1, len(words)) if re.fullmatch(r"-[a-z]*c|--command", words[at]))
        after = next(options, len(words))
        words, inner = words[:after], says(" ".join(words[after + 1 :]))
        found = inner
    if words:
        _statement(found, words, certain=True, tested=set(), path="", starts=True)
    return found


def says(text: str, path: str = "") -> Says:
    """What a script does, which is at `path`."""
    text = _COMMENT.sub("", text.replace("\\\n", " "))
    found, tested = Says(), set(_TESTED.findall(text))
    for words, certain in _statements(text):
        _statement(found, words, certain, tested, path)
    if found.computes:  # `while read line; do export "$line"; done < FILE`
        found.reads = list(dict.fromkeys([*found.reads, *re.findall(r"<[ \t]*(/[^\s;\"'()|&<>]+)", text)]))
    return found


def _statements(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words of each simple command, and whether it is run whatever happens."""
    depth, groups, chained = 0, 0, False
    words: list[str] = []
    for token in [*_TOKEN.findall(text), "\n"]:
        if token in ("\n", ";", ";;", "&", "&&", "||", "|", "(", ")", "{", "}"):
            if words:
                yield words, depth + groups == 0 and not chained
            words = []
            chained = token in ("&&", "||") or chained and token not in ("\n", ";", ";;", "&")
            groups = max(0, groups + (token in ("(", "{")) - (token in (")", "}")))
        elif not token.isspace():
            if not words:
                depth = max(0, depth + (token in _BEGINS) - (token in _ENDS))
            if words or token not in _INSIDE | _ENDS:
                words.append(token)


def _statement(found: Says, words: list[str], certain: bool, tested: set[str], path: str, starts: bool = False) -> None:
    """`starts`: it is what starts the server; of a script, the line that has `serve` does."""
    words = words[:MOST_WORDS]
    first = words[0]
    starts = starts or any(word.strip("\"'").endswith("serve") for word in words)
    if first in (".", "source") and len(words) > 1:
        _reads(found, words[1], path)
        return
    if first == "unset":
        names = [word for word in words[1:] if not word.startswith("-")]
        found.unsets += names if certain else []
        found.perhaps.update({name: [] for name in names if not certain})
        return
    shell = before = ""
    exports = first in _EXPORTS
    for at, word in enumerate(words):
        name = posixpath.basename(word)
        exports = exports or name == "env"
        assigned = _ASSIGNMENT.match(word)
        if " " in word and re.fullmatch(r"-[a-z]*c|--command", before):
            inner = says(_bare(word), path)
            for variable, value in inner.sets.items():
                _assign(found, variable, value, "", certain, tested)
            found.perhaps.update(inner.perhaps)
            found.strips, found.keeps = found.strips or inner.strips, [*found.keeps, *inner.keeps]
        elif assigned:
            raw = assigned[2].rstrip("\"'") if word[0] in "\"'" else assigned[2]
            _assign(found, assigned[1], _fixed(raw, found), raw, certain, tested)
        elif name in _SHELLS:
            shell = name
        elif exports and word[:1] in '$`"' and "$" in word + "$" * word.startswith("`"):
            files = _PATH.findall(word) if word.strip('"')[:2] in ("$(", "`") or word[0] == "`" else []
            found.reads += files
            found.computes += [] if files else [word]
        elif name in _RUNS_ANOTHER and starts and certain:
            _strips(found, name, words[at + 1 :])
        elif not (
            name in _RUNS_ANOTHER | _EXPORTS | {"eval"} or word[0] in "-+" or before.startswith("-") or word.isdigit()
            or name == shell
        ):  # fmt: skip
            break  # what follows are arguments of a program
        before = word


def _assign(found: Says, name: str, value: str | None, raw: str, certain: bool, tested: set[str]) -> None:
    if any(default[1] == name for default in _DEFAULT.finditer(raw)):
        return  # a default, which gives way to the unit's
    for inside in re.finditer(r"(?<![\w/$-])([A-Z][A-Z0-9_]{0,63})=([^\s\"'$`]+)", raw) if " " in raw else ():
        found.perhaps.setdefault(inside[1], []).append(inside[2])
    if certain and value is not None:
        found.sets[name] = value
        found.perhaps.pop(name, None)
    elif certain or name not in tested:
        values = found.perhaps.setdefault(name, [])
        values += [one for one in (found.sets.pop(name, None), value) if one is not None]


def _strips(found: Says, program: str, words: list[str]) -> None:
    """Whether a program starts another one without the environment that it was given itself, as `sudo` does."""
    options: list[str] = []
    for word in words:
        if not word.startswith("-"):
            if options and options[-1] in ("-u", "-g", "-w", "-s", "-U", "-p", "-C", "-h", "--user", "--unset"):
                options.append(word)
                continue
            break
        options.append(word)
    given = {word.split("=", maxsplit=1)[0] for word in options}
    letters = {letter for word in options if re.fullmatch(r"-[A-Za-z]+", word) for letter in word[1:]}
    lists = [word.partition("=")[2] for word in options if word.startswith("--preserve-env=")]
    stripped = {
        "env": "i" in letters or bool(given & {"-", "--ignore-environment"}),
        "sudo": "E" not in letters and "--preserve-env" not in {*options},
        "doas": True,
        "su": bool({"-", "--login"} & {*words}) or "l" in letters,
        "runuser": bool({"-", "--login"} & {*words}) or "l" in letters,
        "setpriv": "--reset-env" in given,
    }.get(program, False)
    if stripped and found.strips is None:
        found.strips = " ".join([program, *(word for word in options if word in ("-", "-i", "-l", "--reset-env"))])
        found.keeps += [name for one in lists for name in one.split(",")]
    if program == "env":
        found.unsets += [after for option, after in zip(options, options[1:]) if option in ("-u", "--unset")]


def _reads(found: Says, word: str, path: str) -> None:
    word = _OWN_DIRECTORY.sub(lambda _found: posixpath.dirname(path), _bare(word))
    word = _VARIABLE.sub(lambda name: found.sets.get(name[1] or name[2], name[0]), word)
    if word.startswith("/") and "$" not in word and "`" not in word:
        found.reads.append(word)
    else:
        found.computes.append(word)


def _fixed(raw: str, found: Says) -> str | None:
    """The value of an assignment; None where the shell computes it."""
    if "'" in raw and raw[:1] == "'" == raw[-1:]:
        return raw[1:-1]
    raw = _VARIABLE.sub(lambda name: found.sets.get(name[1] or name[2], name[0]), raw)
    return None if re.search(r"[$`]", raw) else re.sub(r"[\"']", "", raw)


def _bare(word: str) -> str:
    return word[1:-1] if word[:1] in ("'", '"') and word[-1:] == word[:1] else word.replace('"', "")


def together(texts: Mapping[str, str]) -> list[StartScript]:
    """What scripts, by path, do to the environment: {path, environment, perhaps, unsets, computes, strips, keeps}.

    A variable that another of them touches, too, is none that one sets for sure.
    """
    all_say = {path: says(text, path) for path, text in texts.items()}
    found: list[StartScript] = []
    for path, one in all_say.items():
        others = [other for at, other in all_say.items() if at != path]
        touched = {name for other in others for name in (*other.perhaps, *other.unsets)}
        touched |= {name for other in others for name, value in other.sets.items() if one.sets.get(name) != value}
        sure = {name: value for name, value in one.sets.items() if name not in touched}
        perhaps = dict(one.perhaps)
        perhaps.update({name: [value] for name, value in one.sets.items() if name in touched})
        found.append(
            {
                "path": path,
                "environment": sure,
                "perhaps": perhaps,
                "unsets": [name for name in one.unsets if name not in one.sets],
                "computes": one.computes,
                "strips": one.strips,
                "keeps": [*one.keeps, *one.sets],
            }
        )
    return found
