# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit read from systemd's answer and from real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils import _command, _systemd
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import unit_environment
from ansible_collections.selo.gpu_memory.plugins.module_utils.host import unit_files


def test_all_environment_files_are_read_in_order_with_patterns_resolved(tmp_path: Path) -> None:
    for name in ("b.env", "a.env", "last"):
        (tmp_path / name).write_text(f"FROM={name}\n")
    shown = _systemd.parse_show(
        f"EnvironmentFiles={tmp_path}/*.env (ignore_errors=no)\n"
        f"EnvironmentFiles={tmp_path}/not there (ignore_errors=yes)\n"
        f"EnvironmentFiles={tmp_path}/last (ignore_errors=no)\n"
    )
    names = ["a.env", "b.env", "not there", "last"]
    assert unit_files.environment_files(shown) == [str(tmp_path / name) for name in names]
    assert unit_files.values_in(str(tmp_path / "last"), ["FROM"]) == {"FROM": "last"}
    assert unit_files.values_in(str(tmp_path / "not there"), ["FROM"]) == {}


@pytest.mark.parametrize("listed", [True, False])
def test_a_drop_in_of_ours_is_known_by_its_first_line(
    listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "ollama.service.d"
    directory.mkdir()
    ours, others, gone = directory / "zz-gpu-memory.conf", directory / "override.conf", directory / "gone.conf"
    ours.write_text(_systemd.render_dropin({"OLLAMA_NUM_PARALLEL": "2"}))
    others.write_text("[Service]\nEnvironment=OLLAMA_DEBUG=1\n")
    loaded = f"{others} {ours}" if listed else f"{others} {gone}"
    text = f"LoadState=loaded\nNeedDaemonReload=no\nDropInPaths={loaded}\nEnvironment=OLLAMA_DEBUG=1" + (
        " OLLAMA_NUM_PARALLEL=2\n" if listed else "\n"
    )
    monkeypatch.setattr(_command, "run", lambda *_rest: _command.Done(0, text.encode(), b""))
    unit = unit_files.read("ollama.service", str(tmp_path))
    assert unit["own"] == [str(ours)] and unit["gone"] == ([] if listed else [str(gone)])
    assert [source["path"] for source in unit["sources"] if source["environment"]] == [str(others), str(ours)]
    assert unit_environment.must_be_read_again(unit) is not listed
    assert bool(unit_environment.not_in_memory(unit)) is not listed


def test_what_only_a_drop_in_sets_is_told_with_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "zz-gpu-memory.conf"
    path.write_text(_systemd.render_dropin({"A": "1", "B": "secret"}, "the role ollama"))
    assert unit_files.written(str(path), {"A"}) == {"writer": "the role ollama", "alone": ["B"]}
    assert unit_files.written(str(tmp_path / "gone"), set()) == {"writer": None, "alone": []}
