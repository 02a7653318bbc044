"""Every module, plugin and file of module_utils has a unit test at its own path, or one that is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "tests" / "unit"
KINDS = ("action", "filter", "lookup", "modules", "module_utils", "plugin_utils")
FILES = sorted(
    path.relative_to(ROOT)
    for kind in KINDS
    for path in (ROOT / "plugins" / kind).rglob("*.py")
    if path.name != "__init__.py"
)

# What only does things on a host: tests/integration/lab and the scenarios in molecule/ run it.
ON_A_HOST = {
    "plugins/module_utils/host/facts/host_read.py",  # systemd, /proc, a running Ollama and backend
    "plugins/module_utils/host/gpu/nvml_library.py",  # the driver's library
    "plugins/module_utils/host/monitor/watch.py",  # the service's loop
    "plugins/module_utils/host/port/child_process.py",  # a process of its own, watched and killed
    "plugins/module_utils/host/port/systemd.py",  # systemctl, journalctl, /proc and signals
    "plugins/module_utils/host/probe/second_server.py",  # starts an Ollama of its own
    "plugins/module_utils/host/probe/tune_run.py",  # loads models and reads NVML meanwhile
}

# Parts of something that is tested as a whole: the file, and the test.
ELSEWHERE = {
    "plugins/lookup/waves.py": "plugins/lookup/test_fleet.py",
    "plugins/module_utils/host/gpu/library.py": "plugins/module_utils/host/gpu/test_sampling.py",
    "plugins/module_utils/host/gpu/port.py": "plugins/module_utils/host/gpu/test_nvml_library.py",
    "plugins/module_utils/host/ollama/unit_runtime.py": "plugins/module_utils/host/keep/test_service_control.py",
    "plugins/module_utils/core/planner/architectures.py": "plugins/module_utils/core/planner/test_planner.py",
    "plugins/module_utils/core/planner/compute.py": "plugins/module_utils/core/planner/test_planner.py",
    "plugins/module_utils/core/planner/graph.py": "plugins/module_utils/core/planner/test_planner.py",
    "plugins/module_utils/host/keep/leases.py": "plugins/module_utils/host/keep/test_state.py",
    "plugins/module_utils/core/planner/model_shape.py": "plugins/module_utils/core/planner/test_planner.py",
    "plugins/module_utils/core/ollama/endpoints.py": "plugins/modules/test_ollama_model.py",
    "plugins/module_utils/host/ollama/api.py": "plugins/modules/test_ollama_model.py",
    "plugins/module_utils/host/port/progress_file.py": "plugins/module_utils/host/keep/test_state.py",
    "plugins/module_utils/host/keep/going_back.py": "plugins/module_utils/host/keep/test_generations.py",
    "plugins/module_utils/host/keep/own_files.py": "plugins/module_utils/host/keep/test_generations.py",
    "plugins/module_utils/host/keep/generation_store.py": "plugins/module_utils/host/keep/test_generations.py",
    "plugins/module_utils/host/keep/lease_holding.py": "plugins/module_utils/host/keep/test_state.py",
    "plugins/module_utils/host/keep/state_files.py": "plugins/module_utils/host/keep/test_state.py",
    "plugins/module_utils/host/keep/stored_generations.py": "plugins/module_utils/host/keep/test_generations.py",
    "plugins/plugin_utils/report/host_text.py": "plugins/plugin_utils/report/test_host_record.py",
    "plugins/plugin_utils/plan/tune_svg.py": "plugins/plugin_utils/plan/test_tune_text.py",
    "plugins/plugin_utils/glue/chart.py": "plugins/plugin_utils/glue/test_report_page.py",
}


def of_its_own(path: Path) -> Path:
    return UNIT / path.parent / f"test_{path.stem.lstrip('_')}.py"


def place_of_test(path: Path) -> Path:
    """Where the test of a file must be."""
    if str(path) in ELSEWHERE:
        return UNIT / ELSEWHERE[str(path)]
    if path.parent.name == "contract":  # types alone
        return UNIT / path.parent / "test_contract.py"
    source = (ROOT / path).read_text()
    if path.parts[1] == "modules" and not re.search(r"^def main\(", source, re.M):
        return of_its_own(Path("plugins", "action", path.name))  # the module is that plugin's documentation
    if path.parts[1] == "action" and "class ActionModule" not in source:
        return UNIT / "plugins" / "plugin_utils" / "glue" / "test_on_host.py"
    return of_its_own(path)


@pytest.mark.parametrize("path", [path for path in FILES if str(path) not in ON_A_HOST], ids=str)
def test_every_file_has_a_unit_test(path: Path) -> None:
    assert place_of_test(path).is_file(), f"write {place_of_test(path).relative_to(ROOT)}"


def test_what_stands_elsewhere_is_there_and_has_no_test_of_its_own() -> None:
    assert [path for path in ELSEWHERE if not (ROOT / path).is_file() or of_its_own(Path(path)).exists()] == []


def test_what_runs_on_a_host_alone_is_there() -> None:
    assert [path for path in ON_A_HOST if not (ROOT / path).is_file()] == []
