"""Nothing has been written and no service restarted since the picture was taken."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.scenarios import lab_host


def test_no_file_was_written(host: Any) -> None:
    before = json.loads(lab_host.remembered_picture().read_text())["files"]
    after = lab_host.picture(host)["files"]
    assert after == before


def test_no_service_was_restarted(host: Any) -> None:
    before = json.loads(lab_host.remembered_picture().read_text())["services"]
    after = lab_host.picture(host)["services"]
    assert after == before
    assert {state["ActiveState"] for state in after.values()} == {"active"}
