"""The SELO backend on the profile stable: its own key is left to Ollama, by this collection and not by the guide."""

from __future__ import annotations

from typing import Any

from tests.integration.scenarios import lab_host

FILES = (f"{lab_host.BACKEND}/.env", "/etc/selo-ai/environment")


def settings() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in lab_host.report()["settings"]}


def test_it_passes_with_all_layers_on_the_gpu() -> None:
    report = lab_host.report()
    assert report["verdict"] == "pass"
    assert (report["effects"]["offloaded"], report["effects"]["offloadable"]) == (33, 33)


def test_the_cure_is_ours_and_the_guide_s_key_has_no_effect() -> None:
    ours, the_guide_s = settings()["OLLAMA_NUM_GPU"], settings()["OLLAMA_GPU_LAYERS"]
    assert (ours["wanted"], ours["state"], ours["set_by"]) == ("-1", "in force", "collection")
    assert (the_guide_s["state"], the_guide_s["set_by"]) == ("no effect", "profile")


def test_the_margin_counts_since_no_request_carries_layers() -> None:
    assert settings()["LLAMA_ARG_FIT_TARGET"]["state"] == "in force"


def test_reloads_and_latency_are_in_the_report() -> None:
    report = lab_host.report()
    assert report["journal"]["reloads_per_turn"] >= 0
    assert report["load"]["p95_s"] > 0


def test_both_env_files_say_the_same_and_keep_what_is_not_ours(host: Any) -> None:
    for path, name in zip(FILES, ("baseline.env", "environment")):
        now = host.file(path).content_string
        values = lab_host.environment(now)
        assert values["OLLAMA_NUM_GPU"].split()[0] == "-1"
        assert values["CHAT_NUM_CTX"] == "4096"
        original = (lab_host.LAB / "stand_ins" / "backend_selo" / name).read_text()
        kept = [line for line in original.splitlines() if "OLLAMA_NUM_GPU" not in line and "CHAT_NUM_CTX" not in line]
        assert set(kept) <= set(now.splitlines())
    assert host.file(FILES[1]).mode == 0o640


def test_the_drop_ins_of_others_are_untouched(host: Any) -> None:
    root = lab_host.LAB / "stand_ins" / "backend_selo" / "rootfs"
    for name in ("override.conf", "selo-optimization.conf"):
        path = f"etc/systemd/system/ollama.service.d/{name}"
        assert host.file(f"/{path}").content_string == (root / path).read_text()
