"""What reads texts of others takes time that grows with their length and no faster; counted, not timed."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "plugins" / "module_utils" / "core"
MODULES = {".".join(path.relative_to(CORE).with_suffix("").parts): path for path in sorted(CORE.rglob("*.py"))}
SRE = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
FROM_ONE_PLACE = {"match", "fullmatch"}
MATCHES = {"_match": "match", "_end": "match"}  # of dotenv_readers
SEARCHES = ("re.search", "re.sub", "re.split", "re.findall", "re.finditer")
# Expressions that are searched for and have a repeat that may fail at its end, with why that is not done again and
# again: what begins one anew ends the repeat before it, or it is searched for only where it succeeds.
REVIEWED = {
    "containers._NAMED": "of a path of 4096 characters at most; a slash ends the repeat",
    "ollama.log_lines.ATTRIBUTE": "the quote that begins one ends the one before",
    "ollama.log_lines.CONFIG_ITEM": "of names with a colon, each of which ends the item before",
    "ollama.log_lines.START": "the quote that begins one ends the one before",
    "ollama.log_lines.SENT": "each of at most 2000 characters",
    "ollama.log_lines.BUFFER": "blanks only, between two words",
    "ollama.log_lines.LAYOUT": "the quote that begins one ends the one before",
    "ollama.model_use.CLOUD_TAG": "the colon that begins one ends the one before",
    "ollama.modelfile._OF_MEMORY": "blanks only, in one line",
    "ollama.modelfile._AS_TEXT": "blanks only, in one line",
    "ollama.servers._UNIT": "a slash ends the repeat",
    "ollama.servers._USER": "digits only, behind a slash",
    "ollama.servers._SESSION": "a slash ends the repeat",
    "systemd.start_script._TOKEN": "a quote that is not closed is the last one of its kind",
    "systemd.start_script._TESTED": "blanks only, behind an option",
    "systemd.unit_text._SHOW_WORD": "a quote that is not closed is the last one",
    "systemd.start_script.<[ \\t]*(/[^\\s;\\\"'()|&<>]+)": "blanks only, behind a <",
    "text.dotenv_readers._PD_COMMENT": "blanks only, from the first of them",
    "text.dotenv_readers._PD_INTERPOLATION": "the ${ that begins one ends the one before",
    "text.dotenv_readers._DL_VARIABLE": "the $ that begins one ends the one before",
    "text.masking._USER_OF_URL": "an @ is known to follow, or a slash ends the repeat",
    "text.masking._QUOTED": "a quote that is not closed is the last one of its line",
    "text.masking._ASSIGNED": "a quote that is not closed is the last one of its line",
}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"ansible_collections.selo.gpu_memory.plugins.module_utils.core.{name}")


def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_of_parsers", ROOT / "bench" / "parsers.py")
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


BENCH = bench()


# Expressions ----------------------------------------------------------------------------------------------------------


def patterns_in(value: object) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, dict):
        yield from patterns_in(list(value.values()))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from patterns_in(each)


def all_patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Every compiled expression of core by its name there, and those that are written where they are used."""
    for name, path in MODULES.items():
        for variable, value in vars(module(name)).items():
            yield from ((f"{name}.{variable}", pattern) for pattern in patterns_in(value))
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in SEARCHES
                and isinstance(node.args[0], ast.Constant)
            ):
                expression = str(node.args[0].value)
                yield f"{name}.{expression}", re.compile(expression)


TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


@functools.cache
def uses() -> dict[tuple[str, str], set[str]]:
    """By module and what stands there: what is taken of it, or it is handed to first."""
    found: dict[tuple[str, str], set[str]] = {}
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                of, use = node.value, node.attr
            elif isinstance(node, ast.Call) and node.args:
                of, use = node.args[0], MATCHES.get(ast.unparse(node.func), ast.unparse(node.func))
            else:
                continue
            found.setdefault((name, ast.unparse(of).partition("[")[0]), set()).add(use)
    return found


def methods_of(pattern: str) -> set[str]:
    """What is called of a compiled expression, by itself or through the two functions that match from one place."""
    home, _dot, variable = pattern.rpartition(".")
    elsewhere = f"{home.rpartition('.')[2]}.{variable}"
    return set().union(*(uses().get((name, variable if name == home else elsewhere), set()) for name in TREES))


def in_vain(pattern: Any, more: bool = False) -> Iterator[str]:
    """Repeats without a bound that can run to the end of a text, fail there, and be tried again a character further.

    `more`: more must follow the whole.
    """
    items = list(pattern)
    for at, (kind, what) in enumerate(items):
        kind = str(kind)
        optional = (str(one[0]) == "AT" or str(one[0]) == "MAX_REPEAT" and one[1][0] == 0 for one in items[at + 1 :])
        needed = more or not all(optional)
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            if what[1] == SRE.MAXREPEAT and needed:
                yield str(what[2])
            yield from in_vain(what[2], needed)
        elif kind == "SUBPATTERN":
            yield from in_vain(what[-1], needed)
        elif kind == "BRANCH":
            for branch in what[1]:
                yield from in_vain(branch, needed)


def fault(pattern: re.Pattern[str]) -> str | None:
    """Why an expression that is searched for may take more than linear time."""
    parsed = list(SRE.parse(pattern.pattern, pattern.flags))
    if list(in_vain(parsed)):
        return "a repeat may run to the end of a text in vain"
    looks_ahead = [what for kind, what in parsed if str(kind) == "ASSERT" and what[0] > 0]
    behind = any(str(kind) in ("ASSERT", "ASSERT_NOT") and what[0] < 0 for kind, what in parsed)
    if any("MAXREPEAT" in str(what) for what in looks_ahead) and not behind:
        return "it may begin anywhere in a word"
    return None


FAULTS = {name: fault(pattern) for name, pattern in all_patterns() if fault(pattern)}


@pytest.mark.parametrize("name", FAULTS)
def test_an_expression_that_may_fail_after_a_long_repeat_is_tried_from_one_place_or_was_reviewed(name: str) -> None:
    methods = methods_of(name)
    assert name in REVIEWED or methods and methods <= FROM_ONE_PLACE, f"{FAULTS[name]}; called are {methods}"


def test_no_review_is_of_what_is_gone() -> None:
    assert set(REVIEWED) - set(FAULTS) == set()


@pytest.mark.parametrize(
    "expression",
    [r"[\w.-]*(?:token)[\w.-]*=x", r"\b[a-z]*://", r"(?:a+b)+c", r"(://[^?]*\?)x+", r"([\w.-]+)=", r"(?=([\w-]+))\1:"],
)
def test_the_rule_for_linear_time_finds_what_is_not(expression: str) -> None:
    assert fault(re.compile(expression))


# Parsers --------------------------------------------------------------------------------------------------------------

# The first argument of what reads a text of others, by its name.
TAKES = {
    "text", "texts", "line", "lines", "row", "words", "command", "exec_start", "executed", "table", "variables",
    "value", "shown",
}  # fmt: skip
OURS = {  # texts that this collection has made itself
    "prompt_texts.text", "prompt_texts.told_apart", "modelfile.problems", "modelfile.notes", "model_use.embeds_only",
    "model_use.trained_context", "modelfile.parameters", "dotenv.canonical", "servers.listening_at",
}  # fmt: skip


def parsers() -> Iterator[str]:
    for name, path in MODULES.items():
        package, _dot, short = name.rpartition(".")
        functions = ast.parse(path.read_text()).body if package in ("text", "systemd", "ollama") else []
        for node in functions:
            if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or not node.args.args:
                continue
            if node.args.args[0].arg in TAKES and f"{short}.{node.name}" not in OURS:
                yield f"{short}.{node.name}"


@pytest.mark.parametrize("parser", list(parsers()))
def test_a_parser_is_in_the_bench(parser: str) -> None:
    assert parser in {name.partition(" ")[0] for name in BENCH.PARSERS}


def steps(parser: Callable[[str], object], text: str) -> int:
    """How many functions are called for a text, those of C as well."""
    count = 0

    def called(_frame: object, event: str, _about: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        BENCH.took(parser, text)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", BENCH.PARSERS)
def test_four_times_the_text_takes_four_times_the_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BENCH, "KNOWN", frozenset({"one secret", "8347", "another"}))
    parser = BENCH.PARSERS[name]
    for piece in BENCH.PIECES:
        few, many = (steps(parser, BENCH.text_of(piece, length)) for length in (256, 1024))
        assert many <= 5 * few + 100, f"{piece!r}: {few} steps, then {many}"


def test_more_steps_than_that_are_found() -> None:
    def slow(text: str) -> None:
        for at in range(0, len(text), 16):
            for _unused in text[at::16]:
                len(text)

    assert steps(slow, "a" * 2048) > 5 * steps(slow, "a" * 512) + 100
