# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this collection keeps what it knows on a managed host: paths, atomic JSON, and the lock around changes."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.held_path import contents_of

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Restoring

SCHEMA = 1  # of every file below; what an older collection has written stays readable
OF_JOBS = ("gpu-memory-load.*", "gpu-memory-tune.env", "gpu-memory-verify.*", ".progress-*")  # in /run, while they last
MOST_BYTES = 64 * 1024 * 1024  # of one of them
# 1.0.0 sealed nothing: what a file of it must have to be one, by type. Nobody can tell what was changed in it.
_NUMBER = (int, float)
UNSEALED: Mapping[str, Mapping[str, Kinds]] = {
    "manifest.json": {"id": str, "kind": str, "files": list, "services": dict},
    "pointers.json": {},
    "restored.json": {"generation": (str, type(None)), "reason": str, "at": _NUMBER, "error": (str, type(None))},
    "restoring.json": {"generation": str, "reason": str, "since": _NUMBER},
    "lease.json": {
        "run_id": str, "holder": str, "generation": str, "since": _NUMBER, "restore_after_s": _NUMBER, "boot": str,
        "deadline_s": _NUMBER,
    },
}  # fmt: skip
POINTERS: Mapping[str, Kinds] = {"previous": str, "proven": str, "proof": dict, "calibration": list, "finished": str}


Kinds = Union[type, tuple[type, ...]]


class StateError(Exception):
    """What was asked for cannot be done; the text names the cause and the cure."""


class Damaged(StateError):
    """A file of ours that is not as it was written."""


PROGRESS = ("gpu-memory-progress.json", "gpu-memory-progress.json.waited")


class Paths(NamedTuple):
    """Every place on a host that generations, lease and restore timer use. Tests give their own roots.

    `second`: what is needed to go back, kept a second time for as long as a run or a restore holds the host.
    `jobs`: where Ansible keeps the results of our jobs until they are fetched.
    """

    root: str = "/var/lib/gpu-memory"
    units: str = "/etc/systemd/system"
    command: str = "/usr/local/sbin/gpu-memory"
    run: str = "/run"
    second: str = "/root/.gpu-memory-kept"
    jobs: str = "/root/.gpu-memory-jobs"

    @property
    def volatile(self) -> list[str]:
        """What lies there until the next start: NVML's bindings, tries of a restore, and what of jobs is left."""
        return [os.path.join(self.run, "gpu-memory"), self.lock, self.tries, *self.left_of_jobs]

    @property
    def left_of_jobs(self) -> list[str]:
        """What a load test, a probe or a look at a drop-in has left that was killed, or whose controller was."""
        left = [path for name in OF_JOBS for path in sorted(glob.glob(os.path.join(glob.escape(self.run), name)))]
        return [self.jobs, *(os.path.join(self.run, name) for name in PROGRESS), *left]

    @property
    def tries(self) -> str:
        """There while the files are back and a service is not: how often that was tried, and when it is again."""
        return os.path.join(self.run, "gpu-memory-going-back.json")

    @property
    def generations(self) -> str:
        return os.path.join(self.root, "generations")

    @property
    def lock(self) -> str:
        """Where it can be taken also when nothing can be written below `root`."""
        return os.path.join(self.run, "gpu-memory.lock")

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

    def again(self, path: str) -> str:
        """Where a path below `root` is kept the second time."""
        return os.path.join(self.second, os.path.relpath(path, self.root))


def read_json(path: str) -> Any:
    """What `write_json` has written, by this or an older collection; None where there is nothing.

    Damaged for whatever else is there, or is wrong with the place: the seal tells that nothing of it was changed.
    """
    return _read(path)[0]


def _read(path: str) -> tuple[Any, bool]:
    """As `read_json`, and whether it was sealed."""
    try:
        value = json.loads(contents_of(path, MOST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None, False
    except OSError as problem:
        raise Damaged(_damaged(path, problem.strerror or str(problem), _CURES.get(problem.errno or 0))) from None
    except (ValueError, RecursionError) as problem:
        raise Damaged(_damaged(path, str(problem))) from None
    value = value if isinstance(value, dict) else {}
    sealed = "digest" in value
    is_later = _is(value.get("schema"), int) and value["schema"] > SCHEMA  # and may be sealed in another way
    if not is_later and not (_is_as_sealed(value) if sealed else _is_of_1_0(value, os.path.basename(path))):
        raise Damaged(_damaged(path, "its content is not what was written"))
    if value.get("schema") != SCHEMA:
        raise StateError(
            f"{path} has schema {value.get('schema')}, this collection knows up to {SCHEMA}; use the collection that "
            "wrote it"
        )
    return value, sealed


def _is_as_sealed(value: dict[str, object]) -> bool:
    """Takes the seal off."""
    return value.pop("digest") == digest_of(value)


def _is_of_1_0(value: Mapping[str, object], name: str) -> bool:
    needed = {"schema": int, **UNSEALED.get(name, {"digest": str})}
    given = POINTERS if name == "pointers.json" else {}
    return all(_is(value.get(key), kinds) for key, kinds in needed.items()) and all(
        _is(value[key], kinds) for key, kinds in given.items() if key in value
    )


def _is(value: object, kinds: Kinds) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def as_json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def digest_of(value: Mapping[str, object]) -> str:
    return hashlib.sha256(as_json(value)).hexdigest()


def explained(problem: OSError) -> str:
    """What the system has against something that nothing else here explains, with the cure."""
    what = f"{problem.filename or 'a file of this host'}: {problem.strerror or problem}"
    return f"{what}; see the file and the disk that it is on (dmesg), mend that, and run this again"


_CURES = {errno.EIO: "see the disk (dmesg), and its file system"}


def _damaged(path: str, why: str, cure: str | None = None) -> str:
    return f"{path} is damaged ({why}); {cure or 'move it away, or put it back from a backup'}"


def read_kept(paths: Paths, path: str) -> Any:
    """What `write_kept` has written, from where it is whole; None where it is in neither place.

    What is sealed in one place comes before what has no seal in the other.
    """
    damage: StateError | None = None
    unsealed = None
    for place in (path, paths.again(path)):
        try:
            value, sealed = _read(place)
        except StateError as problem:
            damage = damage or problem
        else:
            if sealed:
                return value
            unsealed = unsealed or value
    if damage and unsealed is None:
        raise damage
    return unsealed


def begun(paths: Paths) -> Restoring | None:
    """The restore that has begun and is not over; StateError where that cannot be told."""
    restoring: Restoring | None
    try:
        restoring = read_kept(paths, paths.restoring)
    except Damaged as problem:
        raise Damaged(
            f"{str(problem).partition(';')[0]}; this host was being put back, and nobody knows to what. On the host: "
            "gpu-memory list, then gpu-memory rollback NUMBER, or gpu-memory release to leave it as it is"
        ) from None
    return restoring
