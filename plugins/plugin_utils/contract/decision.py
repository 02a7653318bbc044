# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done on one host (`decide.decisions.decide`), and how its run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import BackendRun, ChangingFile, Proof
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import LoadRequest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Predicted, Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import ServicePlan

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class ChangingEnv(TypedDict):
    """What an env file must say; `profile`: it is the profile's own."""

    path: str
    read_by: list[str] | None
    env: dict[str, str]
    owner: str | None
    group: str | None
    profile: NotRequired[str]


class Decision(TypedDict, total=False):
    """What to do; with `problems` the host is refused and there is nothing but them and the notes."""

    problems: list[str]
    notes: list[str]
    predicted: Predicted | None
    ollama_environment: dict[str, str]
    files: list[ChangingFile]
    drop_in_changed: bool
    env_changed: list[ChangingEnv]  # the env files to write, the profile's own among them
    max_used_mib: int | None  # the threshold that holds here
    restart: list[str]
    services: ServicePlan  # for gpu_memory_restart
    acts: bool  # whether any of it will be done
    renews_tool: bool  # whether the host tool is another release's; only where anything may be deployed
    proof_key: str  # what a proof of this is made of
    proof: Proof | None  # the kept one, where it holds
    load: LoadRequest  # for gpu_memory_assert
    load_timeout_s: int
    load_needed: bool


class Gate(TypedDict):
    """Whether a wave may start, its number from 1, and why it may not."""

    open: bool
    wave: int
    reason: str | None


class Judged(TypedDict, total=False):
    """The judgement of a load: pass, fail or inconclusive; one that failed itself has no verdict."""

    verdict: str
    reasons: list[str]
    record: Record
    proof_key: str
    proof_backend: BackendRun | None
    failed: bool
    msg: str


class FailedTask(TypedDict, total=False):
    """The task that failed, in words; `lost_connection`: the host could not be reached."""

    message: str
    lost_connection: bool
