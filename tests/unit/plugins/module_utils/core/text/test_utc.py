from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc


def test_a_moment_is_read_in_utc_wherever_the_host_is() -> None:
    assert utc.text(1735689599.9) == "2024-12-31 23:59:59 UTC"
