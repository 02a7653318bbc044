"""What the real programs read from a `.env` file: bash, python-dotenv, and systemd's own parser in its library."""

from __future__ import annotations

import ctypes
import functools
import glob
import logging
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import dotenv
import pytest

logging.getLogger("dotenv.main").disabled = True  # it complains about each odd line
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In a file: with -c and in subshells bash may exec the last command of a sourced file instead of running it.
# The variables are printed on exit, since some errors in a sourced file end the shell that sources it.
SOURCE = """file=$1
shift
names=("$@")
print() { for name in "${names[@]}"; do if [[ -v $name ]]; then printf '%s=%s\\0' "$name" "${!name}" >&3; fi; done; }
exec 3>&1
trap print EXIT
source "$file" >/dev/null 2>&1 </dev/null
"""


def bash(path: Path, names: list[str]) -> dict[str, str]:
    return sourced(path.with_name("source.bash"), SOURCE, path, *names, search="/nonexistent")


def sourced(script: Path, text: str, path: Path, *names: str, search: str) -> dict[str, str]:
    """The variables that bash prints by a script that sources `path`. `search`: where it finds programs."""
    pairs = (item.partition(b"=") for item in printed(script, text, path, *names, search=search).split(b"\0") if item)
    return {name.decode(): value.decode("utf-8", "surrogateescape") for name, _unused, value in pairs}


def printed(script: Path, text: str, path: Path, *names: str, search: str) -> bytes:
    if not script.exists():
        script.write_text(text)
    return subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", script, path, *names],
        env={"PATH": search, "LC_ALL": "C.UTF-8"},
        cwd=path.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
    ).stdout


# Says each word that bash looks for as a program.
RUNS = """command_not_found_handle() { printf '%s\\0' "$*" >&3; }
exec 3>&1
source "$1" >/dev/null 2>&1 </dev/null
"""


def bash_runs(path: Path) -> list[str]:
    """The commands that bash runs while it sources `path`, where no program is found."""
    said = printed(path.with_name("runs.bash"), RUNS, path, search="/nonexistent")
    return [word.decode(errors="replace") for word in said.split(b"\0")[:-1]]


def python_dotenv(path: Path, names: list[str]) -> dict[str, str]:
    try:
        values = dotenv.dotenv_values(path)
    except UnicodeDecodeError:
        return {}
    return {name: value for name, value in values.items() if value is not None and name in names}


@functools.cache
def systemd_library() -> tuple[int, ctypes.CDLL] | None:
    """systemd's version and the library that it is linked with, where it is installed."""
    for place in ("/usr/lib/*/systemd", "/usr/lib/systemd", "/usr/lib64/systemd"):
        for path in glob.glob(f"{place}/libsystemd-shared-*.so"):
            version = re.search(r"-shared-(\d+)", path)
            if version:
                return int(version[1]), ctypes.CDLL(path)
    return None


def systemd(path: Path, names: list[str]) -> dict[str, str]:
    """`load_env_file`, which reads EnvironmentFile=; what has no valid name is dropped, as systemd does."""
    found = systemd_library()
    assert found
    loaded = ctypes.POINTER(ctypes.c_char_p)()
    if found[1].load_env_file(None, str(path).encode(), ctypes.byref(loaded)) < 0 or not loaded:
        return {}
    items: list[str] = []
    while loaded[len(items)]:
        items.append(loaded[len(items)].decode("utf-8", "surrogateescape"))
    pairs = (item.partition("=") for item in items)
    return {name: value for name, _unused, value in pairs if name in names and NAME.fullmatch(name)}


# Which of a reader's variants in `_dotenv_readers` (0: modern, 1: before) the installed version is.
REAL: dict[str, tuple[Callable[[Path, list[str]], dict[str, str]], int]] = {
    "bash": (bash, 0),
    "python-dotenv": (python_dotenv, 0),
}
_library = systemd_library()
if _library:
    REAL["systemd"] = (systemd, 0 if _library[0] >= 254 else 1)

needs_systemd = pytest.mark.skipif(not _library, reason="libsystemd-shared is not installed")
