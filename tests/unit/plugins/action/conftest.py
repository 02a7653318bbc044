from __future__ import annotations

import pytest
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act


@pytest.fixture
def act(monkeypatch: pytest.MonkeyPatch) -> Act:
    return Act(monkeypatch)
