"""Facts that many need stand in one file each: nobody else writes them down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
CORE = PLUGINS / "module_utils" / "core"
ENDPOINT, DROP_IN, RELEASE = "a path of Ollama's API", "the name of our drop-in", "a release of Ollama"
PLACES = {
    ENDPOINT: CORE / "ollama" / "endpoints.py",
    DROP_IN: CORE / "systemd" / "unit_text.py",
    RELEASE: CORE / "ollama" / "settings.py",
}
NO_RELEASE = {(0, 1, 2), (0, 0, 0)}  # the standard streams; three sums that begin


def facts(source: str) -> Iterator[tuple[str, int]]:
    """Which of these facts a source writes down as a value, and in which line; in a text that documents one it may."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith("/api/"):
                yield ENDPOINT, node.lineno
            if node.value.rpartition("/")[2] == unit_text.DROP_IN:
                yield DROP_IN, node.lineno
        elif isinstance(node, ast.Tuple) and len(node.elts) == 3 and isinstance(node.ctx, ast.Load):
            numbers = tuple(part.value for part in node.elts if isinstance(part, ast.Constant))
            if len(numbers) == 3 and numbers[0] == 0 and all(type(number) is int for number in numbers):
                yield from [(RELEASE, node.lineno)] if numbers not in NO_RELEASE else []


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_a_fact_stands_where_it_belongs(path: Path) -> None:
    found = [(fact, line) for fact, line in facts(path.read_text()) if PLACES[fact] != path]
    assert found == []


@pytest.mark.parametrize(
    ("planted", "fact"),
    [
        ('http_client.get_json(f"{url}/api/ps")', ENDPOINT),
        ('SHOW = "/api/show"', ENDPOINT),
        ('"default": "zz-gpu-memory.conf"', DROP_IN),
        ("if version < (0, 30, 0): pass", RELEASE),
    ],
)
def test_one_that_is_written_down_again_is_found(planted: str, fact: str) -> None:
    source = f"options = {{{planted}}}" if planted.startswith('"') else planted
    assert [found for found, _line in facts(source)] == [fact]


def test_the_role_for_ollama_alone_names_the_same_drop_in() -> None:
    role = ROOT / "roles" / "ollama"
    assert yaml.safe_load((role / "defaults" / "main.yml").read_text())["ollama_drop_in"] == unit_text.DROP_IN
    assert f"ollama_drop_in == '{unit_text.DROP_IN}'" in (role / "tasks" / "main.yml").read_text()
