"""What differs from release to release of Ollama: one row a series. Nothing else asks for a version."""

from __future__ import annotations

import dataclasses

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclasses.dataclass(frozen=True)
class Release:
    # Total GPU memory in bytes, at least, and the context length a model then gets if nobody says anything.
    default_context: tuple[tuple[int, int], ...]
    # Total context (num_ctx x num_parallel), above which the automatic batch is this large.
    automatic_batch: tuple[tuple[int, int], ...]
    # Variables shown in the "server config" line besides those that every release shows.
    more_settings: tuple[str, ...]


RELEASES = {
    "0.32": Release(
        default_context=((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096)),
        automatic_batch=((32768, 2048), (4096, 1024), (0, 512)),
        more_settings=("LLAMA_ARG_FIT", "LLAMA_ARG_FIT_TARGET"),
    ),
}


def release_of(version: str) -> Release:
    """The row for a version such as 0.32.15."""
    series = ".".join(version.split(".")[:2])
    if series not in RELEASES:
        raise SystemExit(f"the lab's Ollama knows {', '.join(RELEASES)}, not LAB_OLLAMA_VERSION={version}")
    return RELEASES[series]
