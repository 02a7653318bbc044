"""The SELO backend as its installer leaves it: memory looks fine, since nearly all of the models is on the CPU."""

from __future__ import annotations

from typing import Any

from tests.integration.scenarios import lab_host


def test_memory_alone_would_have_passed() -> None:
    report = lab_host.report()
    assert report["peak_used_mib"] < report["max_used_mib"] / 2
    assert report["load"]["failed"] == 0


def test_verify_fails_and_names_layers_key_and_file() -> None:
    report = lab_host.report()
    assert report["verdict"] == "fail"
    assert "1 of 33 layers are on the GPU" in report["reason"]
    assert f"OLLAMA_NUM_GPU in {lab_host.BACKEND}/.env; it should be -1" in report["reason"]


def test_whoever_overrides_the_profile_is_named() -> None:
    sources = {row["name"]: row["source"] for row in lab_host.report()["settings"]}
    assert "/selo-optimization.conf sets OLLAMA_MAX_LOADED_MODELS=0" in sources["OLLAMA_MAX_LOADED_MODELS"]
    assert sources["CHAT_NUM_CTX"] == f"{lab_host.BACKEND}/.env says CHAT_NUM_CTX=8192"


def test_what_was_copied_and_nobody_reads_is_noted() -> None:
    notes = [note for note in lab_host.report()["notes"] if "/override.conf: " in note]
    names = {note.partition("=")[0] for note in notes}
    assert names == {"OLLAMA_NUM_GPU", "OLLAMA_GPU_LAYERS", "OLLAMA_MAX_VRAM", "OLLAMA_NUM_CTX"}


def test_verify_changed_nothing(host: Any) -> None:
    assert not host.file(lab_host.DROP_IN).exists
    original = lab_host.LAB / "stand_ins" / "backend_selo" / "baseline.env"
    assert host.file(f"{lab_host.BACKEND}/.env").content_string == original.read_text()
