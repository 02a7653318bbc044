"""Every module, plugin and file of module_utils has a unit test at its own path, or one that is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
KINDS = ("action", "filter", "lookup", "modules", "module_utils", "plugin_utils")
COVERAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]["run"]
FILES = sorted(
    path.relative_to(ROOT)
    for kind in KINDS
    for path in (ROOT / "plugins" / kind).rglob("*.py")
    if path.name != "__init__.py"
)

# Parts of something that is tested as a whole: the file, and the test.
ELSEWHERE = {
    "plugins/lookup/waves.py": "plugins/lookup/test_fleet.py",
    "plugins/module_utils/_architectures.py": "plugins/module_utils/test_planner.py",
    "plugins/module_utils/_compute.py": "plugins/module_utils/test_planner.py",
    "plugins/module_utils/_graph.py": "plugins/module_utils/test_planner.py",
    "plugins/module_utils/_lease.py": "plugins/module_utils/test_state.py",
    "plugins/module_utils/_model.py": "plugins/module_utils/test_planner.py",
    "plugins/module_utils/_ollama_api.py": "plugins/modules/test_ollama_model.py",
    "plugins/module_utils/_progress.py": "plugins/module_utils/test_state.py",
    "plugins/module_utils/_restore_timer.py": "plugins/module_utils/test_generation.py",
    "plugins/module_utils/_text.py": "plugins/module_utils/test_report.py",
    "plugins/module_utils/_tune_svg.py": "plugins/module_utils/test_tune_text.py",
    "plugins/plugin_utils/_chart.py": "plugins/plugin_utils/test_page.py",
    "plugins/plugin_utils/_controller.py": "plugins/test_controller.py",
    "plugins/plugin_utils/_fleet.py": "plugins/plugin_utils/test_fleet_hosts.py",
}


def of_its_own(path: Path) -> Path:
    return UNIT / path.parent / f"test_{path.stem.lstrip('_')}.py"


def place_of_test(path: Path) -> Path:
    """Where the test of a file must be."""
    if str(path) in ELSEWHERE:
        return UNIT / ELSEWHERE[str(path)]
    source = (ROOT / path).read_text()
    if path.parts[1] == "modules" and not re.search(r"^def main\(", source, re.M):
        return of_its_own(Path("plugins", "action", path.name))  # the module is that plugin's documentation
    if path.parts[1] == "action" and "class ActionModule" not in source:
        return UNIT / "plugins" / "plugin_utils" / "test_on_host.py"
    return of_its_own(path)


@pytest.mark.parametrize("path", [path for path in FILES if str(path) not in COVERAGE["omit"]], ids=str)
def test_every_file_has_a_unit_test(path: Path) -> None:
    assert place_of_test(path).is_file(), f"write {place_of_test(path).relative_to(ROOT)}"


def test_what_stands_elsewhere_is_there_and_has_no_test_of_its_own() -> None:
    assert [path for path in ELSEWHERE if not (ROOT / path).is_file() or of_its_own(Path(path)).exists()] == []


def test_what_is_not_measured_is_there_and_each_for_a_reason() -> None:
    assert [path for path in COVERAGE["omit"] if not (ROOT / path).is_file()] == []
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    assert [path for path in COVERAGE["omit"] if not any(f'"{path}",  # ' in line for line in lines)] == []
