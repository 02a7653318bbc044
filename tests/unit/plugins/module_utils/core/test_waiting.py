"""A sign lies beside what is waited for, so that it is taken away with it."""

from __future__ import annotations

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import state


def test_a_sign_lies_beside_the_figures_and_is_ours() -> None:
    assert waiting.sign("/run/gpu-memory-progress.json") in state.Paths().volatile
