from __future__ import annotations

from typing import Any

from tests.integration.scenarios import lab_host
from tests.integration.scenarios.effective_state import Profile, RunsTheProfile


class TestStable(RunsTheProfile):
    profile = Profile(
        name="stable",
        env={
            "OLLAMA_GPU_LAYERS": "40",
            "CHAT_NUM_CTX": "4096",
            "OLLAMA_NUM_PARALLEL": "2",
            "TORCH_CUDA_MEMORY_FRACTION": "0.75",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,expandable_segments:True",
        },
        ollama={"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_MAX_LOADED_MODELS": "1"},
        runner=("-c", "8192", "-np", "2"),
        max_used_mib=12288,
    )

    def test_the_sampled_peak_is_the_simulated_gpu_s_own(self, host: Any) -> None:
        own = int(host.check_output(f"python3 {lab_host.SIMULATED_GPU} peak").split()[0])
        assert abs(lab_host.report()["peak_used_mib"] - own) <= 1
