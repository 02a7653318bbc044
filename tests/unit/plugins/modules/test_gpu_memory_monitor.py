"""The module through `main()`: present and absent, each repeated, in check mode and for real; NVML is a fake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import nvml_library
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import stored_generations
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import installation
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.installation import Places
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import service_properties
from ansible_collections.selo.gpu_memory.plugins.modules import gpu_memory_monitor
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.recorded_gpus import (
    RecordedGpu,
    RecordedLibrary,
)


class Host(FakeHost):
    """Its monitor writes metrics as soon as it is started, and is started at boot once it was enabled."""

    def __init__(self, places: Places, nvml_up: str) -> None:
        super().__init__()
        self.places, self.nvml_up = places, nvml_up

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        wants = Path(self.places.paths.units) / "multi-user.target.wants"
        wants.mkdir(exist_ok=True)
        for unit in arguments[1:] if arguments[0] in ("enable", "disable") else ():
            (wants / unit).unlink(missing_ok=True)
            if arguments[0] == "enable":
                (wants / unit).symlink_to(unit)
        if arguments[0] == "restart":
            Path(self.places.runtime).mkdir(exist_ok=True)
            Path(self.places.metrics).write_text(f"gpu_memory_nvml_up {self.nvml_up}\n")
        return super().systemctl(*arguments, timeout_s=timeout_s)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "units").mkdir()
    (tmp_path / "textfiles").mkdir()
    (tmp_path / "pynvml.py").write_text("bindings = 'good'\n")
    paths = Paths(*(str(tmp_path / name) for name in ("kept", "units", "command", "run", "second", "jobs")))
    return Places(paths, str(tmp_path / "run"), (str(tmp_path / "state"),))


class Module:
    def __init__(self, places: Places, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places, self.tmp_path, self.capsys, self.monkeypatch = places, tmp_path, capsys, monkeypatch
        self.host = Host(places, "1")
        self.nvml: dict[str, Any] = {"status": "ok", "message": "NVML answers", "bindings": {}}
        self.nvml["bindings"] = {"path": str(tmp_path / "pynvml.py")}
        monkeypatch.setattr(installation, "Places", lambda: places)
        monkeypatch.setattr(gpu_memory_monitor, "LinuxHost", lambda: self.host)
        monkeypatch.setattr(nvml_library, "snapshot", lambda path: self.nvml)

    def __call__(self, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"max_used_mib": 12288, "textfile_dir": str(self.tmp_path / "textfiles"), **options}
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            gpu_memory_monitor.main()
        answer: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return answer


@pytest.fixture
def module(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Module:
    return Module(places, tmp_path, capsys, monkeypatch)


def written(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("check_mode", [True, False], ids=["check", "real"])
def test_create_modify_delete_and_each_again(module: Module, tmp_path: Path, check_mode: bool) -> None:
    fresh = written(tmp_path)
    for options in ({}, {"period_s": 30}, {"state": "absent"}):
        before = written(tmp_path)
        would = module(check_mode=True, **options)
        assert would["changed"] and written(tmp_path) == before
        if not check_mode:
            done = module(**options)
            assert done["changed"] and "failed" not in done
            assert done.get("diff") == would.get("diff")
            assert not module(**options)["changed"]
            assert not module(check_mode=True, **options)["changed"]
        else:
            module(**options)
    assert [path for path in written(tmp_path) if not path.startswith("run/")] == fresh


def test_the_drop_in_of_its_unit_is_watched_and_values_are_text(module: Module, places: Places) -> None:
    ollama = {"unit": "my-ollama.service", "url": "http://127.0.0.1:1/"}
    module(ollama=ollama, environment={"OLLAMA_NUM_PARALLEL": 2}, intent={"num_ctx": "4096", "num_batch": 512})
    config = json.loads(Path(places.config).read_text())
    assert config["drop_in"] == f"{places.paths.units}/my-ollama.service.d/zz-gpu-memory.conf"
    assert config["ollama"] == {"unit": "my-ollama.service", "url": "http://127.0.0.1:1"}
    assert (config["environment"], config["intent"]) == ({"OLLAMA_NUM_PARALLEL": "2"}, {"num_ctx": 4096})


def test_the_journal_is_followed_by_what_it_knows_the_unit_by(
    module: Module, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_properties, "show", lambda *_rest: "Id=llm-server.service\nMainPID=0\n")
    module(ollama={"unit": "ollama.service"})
    config = json.loads(Path(places.config).read_text())
    assert config["ollama"]["unit"] == "llm-server.service"
    assert config["drop_in"] == f"{places.paths.units}/ollama.service.d/zz-gpu-memory.conf"


def test_all_problems_come_at_once_and_nothing_is_written(module: Module, tmp_path: Path) -> None:
    before = written(tmp_path)
    failed = module(period_s=1, action_interval_s=1)
    assert failed["failed"] and "period_s = 1" in failed["msg"] and "action_interval_s = 1" in failed["msg"]
    assert written(tmp_path) == before


def test_restore_needs_something_proven(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_generations, "summary", lambda: {"proven": None})
    assert "apply first" in module(action="restore")["msg"]
    monkeypatch.setattr(stored_generations, "summary", lambda: {"proven": "0002"})
    assert module(action="restore")["changed"]


def test_without_bindings_it_says_so_and_the_action_plugin_can_send_them(module: Module, tmp_path: Path) -> None:
    before = written(tmp_path)
    module.nvml = {"status": "bindings_missing", "message": "no NVML bindings; the cure", "bindings": None}
    failed = module()
    assert failed["failed"] and "the cure" in failed["msg"] and failed["nvml"]["status"] == "bindings_missing"
    assert written(tmp_path) == before


def test_a_sandbox_that_keeps_nvml_out_is_an_error(module: Module) -> None:
    module.host.nvml_up = "0"
    assert "not in the monitor's sandbox" in module()["msg"]


def test_a_gpu_that_is_broken_now_may_be_watched_all_the_same(module: Module) -> None:
    module.host.nvml_up, module.nvml["status"] = "0", "gpu_lost"
    assert module()["changed"]


def test_without_node_exporter_it_warns(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    # Where other tests have loaded Ansible's controller, a warning goes to its display and not into the answer.
    monkeypatch.setattr(gpu_memory_monitor.AnsibleModule, "warn", lambda _module, text: said.append(text))
    assert module(textfile_dir=str(tmp_path / "missing"))["changed"]
    assert "no node_exporter reads" in said[0]


def test_a_library_without_bindings_is_watched_as_nvml_is(module: Module, places: Places) -> None:
    module.monkeypatch.setattr(gpu_memory_monitor, "LIBRARY", RecordedLibrary(RecordedGpu(800)))
    answer = module()
    assert answer["changed"] and not answer.get("failed") and not Path(places.bindings).exists()
    assert json.loads(Path(places.config).read_text())["gpus"] == ["GPU-a"]
