"""After a detour over another profile the configuration is byte for byte what it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.scenarios import lab_host


@pytest.mark.parametrize("path", [f"{lab_host.BACKEND}/.env", lab_host.DROP_IN])
def test_the_file_is_as_it_was(host: Any, path: str) -> None:
    def mode_owner_and_hash(picture: dict[str, Any]) -> list[str]:
        mode, owner, _time, digest = picture["files"][path].split()
        return [mode, owner, digest]

    before = json.loads(lab_host.remembered_picture().read_text())
    assert mode_owner_and_hash(lab_host.picture(host)) == mode_owner_and_hash(before)
