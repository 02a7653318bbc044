"""Values and `.env` files at random, and what became of each: exact in every reader, refused by key, or anything else.

Reads with the real programs, whole: a second variable, or a command that ran, is found by what is there afterwards.
Docker's rule, which has no program of its own to ask, is written down once more here, apart from the collection's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dotenv
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv as text_dotenv
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.text import env_texts, real_readers

Variables = dict[str, str]
BATCH = 50
PRESETS = [["python-dotenv"], ["bash", "python-dotenv"], ["systemd", "bash"], ["docker"], ["docker", "systemd"]]
OTHERS = "OTHER=1\nexport URL='http://h/?a=1 b' # c\n"
ATTACKS = [
    "a\nB=1", "a\r\nB=1", "a\0b", "a\x1b[0m", "a\u2028B=1", "a\x85B=1", "x'\nB=1\n'", 'x"\nB=1\n"', "\\", "\\\n", "a\\",
    "$(touch ran)", "`touch ran`", "'; touch ran; '", '"; touch ran; "', "${B:=1}", "${B:-1}", "$B", "a b=1", "B=1",
    "# c", "a #c", "a;B=1", "a&B=1", "a|B=1", "a\nExecStart=/bin/false", "[Service]", "%h", "%%", "~", "~root", "{a,b}",
    "!x", "\ufeff", "\ufffe", "\udcff", "'", '"', "''", '""', " ", "  a  ", "\t", "", "=", "==", "a'b\"c`d$e\\f",
]  # fmt: skip
PLAIN = "abcxyzABC0123456789_./:,@%+=-"
ODD = "ab1 '\"\\$`#~:={},!*%(;&<-/é\u00a0\u2028|>?[]^"

SOURCE = """file=$1
declare -A known=()
for name in $(compgen -v) name value; do known[$name]=1; done
print() {
  for name in $(compgen -v); do
    if [[ -z ${known[$name]} ]]; then printf '%s=%s\\0' "$name" "${!name}" >&3; fi
  done
}
exec 3>&1
trap print EXIT
source "$file" >/dev/null 2>&1 </dev/null
"""


def value_of(chance: random.Random) -> str:
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(ATTACKS)
    if kind == 1:
        return chance.choice(ATTACKS) + chance.choice(ATTACKS)
    if kind == 2:
        return "".join(chr(chance.choice([chance.randrange(0x20), chance.randrange(0x300), chance.randrange(0xD800)]))
                       for _unused in range(chance.randrange(1, 8)))  # fmt: skip
    if kind <= 4:
        return "".join(chance.choices(PLAIN, k=chance.randrange(40)))
    if kind == 5:
        return "".join(chance.choices(ODD + PLAIN, k=chance.randrange(200, 2000)))
    return "".join(chance.choices(ODD, k=chance.randrange(8)))


def text_of(chance: random.Random) -> str:
    """A file as people write it, with noise in it."""
    text = "".join(line + "\n" for line in chance.choices(env_texts.LINES, k=chance.randrange(8)))
    noise = "".join(chance.choices(env_texts.ATOMS, k=chance.choice([0, 0, 1, 8])))
    at = chance.randint(0, len(text))
    text = text[:at] + noise + text[at:]
    if chance.randrange(4) == 0:
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    if chance.randrange(4) == 0:
        text = text.rstrip("\r\n")
    return chance.choice(["", "", "", "\ufeff"]) + text


# What each program reads, whole ---------------------------------------------------------------------------------------


def bash(path: Path) -> Variables:
    return real_readers.sourced(path.with_name("source-all.bash"), SOURCE, path, search="/usr/bin:/bin")


def python_dotenv(path: Path) -> Variables:
    try:
        return {name: value for name, value in dotenv.dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError:
        return {}


class _Anything:
    def __contains__(self, name: object) -> bool:
        return True


def systemd(path: Path) -> Variables:
    return real_readers.systemd(path, _Anything())  # type: ignore[arg-type]


def docker(path: Path) -> Variables:
    """`--env-file`: each line as it is; a line without a plain name, or bytes that are no UTF-8, and docker refuses."""
    found: Variables = {}
    try:
        lines = path.read_bytes().decode().removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError:
        return {}
    for line in lines:
        line = line.removesuffix("\r").lstrip(" \t\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
                                              + "".join(map(chr, range(0x2000, 0x200B))))  # fmt: skip
        name, equals, value = line.partition("=")
        if line and not line.startswith("#"):
            if not name or " " in name or "\t" in name:
                return {}
            if equals:
                found[name] = value
    return found


READ: Mapping[str, Callable[[Path], Variables]] = {
    "bash": bash,
    "python-dotenv": python_dotenv,
    "docker": docker,
    **({"systemd": systemd} if real_readers.systemd_library() else {}),
}


# Outcomes -------------------------------------------------------------------------------------------------------------


def values(number: int, seed: int, directory: Path) -> tuple[Counter[str], list[str]]:
    """`number` values, each for the readers of one preset: how many are exact or refused, and all that is neither."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    waiting: dict[tuple[str, ...], list[str]] = {}
    for index in range(number):
        readers = [reader for reader in PRESETS[index % len(PRESETS)] if reader in READ]
        value = value_of(chance)
        edit = text_dotenv.set_keys("" if "docker" in readers else OTHERS, {"K": value}, readers=readers)
        if edit.problems:
            named = len(edit.problems) == 1 and edit.problems[0].startswith("K: ")
            counts["refused by key" if named else "other"] += 1
            wrong += [] if named else [f"{value!r}: {edit.problems}"]
        else:
            waiting.setdefault(tuple(readers), []).append(value)
    for readers, accepted in waiting.items():
        for at in range(0, len(accepted), BATCH):
            wanted = {f"K{number}": value for number, value in enumerate(accepted[at : at + BATCH])}
            faults = _arrive(wanted, readers, directory)
            counts["other"] += min(len(faults), len(wanted))
            counts["exact"] += max(0, len(wanted) - len(faults))
            wrong += faults
    return counts, wrong


def _arrive(wanted: Variables, readers: Sequence[str], directory: Path) -> list[str]:
    """What of a file with these keys is not exact, or more than was asked for."""
    base = "" if "docker" in readers else OTHERS
    path = directory / ".env"
    edit = text_dotenv.set_keys(base, wanted, readers=list(readers))
    if edit.problems:
        return [f"{readers} {problem}" for problem in edit.problems]
    path.write_bytes(text_dotenv.content_of(base))
    before = {reader: READ[reader](path) for reader in readers}
    names = {file.name for file in directory.iterdir()}
    path.write_bytes(text_dotenv.content_of(edit.text))
    faults = []
    for reader in readers:
        read = READ[reader](path)
        expected = {**before[reader], **wanted}
        for name in sorted(read.keys() | expected.keys()):
            if read.get(name) != expected.get(name):
                faults.append(f"{reader} {name}: {expected.get(name)!r} arrived as {read.get(name)!r}")
    ran = {file.name for file in directory.iterdir()} - names - {"source-all.bash"}
    return faults + [f"{readers}: something was run that left {name}" for name in sorted(ran)]


def drop_ins(number: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The same values for a drop-in: refused by name, or one line that this collection itself reads back exactly."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for _unused in range(number):
        value = value_of(chance)
        try:
            text = unit_text.render_dropin({"K": value})
        except unit_text.InvalidEnvironment as problem:
            outcome = "refused by key" if str(problem).startswith("K: ") else "other"
        else:
            exact = unit_text.parse_environment_directives(text) == {"K": value} and text.count("\n") == 3
            outcome = "exact" if exact else "other"
        counts[outcome] += 1
        wrong += [repr(value)] if outcome == "other" else []
    return counts, wrong


def files(number: int, seed: int, directory: Path) -> tuple[Counter[str], list[str]]:
    """`number` files, into each of which a key is set: exact and all else as it was, or refused and left alone."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    path = directory / ".env"
    for _unused in range(number):
        text, value = text_of(chance), chance.choice(["40", value_of(chance)])
        readers = chance.sample(sorted(READ), chance.randint(1, 3))
        edit = text_dotenv.set_keys(text, {"K": value}, readers=readers)
        if edit.problems:
            refused = edit.text == text and all("K: " in problem or "NUL" in problem for problem in edit.problems)
            counts["refused by key" if refused else "other"] += 1
            wrong += [] if refused else [f"{text!r}: {edit.problems}"]
            continue
        faults = []
        for reader in readers:
            path.write_bytes(text_dotenv.content_of(text))
            before = READ[reader](path)
            path.write_bytes(text_dotenv.content_of(edit.text))
            after = READ[reader](path)
            if after.pop("K", None) != value:
                faults.append(f"{reader}: {text!r} + {value!r} -> {edit.text!r}")
            before.pop("K", None)
            if before != after and "K" not in text.replace("K=", ""):  # nothing else is made of K
                faults.append(f"{reader}: {before} became {after}: {text!r} -> {edit.text!r}")
        if text_dotenv.set_keys(edit.text, {"K": value}, readers=readers).text != edit.text:
            faults.append(f"a second run changes {edit.text!r}")
        counts["other" if faults else "exact"] += 1
        wrong += faults
    return counts, wrong
