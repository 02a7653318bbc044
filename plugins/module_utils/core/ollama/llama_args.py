# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What llama-server takes from its environment, value by value, and what that does to GPU memory. Pure.

Ollama >= 0.30 starts llama-server with its own environment. llama-server reads every LLAMA_ARG_* first and its command
line after it, so that a flag of Ollama's wins; but a value that it cannot read ends it even where a flag would win.
Every row was tried on the llama-server of build 11669 (tests/data/llama_args.csv); of older builds the newest names are
unknown, and do nothing there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Union

PREFIX, NEGATED = "LLAMA_ARG_", "LLAMA_ARG_NO_"
BUILD = 11669
MOST_DEVICES = 16
Value = Union[str, int, float, bool, None]

# The whole of what stoi, stoull and stof read of a text; the rest of it is ignored.
_SPACE = r"[ \t\n\v\f\r]*"
_INT = re.compile(rf"{_SPACE}([+-]?[0-9]{{1,400}})")
_FLOAT = re.compile(
    rf"{_SPACE}([+-]?(?:0[xX](?:[0-9a-fA-F]{{1,400}}\.?[0-9a-fA-F]{{0,400}}|\.[0-9a-fA-F]{{1,400}})(?:[pP][+-]?[0-9]{{1,9}})?"
    r"|(?:[0-9]{1,400}\.?[0-9]{0,400}|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?|(?i:inf(?:inity)?|nan)))"
)
_LARGEST_FLOAT = 3.4028235e38
ON, OFF = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0")
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
SPECULATIONS = (
    "none", "draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark", "ngram-simple", "ngram-map-k",
    "ngram-map-k4v", "ngram-mod", "ngram-cache",
)  # fmt: skip
_DEVICE = re.compile(r"(?:CUDA|ROCm|Vulkan|SYCL|MTL|CANN|MUSA|RPC)[0-9]{1,3}\Z", re.IGNORECASE)
_OF_THE_HOST = "CPU"


class Ends(ValueError):
    """llama-server does not start with a value; the message says what it takes."""


def _whole(text: str, low: int = -(1 << 31), high: int = (1 << 31) - 1) -> int:
    found = _INT.match(text)
    if not found or not -(1 << 31) <= int(found[1]) < 1 << 31 or not low <= int(found[1]) <= high:
        raise Ends("a whole number" + (f" from {low} on" if low > -(1 << 31) else ""))
    return int(found[1])


def _real(text: str) -> float:
    found = _FLOAT.match(text)
    if not found:
        raise Ends("a number")
    digits = found[1].lower()
    value = float.fromhex(digits) if "0x" in digits else float(digits)
    if "n" not in digits and abs(value) > _LARGEST_FLOAT:  # neither inf nor nan, and beyond what a float holds
        raise Ends("a number")
    return value


def _switch(text: str) -> bool:
    if text in ON or text in OFF:
        return text in ON
    raise Ends("on or off")


def _flag(text: str) -> bool:
    return text in ON


def _any(text: str) -> str:
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise Ends("a value")
    return text


def _json(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise Ends("JSON") from None
    return text


def _address(text: str) -> str:
    if not all(re.match(r"[^:]+:[0-9]{1,5}\Z", part) for part in text.split(",")):
        raise Ends("addresses with a port each, at which somebody answers")
    return text


def _removed(_text: str) -> str:
    raise Ends("nothing: this build has it no more")


def _at_least(low: int) -> Callable[[str], int]:
    return lambda text: _whole(text, low)


def _not_zero(text: str) -> int:
    if _whole(text) == 0:
        raise Ends("a whole number other than 0")
    return _whole(text)


def _positive(text: str) -> float:
    if not 0 < _real(text) < float("inf"):
        raise Ends("a number above 0")
    return _real(text)


def _length(text: str) -> float:
    found = _FLOAT.match(text)
    if not found or found.end() != len(text) or _real(text) < 0:
        raise Ends("a number from 0 on, alone")
    return _real(text)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def take(text: str) -> str:
        if text not in allowed:
            raise Ends("one of " + ", ".join(word for word in allowed if word))
        return text

    return take


def _on_off_auto(text: str) -> str:
    if text in ("auto", "-1"):
        return "auto"
    try:
        return "on" if _switch(text) else "off"
    except Ends:
        raise Ends("on, off or auto") from None


def _layers(text: str) -> int:
    """-1: as many as fit; -2: all."""
    if text in ("auto", "all"):
        return -1 if text == "auto" else -2
    try:
        return _whole(text)
    except Ends:
        raise Ends("a whole number, auto or all") from None


def _list(text: str, read: Callable[[str], Value], form: str) -> str:
    """Numbers with a comma or a slash between them: llama-server takes fewer than it may have devices."""
    parts = re.split(r"[,/]+", text)
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    if len(parts) >= MOST_DEVICES:
        raise Ends(f"{form}, for fewer than {MOST_DEVICES} devices")
    try:
        return ",".join(str(read(part)) for part in parts)
    except Ends:
        raise Ends(form) from None


def _mib(text: str) -> int:
    found = _INT.match(text)
    if not found or abs(int(found[1])) >= 1 << 64:
        raise Ends("MiB")
    return int(found[1])


def _margins(text: str) -> str:
    return _list(text, _mib, "MiB, one number or one for each GPU")


def _shares(text: str) -> str:
    return _list(text, _real, "numbers, one for each GPU")


def _probabilities(text: str) -> str:
    for part in text.split(","):
        found = _FLOAT.match(part)
        if not found or found.end() != len(part):
            raise Ends("numbers with commas between them")
    return text


def _speculations(text: str) -> str:
    if not set(text.split(",")) <= set(SPECULATIONS):
        raise Ends("some of " + ", ".join(SPECULATIONS))
    return text


def _devices(text: str) -> str:
    """What names a device that is not there ends llama-server, too; only a host can tell."""
    names = text.split(",")
    if text != "none" and not all(map(_DEVICE.match, names)):
        raise Ends("none, or devices as llama-server --list-devices names them")
    return text


def _overrides(text: str) -> str:
    """`pattern=buffer type`, with commas between them; a pattern holds none."""
    for part in text.split(","):
        _pattern, equals, buffer_type = part.partition("=")
        if not equals or not (buffer_type == _OF_THE_HOST or _DEVICE.match(buffer_type)):
            raise Ends("tensor patterns with a buffer type each, such as ffn_.*=CPU")
    return text


# What becomes of a setting under Ollama, and what it does to GPU memory.
NOTHING, FLAG_WINS, PLANNED, NOT_PLANNED, SPOILS = "nothing", "flag wins", "planned", "not planned", "spoils"


class Arg(NamedTuple):
    """One setting of llama-server's: how it reads the value, and what that does under Ollama.

    `effect`: nothing to GPU memory; a `flag wins` that Ollama always gives; it is `planned`; it moves memory in a way
    that is `not planned`; or it `spoils` the server for Ollama, as `what` says. `negated`: there is a LLAMA_ARG_NO_*
    that switches it off, whatever its value.
    """

    read: Callable[[str], Value]
    effect: str = NOTHING
    what: str = ""
    shown: bool = True

    @property
    def negated(self) -> bool:
        return self.read is _switch


_EVERY_TOKEN = "results are kept of every token of a batch"
_DRAFTS = "speculative decoding keeps further results, and a draft model a further cache"
_ARGS: dict[str, Arg] = {
    "AGENT": Arg(_switch),
    "ALIAS": Arg(_any, shown=False),
    "API_KEY_FILE": Arg(_not_empty, SPOILS, "Ollama's own requests are refused", shown=False),
    "API_PREFIX": Arg(_any, SPOILS, "Ollama asks llama-server at other paths"),
    "BACKEND_SAMPLING": Arg(_flag, NOT_PLANNED, "sampling on the GPU has buffers of its own"),
    "BATCH": Arg(_whole, FLAG_WINS),
    "CACHE_IDLE_SLOTS": Arg(_switch),
    "CACHE_PROMPT": Arg(_switch),
    "CACHE_RAM": Arg(_whole),
    "CACHE_REUSE": Arg(_whole),
    "CACHE_TYPE_K": Arg(_one_of(*CACHE_TYPES), PLANNED, "type of the keys where OLLAMA_KV_CACHE_TYPE is not set"),
    "CACHE_TYPE_V": Arg(_one_of(*CACHE_TYPES), PLANNED, "type of the values where OLLAMA_KV_CACHE_TYPE is not set"),
    "CHAT_TEMPLATE": Arg(_any, shown=False),
    "CHAT_TEMPLATE_FILE": Arg(_not_empty, shown=False),
    "CHAT_TEMPLATE_KWARGS": Arg(_json, shown=False),
    "CHECKPOINT_MIN_SPACING_NT": Arg(_at_least(0)),
    "CONTEXT_SHIFT": Arg(_switch),
    "CONT_BATCHING": Arg(_switch),
    "CORS_CREDENTIALS": Arg(_switch),
    "CORS_HEADERS": Arg(_any, shown=False),
    "CORS_METHODS": Arg(_any, shown=False),
    "CORS_ORIGINS": Arg(_any, shown=False),
    "CPU_MOE": Arg(_flag, PLANNED, "experts stay on the CPU"),
    "CTX_CHECKPOINTS": Arg(_whole),
    "CTX_SIZE": Arg(_whole, FLAG_WINS),
    "DEFRAG_THOLD": Arg(_any),
    "DEVICE": Arg(_devices, PLANNED, "with none all is on the CPU; with a list of devices nothing is planned"),
    "DOCKER_REPO": Arg(_any, SPOILS, "llama-server looks for another model"),
    "DRAFT_MAX": Arg(_removed),
    "DRAFT_MIN": Arg(_removed),
    "EMBEDDINGS": Arg(_flag, PLANNED, _EVERY_TOKEN),
    "ENDPOINT_METRICS": Arg(_flag),
    "ENDPOINT_PROPS": Arg(_flag),
    "ENDPOINT_SLOTS": Arg(_switch),
    "FIT": Arg(_switch, PLANNED, "whether layers are fitted into free memory"),
    "FIT_CTX": Arg(_whole),
    "FIT_TARGET": Arg(_margins, PLANNED, "memory that fitting leaves free"),
    "FLASH_ATTN": Arg(_on_off_auto, FLAG_WINS),
    "FREQUENCY_PENALTY": Arg(_real),
    "HF_FILE": Arg(_any),
    "HF_REPO": Arg(_any, SPOILS, "llama-server looks for another model"),
    "HOST": Arg(_not_empty, FLAG_WINS),
    "IMAGE_MAX_TOKENS": Arg(_whole, NOT_PLANNED, "an image's tokens size the projector's graph"),
    "IMAGE_MIN_TOKENS": Arg(_whole, NOT_PLANNED, "an image's tokens size the projector's graph"),
    "JINJA": Arg(_switch),
    "KV_OFFLOAD": Arg(_switch, PLANNED, "whether the KV cache is on the GPU"),
    "KV_UNIFIED": Arg(_switch, PLANNED, "all slots share one cache"),
    "KV_UNIFIED_PER_SLOT": Arg(_whole),
    "LAZY_MODE": Arg(_one_of("on", "off", "auto")),
    "LOAD_MODE": Arg(_one_of("auto", "none", "mmap", "mlock", "mmap+mlock", "dio")),
    "LOG_COLORS": Arg(_on_off_auto),
    "LOG_FILE": Arg(_any),
    "LOG_JSONL": Arg(_switch, SPOILS, "nobody reads such lines, so that no layer is proven"),
    "LOG_PREFIX": Arg(_switch, FLAG_WINS),
    "LOG_TIMESTAMPS": Arg(_switch, FLAG_WINS),
    "LOG_VERBOSITY": Arg(_whole, FLAG_WINS),
    "MAIN_GPU": Arg(_whole, PLANNED, "the GPU of an undivided model; with any but the first nothing is planned"),
    "MCP_SERVERS_CONFIG": Arg(_any, shown=False),
    "MCP_SERVERS_JSON": Arg(_any, shown=False),
    "MIN_P": Arg(_real),
    "MMPROJ": Arg(_any, NOT_PLANNED, "a projector that Ollama does not know of"),
    "MMPROJ_AUTO": Arg(_switch),
    "MMPROJ_OFFLOAD": Arg(_switch, PLANNED, "whether a projector is on the GPU; with it off nothing is planned"),
    "MMPROJ_URL": Arg(_any, NOT_PLANNED, "a projector that Ollama does not know of", shown=False),
    "MODEL": Arg(_any, FLAG_WINS),
    "MODELS_AUTOLOAD": Arg(_switch),
    "MODELS_DIR": Arg(_any),
    "MODELS_MAX": Arg(_whole),
    "MODELS_PRESET": Arg(_any),
    "MODEL_URL": Arg(_any, shown=False),
    "MOE_CACHE_MIB": Arg(_at_least(0), NOT_PLANNED, "a cache on the GPU for experts of the CPU"),
    "MTMD_BATCH_MAX_TOKENS": Arg(_whole, NOT_PLANNED, "an image's tokens size the projector's graph"),
    "NO_HOST": Arg(_flag),
    "NUMA": Arg(_one_of("", "distribute", "isolate", "numactl")),
    "N_CPU_FFN": Arg(_at_least(0), PLANNED, "dense feed-forward weights of so many layers stay on the CPU"),
    "N_CPU_MOE": Arg(_at_least(0), PLANNED, "experts of so many layers stay on the CPU"),
    "N_GPU_LAYERS": Arg(_layers, PLANNED, "layers of every model; switches fitting off"),
    "N_GPU_LAYERS_DRAFT": Arg(_layers, NOT_PLANNED, "layers of a draft model"),
    "N_PARALLEL": Arg(_not_zero, FLAG_WINS),
    "N_PREDICT": Arg(_whole),
    "OFFLINE": Arg(_flag),
    "OVERRIDE_TENSOR": Arg(_overrides, PLANNED, "where tensors are, by their names"),
    "PERF": Arg(_switch),
    "POOLING": Arg(_one_of("none", "mean", "cls", "last", "rank"), PLANNED, _EVERY_TOKEN),
    "PORT": Arg(_whole, FLAG_WINS),
    "PREFILL_ASSISTANT": Arg(_switch),
    "PRESENCE_PENALTY": Arg(_real),
    "REASONING": Arg(_on_off_auto),
    "REASONING_EFFORT": Arg(_any),
    "REASONING_PRESERVE": Arg(_switch),
    "REPACK": Arg(_switch),
    "REPEAT_PENALTY": Arg(_positive),
    "RERANKING": Arg(_flag, NOT_PLANNED, _EVERY_TOKEN),
    "REUSE_PORT": Arg(_flag),
    "ROPE_FREQ_BASE": Arg(_real),
    "ROPE_FREQ_SCALE": Arg(_real),
    "ROPE_SCALE": Arg(_real),
    "ROPE_SCALING_TYPE": Arg(_one_of("none", "linear", "yarn")),
    "RPC": Arg(_address, NOT_PLANNED, "other machines take layers, and must answer"),
    "SKIP_CHAT_PARSING": Arg(_switch),
    "SLOT_SAVE_PATH": Arg(_not_empty, shown=False),
    "SPEC_DRAFT_BACKEND_SAMPLING": Arg(_switch),
    "SPEC_DRAFT_CACHE_TYPE_K": Arg(_one_of(*CACHE_TYPES), NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_CACHE_TYPE_V": Arg(_one_of(*CACHE_TYPES), NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_CPU_MOE": Arg(_flag, NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_HF_REPO": Arg(_any, NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_MODEL": Arg(_any, NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_N_CPU_MOE": Arg(_at_least(0), NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_N_MAX": Arg(_at_least(0), NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_N_MIN": Arg(_whole),
    "SPEC_DRAFT_N_UBATCH": Arg(_at_least(0), NOT_PLANNED, _DRAFTS),
    "SPEC_DRAFT_P_MIN": Arg(_real),
    "SPEC_DRAFT_P_SPLIT": Arg(_real),
    "SPEC_DRAFT_SAMPLING": Arg(_one_of("greedy", "probabilistic")),
    "SPEC_SYNTH_LEN": Arg(_length),
    "SPEC_SYNTH_RATES": Arg(_probabilities),
    "SPEC_TYPE": Arg(_speculations, NOT_PLANNED, _DRAFTS),
    "SPLIT_MODE": Arg(_one_of("none", "layer", "row", "tensor"), PLANNED, "how a model is split over GPUs"),
    "SSE_PING_INTERVAL": Arg(_whole),
    "SSL_CERT_FILE": Arg(_any, SPOILS, "Ollama asks llama-server without TLS"),
    "SSL_KEY_FILE": Arg(_any, SPOILS, "Ollama asks llama-server without TLS"),
    "STATIC_PATH": Arg(_any),
    "SWA_FULL": Arg(_flag, PLANNED, "sliding windows have a cache of the whole context"),
    "TAGS": Arg(_any, shown=False),
    "TEMPERATURE": Arg(_real),
    "TENSOR_SPLIT": Arg(_shares, PLANNED, "shares of the GPUs; with it nothing is planned"),
    "THINK": Arg(_one_of("none", "auto", "deepseek", "deepseek-legacy")),
    "THINK_BUDGET": Arg(_at_least(-1)),
    "THINK_BUDGET_MESSAGE": Arg(_any, shown=False),
    "THREADS": Arg(_whole),
    "THREADS_HTTP": Arg(_whole),
    "TIMEOUT": Arg(_whole),
    "TOOLS": Arg(_any),
    "TOOLS_RUNTIME": Arg(_any, shown=False),
    "TOP_K": Arg(_whole),
    "TOP_P": Arg(_real),
    "UBATCH": Arg(_whole, FLAG_WINS),
    "UI": Arg(_switch, FLAG_WINS),
    "UI_CONFIG": Arg(_any, shown=False),
    "UI_CONFIG_FILE": Arg(_not_empty, shown=False),
    "UI_MCP_PROXY": Arg(_switch),
    "VIDEO_FFMPEG_DIR": Arg(_any),
    "VIDEO_FPS": Arg(_real),
    "VIDEO_TIMESTAMP_INTERVAL": Arg(_whole),
    "YARN_ATTN_FACTOR": Arg(_real),
    "YARN_BETA_FAST": Arg(_real),
    "YARN_BETA_SLOW": Arg(_real),
    "YARN_EXT_FACTOR": Arg(_real),
    "YARN_ORIG_CTX": Arg(_whole),
}
ARGS: dict[str, Arg] = {f"{PREFIX}{name}": arg for name, arg in _ARGS.items()}
NAMES = frozenset(
    {name for name, arg in ARGS.items() if arg.shown}
    | {name.replace(PREFIX, NEGATED) for name, arg in ARGS.items() if arg.negated and arg.shown}
)


def of(name: str) -> tuple[str, Arg] | None:
    """The setting that a variable is of, by its own name, and its row; None where llama-server reads no such one."""
    if name in ARGS:
        return name, ARGS[name]
    plain = name.replace(NEGATED, PREFIX, 1)
    return (plain, ARGS[plain]) if name.startswith(NEGATED) and plain in ARGS and ARGS[plain].negated else None


def taken(name: str, value: str) -> Value:
    """What llama-server makes of a variable. Raises Ends where it does not start with it; `name` is one of its own."""
    found = of(name)
    if found is None:
        raise KeyError(name)
    plain, arg = found
    return arg.read(value) if plain == name else False


def read(environment: Mapping[str, str]) -> dict[str, Value]:
    """What llama-server takes from an environment, by its settings' own names. Raises Ends with the variable's name.

    A LLAMA_ARG_NO_* wins over its counterpart.
    """
    values: dict[str, Value] = {}
    for name, arg in ARGS.items():
        negated = name.replace(PREFIX, NEGATED, 1)
        if arg.negated and negated in environment:
            values[name] = False
        elif name in environment:
            try:
                values[name] = arg.read(environment[name])
            except Ends as allowed:
                raise Ends(f"{name}={environment[name]}: llama-server takes {allowed}") from None
    return values
