from __future__ import annotations

from tests.integration.scenarios.effective_state import Profile, RunsTheProfile


class TestConservative(RunsTheProfile):
    profile = Profile(
        name="conservative",
        env={
            "OLLAMA_GPU_LAYERS": "35",
            "CHAT_NUM_CTX": "2048",
            "OLLAMA_NUM_PARALLEL": "1",
            "TORCH_CUDA_MEMORY_FRACTION": "0.70",
            "OLLAMA_MAX_LOADED_MODELS": "1",
            "PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128,expandable_segments:True",
        },
        ollama={"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_MAX_LOADED_MODELS": "1"},
        runner=("-c", "2048", "-np", "1"),
        max_used_mib=10240,
    )
