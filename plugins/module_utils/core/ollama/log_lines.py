# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ollama's log says: settings, loads, layers, buffers, speed and failures.

The wordings are those of Ollama v0.1.14 to v0.33 and of the llama.cpp it carries (llm/status.go, ggml-cuda.cu,
server/routes.go); several of them changed between releases, so each pattern covers all.

A line counts by who wrote it (`Line`): clients choose the paths of the access log, and names and prompts that others
quote, so only what the server, its runner, systemd and the kernel say in their own words is evidence.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama.prompt_reuse import PromptReuse
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import foreign_json, masking

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import (
        Failure,
        LogFacts,
        LogLoad,
        RunnerSettings,
    )

# A load that fails with one of these is dead, unless a retry right after it succeeds.
FATAL = re.compile(
    r"out of memory|cudaMalloc failed|CUDA error|failed to allocate|unable to allocate|allocation failed"
    r"|not enough memory|insufficient memory|error loading model|unable to load model|unable to create llama context"
    r"|runner process has terminated|runner process no longer running"
    r"|llama-server process has terminated|llama-server process no longer running"
    r"|llama-server reported out-of-memory|requires more system memory|model request too large for system"
    r"|memory layout cannot be allocated|failed to commit memory|model failed to load"
    r"|model runner has unexpectedly stopped|timed out waiting for llama"
    r"|\Allama-server (?:completion|chat) error|\Apost predict\b"
    r"|Unsupported cache type|requires flash_attn",
    re.IGNORECASE,
)
# What is said of memory, though all goes on: host memory that is not pinned is used instead, a prompt is not kept, a
# graph is laid out anew; and a client that did not wait ends a load.
GOES_ON = re.compile(
    r"of pinned memory|for prompt cache state|failed to allocate graph, reserving|context canceled", re.IGNORECASE
)
# The line of a failed load that says most: the allocation, before what followed from it.
PLAINEST = ("out of memory", "allocat", "memory")
# While it answers, the lines of one failure come at once; those of a load that fails, when they come.
TOGETHER_S = 5.0
# A retry goes on in the same runner, or starts another one.
RETRY = re.compile(
    r"retrying without pipeline parallelism|model layout did not fit, applying backoff"
    r"|(?P<anew>reducing automatic context and retrying once|evicting all other models and retrying once"
    r"|retrying with projector CPU offload)",
    re.IGNORECASE,
)
WARNING = re.compile(
    r"failed to fit params to free device memory|VRAM usage didn't recover|invalid environment variable|invalid setting"
    r"|requested context size too large|truncating input prompt|does not currently support parallel requests"
    r"|invalid option provided|falling back to CPU only|no compatible GPUs were discovered"
    r"|maximum pending requests exceeded|no per-device buffer sizes were parsed"
    r"|kv cache type not supported|quantized kv cache requested|to use a quantized OLLAMA_KV_CACHE_TYPE",
    re.IGNORECASE,
)
# What of the kernel's journal is about GPUs or memory, and what systemd says of a unit that the kernel killed.
# At the beginning of a line: further on, any process may have its name.
KERNEL = re.compile(r"^(?:NVRM: Xid|oom-kill:|Out of memory: Kill)")
# The kernel ended a process for the limit of its control group alone, which is nobody else's matter.
OF_A_GROUP = re.compile(r"\Aoom-kill:constraint=CONSTRAINT_MEMCG,[^ ]{0,512}?,task_memcg=(?P<group>[^,]{0,4096}),")
KILLED = re.compile(r"killed by the OOM killer|Failed with result 'oom-kill'")
# `entry` names these writers as journalctl does; lines of the unit's own processes stay as they are.
BY_KERNEL, BY_SYSTEMD, BY_JOURNALD = "kernel: ", "systemd[1]: ", "systemd-journald: "
WRITERS = {BY_KERNEL: "kernel", BY_SYSTEMD: "systemd", BY_JOURNALD: "journald"}
# What a rate limit made journald drop; it says so with this id (sd-messages.h, SD_MESSAGE_JOURNAL_DROPPED).
DROPPED_ID = ("_TRANSPORT=driver", "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e")  # who else says so is not journald
# What `entry_of` and `WholeLines` read of a row; journalctl always gives its time.
FIELDS = "MESSAGE,_TRANSPORT,_PID,_STREAM_ID,_LINE_BREAK"
# What journald notes of a line that goes on in the next row of its stream (systemd.journal-fields(7)).
CUT = ("line-max", "nul")
REALTIME = re.compile(r"[0-9]{1,16}")
DROPPED = re.compile(r"Suppressed (\d{1,12}) messages from (\S{1,256})\Z")
ACCESS = re.compile(r"(?:\x1b\[[0-9;]{0,16}m)?\[GIN(?:-debug)?\]")
SLOG = re.compile(r"(?:time=(?P<time>\S{1,64}) )?(?:level=(?P<level>[A-Z+\-0-9]{1,12}) )?(?:source=\S{1,128} )?msg=")
VALUE = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>\S*)')
ATTRIBUTE = re.compile(r' (?P<key>"(?:[^"\\]|\\.)*"|[^\s="]+)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s"]*))')
# What stands in quotes or braces is somebody else's: a name, a prompt, a request.
QUOTES = re.compile(r"[\"{`]|(?<!\w)'")
# What a runner repeats from a model's file, which any client may have made, or from a request, without quotes.
REPEATED = re.compile(
    r"(?:llama_model_loader: - kv|print_info: |llm_load_print_meta: |clip_model_loader: (?:model name|description|- kv)"
    r"|load_hparams: |.{0,24}\bcommon_init_\w{0,32}: added |srv .{0,16}(?:send_error|operator\(\)): )"
)
# Likewise as several lines: a model's template until its quote is closed, at once; and gin (in a build of one's own)
# the headers of a request that made it panic.
TEMPLATE = re.compile(r"chat template, (?:chat_template: |example_format: ')")
TEMPLATE_S = 1.0
RECOVERY = re.compile(r"\[Recovery\] .{0,64}panic recovered:\Z")
HEADER = re.compile(r"[A-Z]{1,16} \S.{0,65536} HTTP/\d\.\d\Z|(?![a-z])[\w!#$%&'*+.^`|~-]{1,256}:(?: |\Z)")  # Go's
LOUD, QUIET = ("WARN", "ERROR"), ("DEBUG", "TRACE")
# An INFO line whose error counts; of other lines of that level only the message does.
LOAD_FAILED = "Load failed"
END_OF_A_LOAD = (LOAD_FAILED, "error loading llama server")
# What a server says that is no failure, whatever words stand in it.
STARTING = re.compile(r"server config\Z|starting (llama[- ]server|runner)\Z")
FOUND_GPU, NO_GPU = "inference compute", re.compile(r' library="?cpu\b', re.IGNORECASE)
OF_A_GPU = ("id", "library", "pci_id", "name")
DISCOVERY = "failure during llama-server GPU discovery"

SERVER_CONFIG, END_OF_CONFIG = re.compile(r'msg="server config" env="map\[(?P<map>.*)'), ']"'
CONFIG_ITEM = re.compile(r"(?<!\S)([A-Za-z_][A-Za-z0-9_]*):(.*?)(?=\s[A-Za-z_][A-Za-z0-9_]*:|$)")
START = re.compile(r'msg="starting (?:llama[- ]server|runner)" cmd="(?P<cmd>(?:[^"\\]|\\.)*)"')
# From 0.11.5 to 0.24 the runner gets its settings as JSON (llm/server.go, LoadRequest), and says what it got.
REQUESTED = re.compile(r'msg="loading model" .{0,200}\brequested=(?P<num_gpu>-?\d{1,12})\b')
SENT = re.compile(
    r'msg=load request="\{Operation:(?!close)\w+ .{0,2000}?\bParallel:(?P<num_parallel>\d{1,12}) '
    r"BatchSize:(?P<num_batch>\d{1,12}) .{0,200}?\bKvSize:(?P<num_ctx_total>\d{1,12}) "
)
# Such a runner that has no room is asked again, for fewer layers.
ASKED = re.compile(r'msg=load request="\{Operation:(?!close)\w')
CACHE_TYPE_SENT = re.compile(r"\bKvCacheType:(\w{1,16})")
STARTED = re.compile(r"(?:llama runner|llama-server) started in")
OFFLOADED = re.compile(r"(?:\A|load_tensors: )offloaded (\d{1,9})/(\d{1,9}) layers to GPU")
# Of a model with experts all layers may count as offloaded, while parts of some are on the CPU (common/fit.cpp).
OVERFLOWING = re.compile(
    r"common_params_fit_impl: {1,8}- .{1,256}: {1,8}\d{1,9} layers \( {0,8}(\d{1,9}) overflowing\)"
)
BUFFER = re.compile(
    r"(?<!\w)(?P<component>\w{1,64}): +(?P<device>[A-Za-z]\S{0,64}) +(?P<kind>model|KV|RS|compute|output) buffer size"
    r"\s{0,16}=\s{0,16}(?P<mib>\d{1,12}(?:\.\d{1,6})?) MiB"
)
# A model with sliding windows has two caches on each device, the second one announced like this.
WINDOW_CACHE = re.compile(r"creating {1,8}SWA KV cache")
NEW_CONTEXT = re.compile(r"constructing llama_context|creating non-SWA KV cache")
# Ollama's own engine gives its buffers like this alone, rounded; for llama.cpp's these are estimates made beforehand.
LAYOUT = re.compile(
    r'msg="(?P<kind>model weights|kv cache|compute graph)" device="?(?P<device>[A-Za-z]\w*)"?'
    r' size="(?P<size>\d+(?:\.\d+)?) (?P<unit>[KMGT]iB)"'
)
ESTIMATE = "layout"
KIND_IN_LAYOUT = {"model weights": "model", "kv cache": "KV", "compute graph": "compute"}
MIB_IN = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "TiB": 1024.0**2}
# Devices of the host: CPU, CPU_Mapped, CPU_REPACK, BLAS, CUDA_Host and the like (isGPUBuffer in llm/llama_server.go).
HOST_DEVICE = re.compile(r"CPU|BLAS\Z|.*_Host\Z", re.IGNORECASE)
EVAL = re.compile(
    r"(?<!prompt )\beval time =\s{0,16}[\d.]{1,16} ms /\s{0,16}\d{1,12} (?:tokens|runs).{0,80}?"
    r"(?P<speed>\d{1,12}(?:\.\d{1,6})?) tokens per second"
)
PROMPT_EVAL = re.compile(r"prompt eval time =\s{0,16}[\d.]{1,16} ms /\s{0,16}(\d{1,12}) tokens")
# What only a runner says: a wrapper's own lines prove nothing of where the server's go.
OF_A_RUNNER = (EVAL, PROMPT_EVAL, OFFLOADED)
TRUNCATED = re.compile(r"truncating input prompt")
# The server and its runners write into one pipe, so that a whole line of it may stand within one of theirs.
WITHIN = re.compile(r"\[GIN\] \d{4}/\d\d/\d\d - |time=\d{4}-\d\d-\d\dT\S{1,40} level=")
LONGEST_TORN = 4096
LONGEST_COMMAND = 32768
MOST_BUFFERS = 1000
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,12}\Z")


class Line(NamedTuple):
    """A line by its writer: `by` is server, runner, systemd, journald, kernel or client.

    `level` and `error` are the server's.

    `words` are the writer's own: of the server the message, of a runner what comes before it quotes anything.
    """

    by: str
    words: str
    level: str = ""
    error: str = ""


def written(line: str) -> Line:
    """Who wrote a line, and what of it are the writer's own words."""
    for prefix, writer in WRITERS.items():
        if line.startswith(prefix):
            return Line(writer, line[len(prefix) :])
    if ACCESS.match(line):
        return Line("client", "")
    slog = SLOG.match(line)
    message = slog and VALUE.match(line, slog.end())
    if not slog or not message:
        return Line("runner", "" if REPEATED.match(line) else _unquoted(line))
    attributes = {found["key"]: found for found in ATTRIBUTE.finditer(line, message.end())}
    error = attributes.get("error")
    return Line("server", _unquoted(_value(message)), slog["level"] or "", _unquoted(_value(error)) if error else "")


def _value(found: re.Match[str]) -> str:
    return found["word"] if found["quoted"] is None else found["quoted"]


def _unquoted(text: str) -> str:
    return QUOTES.split(text, maxsplit=1)[0]


def moment(line: str) -> float | None:
    """When the server wrote a line, in Unix time; None where it does not say."""
    slog = SLOG.match(line)
    if not slog or not slog["time"]:
        return None
    try:
        return datetime.fromisoformat(slog["time"].replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def is_servers(line: str) -> bool:
    """Whether the server wrote a line, as far as its form tells."""
    return bool(SLOG.match(line))


def dropped(line: str, unit: str) -> int:
    """How many messages of a unit journald says with a line that it dropped."""
    found = DROPPED.search(line) if line.startswith(BY_JOURNALD) else None
    return int(found[1]) if found and found[2].rpartition("/")[2] == unit else 0


def entry(row: str | bytes) -> tuple[float, str] | None:
    """A row of `journalctl --output=json` as (Unix time, text); None for what is of no interest here.

    Lines of the kernel, of systemd and of journald begin with their names.
    """
    return entry_of(fields_of(row))


class WholeLines:
    """Which rows of a journal begin a line: the rest of one that journald has cut begins wherever a client wants."""

    def __init__(self) -> None:
        self._cut: set[str | None] = set()

    def begins(self, fields: Mapping[str, str]) -> bool:
        """Whether a row, given as its fields and in order, is no such rest."""
        stream = fields.get("_STREAM_ID")
        begins = stream is None or stream not in self._cut
        (self._cut.add if fields.get("_LINE_BREAK") in CUT else self._cut.discard)(stream)
        return begins


def fields_of(row: str | bytes) -> dict[str, str]:
    """The fields of a row of `journalctl --output=json` that are one text; none of a row that is torn.

    Who writes to journald may give a field twice, or as bytes, or one of his own the name of another; only those that
    begin with _ are journald's own. A row that has two messages has none.
    """
    texts = {name: _text(value) for name, value in foreign_json.fields(row).items()}
    found = {name: text for name, text in texts.items() if text is not None}
    return found if REALTIME.fullmatch(found.get("__REALTIME_TIMESTAMP", "")) else {}


def _text(value: object) -> str | None:
    """The text of a field; None where there are several, or it was left out for its length."""
    if isinstance(value, list):  # journald gives bytes that are not UTF-8 as numbers
        try:
            return bytes(value).decode(errors="replace")
        except (TypeError, ValueError, OverflowError):
            return None
    return value.encode(errors="replace").decode() if isinstance(value, str) else None


def entry_of(fields: Mapping[str, str]) -> tuple[float, str] | None:
    """As `entry`, of fields."""
    text, transport = fields.get("MESSAGE"), fields.get("_TRANSPORT")
    if text is None:
        return None
    text = text.removesuffix("\n")  # as Podman's monitor of a container gives it
    if transport == "kernel":
        if not KERNEL.search(text):
            return None
        text = BY_KERNEL + text
    elif transport == "driver":
        text = BY_JOURNALD + text
    elif fields.get("_PID") == "1":
        text = BY_SYSTEMD + text
    else:
        text = of_process(text)
    return written_at(fields), text


def of_process(text: str) -> str:
    """A line of a process: one that begins as those of the kernel, systemd or journald do is none of theirs."""
    return f" {text}" if text.startswith((*WRITERS,)) else text


def written_at(fields: Mapping[str, str]) -> float:
    """When journald was given a row, in Unix time."""
    return int(fields["__REALTIME_TIMESTAMP"]) / 1e6


def concerns(line: str, control_group: str) -> bool:
    """Whether a line is no line of the kernel about another control group than this one and those below it."""
    found = OF_A_GROUP.match(line[len(BY_KERNEL) :]) if line.startswith(BY_KERNEL) else None
    return not found or bool(control_group) and f"{found['group']}/".startswith(f"{control_group}/")


def parse(lines: Iterable[tuple[float, str]], mask: Callable[[str], str] = masking.without_secrets) -> LogFacts:
    """Reduce the lines of a log, oldest first, as (Unix time, text), to facts.

    Returns `server_config` (of the last start, only variables that may be shown, or None) and `server_at` (when that
    was), `discovered` (id, library, pci_id and name, as CUDA0, of each GPU, or `cpu`, that it then found), `loads` (a
    dict for each runner start: at, command, sent (settings that reached the runner otherwise, see `runner_settings`),
    cache_type (if it did so, too), started, offloaded, offloadable, overflowing (layers that count as offloaded and
    have parts on the CPU), buffers_mib by device and kind on GPUs, on_host (the kinds that have a buffer on the CPU),
    windows (whether there is a second cache, of sliding windows), tokens_per_s of the answers until the next load),
    `failures` ({severity, at, line}: one for each load that failed, however many lines tell of it, with the plainest of
    them; severity is fatal, recovered or warning; of a line what `mask` leaves), `tokens_per_s` ([at, tokens/s] of each
    answer), `worked_at` (when a load or an answer last worked), `longest_prompt` (tokens that a request made the model
    read; None without such lines), `longest_prompts` ([at, tokens] of each that was longer than all before it),
    `longest_sent` and `most_reused` (of a whole prompt, and of one from the cache; None likewise), `truncated` (how
    many prompts were too long for their slot and were shortened) and `lines` (how many are surely the server's or a
    runner's).
    """
    reader = _Reader(mask)
    for at, line in lines:
        reader.read(at, line)
    return reader.facts


class _Reader:
    """`facts` of the lines read so far."""

    def __init__(self, mask: Callable[[str], str]) -> None:
        self.facts: LogFacts = {
            "server_config": None,
            "server_at": None,
            "loads": [],
            "failures": [],
            "discovered": [],
            "tokens_per_s": [],
            "worked_at": None,
            "longest_prompt": None,
            "truncated": 0,
            "lines": 0,
            "longest_prompts": [],
            "longest_sent": None,
            "most_reused": None,
        }
        self._mask, self._reuse = mask, PromptReuse()
        self._pending: list[Failure] = []  # failures of the present load: a retry may yet recover them
        self._undiscovered: list[Failure] = []
        self._retried, self._starts_left = False, 0
        self._open: Failure | None = None  # the failure that the next line may be of, too
        self._open_at = 0.0
        self._plainness = 0  # of its line as it was written, which may be masked
        self._loading = False
        self._torn = ""  # the beginning of a runner's line
        self._template_at: float | None = None  # since when lines are those of a model's template
        self._in_headers = False
        self._buffers: dict[tuple[str, ...], float] = {}  # by component, device, kind and cache
        self._cache = ""

    def read(self, at: float, line: str) -> None:
        line = self._mended(line.strip())
        if not line or self._is_repeated(at, line):
            return
        by, words, level, error = found = written(line)
        if by in ("kernel", "systemd"):
            if (KERNEL if by == "kernel" else KILLED).search(words):
                self._note("fatal", at, line)
            return
        if by in ("client", "journald"):
            return
        self.facts["lines"] += by == "server" or any(pattern.search(words) for pattern in OF_A_RUNNER)
        if by == "server":
            if level in QUIET or self._starts(at, line, words):
                return
            if words == FOUND_GPU:
                about = {found["key"]: _value(found) for found in ATTRIBUTE.finditer(line)}
                self.facts["discovered"].append({key: about.get(key, "") for key in OF_A_GPU})
            if words == FOUND_GPU and not NO_GPU.search(line):
                for failure in self._undiscovered:
                    failure["severity"] = "recovered"
                self._undiscovered.clear()
        self._read_load_line(at, found, line)
        said = f"{words} {error}" if level in LOUD or words == LOAD_FAILED else words
        retry = RETRY.search(words)
        if retry:
            self._retried, self._starts_left, self._open = True, 1 if retry.group("anew") else 0, None
            self._note("warning", at, line)
        elif by == "server" and words.startswith(DISCOVERY):
            # Before it loads another model, Ollama looks for free memory in the same way (discover/runner.go). That
            # this took longer than 3 s breaks nothing; by then it has said what it found when it started.
            if self.facts["server_config"] is not None and not self.facts["discovered"]:
                self._undiscovered.append(self._note("fatal", at, line))
        elif FATAL.search(said) and not GOES_ON.search(said):
            self._fail(at, line)
        elif WARNING.search(words):
            self._note("warning", at, line)
        if words in END_OF_A_LOAD:
            self._loading = False

    def _mended(self, line: str) -> str:
        """A line without the beginning of another one before it, or with its own."""
        if line.startswith(tuple(WRITERS)):
            return line
        within = WITHIN.search(line)
        if within and within.start() and not QUOTES.search(line, 0, within.start()):
            self._torn = (self._torn + line[: within.start()])[:LONGEST_TORN]
            return line[within.start() :]
        if self._torn and not within and not ACCESS.match(line) and not is_servers(line):
            line, self._torn = self._torn + line, ""
        return line

    def _is_repeated(self, at: float, line: str) -> bool:
        """Whether a line is one of several in which somebody else's text is shown."""
        if line.startswith(tuple(WRITERS)):
            return False
        if self._template_at is not None and at - self._template_at <= TEMPLATE_S:
            self._template_at = None if line.endswith("'") else self._template_at
            return True
        self._in_headers = bool(RECOVERY.search(line) or (self._in_headers and HEADER.match(line)))
        if self._in_headers:
            return True
        if not ACCESS.match(line) and not is_servers(line):
            begins = TEMPLATE.search(line)
            self._template_at = at if begins and not line.endswith("'", begins.end()) else None
        return False

    def _note(self, severity: str, at: float, line: str) -> Failure:
        failure: Failure = {"severity": severity, "at": at, "line": self._mask(line)}
        self.facts["failures"].append(failure)
        return failure

    def _fail(self, at: float, line: str) -> None:
        if self._open is None or (at - self._open_at > TOGETHER_S and not self._loading):
            self._open = failure = self._note("fatal", at, line)
            self._plainness = plainness(line)
            self._pending.append(failure)
        elif plainness(line) < self._plainness:
            self._open["line"], self._plainness = self._mask(line), plainness(line)
        self._open_at = at

    def _starts(self, at: float, line: str, words: str) -> bool:
        """Whether it is the start of the server or of a runner, whose lines may hold any word."""
        if not STARTING.match(words):
            return False
        config, start = SERVER_CONFIG.search(line, 0, max(0, line.rfind(END_OF_CONFIG))), START.search(line)
        if config:
            self.facts["server_config"] = settings.shown(dict(CONFIG_ITEM.findall(config.group("map"))))
            self.facts["server_at"] = at
            self.facts["discovered"] = []
        load = _new_load(at, start.group("cmd")) if start else None
        if load and "--model" in load["command"]:  # 0.12.4 to 0.24 look for GPUs with a runner that loads nothing
            self._begin(load)
            if self._starts_left:
                self._starts_left -= 1
            else:  # the load before this one was not tried again
                self._pending, self._retried = [], False
        return True

    def _begin(self, load: LogLoad) -> None:
        self.facts["loads"].append(load)
        self._open, self._buffers, self._cache, self._loading = None, {}, "", True

    def _read_load_line(self, at: float, found: Line, line: str) -> None:
        words = found.words
        if STARTED.match(words):
            if self.facts["loads"]:
                self.facts["loads"][-1]["started"] = True
            if self._retried:
                for failure in self._pending:
                    failure["severity"] = "recovered"
            self._pending, self._retried, self._starts_left, self._open = [], False, 0, None
            self._loading = False
            self.facts["worked_at"] = at
        speed = EVAL.search(words)
        if speed:
            self.facts["tokens_per_s"].append([at, float(speed.group("speed"))])
            self.facts["worked_at"] = at
        prompt = PROMPT_EVAL.search(words)
        if prompt:
            tokens = int(prompt.group(1))
            if tokens > (self.facts["longest_prompt"] or 0):
                self.facts["longest_prompt"] = tokens
                self.facts["longest_prompts"].append([at, tokens])
        self._reuse.read(words)
        self.facts["longest_sent"], self.facts["most_reused"] = self._reuse.longest_sent, self._reuse.most_reused
        self.facts["truncated"] += bool(TRUNCATED.match(words))
        layers = OFFLOADED.search(words)
        sizes = list(BUFFER.finditer(words)) if "buffer size" in words else []
        overflowing = OVERFLOWING.search(words) if "overflowing" in words else None
        if not self.facts["loads"]:
            # Older servers and logs cut at their start have loads that nothing announced.
            if not (layers or sizes or overflowing):
                return
            self._begin(_new_load(at, ""))
        load = self.facts["loads"][-1]
        if speed:
            load["tokens_per_s"].append(float(speed.group("speed")))
        if self._pending and found.by == "server" and ASKED.search(line):
            self._retried, self._open = True, None
        sent = found.by == "server" and (SENT.search(line) or REQUESTED.search(line))
        if sent:
            load["sent"].update({name: int(value) for name, value in sent.groupdict().items()})
            cache_type = CACHE_TYPE_SENT.search(line)
            load["cache_type"] = cache_type.group(1) if cache_type else load["cache_type"]
        if layers:
            load["offloaded"], load["offloadable"] = int(layers.group(1)), int(layers.group(2))
        if overflowing:
            load["overflowing"] += int(overflowing.group(1))
        if WINDOW_CACHE.search(words):
            self._cache = "windows"
        elif NEW_CONTEXT.search(words):
            self._cache = ""
        layout = LAYOUT.search(line) if found.by == "server" else None
        for size in sizes:
            where = (size.group("component"), size.group("device"), size.group("kind"), self._cache)
            self._keep(load, where, float(size.group("mib")))
        if layout:
            mib = float(layout.group("size")) * MIB_IN[layout.group("unit")]
            self._keep(load, (ESTIMATE, layout.group("device"), KIND_IN_LAYOUT[layout.group("kind")], ""), mib)

    def _keep(self, load: LogLoad, where: tuple[str, str, str, str], mib: float) -> None:
        """Dry runs print first: of the same component, device, kind and cache the last value counts; others add up."""
        _component, device, kind, _cache = where
        if HOST_DEVICE.match(device):
            if mib and kind not in load["on_host"]:
                load["on_host"].append(kind)
            return
        if len(self._buffers) >= MOST_BUFFERS and where not in self._buffers:
            return  # no load has so many
        self._buffers[where] = mib
        load["windows"] = load["windows"] or _cache == "windows"
        same = {place: size for place, size in self._buffers.items() if place[1:3] == (device, kind)}
        exact = [size for place, size in same.items() if place[0] != ESTIMATE]
        load["buffers_mib"][f"{device} {kind}"] = sum(exact or same.values())


def plainness(line: str) -> int:
    """How plainly a line tells of a failure; 0 is best."""
    return next((place for place, words in enumerate(PLAINEST) if words in line), len(PLAINEST))


def _new_load(at: float, command: str) -> LogLoad:
    return {
        "at": at,
        "command": masking.shown_command(_split(command)),
        "sent": {},
        "cache_type": None,
        "started": False,
        "offloaded": None,
        "offloadable": None,
        "overflowing": 0,
        "buffers_mib": {},
        "on_host": [],
        "windows": False,
        "tokens_per_s": [],
    }


def kept_off(load: LogLoad) -> str | None:
    """What of a load is on the CPU by its buffers, though layers are said to be on the GPU; None where that is not so.

    llama.cpp counts layers as offloaded before it knows of any device, and whatever is kept from it tensor by tensor.
    """
    layers, on_host = load["offloaded"] or 0, load.get("on_host") or []
    on_gpu = {name.rpartition(" ")[2] for name, mib in load["buffers_mib"].items() if mib}
    if layers and "model" in on_host and "model" not in on_gpu:
        return "its weights" if on_gpu else "all of it"
    # The output layer alone has no cache.
    return "its cache" if layers > 1 and "KV" in on_host and not on_gpu & {"KV", "RS"} else None


def layers_on_gpu(load: LogLoad) -> int | None:
    """The layers that are on the GPU by every line of a load that came up; None where none tells."""
    if load["offloaded"] is None:
        return None
    if load["started"] and kept_off(load) not in (None, "its cache"):
        return 0
    return max(0, load["offloaded"] - load.get("overflowing", 0))


def _split(command: str) -> list[str]:
    """The words of a runner's command line; of one longer than any is, by its blanks: shlex takes quadratic time."""
    if len(command) <= LONGEST_COMMAND:
        with contextlib.suppress(ValueError):
            return shlex.split(command.replace('\\"', '"'))
    return command.split()


def runner_settings(command: list[str], sent: Mapping[str, int] | None = None) -> RunnerSettings:
    """A runner's settings: {num_ctx_total, num_parallel, num_gpu, num_batch}; None where not given.

    They are on its command line, or were `sent` to it. `-c` and KvSize are the context of all slots together
    (llm/llama_server.go since v0.30.0; `--ctx-size` up to 0.11.4). A negative num_gpu leaves it
    to Ollama, and counts as not given.
    """
    names = {
        "num_ctx_total": ("-c", "--ctx-size"),
        "num_parallel": ("-np", "--parallel"),
        "num_gpu": ("-ngl", "--n-gpu-layers", "--gpu-layers"),
        "num_batch": ("-b", "--batch-size"),
    }
    result: dict[str, int | None] = {}
    for name, flags in names.items():
        result[name] = None
        for position, word in enumerate(command):
            flag, equals, joined = word.partition("=")
            if flag in flags:
                value = joined if equals else (command[position + 1] if position + 1 < len(command) else "")
                result[name] = int(value) if WHOLE_NUMBER.match(value) else None
    for name, number in (sent or {}).items():
        if result[name] is None:
            result[name] = number
    if (result["num_gpu"] or 0) < 0:
        result["num_gpu"] = None
    return {
        "num_ctx_total": result["num_ctx_total"],
        "num_parallel": result["num_parallel"],
        "num_gpu": result["num_gpu"],
        "num_batch": result["num_batch"],
    }


def context_per_slot(runner: RunnerSettings) -> int | None:
    """A runner has one context for all slots together."""
    total, slots = runner["num_ctx_total"], runner["num_parallel"]
    return total // slots if total and slots else None


def runner_cache_type(command: list[str]) -> str | None:
    """The type of the KV cache on a runner's command line; f16 where it has a context but no type, else None."""
    for position, word in enumerate(command):
        flag, equals, joined = word.partition("=")
        if flag in ("--cache-type-k", "-ctk"):
            return joined if equals else next(iter(command[position + 1 : position + 2]), None)
    return "f16" if "-c" in command else None


def runner_flash_attention(command: list[str]) -> str | None:
    """`on`, `off` or `auto` as a runner's command line has it; None where it says nothing."""
    for position, word in enumerate(command):
        flag, equals, joined = word.partition("=")
        if flag in ("--flash-attn", "-fa"):
            value = joined if equals else next(iter(command[position + 1 : position + 2]), "")
            return value if value in ("on", "off", "auto") else "on"  # up to 0.11.4 it is a flag alone
    return None
