"""Who may import whom: two sides that never meet, on one core that does nothing but compute."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import tool_parts

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
OURS = "ansible_collections.selo.gpu_memory.plugins."
CORE, HOST, CONTROLLER, GLUE = "module_utils.core", "module_utils.host", "plugin_utils", "plugin_utils.glue"
CONTRACT = "plugin_utils.contract"
# The floor of a file -> the floors that it may import. The longest name that fits counts.
MAY_IMPORT = {
    CORE: {CORE},
    HOST: {CORE, HOST},
    CONTRACT: {CONTRACT},
    CONTROLLER: {CORE, CONTRACT, CONTROLLER},
    GLUE: {CORE, CONTRACT, CONTROLLER, GLUE},
    "modules": {CORE, HOST},
    **dict.fromkeys(("action", "lookup", "filter"), {CORE, CONTRACT, CONTROLLER, GLUE}),
    "doc_fragments": set(),
}
# Who may have the types too, but below `if TYPE_CHECKING`: Ansible sends no host what stands outside of module_utils.
TYPED = {CORE, HOST, "modules"}
# What is pure has no files, sockets, processes or clock.
PURE = {CORE, CONTRACT, CONTROLLER}
EFFECTS = {"fcntl", "http", "os", "select", "shutil", "signal", "socket", "subprocess", "tempfile", "time"}


def floor(module: str) -> str:
    """Of a module below plugins/, such as `module_utils.core.gpus`."""
    return max((name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")), key=len)


def imported(source: str) -> Iterator[tuple[str, bool]]:
    """The names, and whether they are there for type checkers alone."""
    tree = ast.parse(source)
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing = {inner for guard in guards for part in guard.body for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", node in typing) for alias in node.names)


def crossings(module: str, source: str) -> list[str]:
    """What a module imports and must not."""
    here = floor(module)
    found = []
    for name, for_types in imported(source):
        if name.startswith(OURS):
            may = MAY_IMPORT[here] | ({CONTRACT} if for_types and here in TYPED else set())
            found += [name] if floor(name[len(OURS) :]) not in may else []
        elif here in PURE and name.partition(".")[0] in EFFECTS:
            found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_every_file_imports_only_what_its_floor_may(path: Path) -> None:
    module = ".".join(path.relative_to(PLUGINS).with_suffix("").parts)
    assert crossings(module, path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("module_utils.core.gpus", f"from {OURS}module_utils.host.port import commands"),
        ("module_utils.core.gpus", f"from {OURS}plugin_utils.plan import prediction"),
        ("module_utils.core.gpus", f"from {OURS}plugin_utils.contract import facts"),
        ("module_utils.host.keep.state", f"from {OURS}plugin_utils.contract.kept import State"),
        ("plugin_utils.contract.facts", f"from {OURS}module_utils.core import gpus"),
        ("module_utils.core.gpus", "import os.path"),
        ("module_utils.core.text.utc", "from time import time"),
        ("module_utils.host.keep.state", f"from {OURS}plugin_utils.judge import verdicts"),
        ("plugin_utils.judge.verdicts", f"from {OURS}module_utils.host.keep import state"),
        ("plugin_utils.judge.verdicts", f"from {OURS}plugin_utils.glue import controller"),
        ("plugin_utils.judge.verdicts", "import subprocess"),
        ("plugin_utils.glue.controller", f"from {OURS}module_utils.host.keep.state import Paths"),
        ("modules.gpu_memory_info", f"from {OURS}plugin_utils.decide import decisions"),
        ("action.gpu_memory_judge", f"from {OURS}module_utils.host.keep import state"),
    ],
)
def test_an_import_that_crosses_is_found(module: str, imports: str) -> None:
    assert len(crossings(module, f"def later():\n    {imports}\n")) == 1


@pytest.mark.parametrize(("of", "found"), [("contract.facts", 0), ("judge.verdicts", 1)])
def test_types_alone_may_cross(of: str, found: int) -> None:
    source = f"if TYPE_CHECKING:\n    from {OURS}plugin_utils.{of} import Nvml\n"
    assert len(crossings("module_utils.host.keep.state", source)) == found


def sent_with(name: str) -> set[str]:
    """What Ansible sends of the collection along with a part of it: what that imports, and so on."""
    seen, waiting = set(), [name]
    while waiting:
        part = waiting.pop()
        path = PLUGINS.joinpath(*part.split(".")).with_suffix(".py")
        if part in seen or not path.is_file():
            continue
        seen.add(part)
        named = (
            one[len(OURS) :] for one, for_types in imported(path.read_text()) if one.startswith(OURS) and not for_types
        )
        waiting += [each for one in named for each in (one, one.rpartition(".")[0])]
    return seen


def test_whatever_module_makes_the_host_tool_has_all_of_it() -> None:
    """Its parts are taken from what was sent."""
    parts = {f"module_utils.{name}" for name in tool_parts.PACKED}
    modules = [sent_with(f"modules.{path.stem}") for path in (PLUGINS / "modules").glob("*.py")]
    makers = [sent for sent in modules if "module_utils.host.keep.host_tool" in sent]
    assert len(makers) > 1
    assert [parts - sent for sent in makers if parts - sent] == []


# So that each can be read at a time. Decorators do not count.
MOST_LINES = {ast.FunctionDef: 60, ast.AsyncFunctionDef: 60, ast.ClassDef: 300}


def too_long(source: str) -> list[str]:
    """The functions and classes of more lines than they may have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            lines = (node.end_lineno or 0) - node.lineno + 1
            found += [f"{node.name}: {lines} lines"] if lines > MOST_LINES[type(node)] else []
    return found


def test_no_function_and_no_class_is_too_long() -> None:
    found = {str(path.relative_to(PLUGINS)): too_long(path.read_text()) for path in sorted(PLUGINS.rglob("*.py"))}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(("head", "most"), [("def f():", 60), ("async def f():", 60), ("class f:", 300)])
def test_one_line_too_many_is_found(head: str, most: int) -> None:
    assert too_long(head + "\n    x = 1" * (most - 1)) == []
    assert too_long(head + "\n    x = 1" * most) == [f"f: {most + 1} lines"]


# What Ansible's classes and answers of others are; our own data has types.
MOST_OF_ANY = 99


def takes_any(source: str) -> int:
    """How many functions have Any in their signature."""
    signatures = (
        [node.returns, *(each.annotation for each in ast.walk(node.args) if isinstance(each, ast.arg))]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    return sum(
        any(isinstance(name, ast.Name) and name.id == "Any" for part in parts if part for name in ast.walk(part))
        for parts in signatures
    )


def test_few_functions_take_anything() -> None:
    assert sum(takes_any(path.read_text()) for path in PLUGINS.rglob("*.py")) <= MOST_OF_ANY


def test_any_is_found_in_a_signature_alone() -> None:
    assert takes_any("def f(a: list[Any], *b: Any) -> int:\n    c: Any = 1") == 1
    assert takes_any("async def f() -> Any: ...") == 1
    assert takes_any("def f(a: int) -> str:\n    c: Any = 1") == 0
