"""Let a Python stand-in look in /proc as the program it stands in for: command line, name, nothing before it."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def become() -> None:
    """Make this process's argv[0] and name those of the script that calls this, first thing.

    The kernel shows a script as `/usr/bin/python3 SCRIPT ARGUMENTS`. So the script starts Python once more, reading
    itself from standard input as `SCRIPT- - ARGUMENTS` with two characters less in front, and then writes its name over
    both words: the arguments stay where they are, and nothing is left over.
    """
    if sys.argv[0] != "-":
        script = os.path.abspath(sys.argv[0])
        descriptor = os.open(script, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)
        os.execv(sys.executable, [script[:-2], "-", *sys.argv[1:]])
    name = os.readlink("/proc/self/fd/0")
    arguments_begin = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45])  # proc(5): arg_start
    ctypes.memmove(arguments_begin, name.encode() + b"\0", len(name.encode()) + 1)
    Path("/proc/self/comm").write_text(os.path.basename(name))
    sys.argv[0] = name
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
