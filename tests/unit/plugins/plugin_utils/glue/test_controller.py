"""Where a variable was said: file and line, as far as ansible-core tells."""

from __future__ import annotations

from pathlib import Path

import pytest
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
