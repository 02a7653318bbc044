from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.integration.scenarios.effective_state")
