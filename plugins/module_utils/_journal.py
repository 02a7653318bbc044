# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ollama's journal says: settings, loads, layers, buffers, speed and failures.

The wordings are those of Ollama v0.1.14 to v0.33 and of the llama.cpp it carries (llm/status.go, ggml-cuda.cu,
server/routes.go); several of them changed between releases, so each pattern covers all.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.selo.gpu_memory.plugins.module_utils import _secrets, _settings

# A load that fails with one of these is dead, unless a retry right after it succeeds.
FATAL = re.compile(
    r"out of memory|cudaMalloc failed|CUDA error|failed to allocate|unable to allocate|allocation failed"
    r"|not enough memory|insufficient memory|error loading model|unable to load model|unable to create llama context"
    r"|runner process has terminated|runner process no longer running"
    r"|llama-server process has terminated|llama-server process no longer running"
    r"|llama-server reported out-of-memory|requires more system memory|model request too large for system"
    r"|memory layout cannot be allocated|failed to commit memory|model failed to load"
    r"|model runner has unexpectedly stopped|timed out waiting for llama|failure during llama-server GPU discovery"
    r"|Unsupported cache type|requires flash_attn|NVRM: Xid|oom-kill|Out of memory: Killed",
    re.IGNORECASE,
)
# A retry goes on in the same runner, or starts another one.
RETRY = re.compile(
    r"retrying without pipeline parallelism|model layout did not fit, applying backoff"
    r"|(?P<anew>reducing automatic context and retrying once|evicting all other models and retrying once)",
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
# What of the kernel's journal is about GPUs or memory.
KERNEL = re.compile(r"NVRM: Xid|oom-kill|Out of memory: Killed")
# The server's environment dump lists every known variable, and PATH-like values could hold any word.
NEVER_A_FAILURE = re.compile(r'msg="server config"|msg="?starting (llama[- ]server|runner)')

SERVER_CONFIG = re.compile(r'msg="server config" env="map\[(?P<map>.*)\]"')
CONFIG_ITEM = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):(.*?)(?=\s[A-Za-z_][A-Za-z0-9_]*:|$)")
START = re.compile(r'msg="starting (?:llama[- ]server|runner)" cmd="(?P<cmd>(?:[^"\\]|\\.)*)"')
# From 0.11.5 to 0.24 the runner gets its settings as JSON (llm/server.go, LoadRequest), and says what it got.
REQUESTED = re.compile(r'msg="loading model" .{0,200}\brequested=(?P<num_gpu>-?\d{1,12})\b')
SENT = re.compile(
    r'msg=load request="\{Operation:(?!close)\w+ .{0,2000}?\bParallel:(?P<num_parallel>\d{1,12}) '
    r"BatchSize:(?P<num_batch>\d{1,12}) .{0,200}?\bKvSize:(?P<num_ctx_total>\d{1,12}) "
)
CACHE_TYPE_SENT = re.compile(r"\bKvCacheType:(\w{1,16})")
STARTED = re.compile(r"(?:llama runner|llama-server) started in")
OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
BUFFER = re.compile(
    r"\b(?P<device>[A-Za-z]\w*) +(?P<kind>model|KV|RS|compute|output) buffer size\s*=\s*(?P<mib>\d+(?:\.\d+)?) MiB"
)
# Ollama's own engine gives its buffers like this alone, rounded; for llama.cpp's these are estimates made beforehand.
LAYOUT = re.compile(
    r'msg="(?P<kind>model weights|kv cache|compute graph)" device="?(?P<device>[A-Za-z]\w*)"?'
    r' size="(?P<size>\d+(?:\.\d+)?) (?P<unit>[KMGT]iB)"'
)
KIND_IN_LAYOUT = {"model weights": "model", "kv cache": "KV", "compute graph": "compute"}
MIB_IN = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "TiB": 1024.0**2}
# Devices of the host: CPU, CPU_Mapped, CPU_REPACK, CUDA_Host and the like.
HOST_DEVICE = re.compile(r"CPU|.*_Host\Z", re.IGNORECASE)
EVAL = re.compile(
    r"(?<!prompt )eval time =\s*[\d.]+ ms /\s*\d+ (?:tokens|runs).*?(?P<speed>\d+(?:\.\d+)?) tokens per second"
)
PROMPT_EVAL = re.compile(r"prompt eval time =\s*[\d.]+ ms /\s*(\d+) tokens")
TRUNCATED = re.compile(r"truncating input prompt")
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,12}\Z")


def entry(row: str | bytes) -> tuple[float, str] | None:
    """A row of `journalctl --output=json` as (Unix time, text); None for what is of no interest here."""
    try:
        fields = json.loads(row)
    except ValueError:
        return None
    text = fields.get("MESSAGE")
    if isinstance(text, list):  # journald gives bytes that are not UTF-8 as numbers
        text = bytes(text).decode(errors="replace")
    if not isinstance(text, str) or (fields.get("_TRANSPORT") == "kernel" and not KERNEL.search(text)):
        return None
    return int(fields["__REALTIME_TIMESTAMP"]) / 1e6, text


def parse(lines: Iterable[tuple[float, str]], mask: Callable[[str], str] = _secrets.without_secrets) -> dict[str, Any]:
    """Reduce journal lines, oldest first, as (Unix time, text), to facts.

    Returns `server_config` (of the last start, only variables that may be shown, or None), `loads` (a dict for each
    runner start: at, command, sent (settings that reached the runner otherwise, see `runner_settings`), cache_type (if
    it did so, too), started, offloaded, offloadable, buffers_mib by device and kind on GPUs), `failures`
    ({severity, at, line}; severity is fatal, recovered or warning; of a line what `mask` leaves), `tokens_per_s` (of
    each answered request), `longest_prompt` (tokens that a request made the model read; None without such lines) and
    `truncated` (how many prompts were too long for their slot and were shortened).
    """
    facts: dict[str, Any] = {"server_config": None, "loads": [], "failures": [], "tokens_per_s": []}
    facts.update(longest_prompt=None, truncated=0)
    pending: list[dict[str, Any]] = []  # fatal lines of the present load: a retry may yet recover them
    retried, starts_left = False, 0
    for at, line in lines:
        config = SERVER_CONFIG.search(line)
        if config:
            facts["server_config"] = _settings.shown(dict(CONFIG_ITEM.findall(config.group("map"))))
            continue
        start = START.search(line)
        if start:
            load = _new_load(at, start.group("cmd"))
            if "--model" not in load["command"]:  # 0.12.4 to 0.24 look for GPUs with a runner that loads nothing
                continue
            facts["loads"].append(load)
            if starts_left:
                starts_left -= 1
            else:  # the load before this one was not tried again
                pending, retried = [], False
            continue
        if STARTED.search(line):
            if facts["loads"]:
                facts["loads"][-1]["started"] = True
            if retried:
                for failure in pending:
                    failure["severity"] = "recovered"
            pending, retried, starts_left = [], False, 0
        _read_load_line(facts, line)
        if NEVER_A_FAILURE.search(line):
            continue
        retry = RETRY.search(line)
        if retry:
            retried, starts_left = True, 1 if retry.group("anew") else 0
            facts["failures"].append({"severity": "warning", "at": at, "line": mask(line.strip())})
        elif FATAL.search(line):
            failure = {"severity": "fatal", "at": at, "line": mask(line.strip())}
            facts["failures"].append(failure)
            pending.append(failure)
        elif WARNING.search(line):
            facts["failures"].append({"severity": "warning", "at": at, "line": mask(line.strip())})
    return facts


def _new_load(at: float, command: str) -> dict[str, Any]:
    return {
        "at": at,
        "command": _secrets.shown_command(_split(command)),
        "sent": {},
        "cache_type": None,
        "started": False,
        "offloaded": None,
        "offloadable": None,
        "buffers_mib": {},
    }


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command.replace('\\"', '"'))
    except ValueError:
        return command.split()


def _read_load_line(facts: dict[str, Any], line: str) -> None:
    speed = EVAL.search(line)
    if speed:
        facts["tokens_per_s"].append(float(speed.group("speed")))
    prompt = PROMPT_EVAL.search(line)
    if prompt:
        facts["longest_prompt"] = max(facts["longest_prompt"] or 0, int(prompt.group(1)))
    facts["truncated"] += bool(TRUNCATED.search(line))
    if not facts["loads"]:
        # Older servers and journals cut at their start have loads that nothing announced.
        if not (OFFLOADED.search(line) or BUFFER.search(line)):
            return
        facts["loads"].append(_new_load(0.0, ""))
    load = facts["loads"][-1]
    sent = SENT.search(line) or REQUESTED.search(line)
    if sent:
        load["sent"].update({name: int(value) for name, value in sent.groupdict().items()})
        cache_type = CACHE_TYPE_SENT.search(line)
        load["cache_type"] = cache_type.group(1) if cache_type else load["cache_type"]
    layers = OFFLOADED.search(line)
    if layers:
        load["offloaded"], load["offloadable"] = int(layers.group(1)), int(layers.group(2))
    for size in BUFFER.finditer(line):
        # Dry runs print first: the last value counts.
        _keep_buffer(load, size.group("device"), size.group("kind"), float(size.group("mib")))
    layout = LAYOUT.search(line)
    if layout:
        mib = float(layout.group("size")) * MIB_IN[layout.group("unit")]
        _keep_buffer(load, layout.group("device"), KIND_IN_LAYOUT[layout.group("kind")], mib)


def _keep_buffer(load: dict[str, Any], device: str, kind: str, mib: float) -> None:
    if not HOST_DEVICE.match(device):
        load["buffers_mib"][f"{device} {kind}"] = mib


def runner_settings(command: list[str], sent: Mapping[str, int] | None = None) -> dict[str, int | None]:
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
    return result


def runner_cache_type(command: list[str]) -> str | None:
    """The type of the KV cache on a runner's command line; f16 where it has a context but no type, else None."""
    for position, word in enumerate(command):
        flag, equals, joined = word.partition("=")
        if flag in ("--cache-type-k", "-ctk"):
            return joined if equals else next(iter(command[position + 1 : position + 2]), None)
    return "f16" if "-c" in command else None
