"""Keep a picture of the host for a later step of the same scenario."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.scenarios import lab_host


def test_the_host_is_remembered(host: Any) -> None:
    path = lab_host.remembered_picture()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = lab_host.picture(host)
    assert f"{lab_host.BACKEND}/.env" in picture["files"]
    path.write_text(json.dumps(picture, indent=1))
