"""Ollama's environment variables, read as Ollama reads them (envconfig/config.go), and its log lines (log/slog)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Iterator

FOREVER = math.inf
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Shown in the "server config" line as they are.
PLAIN = (
    "CUDA_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "OLLAMA_EDITOR", "OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_LLM_LIBRARY", "ROCR_VISIBLE_DEVICES", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_log_lock = threading.Lock()
_within: list[str] | None = None  # lines of the access log that wait for one of a runner that loads; None without one
# Where this release says what 0.32.15 says elsewhere (releases.py).
sources: dict[str, str] = {}


def log(level: str, source: str, message: str, **attributes: object) -> None:
    """One line of the journal; `source` is where the release 0.32.15 says it, if it does."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    words = [f"time={stamp}", f"level={level}", f"source={sources.get(source, source)}", f"msg={_quoted(message)}"]
    words += [f"{_quoted(key)}={_quoted(str(value))}" for key, value in attributes.items()]
    write(" ".join(words))


def write(line: str) -> None:
    with _log_lock:
        print(line, file=sys.stderr, flush=True)


def write_access(line: str) -> None:
    """A line of the access log. While a model loads it comes in the middle of the runner's next line.

    With the real one that happens now and then, since both write into one pipe.
    """
    with _log_lock:
        if _within is not None:
            _within.append(line)
        else:
            print(line, file=sys.stderr, flush=True)


def write_of_runner(line: str) -> None:
    with _log_lock:
        print(_torn(line), file=sys.stderr, flush=True)


def _torn(line: str) -> str:
    if not _within:
        return line
    between = "".join(f"{one}\n" for one in _within)
    _within.clear()
    return line[: len(line) // 2] + between + line[len(line) // 2 :]


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """A model loads meanwhile."""
    global _within
    with _log_lock:
        _within = []
    try:
        yield
    finally:
        with _log_lock:
            for line in _within:
                print(line, file=sys.stderr, flush=True)
            _within = None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if not text or re.search(r'[\s="\\]', text) else text


def human_bytes(number: float) -> str:
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"


def text(key: str) -> str:
    return os.environ.get(key, "").strip().strip("\"'")


def unsigned(key: str, default: int) -> int:
    value = text(key)
    if value and not re.fullmatch(r"[0-9]+", value):
        log(
            "WARN",
            "config.go:263",
            "invalid environment variable, using default",
            key=key,
            value=value,
            default=default,
        )
        return default
    return int(value) if value else default


def boolean(key: str, default: bool) -> bool:
    """As strconv.ParseBool, but that anything it does not know counts as true."""
    value = text(key)
    return value not in ("0", "f", "F", "false", "FALSE", "False") if value else default


def seconds(value: str) -> float:
    """A duration as Go writes it ("1h30m", "1.5s"); ValueError if it is none."""
    match = re.fullmatch(r"([+-]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|ms|s|m|h))+|0)", value)
    if not match:
        raise ValueError(f'time: invalid duration "{value}"')
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", match[2])
    return sum(float(number) * _UNITS[unit] for number, unit in parts) * (-1 if match[1] == "-" else 1)


def duration(key: str, default: float) -> float:
    """Seconds from a Go duration or a whole number of seconds; below 0 is for ever, nonsense the default."""
    value = text(key)
    try:
        result = seconds(value) if value else default
    except ValueError:
        result = float(value) if re.fullmatch(r"[+-]?\d+", value) else default
    return FOREVER if result < 0 else result


def keep_alive() -> float:
    return duration("OLLAMA_KEEP_ALIVE", 300)


def num_parallel() -> int:
    return max(unsigned("OLLAMA_NUM_PARALLEL", 1), 1)


def max_loaded_models() -> int:
    return unsigned("OLLAMA_MAX_LOADED_MODELS", 0)


def context_length() -> int:
    return unsigned("OLLAMA_CONTEXT_LENGTH", 0)


def gpu_overhead() -> int:
    return unsigned("OLLAMA_GPU_OVERHEAD", 0)


def flash_attention() -> str:
    return "auto" if not text("OLLAMA_FLASH_ATTENTION") else "on" if boolean("OLLAMA_FLASH_ATTENTION", False) else "off"


def models_directory() -> str:
    return text("OLLAMA_MODELS") or os.path.join(os.path.expanduser("~"), ".ollama", "models")


def address() -> tuple[str, str, int]:
    """Scheme, host and port of OLLAMA_HOST."""
    scheme, separator, rest = text("OLLAMA_HOST").strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    default = {"http": 80, "https": 443}.get(scheme, 11434) if separator else 11434
    place = rest.partition("/")[0]
    with_port = re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*):([^:\[\]]*)", place)
    host, port = with_port.groups() if with_port else (place or "127.0.0.1", str(default))
    if not re.fullmatch(r"\d+", port) or int(port) > 65535:
        log("WARN", "config.go:49", "invalid port, using default", port=port, default=default)
        port = str(default)
    return scheme, host.strip("[]"), int(port)


def server_config(more: tuple[str, ...], switches: tuple[tuple[str, bool], ...]) -> str:
    """The map in the "server config" line: what Ollama knows, and only that."""
    scheme, host, port = address()
    alive = keep_alive()
    values: dict[str, object] = {
        "OLLAMA_CONTEXT_LENGTH": context_length(),
        "OLLAMA_DEBUG": "INFO",
        "OLLAMA_DEBUG_LOG_REQUESTS": boolean("OLLAMA_DEBUG_LOG_REQUESTS", False),
        "OLLAMA_FLASH_ATTENTION": boolean("OLLAMA_FLASH_ATTENTION", False),
        "OLLAMA_GPU_OVERHEAD": gpu_overhead(),
        "OLLAMA_HOST": f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}",
        "OLLAMA_KEEP_ALIVE": _go_duration(alive),
        "OLLAMA_LOAD_TIMEOUT": _go_duration(duration("OLLAMA_LOAD_TIMEOUT", 300) or FOREVER),
        "OLLAMA_MAX_LOADED_MODELS": max_loaded_models(),
        "OLLAMA_MAX_QUEUE": unsigned("OLLAMA_MAX_QUEUE", 512),
        "OLLAMA_MAX_TRANSFER_STREAMS": unsigned("OLLAMA_MAX_TRANSFER_STREAMS", 4),
        "OLLAMA_MODELS": models_directory(),
        "OLLAMA_NO_CLOUD": boolean("OLLAMA_NO_CLOUD", False),
        "OLLAMA_NOHISTORY": boolean("OLLAMA_NOHISTORY", False),
        "OLLAMA_NOPRUNE": boolean("OLLAMA_NOPRUNE", False),
        "OLLAMA_NUM_PARALLEL": unsigned("OLLAMA_NUM_PARALLEL", 1),
        "OLLAMA_ORIGINS": f"[{' '.join(_origins())}]",
        "OLLAMA_REMOTES": f"[{text('OLLAMA_REMOTES').replace(',', ' ') or 'ollama.com'}]",
        "OLLAMA_SCHED_SPREAD": boolean("OLLAMA_SCHED_SPREAD", False),
    }
    values.update({key: text(key) for key in (*PLAIN, *more)})
    values.update({key: boolean(key, default) for key, default in switches})
    shown = {key: str(value).lower() if isinstance(value, bool) else value for key, value in values.items()}
    return "map[" + " ".join(f"{key}:{shown[key]}" for key in sorted(shown)) + "]"


def _origins() -> list[str]:
    own = text("OLLAMA_ORIGINS")
    hosts = ("localhost", "127.0.0.1", "0.0.0.0")
    local = [f"{scheme}://{host}{port}" for host in hosts for port in ("", ":*") for scheme in ("http", "https")]
    apps = [f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")]
    return [*(own.split(",") if own else []), *local, *apps]


def _go_duration(value: float) -> str:
    if value == FOREVER:
        return "2562047h47m16.854775807s"
    hours, rest = divmod(value, 3600)
    minutes, rest = divmod(rest, 60)
    if hours:
        return f"{hours:.0f}h{minutes:.0f}m{rest:g}s"
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
