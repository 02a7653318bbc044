"""The tables of docs/settings.md are those of the data: `UPDATE=1 pytest` on this file writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args, settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
FORMS = {
    "num_parallel": "the number",
    "max_loaded_models": "the number",
    "num_ctx": "the number, for requests that carry none",
    "kv_cache_type": {
        "OLLAMA_FLASH_ATTENTION": "true for a quantised one, which needs it",
        "OLLAMA_KV_CACHE_TYPE": "the type",
    },
    "margin_mib": {"OLLAMA_GPU_OVERHEAD": "bytes, the largest of all GPUs", "LLAMA_ARG_FIT_TARGET": "MiB for each GPU"},
}


def dotted(version: tuple[int, int, int]) -> str:
    return "0.24" if version in ((0, 24, 999), (0, 29, 999)) else ".".join(map(str, version))


def span(first: tuple[int, int, int], last: tuple[int, int, int]) -> str:
    return f"since {dotted(first)}" if last == settings.NEWEST else f"{dotted(first)} to {dotted(last)}"


def intents() -> Iterable[str]:
    for row in settings.OLLAMA_READS:
        form = FORMS[row.intent]
        form = form if isinstance(form, str) else form[row.variable]
        name = "the margin" if row.intent == "margin_mib" else f"`{row.intent}`"
        yield f"| {name} | {span(row.first, row.last)} | `{row.variable}`: {form} |"


def variables() -> Iterable[str]:
    for row in settings.VARIABLES:
        invalid = "" if row.form == settings.TEXT else row.invalid
        yield f"| `{row.name}` | {span(row.first, row.last)} | {row.form} | {row.what} | {invalid} |"


def llama_server() -> Iterable[str]:
    """Those that matter row by row, the others by what becomes of them."""
    others: dict[str, list[str]] = {llama_args.FLAG_WINS: [], llama_args.NOTHING: []}
    for name, arg in llama_args.ARGS.items():
        if arg.effect in others:
            others[arg.effect] += [f"`{name}`"] * arg.shown
        else:
            yield f"| `{name}` | {arg.effect} | {arg.what} |"
    yield f"| {', '.join(others[llama_args.FLAG_WINS])} | flag wins | Ollama always gives the flag itself |"
    yield f"| {', '.join(others[llama_args.NOTHING])} | nothing | nothing to GPU memory |"


def nobody() -> Iterable[str]:
    for name, why in settings.NOBODY_READS.items():
        yield f"| `{name}` | {why} | {settings.CURES[name]} |"


def with_tables(text: str) -> str:
    """The page with the rows after each mark as the data has them."""
    tables = {"intents": intents(), "variables": variables(), "llama-server": llama_server(), "nobody": nobody()}
    for mark, rows in tables.items():
        names = "the margin|`(?:num_parallel|max_loaded_models|num_ctx|kv_cache_type)`" if mark == "intents" else "`"
        found = re.compile(rf"(?:\| (?:{names})[^\n]*\n)*<!-- {mark} -->\n")
        assert found.search(text), f"docs/settings.md has no mark {mark}"
        text = found.sub(
            lambda _unused, rows=rows, mark=mark: "\n".join([*rows, f"<!-- {mark} -->", ""]), text, count=1
        )
    return text


def test_the_page_has_the_tables_of_the_data() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE"):
        PAGE.write_text(with_tables(text), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == with_tables(text)


def test_every_variable_that_may_be_shown_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    negations = {name for name in llama_args.NAMES if name not in llama_args.ARGS}
    assert not [name for name in settings.SHOWN - negations - {"PYTORCH_CUDA_ALLOC_CONF"} if f"`{name}`" not in text]
