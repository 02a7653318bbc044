# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this collection keeps what it knows on a managed host: paths, atomic JSON, and the lock around changes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import atomic_files

SCHEMA = 1  # of every file below; what an older collection has written stays readable


class StateError(Exception):
    """What was asked for cannot be done; the text names the cause and the cure."""


class Paths(NamedTuple):
    """Every place on a host that generations, lease and restore timer use. Tests give their own roots."""

    root: str = "/var/lib/gpu-memory"
    units: str = "/etc/systemd/system"
    command: str = "/usr/local/sbin/gpu-memory"
    run: str = "/run"

    @property
    def volatile(self) -> list[str]:
        """What other modules put beside it until the next start: NVML's bindings, and figures of a load test."""
        return [os.path.join(self.run, name) for name in ("gpu-memory", "gpu-memory-progress.json")]

    @property
    def generations(self) -> str:
        return os.path.join(self.root, "generations")

    @property
    def lock(self) -> str:
        return os.path.join(self.root, "lock")

    @property
    def lease(self) -> str:
        return os.path.join(self.root, "lease.json")

    @property
    def pointers(self) -> str:
        return os.path.join(self.root, "pointers.json")

    @property
    def restoring(self) -> str:
        """There while files are being put back: what a restore that was cut off still has to do."""
        return os.path.join(self.root, "restoring.json")

    @property
    def restored(self) -> str:
        return os.path.join(self.root, "restored.json")

    @property
    def tool(self) -> str:
        return os.path.join(self.root, "bin", "gpu-memory")


def make_directory(path: str) -> None:
    """A directory that root alone may enter."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chmod(path, 0o700)


def sync_directory(path: str) -> None:
    """Make what was created, renamed or removed in a directory outlive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_file(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a file of our own as a whole or not at all."""
    try:
        atomic_files.write(path, content, atomic_files.Ownership(mode, os.geteuid(), os.getegid()))
    except atomic_files.CannotWrite as problem:
        raise StateError(str(problem)) from None


def remove_file(path: str) -> None:
    try:
        atomic_files.remove(path)
    except atomic_files.CannotWrite as problem:
        raise StateError(str(problem)) from None


def write_json(path: str, value: Mapping[str, object]) -> None:
    write_file(path, json.dumps({"schema": SCHEMA, **value}, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: str) -> Any:
    """What `write_json` has written, by this or an older collection; None where there is nothing."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as problem:
        raise StateError(f"{path} is damaged ({problem}); move it away, or put it back from a backup") from None
    schema = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StateError(
            f"{path} has schema {schema}, this collection knows up to {SCHEMA}; use the collection that wrote it"
        )
    return dict(value)


@contextlib.contextmanager
def locked(paths: Paths, wait_s: float) -> Iterator[None]:
    """Hold the host's one lock, which also a restore in progress holds; StateError if that takes too long."""
    try:
        make_directory(paths.root)
        handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise StateError(atomic_files.explain(paths.root, problem)) from None
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    refuse_while_restoring(paths)
                    raise StateError(
                        "another command works on this host's generations just now; try again in a moment"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def refuse_while_restoring(paths: Paths) -> None:
    restoring = read_json(paths.restoring)
    if restoring:
        raise StateError(
            f"this host is going back to generation {restoring['generation']} since {utc.text(restoring['since'])} "
            f"({restoring['reason']}); see on the host: gpu-memory status"
        )
