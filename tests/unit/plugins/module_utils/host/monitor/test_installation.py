# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep.state import Paths, StateError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor import installation
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.installation import Places
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import FakeHost

BINDINGS = b"c_nvmlProcessInfo_v2_t = 1\n"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "units").mkdir()
    (tmp_path / "textfiles").mkdir()
    paths = Paths(*(str(tmp_path / name) for name in ("kept", "units", "command", "run", "second", "jobs")))
    return Places(paths, str(tmp_path / "run"), (str(tmp_path / "state"),))


def config(places: Places, **more: Any) -> dict[str, Any]:
    return {
        "profile": "stable", "max_used_mib": 12288, "period_s": 15, "action": "none", "action_interval_s": 3600,
        "ollama": {"unit": "ollama.service", "url": "http://127.0.0.1:11434"}, "environment": {}, "intent": {},
        "drop_in": "/etc/x.conf", "textfile_dir": str(Path(places.paths.units).with_name("textfiles")), **more,
    }  # fmt: skip


class Host(FakeHost):
    """Enabling makes the link that systemd makes."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        self.wants = Path(places.paths.units) / "multi-user.target.wants"

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        self.wants.mkdir(exist_ok=True)
        for unit in arguments[1:]:
            if arguments[0] == "enable":
                (self.wants / unit).symlink_to(unit) if not (self.wants / unit).is_symlink() else None
            if arguments[0] == "disable":
                (self.wants / unit).unlink(missing_ok=True)
        return super().systemctl(*arguments, timeout_s=timeout_s)


def install(places: Places, host: Host, check: bool = False, tool: bytes = b"tool", **more: Any) -> bool:
    wanted = config(places, **more)
    files = installation.wanted_files(wanted, places, tool, BINDINGS)
    return installation.install(wanted, places, host, files, check)


def everything(places: Places) -> dict[str, str]:
    root = Path(places.paths.units).parent
    found = sorted(path for path in root.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path): os.readlink(path) if path.is_symlink() else path.read_bytes().hex() for path in found}


def test_present_again_changes_nothing_and_restarts_nothing(places: Places) -> None:
    host = Host(places)
    assert install(places, host)
    before, log = everything(places), list(host.log)
    assert "restart gpu-memory-monitor.service" in log
    assert not install(places, host)
    assert (everything(places), host.log) == (before, log)


def test_check_mode_says_the_same_and_writes_nothing(places: Places) -> None:
    host = Host(places)
    assert install(places, host, check=True)
    assert everything(places) == {} and host.log == []
    install(places, host)
    assert not install(places, host, check=True)
    assert installation.remove(places, host, check=True)
    assert os.path.exists(places.config)


@pytest.mark.parametrize("change", [{"tool": b"newer"}, {"period_s": 30}, {"action": "unload"}])
def test_a_change_restarts_it_once(places: Places, change: dict[str, Any]) -> None:
    host = Host(places)
    install(places, host)
    host.log.clear()
    assert install(places, host, **change)
    assert host.log.count("restart gpu-memory-monitor.service") == 1


def test_one_that_was_stopped_by_hand_runs_again(places: Places) -> None:
    host = Host(places)
    install(places, host)
    host.systemctl("stop", "gpu-memory-monitor.service")
    assert install(places, host)
    assert host.active["gpu-memory-monitor.service"]


def test_absent_leaves_nothing_and_again_changes_nothing(places: Places) -> None:
    host = Host(places)
    install(places, host, action="restore")
    os.makedirs(places.states[0])
    assert installation.remove(places, host, check=False)
    assert everything(places) == {}
    assert not os.path.exists(places.paths.root) and not os.path.exists(places.states[0])
    assert not installation.remove(places, host, check=False)


def test_absent_leaves_the_generations(places: Places) -> None:
    host = Host(places)
    install(places, host)
    (Path(places.paths.root) / "generations").mkdir()
    installation.remove(places, host, check=False)
    assert os.listdir(places.paths.root) == ["generations"]


def test_an_action_that_is_given_up_takes_its_units_along(places: Places) -> None:
    host = Host(places)
    install(places, host, action="restore")
    assert os.path.exists(places.unit(installation.RESTORE_PATH))
    install(places, host)
    assert not os.path.exists(places.unit(installation.RESTORE_PATH))
    assert not os.path.exists(places.unit(installation.RESTORE_SERVICE))
    assert installation.RESTORE_PATH not in host.active


def test_the_link_follows_the_directory(places: Places, tmp_path: Path) -> None:
    host = Host(places)
    install(places, host)
    old = tmp_path / "textfiles" / "gpu_memory.prom"
    assert os.readlink(old) == places.metrics
    (tmp_path / "other").mkdir()
    assert install(places, host, textfile_dir=str(tmp_path / "other"))
    assert not old.is_symlink() and (tmp_path / "other" / "gpu_memory.prom").is_symlink()


def test_somebody_elses_metrics_are_left_alone(places: Places, tmp_path: Path) -> None:
    theirs = tmp_path / "textfiles" / "gpu_memory.prom"
    theirs.write_text("theirs 1\n")
    with pytest.raises(StateError, match="is there already and is not ours"):
        install(places, Host(places))
    installation.remove(places, Host(places), check=False)
    assert theirs.read_text() == "theirs 1\n"


def test_a_monitor_that_does_not_start_is_an_error(places: Places) -> None:
    host = Host(places)
    host.systemctl = lambda *words, timeout_s=30: "systemctl restart: failed" if words[0] == "restart" else ""  # type: ignore[method-assign]
    with pytest.raises(StateError, match="journalctl -u gpu-memory-monitor.service"):
        install(places, host)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"period_s": 4}, "period_s = 4 must be from 5 to 300"),
        ({"max_used_mib": 0}, "max_used_mib = 0 must be at least 1"),
        ({"action": "reboot"}, "allowed: none, unload, restore"),
        ({"action": "unload", "max_used_mib": None}, "needs max_used_mib"),
        ({"action_interval_s": 5}, "at least 60"),
        ({"action": "unload", "ollama": {"unit": "o.service", "url": "http://gpu.lan:11434"}}, "in numbers"),
    ],
)
def test_a_problem_names_what_is_allowed(places: Places, wrong: dict[str, Any], says: str) -> None:
    (problem,) = installation.problems_of(config(places, **wrong))
    assert says in problem


def test_it_has_a_network_only_to_unload_models(places: Places) -> None:
    for action in ("none", "restore"):
        assert "PrivateNetwork=yes" in installation.service_text(config(places, action=action), places)
    for url, address in (("http://[::1]:1", "localhost"), ("http://10.1.2.3:11434/", "10.1.2.3")):
        ollama = {"unit": "ollama.service", "url": url}
        text = installation.service_text(config(places, action="unload", ollama=ollama), places)
        assert f"IPAddressDeny=any\nIPAddressAllow={address}\n" in text and "PrivateNetwork" not in text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize("action", ["none", "unload", "restore"])
def test_systemd_takes_the_units(places: Places, action: str) -> None:
    wanted = config(places, action=action)
    units = []
    for path, (content, _unused) in installation.wanted_files(wanted, places, b"", None).items():
        if path.startswith(places.paths.units):
            Path(path).write_bytes(content)
            units.append(path)
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "gpu-memory" in line]
    assert ours == [] and done.returncode == 0, done.stderr


def test_the_configuration_is_what_the_service_reads(places: Places) -> None:
    host = Host(places)
    install(places, host)
    with open(places.config) as file:
        assert json.load(file) == config(places)


def test_whether_nvml_answers_is_read_from_the_metrics(places: Places) -> None:
    assert installation.nvml_answers(places) is None
    os.mkdir(places.runtime)
    Path(places.metrics).write_text("# HELP gpu_memory_nvml_up x\ngpu_memory_nvml_up 1\n")
    assert installation.nvml_answers(places) is True
