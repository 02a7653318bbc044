# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a value must not be shown, by the name that it goes by and by its shape. Pure.

Names of secrets cannot be listed, those of ordinary things can: a value is a secret unless it is known to be ordinary.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings

LEAST = 6  # shorter values are words such as `info`; to mask those would make every message unreadable
LEAST_OF_A_CREDENTIAL = 4  # where the name says what it is; what is shorter still is masked after its name alone

# What says credential wherever it stands in a name, and what does so as a word of it, or at the end of one (DBPASS).
_STEM = (
    r"token(?!s(?![a-z])|i[sz])|(?<!show_)secret(?!ar[iy])|passw|passphrase|passcode|pwd|credential|(?:api|access|account|private|shared|signing"
    r"|encryption|master)[_-]?key(?![a-z])|authorization"
    r"|cookie|signature|dsn(?![a-z])|webhook"
)
_WORD = (
    r"pass|key|keys|pin|pins|auth|seed|code|codes|tokens|salt|pepper|otp|totp|jwt|psk|pw|pat|creds?|login|licen[cs]e"
    r"|nonce|mnemonic|bearer|private"
)
PERHAPS = f"{_STEM}|{_WORD}"  # finds every name that says so, and others
# One of these is in all that says so, in lower case.
PARTS = (
    "token", "secret", "pass", "pwd", "pw", "cred", "key", "auth", "cookie", "signature", "dsn", "webhook", "pin",
    "seed", "code", "salt", "pepper", "otp", "jwt", "psk", "pat", "login", "licen", "nonce", "mnemonic", "bearer",
    "private",
)  # fmt: skip
STEM = re.compile(_STEM, re.I)
_SOME_PART = re.compile("|".join(PARTS))  # of a text in lower case
_IS_WORD = re.compile(rf"(?:{_WORD}|\w*(?:pass|key))\Z", re.I)
# In a text: `pass: x`, `db_pass=x` and `DBPASS=x`; `code: 500`, `auth: none` and `pass=2` are none.
ALONE = re.compile(r"(?:(?:\w*[_-]|db|my|pg|root|user|admin|bind)?(?:pass|pw)|psk|(?:\w*[_-])?basic_?auth)\Z", re.I)
_BETWEEN_WORDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

_SWITCHES = {"true", "false", "yes", "no", "on", "off", "none", "null", "auto", "enabled", "disabled"}
_ORDINARY_WORDS = {
    *_SWITCHES, *settings.CACHE_TYPES, "default", "debug", "trace", "verbose", "notice", "warning", "critical",
    "production", "development", "staging", "testing", "localhost", "ollama", "llama-server", "llamacpp", "nvidia",
    "systemd", "python", "python3", "uvicorn", "gunicorn", "docker", "podman", "container", "noninteractive",
    "x86_64", "aarch64", "float16", "bfloat16", "float32",
}  # fmt: skip
# What this collection and Ollama must be able to say: a verdict, a cause. A value of such words alone is ordinary.
_OWN_WORDS = {
    *_ORDINARY_WORDS, "pass", "passed", "fail", "failed", "failure", "failures", "refused", "rolled", "back",
    "untouched", "inconclusive", "unchanged", "error", "errors", "fatal", "panic", "killed", "crash", "crashed",
    "abort", "aborted", "signal", "timeout", "denied", "permission", "invalid", "cannot", "unable", "found", "out",
    "of", "no", "not", "such", "in", "is", "on", "to", "memory", "vram", "cudamalloc", "malloc", "allocate",
    "allocated", "allocation", "buffer", "buffers", "device", "devices", "driver", "drivers", "library", "kernel",
    "graphics", "compute", "capability", "gpu", "gpus", "cpu", "cuda", "rocm", "vulkan", "nvml", "ggml", "llama",
    "server", "runner", "backend", "service", "process", "unit", "model", "models", "layer", "layers", "offload",
    "offloaded", "offloading", "load", "loaded", "loading", "unload", "context", "prompt", "prompts", "token", "tokens",
    "cache", "batch", "parallel", "attention", "flash", "threshold", "request", "requests", "connection", "address",
    "listen", "file", "directory", "exists", "exited", "status", "code", "result", "started", "stopped", "restart",
    "restarted", "active", "inactive", "activating",
}  # fmt: skip
# Variables of the system's own, whatever they hold.
_OF_THE_SYSTEM = {
    "HOME", "PATH", "PWD", "OLDPWD", "SHELL", "USER", "LOGNAME", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR", "HOSTNAME",
    "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "LISTEN_FDNAMES", "MEMORY_PRESSURE_WRITE", "LD_LIBRARY_PATH",
    "PYTHONPATH", "LS_COLORS", "_", "container", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS", "MONITOR_SERVICE_RESULT",
    "MONITOR_EXIT_CODE", "MONITOR_EXIT_STATUS", "MONITOR_INVOCATION_ID", "MONITOR_UNIT", "TRIGGER_UNIT",
}  # fmt: skip
# The last word of a name says what its value is.
_OF_FIGURES = {
    "SIZE", "LIMIT", "COUNT", "MAX", "MIN", "PORT", "TIMEOUT", "TTL", "INTERVAL", "DELAY", "WORKERS", "THREADS", "CTX",
    "CONTEXT", "LENGTH", "BATCH", "BYTES", "KB", "MB", "GB", "KIB", "MIB", "GIB", "MS", "SEC", "SECS", "SECONDS", "S",
    "MINUTES", "HOURS", "DAYS", "USEC", "PID", "UID", "GID", "RETRIES", "OVERHEAD", "TARGET", "CONCURRENCY", "PARALLEL",
    "LAYERS", "AGE", "COLUMNS", "LINES", "QUEUE", "VRAM", "MEMORY",
}  # fmt: skip
_OF_PLACES = {
    "FILE", "FILES", "PATH", "PATHS", "DIR", "DIRS", "DIRECTORY", "DIRECTORIES", "FOLDER", "SOCKET", "SOCK", "HOME",
    "ROOT", "LOG", "CACHE", "BIN",
}  # fmt: skip
_OF_HOSTS = {"HOST", "HOSTS", "HOSTNAME", "ADDRESS", "ADDR", "SERVER", "BIND", "LISTEN", "ENDPOINT"}
OF_URLS = {"URL", "URLS", "URI", "URIS", "ORIGIN", "ORIGINS", "PROXY"}
_OF_NAMES = {
    "NAME", "USER", "GROUP", "DATABASE", "DB", "MODE", "LEVEL", "FORMAT", "TYPE", "BACKEND", "ENGINE", "DRIVER",
    "PROFILE", "ENV", "ENVIRONMENT", "SERVICE", "UNIT", "REGION", "ENCODING", "LIBRARY",
}  # fmt: skip

_OF_MODELS = {
    "NAME", "NAMES", "ID", "IDS", "TAG", "CHAT", "EMBED", "EMBEDDING", "EMBEDDINGS", "FALLBACK", "DEFAULT", "SMALL",
    "LARGE", "FAST", "VISION", "REPO",
}  # fmt: skip
# Of a model's vocabulary, as in `eos_token`.
OF_TOKENS = {
    "BOS", "EOS", "EOT", "EOM", "EOG", "UNK", "UNKNOWN", "SEP", "PAD", "CLS", "MASK", "NL", "LF", "PRE", "SUF", "MID",
    "REP",
}  # fmt: skip

_FIGURE = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,9})?")
_TOKEN_ID = re.compile(r"-1|\d{1,7}")
_ROOTS = (
    "usr|var|etc|opt|home|srv|tmp|run|mnt|media|data|root|dev|proc|sys|lib|lib64|bin|sbin|nix|boot|snap|models"
    "|workspace"
)
_HOST = (
    r"(?:localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:.]*\]|[a-z][a-z0-9-]{0,62}(?:\.[a-z0-9-]{1,63}){1,9})"
    r"(?::\d{1,5})?"
)
_PATH = re.compile(r"(?:~|\.{0,2}/|[\w-]+[/.])\S*")
_DEEP_PATH = re.compile(r"(?:~[\w.-]*|\.{1,2}|/[\w.-]+)/\S+")
_HOST_NAMED = re.compile(rf"{_HOST}|[\w.-]+(?::\d{{1,5}})?")
_MODEL = re.compile(r"[\w./:@+-]+(?:,[\w./:@+-]+)*")
_NAME = re.compile(r"[A-Za-z][A-Za-z_.-]{0,40}\d{0,2}")
# What is ordinary whatever the name, unless that says credential.
_ORDINARY = re.compile(
    rf"/(?:{_ROOTS})(?:/[^\s:]*)?(?::/(?:{_ROOTS})(?:/[^\s:]*)?)*"
    r"|(?:~[\w.-]*|\.{1,2})/\S*"
    rf"|{_HOST}"
    r"|[a-z]{2,3}_[A-Z]{2}(?:\.[\w-]{3,12})?(?:@\w+)?|C\.[\w-]{3,8}"  # a locale
    r"|v?\d{1,6}(?:\.\d{1,6}){1,3}(?:[-+.~][a-z0-9.]{1,12})?"  # a version
    r"|\d{1,9}(?:\.\d{1,6})?\s?[KMGT]i?B?"  # a size
    r"|(?:\d{1,9}(?:\.\d{1,6})?(?:ns|us|ms|s|m|h|d)){1,6}"  # a duration
    r"|[a-z0-9][\w.-]{0,60}(?:/[\w.-]{1,60}){0,3}:(?:latest|\d{1,4}(?:\.\d)?[bm](?:-[\w.-]{1,60})?)"  # a model
    r"|(?:NVIDIA )?(?:GeForce|Quadro|Tesla|TITAN|RTX|GTX)(?: [\w()-]{1,12}){1,6}"
    r"|(?:cuda|gpu|cpu):\d{1,3}|(?:GPU|MIG)-[0-9a-f-]{36}|sha256[:-][0-9a-f]{64}"
)


def words_of(name: str) -> list[str]:
    return [word.upper() for word in _BETWEEN_WORDS.split(name) if word]


def may_say_credential(text: str) -> bool:
    """Whether a text has a part of a name that says so."""
    return bool(_SOME_PART.search(text.lower()))


@functools.lru_cache(maxsize=1024)  # a text may say a name a thousand times
def says_credential(name: str) -> bool:
    """Whether a variable, flag or key of this name holds a credential."""
    if not may_say_credential(name):
        return False
    words = words_of(name)
    return bool(STEM.search(name)) or words not in (["SEED"], ["CODE"]) and any(map(_IS_WORD.match, words))


def is_secret(name: str, value: str, names: Collection[str] = ()) -> bool:
    """Whether the value of a variable must not be shown wherever it occurs.

    `names`: of units, models and the like that were declared. A value that is a part of one, or what this collection
    itself must be able to say, is none, unless the variable's name says credential.
    """
    if name in _OF_THE_SYSTEM or name in settings.SHOWN:
        return False
    if says_credential(name):
        return len(value) >= LEAST_OF_A_CREDENTIAL and not is_ordinary_of_a_credential(name, value)
    if len(value) < LEAST or _is_ordinary(words_of(name), value):
        return False
    return not _is_of_own_words(value) and not any(value.lower() in declared.lower() for declared in names)


def _is_of_own_words(value: str) -> bool:
    first = _BETWEEN_WORDS.split(value, maxsplit=1)[0].lower()
    if first and first not in _OWN_WORDS or not re.fullmatch(r"[\w .-]+", value):
        return False
    said = {word.lower() for word in words_of(value)}
    return bool(said) and said <= _OWN_WORDS


def is_ordinary_of_a_credential(name: str, value: str) -> bool:
    """What is none though the name says so: `WEBUI_AUTH=false`, `API_TOKEN_FILE=/run/token/api`, `MAX_TOKENS=4096`."""
    words = words_of(name)
    if value.lower() in _SWITCHES:
        return True
    if words[-2:] == ["TOKEN", "ID"] or words[-1] == "TOKEN" and set(words[-2:-1]) & OF_TOKENS:
        return bool(_TOKEN_ID.fullmatch(value))
    if words[-1] in _OF_FIGURES or words[-1] == "TOKENS" and words[0] in ("MAX", "MIN", "NUM", "N"):
        return bool(_FIGURE.fullmatch(value))
    if words[-1] in _OF_PLACES:
        return bool(_DEEP_PATH.fullmatch(value))
    return words[-1] in _OF_HOSTS and bool(re.fullmatch(_HOST, value))


def _is_ordinary(words: list[str], value: str) -> bool:
    if value.lower() in _ORDINARY_WORDS or _ORDINARY.fullmatch(value):
        return True
    last = words[-1] if words else ""
    return bool(
        (last in _OF_FIGURES or words[:1] in (["MAX"], ["MIN"], ["NUM"], ["SEED"]))
        and _FIGURE.fullmatch(value)
        or last in _OF_PLACES
        and _PATH.fullmatch(value)
        or last in _OF_HOSTS
        and _HOST_NAMED.fullmatch(value)
        or last in _OF_NAMES
        and _NAME.fullmatch(value)
        or (last.startswith("MODEL") or last in _OF_MODELS and any(word.startswith("MODEL") for word in words))
        and _MODEL.fullmatch(value)
    )
