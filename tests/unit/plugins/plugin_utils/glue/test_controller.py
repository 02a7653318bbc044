"""Where a variable was said, as far as ansible-core tells; and where reports can be written."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.glue import controller

VARS = """\
gpu_memory_profile: fast
gpu_memory_profiles:
  p:
    extends: stable
    intent:
      num_ctx: 1
      num_batch: x
  v1.2:
    env: {A: true}
gpu_memory_models: 3
"""


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        ("gpu_memory_profile = 'fast' is not known", 1),
        ("gpu_memory_profiles.p.intent.num_ctx = 1 must be a whole number", 6),
        ("gpu_memory_profiles.p.intent.num_batch = 'x' must be", 7),
        ("gpu_memory_profiles.p.intent.num_ctx_total is not known", 6),
        ("gpu_memory_profiles.v1.2.env.A = True must be", 9),
        ("gpu_memory_models = 3 must be", 10),
    ],
)
def test_a_problem_names_file_and_line(
    problem: str, line: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text(VARS)
    monkeypatch.chdir(tmp_path)
    variables = DataLoader().load_from_file(str(tmp_path / "group_vars" / "all.yml"))
    assert controller.with_origin(problem, variables) == f"{problem} (group_vars/all.yml:{line})"


@pytest.mark.parametrize("problem", ["this playbook applies the profile stable", "gpu_memory_unheard_of = 1", ""])
def test_what_has_no_origin_stays_as_it_is(problem: str) -> None:
    assert controller.with_origin(problem, {"gpu_memory_profile": "fast"}) == problem


@pytest.mark.parametrize("name", ["", "new", "new/below/new", "link", "link/new"])
def test_where_reports_can_be_written_nothing_is_left_of_trying(name: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    assert controller.no_reports(tmp_path / name) is None
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "there"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("file", "is no directory"), ("file/new", "is no directory"), ("dangling", "is no directory"), ("loop", "is no")],
)
def test_what_is_in_the_way_of_reports_is_named_with_the_cure(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    problem = controller.no_reports(tmp_path / name)
    assert problem and problem.startswith(f"gpu_memory_report_dir: on the controller {tmp_path / name} cannot be")
    assert f"{tmp_path / name.split('/')[0]} {why}" in problem and "set it to a directory with room" in problem
    with pytest.raises(AnsibleActionFail, match="gpu_memory_report_dir: on the controller"):
        controller.write_text(tmp_path / name / "gpu01.json", "{}")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_directory_that_takes_no_file_is_named_with_the_reason(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(**_unused: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(controller.tempfile, "TemporaryFile", refuses)
    problem = controller.no_reports(tmp_path / "reports")
    assert problem and f"cannot be written: {tmp_path}: {os.strerror(code)}; mend that" in problem


def test_a_disk_without_room_for_reports_is_seen_by_writing(tmp_path: Path) -> None:
    """A limit stands in for the disk: the file can be made, and does not take all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (controller.ROOM // 2, before[1]))
    try:
        problem = controller.no_reports(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert problem and f"{tmp_path}: {os.strerror(errno.EFBIG)}" in problem and not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_no_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "gpu01.json").mkdir()
    with pytest.raises(AnsibleActionFail, match="gpu01.json cannot be written: Is a directory"):
        controller.write_text(tmp_path / "gpu01.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["gpu01.json"]


@pytest.mark.parametrize("declared", ["", " "])
def test_an_empty_report_directory_is_refused_and_not_where_the_user_stands(declared):
    with pytest.raises(AnsibleActionFail, match="gpu_memory_report_dir is empty: name the directory"):
        controller.report_directory(declared)
