"""What differs from release to release of Ollama: one row a series. Nothing else asks for a version."""

from __future__ import annotations

import dataclasses

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclasses.dataclass(frozen=True)
class Release:
    # Who runs a model: "llama-server" (llama.cpp's own program), or "runner" (`ollama runner`).
    engine: str
    # Total GPU memory in bytes, at least, and the context length a model then gets if nobody says anything.
    default_context: tuple[tuple[int, int], ...]
    # Total context (num_ctx x num_parallel), above which the automatic batch is this large; none: always 512.
    automatic_batch: tuple[tuple[int, int], ...]
    # Whether /api/tags says what a model can do, how long its context is and whom it was made of; /api/show then names
    # what it does not find with its tag.
    tags_tell_more: bool
    # Variables shown in the "server config" line besides those that every release shows: text, and switches with their
    # defaults.
    more_settings: tuple[str, ...]
    more_switches: tuple[tuple[str, bool], ...]
    # Where this release says what 0.32.15 says at another line.
    sources: tuple[tuple[str, str], ...] = ()


CONTEXT_BY_MEMORY = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))
RELEASES = {
    "0.24": Release(
        engine="runner",
        default_context=CONTEXT_BY_MEMORY,
        automatic_batch=(),
        tags_tell_more=False,
        more_settings=(),
        more_switches=(("OLLAMA_MULTIUSER_CACHE", False), ("OLLAMA_NEW_ENGINE", False), ("OLLAMA_VULKAN", False)),
        sources=(
            ("routes.go:1951", "routes.go:1802"), ("routes.go:1953", "routes.go:1804"),
            ("routes.go:2008", "routes.go:1864"), ("routes.go:2058", "routes.go:1914"),
            ("types.go:1007", "types.go:992"), ("types.go:32", "types.go:42"), ("types.go:50", "types.go:60"),
            ("sched.go:620", "sched.go:491"), ("sched.go:641", "sched.go:511"), ("sched.go:728", "sched.go:561"),
            ("server.go:114", "server.go:169"),
        ),
    ),
    "0.32": Release(
        engine="llama-server",
        default_context=CONTEXT_BY_MEMORY,
        automatic_batch=((32768, 2048), (4096, 1024), (0, 512)),
        tags_tell_more=True,
        more_settings=("LLAMA_ARG_FIT", "LLAMA_ARG_FIT_TARGET", "OLLAMA_IGPU_ENABLE"),
        more_switches=(("OLLAMA_GO_TEMPLATE", True), ("OLLAMA_VULKAN", True)),
    ),
}  # fmt: skip


def release_of(version: str) -> Release:
    """The row for a version such as 0.32.15."""
    series = ".".join(version.split(".")[:2])
    if series not in RELEASES:
        raise SystemExit(f"the lab's Ollama knows {', '.join(RELEASES)}, not LAB_OLLAMA_VERSION={version}")
    return RELEASES[series]
