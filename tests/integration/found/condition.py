"""One row of the table of found hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KNOWN_FROM = r"[\w.-]+/[\w.-]+#\d+|https://\S+"


@dataclass(frozen=True)
class Found:
    """`prepare` runs as root, with bash, on a fresh host as Ollama's install script leaves it; then an apply is tried.

    It must end with `verdict` (`a|b`: with one of them; None: the playbook makes no verdict). Each of `says` stands in
    the reason; where the verdict is `pass` or None, in what the run prints or in the record's notes. A refusal says two
    things at least: the cause and the cure. None of `hidden` stands in any output or file of the run.
    `known_from`: where the condition is publicly known from, an issue (`ollama/ollama#4530`) or a page's address.
    `backend`: what the host has besides Ollama, `none` or a stand-in of the lab; `suite`: its Debian. `short`: one
    of those that `script/test` tries.
    """

    name: str
    prepare: str
    verdict: str | None
    says: tuple[str, ...]
    known_from: str
    backend: str = "none"
    suite: str = "bookworm"
    variables: Mapping[str, Any] = field(default_factory=dict)
    playbook: str = "apply-stable.yml"
    arguments: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    short: bool = False
