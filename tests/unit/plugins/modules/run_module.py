"""Running a module as Ansible does, through its `main()`."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import root


class Run:
    """`run(module, **options)` gives the module's answer; `check_mode=True` as with `--check`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, module: ModuleType, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        given = {**options, "_ansible_check_mode": check_mode}
        as_root = mock.patch.object(root, "required", lambda _module: None)  # whoever runs the tests
        with patch_module_args(given), as_root, pytest.raises(SystemExit) as ended:
            module.main()
        answer: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert bool(answer.get("failed")) == bool(ended.value.code)
        return answer


def snapshot(directory: Path) -> dict[str, Any]:
    """Every path below a directory: its content, or where it leads, and its mode."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = path.readlink()
        else:
            found[name] = (path.read_bytes() if path.is_file() else None, path.stat().st_mode)
    return found
