# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd and files, as they are read from a host. Times are in seconds since boot."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class SetBy(TypedDict):
    """A file, and what it sets of what may be shown."""

    path: str
    environment: dict[str, str]


class Source(SetBy):
    """A file of a unit (`kind`: unit, Quadlet, drop-in, EnvironmentFile), what it takes back (`resets`, `unsets`)."""

    kind: str
    resets: bool
    unsets: list[str]


class EnvironmentFile(TypedDict):
    """An `EnvironmentFile=`: a path or pattern, and whether it may be missing."""

    path: str
    optional: bool


class Properties(TypedDict, total=False):
    """Properties of `systemctl show` by name, as text but for those of the environment (`unit_text.parse_show`)."""

    Id: str
    LoadState: str
    ActiveState: str
    SubState: str
    Result: str
    MainPID: str
    NRestarts: str
    ActiveEnterTimestamp: str
    ActiveEnterTimestampMonotonic: str
    FragmentPath: str
    SourcePath: str
    DropInPaths: str
    Environment: dict[str, str]
    EnvironmentFiles: list[EnvironmentFile]
    NeedDaemonReload: str
    Transient: str
    User: str
    ControlGroup: str
    ExecStart: str
    ExecStartPre: str
    Group: str
    SupplementaryGroups: str
    DynamicUser: str
    WorkingDirectory: str
    RootDirectory: str
    RootImage: str
    BindPaths: str
    BindReadOnlyPaths: str
    MountImages: str
    ExtensionImages: str
    ExtensionDirectories: str


class Service(TypedDict):
    """What a unit file or drop-in does to the environment (`unit_text.parse_service`)."""

    environment: dict[str, str]
    resets: bool
    unsets: list[str]


class Changes(TypedDict, total=False):
    """What a command line takes away: `strips` (by which program, all but what it `keeps`) and `unsets`."""

    strips: str | None
    keeps: list[str]
    unsets: list[str]


class StartScript(SetBy, total=False):
    """A script by which a unit starts its server, as `start_script.together` has it."""

    perhaps: dict[str, list[str]]
    computes: list[str]
    strips: str | None
    keeps: list[str]
    unsets: list[str]


class UnitEnvironment(TypedDict):
    """A unit as systemd has it in memory, with its files as they are on the disk (`unit_environment`)."""

    name: str
    load_state: str | None
    need_daemon_reload: bool
    fragment_path: str | None
    drop_in_paths: list[str]
    environment: dict[str, str]
    own: list[str]
    gone: list[str]
    sources: list[Source]
    missing: dict[str, list[str]]
    transient: bool


class Dependent(TypedDict):
    """A unit that systemd restarts along with another one, and what in its file makes it so."""

    unit: str
    why: str


class Unit(TypedDict, total=False):
    """A unit as systemd has merged it; only `name`, `id` and `error` of one that systemd does not show."""

    name: str
    id: str
    error: str | None
    load_state: str | None
    active_state: str | None
    sub_state: str | None
    result: str | None
    main_pid: int
    restarts: int
    active_enter_timestamp: str | None
    fragment_path: str | None
    drop_in_paths: list[str]
    environment_files: list[SetBy]
    environment: dict[str, str]
    sources: list[Source]
    exec_environment: dict[str, str]
    exec: Changes
    start_scripts: list[StartScript]
    source_path: str | None
    quadlet: str | None
    compose_env_file: str | None
    missing: dict[str, list[str]]
    dependents: list[Dependent]
    transient: bool
    need_daemon_reload: bool
    user: str | None
    control_group: str | None
    active_s: float | None
    programs: list[str]


class File(TypedDict):
    """A file's identity; `modified_s` is in seconds since boot, None for the future."""

    path: str
    exists: bool
    sha256: str | None
    error: str | None
    regular: NotRequired[bool]
    mode: NotRequired[str]
    owner: NotRequired[str]
    group: NotRequired[str]
    modified_s: NotRequired[float | None]
    parent_exists: NotRequired[bool]
    values: NotRequired[dict[str, str | None]]


class EnvFile(File):
    """An env file with the values of the keys asked for, and what would keep new ones from being set in it."""

    refusals: list[str]
    read_by: NotRequired[list[str] | None]
    add_keys: NotRequired[bool]


class OwnDropIn(File):
    """This collection's drop-in: `writer` if somebody else has written it, `alone` what would be lost with it."""

    environment: dict[str, str]
    writer: NotRequired[str | None]
    alone: NotRequired[list[str]]


class Oddity(TypedDict):
    """Something in a unit's files that systemd does not read as its author meant."""

    path: str
    problem: str
    cure: str


class DropIns(TypedDict):
    """The drop-ins of Ollama's unit, ours and the others, and why ours could not be written."""

    own: OwnDropIn
    others: list[SetBy]
    oddities: NotRequired[list[Oddity]]
    refusals: NotRequired[list[str]]
