# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operator has declared, as one checked value (`profile.declaration.declared_of`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import LoadOptions

if TYPE_CHECKING:
    from typing_extensions import NotRequired, ReadOnly


class Intent(TypedDict, total=False):
    """What a profile means, in tokens, requests, layers and MiB."""

    num_ctx: int
    num_parallel: int
    num_batch: int
    gpu_layers: int
    max_loaded_models: int
    kv_cache_type: str
    max_used_mib: int


class Profile(TypedDict, total=False):
    """A whole profile: text by key for the backend's file, and what it means."""

    name: str
    label: str
    changed: list[str]
    env: dict[str, str]
    intent: Intent
    max_used_mib: int | None
    meant_for_mib: int | None


class CandidateProfile(Profile, total=False):
    """One of all profiles that a host could be given; with `problems` it has nothing but its name."""

    problems: list[str]
    models: list[str]


class EnvFileOfBackend(TypedDict):
    """An env file of the backend's, by whom it is read, and whether keys that it lacks are added."""

    path: str
    read_by: NotRequired[list[str] | None]
    add_keys: NotRequired[bool]


class HealthCheck(TypedDict, total=False):
    """Where a backend tells that it is healthy, and by which status."""

    url: str
    status: int


class BackendProcess(TypedDict, total=False):
    """How a backend runs: as a unit or by a command, or not at all."""

    kind: str
    unit: str
    directory: str
    command: str
    user: str | None
    process_match: str


class Backend(BackendProcess, total=False):
    """The backend as it was declared. `keys`: the variables that carry an intent; `sends`: what requests do."""

    env_files: list[EnvFileOfBackend]
    profile_file: str | None
    keys: dict[str, str]
    reads: list[str]
    sends: dict[str, int]
    health: HealthCheck
    timeout_s: int | None
    load: LoadOptions


class OllamaService(TypedDict):
    """Ollama's unit, where it answers, and for how long that is awaited."""

    unit: str
    url: str
    timeout_s: int


class Ollama(OllamaService):
    """Where Ollama is; `version` where the operator says which."""

    version: str | None
    take_over: bool | None


class ProfileFile(TypedDict):
    """The profile's own file beside the backend's."""

    path: str
    read_by: list[str] | None
    env: dict[str, str]


class Hook(TypedDict):
    """What an operator wants done at some moment: a file of tasks, and commands for the host."""

    tasks: str
    commands: list[str]


class Declared(TypedDict):
    """All that was declared of a host. `profile` is None where it cannot be used, as `problems` say."""

    problems: list[str]
    fallback: Declared | None
    before_restart: Hook
    after_proof: Hook
    profile: ReadOnly[Profile | None]
    profiles: list[CandidateProfile]
    backend: Backend
    env: dict[str, str]
    ollama: Ollama
    models: list[str]
    gpus: list[str]
    verify: str
    other_sizes: str
    load: str
    accepted_notes: list[str]
    env_keys: list[str]
    profile_file: ProfileFile | None
    restore_after: int
    restore_after_alone: int  # where no other host is waited for
    proof_max_age: int
    load_requests: int
    sample_interval_ms: int
    allow_unsafe: bool
    strict: bool
    show_secrets: bool
    fail: bool
    # Of this run:
    run_id: NotRequired[str]
    holder: NotRequired[str]
    check_mode: NotRequired[bool]


class Sized(Declared):
    """Declared, with a profile whose threshold is in proportion to the host's GPUs (`profile.sizes.sized`)."""

    profile: ReadOnly[Profile]
