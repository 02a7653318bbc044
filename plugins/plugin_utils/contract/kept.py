# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection keeps on a host, on the disk and as it is shown. Times are Unix s.

What an older collection has written stays readable, and may lack the keys that need not be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import WallClock
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Calibration, Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
    FoundService,
    Restored,
    ServicePlan,
)

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class FileState(TypedDict):
    """The exact state of a path: a file, a link, or absent. A state to put a path into may have no `mtime_ns`."""

    path: str
    kind: str
    sha256: NotRequired[str]
    mode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]
    mtime_ns: NotRequired[int | None]
    xattrs: NotRequired[dict[str, str]]
    target: NotRequired[str]
    leads_to: NotRequired[str]
    parent_absent: NotRequired[bool]


class KeysOfFile(TypedDict):
    """The keys of an env file that are this collection's, the values it has given each, and by whom it is read.

    `profile`: whose own file it is, which nobody reads.
    """

    keys: list[str]
    readers: list[str] | None
    values: NotRequired[dict[str, list[str]]]
    profile: NotRequired[str | None]


class ChangingFile(TypedDict):
    """A file that changes, as it was read; `env` where only these keys of it do."""

    path: str
    sha256: str | None
    env: NotRequired[KeysOfFile | None]


class About(TypedDict):
    """Whose generation it is: kept before a change, proven after it, or the origin of all."""

    run_id: str | None
    holder: str
    kind: str
    env: NotRequired[dict[str, KeysOfFile]]


class Manifest(About):
    """A generation."""

    id: str
    at: NotRequired[float]
    files: list[FileState]
    services: ServicePlan


class LeaseTerms(TypedDict):
    """Who holds a host since when, and what comes back if nothing is heard of them for so long."""

    run_id: str
    holder: str
    generation: str
    since: float
    restore_after_s: float


class StoredLease(LeaseTerms):
    """With the boot, and the seconds of it, until which it lives."""

    boot: str
    deadline_s: float


class Pointers(TypedDict, total=False):
    """Which generations are which, the proof of the proven one, and what loads have measured."""

    previous: str
    proven: str
    proof: Proof
    calibration: list[Calibration]
    finished: str


class Held(TypedDict, total=False):
    """What keeping, renewing, proving and releasing return."""

    changed: bool
    run_id: str
    generation: str
    until: str


class Removed(Restored, total=False):
    """What taking this collection away returns, with what is gone."""

    removed: list[str]


class BackendRun(TypedDict):
    """The processes of a backend, in which boot and when in it (s) the first was started, and the digests of the env
    files that they have read, by path.
    """

    boot: str
    pids: list[int]
    started_s: float
    files: dict[str, str]


class Proof(TypedDict, total=False):
    """What a load has proven, of what (`key`) and which backend, when, and the record of it."""

    key: str
    verdict: str
    at: float
    generation: str
    record: Record
    backend: BackendRun | None
    clock: WallClock


class Lease(TypedDict):
    """Who holds a host, since and until when in words, and whether that is heard of."""

    run_id: str
    holder: str
    generation: str
    since: str
    until: str
    left_s: float
    live: bool


class Generation(TypedDict):
    """A kept state of the host, by the paths in it."""

    id: str
    at: float
    kind: str
    holder: str
    run_id: str | None
    paths: list[str]


class Restoring(TypedDict):
    """A restore in progress; with an `error` the files are back, and what it names is tried again and again."""

    generation: str
    reason: str
    run_id: str | None
    since: float
    found: NotRequired[Mapping[str, FoundService | None] | None]
    error: NotRequired[str]


class Tries(TypedDict):
    """How often what was not in place was tried, until when in seconds of this boot nothing is done, and the processes
    from before that did not go.
    """

    count: int
    again_s: float
    old: dict[str, list[int]]


class TriesSoFar(TypedDict):
    count: int
    left_s: float


class State(TypedDict, total=False):
    """All that is kept on a host; `error` where it cannot be read."""

    generations: list[Generation]
    previous: str | None
    proven: str | None
    proof: Proof | None
    calibration: list[Calibration]
    lease: Lease | None
    restoring: Restoring | None
    last_restore: Restored | None
    tries: TriesSoFar
    timer: str
    tool: str | None
    error: str | None
