# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from a host: the parts of what `gpu_memory_info` returns. MiB or bytes as keys say, times in Unix s.

A type whose keys all may be missing is of something that is not there at times, or that an older release has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import DropIns, EnvFile, Unit

if TYPE_CHECKING:
    from typing_extensions import NotRequired, ReadOnly

# JSON that somebody else gives, such as Ollama: nothing is known of its values.
Answer = Mapping[str, object]


class WallClock(TypedDict):
    """How a host's clock went at a moment: in which boot, and how far (s) ahead of the time since that."""

    boot: str
    ahead_s: float


class HostSystem(TypedDict):
    """The host itself: boot id, its own time, architecture, and systemd's version (None where it is not known)."""

    boot_id: str
    time: float
    clock: NotRequired[WallClock]
    machine: str
    systemd: int | None


class GpuMemory(TypedDict):
    """One read of a GPU's memory in bytes; `reserved` is None where the driver counts it as used."""

    total: int
    used: int
    free: int
    reserved: int | None


class Holder(TypedDict):
    """A process in NVML's list, in bytes: None where the driver has no figure, or this host does not see it."""

    pid: int
    name: str | None
    used_bytes: int | None


class GpuProcess(Holder):
    """The same with its kind of context (compute, graphics, mps, both) and in MiB, rounded up."""

    kind: str
    used_mib: int | None


class GpuSize(TypedDict):
    """What a GPU has, and what of it the driver keeps for itself."""

    total_mib: int
    reserved_mib: NotRequired[int | None]


class GpuId(TypedDict):
    """Which GPU it is; of one that cannot be read only the index is known, and the rest None."""

    index: int
    uuid: str
    pci_bus_id: NotRequired[str | None]


class Gpu(GpuId, GpuSize):
    """A GPU by NVML; of one that cannot be read `error` says why, and its figures are None."""

    name: NotRequired[str | None]
    used_mib: int
    free_mib: NotRequired[int]
    memory: GpuMemory
    memory_api: NotRequired[str]
    compute_capability: NotRequired[str | None]
    compute_mode: NotRequired[str | None]
    mig: NotRequired[bool]
    accounting: NotRequired[str]
    persistence: NotRequired[bool | None]
    error: NotRequired[str | None]
    processes: list[GpuProcess]


class Bindings(TypedDict):
    """Where NVML's Python bindings are from: `source` is host or sent."""

    path: str
    version: str | None
    source: str


class Nvml(TypedDict):
    """All that NVML shows: `status` is ok, or what is wrong; `message` its cause and cure."""

    status: str
    message: str
    driver_version: str | None
    bindings: NotRequired[Bindings | None]
    gpus: list[Gpu]
    # Once it was seen which of the GPUs count (`core.gpus.select`):
    ignored: NotRequired[list[Gpu]]
    order: NotRequired[list[str]]
    lost: NotRequired[str | None]
    problems: NotRequired[list[str]]
    notes: NotRequired[list[str]]


class Process(TypedDict, total=False):
    """What a process was started with, and when, in seconds since boot."""

    pid: int
    started_s: float
    environment: dict[str, str]


class RunnerSettings(TypedDict, total=False):
    """A runner's settings, None where not given; `num_ctx_total` is the context of all slots together, in tokens."""

    num_ctx_total: int | None
    num_parallel: int | None
    num_gpu: int | None
    num_batch: int | None


class Runner(Process):
    """A process that holds a model, with what may be shown of its command line."""

    command: list[str]
    settings: RunnerSettings


class Owner(TypedDict):
    """Whose a process is: unit, user unit, container, namespace, started, session or process; and its name."""

    kind: str
    name: str | None


class Described(Owner):
    """A process in words, and whether it is `ollama serve`."""

    pid: ReadOnly[int | None]
    command: str
    user: NotRequired[str | None]
    serves: bool


class Server(Described):
    """Who answers at Ollama's address; `ours`: whether it is a process of the unit declared."""

    ours: bool


class OtherOllama(Described):
    """An Ollama's process with GPU memory that is not of the server declared; `alone`: its own server is gone."""

    pid: ReadOnly[int]
    alone: bool


class ListedModel(TypedDict):
    """A model of /api/tags, its size in bytes; `remote`: it runs elsewhere."""

    name: str
    digest: str
    size: int
    remote: NotRequired[bool]


class LoadedModel(TypedDict):
    """A model of /api/ps, in bytes; the context is that of a slot, in tokens."""

    name: str
    size: int
    size_vram: int
    context_length: NotRequired[int | None]
    digest: NotRequired[str]
    expires_at: NotRequired[str | None]


class Details(TypedDict, total=False):
    """Of /api/show."""

    family: str | None
    families: list[str] | None
    format: str
    parameter_size: str
    parent_model: str
    quantization_level: str


class Show(TypedDict, total=False):
    """What of /api/show counts here; `parameters`: those of the Modelfile that take memory; `blob`: the file.

    `as_text`: parameters that are text and must not be; `modelfile`: only lines of files that are loaded besides;
    `size`: bytes of all files, as /api/tags has it.
    """

    details: Details | None
    model_info: Answer | None
    tensors: list[Answer] | None
    capabilities: list[str] | None
    projector_info: Answer | None
    modelfile: str
    size: int
    parameters: dict[str, int]
    as_text: dict[str, str]
    blob: str | None


class Api(TypedDict):
    """What Ollama's API says; `error` where it does not answer, `names`: further models by their files."""

    error: str | None
    version: str | None
    models: list[ListedModel]
    loaded: list[LoadedModel]
    show: dict[str, Show]
    names: NotRequired[dict[str, str]]


class LogLoad(TypedDict, total=False):
    """A runner's start by the log: layers, and MiB by device and kind; `sent` is what its command line does not say.

    `overflowing`: of how many layers on the GPU parts are on the CPU; `on_host`: the kinds of buffers that the CPU has.
    """

    at: float
    command: list[str]
    sent: dict[str, int]
    cache_type: str | None
    started: bool
    offloaded: int | None
    offloadable: int | None
    overflowing: int
    buffers_mib: dict[str, float]
    on_host: list[str]
    windows: bool
    tokens_per_s: list[float]


class LogLine(TypedDict):
    """A line of the log, and when."""

    at: float
    line: str


class Failure(LogLine):
    """A line that tells of a failure: fatal, recovered or warning."""

    severity: str


class Log(TypedDict, total=False):
    """What was read of a log, and what is missing of it."""

    where: str
    problem: str | None
    dropped: int
    cut: bool
    filtered: bool
    lines: int


class LogFacts(TypedDict):
    """What a log's lines say, see `log_lines.parse`; speeds and prompts are pairs of a time and tokens/s or tokens."""

    server_config: dict[str, str] | None
    server_at: float | None
    discovered: list[dict[str, str]]
    loads: list[LogLoad]
    failures: list[Failure]
    tokens_per_s: list[list[float]]
    worked_at: float | None
    longest_prompt: int | None
    longest_prompts: list[list[float]]
    longest_sent: int | None
    most_reused: int | None
    truncated: int
    lines: int


class Journal(LogFacts):
    """The log of Ollama's unit, with the last load of the server that runs, and what was read.

    `clock`: by which its times are told; None: each by how the clock went when it was written.
    """

    last_load: LogLoad | None
    log: Log
    clock: NotRequired[WallClock | None]


class OllamaFacts(TypedDict):
    """The server: its unit, files, processes, API and log, and who answers in its place."""

    unit: Unit
    drop_ins: DropIns
    process: Process | None
    runners: list[Runner]
    server: NotRequired[Server | None]
    listens: NotRequired[list[str]]
    apart: NotRequired[bool]
    why_silent: NotRequired[str | None]
    others: NotRequired[list[OtherOllama]]
    gpu_containers: NotRequired[list[str]]
    api: Api
    journal: Journal


class Health(TypedDict):
    """What a backend's health address answered."""

    ok: bool
    status: int | None
    error: str | None


class BackendFacts(TypedDict):
    """The backend: its unit or processes, when the first one started (seconds since boot), its health and files."""

    kind: str
    unit: Unit | None
    pids: list[int]
    started_s: float | None
    health: Health | None
    processes: NotRequired[list[Process]]
    env_files: list[EnvFile]
    profile_file: EnvFile | None
    directory_exists: bool | None
