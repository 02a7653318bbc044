"""What a host that runs a profile looks like from outside, whoever brought it there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.integration.scenarios import lab_host


@dataclass(frozen=True)
class Profile:
    name: str
    env: Mapping[str, str]
    """What the guide's file for the profile holds."""
    ollama: Mapping[str, str]
    """What Ollama's own environment must say."""
    runner: tuple[str, ...]
    """What the runner's command line must hold under the backend's own request."""
    max_used_mib: int


class RunsTheProfile:
    """The tests; a subclass names the profile."""

    profile: Profile

    def test_the_env_file_has_the_profile_and_every_other_line_as_it_was(self, host: Any) -> None:
        original = (lab_host.LAB / "stand_ins" / "backend_guide" / "baseline.env").read_text()
        now = host.file(f"{lab_host.BACKEND}/.env")

        def lines_of_others(text: str) -> list[str]:
            return [line for line in text.splitlines() if line.split("=")[0] not in self.profile.env]

        kept = len(lines_of_others(original))
        assert lines_of_others(now.content_string)[:kept] == lines_of_others(original)
        assert not any(lines_of_others(now.content_string)[kept:])
        values = {key: re.split(r"\s+#", value)[0] for key, value in lab_host.environment(now.content_string).items()}
        assert {key: values.get(key) for key in self.profile.env} == self.profile.env
        assert (now.user, now.group, now.mode) == ("selo", "selo", 0o640)

    def test_the_profile_s_own_file_lies_beside_it(self, host: Any) -> None:
        file = host.file(f"{lab_host.BACKEND}/.env.{self.profile.name}-16gb")
        assert lab_host.environment(file.content_string) == self.profile.env
        assert file.mode == 0o600

    def test_ollama_was_started_with_the_profile(self, host: Any) -> None:
        pid = lab_host.service(host, "ollama")["MainPID"]
        started_with = lab_host.environment(host.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ"))
        assert {key: started_with.get(key) for key in self.profile.ollama} == self.profile.ollama
        # What the machine's owner has set by `systemctl edit` and the profile does not speak of still holds.
        assert started_with.get("OLLAMA_NOHISTORY") == ("1" if lab_host.is_edited(host) else None)

    def test_the_drop_in_is_ours_and_complete(self, host: Any) -> None:
        drop_in = host.file(lab_host.DROP_IN)
        assert (drop_in.user, drop_in.mode) == ("root", 0o644)
        shown = host.check_output("systemctl show ollama -p Environment --value").split()
        written = re.findall(r'^Environment="?(.*?)"?$', drop_in.content_string, re.MULTILINE)
        assert set(written) <= set(shown)
        assert self.profile.ollama.items() <= dict(word.split("=", 1) for word in written).items()

    def test_vendor_unit_and_override_are_untouched(self, host: Any) -> None:
        ollama = lab_host.LAB / "stand_ins" / "ollama"
        assert host.file("/etc/systemd/system/ollama.service").content_string in (ollama / "install").read_text()
        if lab_host.is_edited(host):
            override = host.file("/etc/systemd/system/ollama.service.d/override.conf")
            assert override.content_string == (ollama / "edited.conf").read_text()
        for roots in (lab_host.LAB / "rootfs", lab_host.LAB / "stand_ins" / "backend_guide" / "rootfs"):
            for original in roots.glob("etc/systemd/system/**/*.*"):
                if original.is_file():
                    now = host.file(f"/{original.relative_to(roots)}").content_string
                    assert now == original.read_text()

    def test_nothing_is_left_behind(self, host: Any) -> None:
        drop_ins = host.file("/etc/systemd/system/ollama.service.d").listdir()
        of_the_owner = ["override.conf"] if lab_host.is_edited(host) else []
        assert sorted(drop_ins) == [*of_the_owner, "zz-gpu-memory.conf"]
        beside = set(host.file(lab_host.BACKEND).listdir()) - {"main.py", "__pycache__"}
        assert {name for name in beside if not re.fullmatch(r"\.env(\.(stable|conservative)-16gb)?", name)} == set()
        timers = host.check_output("systemctl list-timers --all --no-legend")
        assert "gpu-memory" not in timers
        assert not [name for name in host.file("/etc/systemd/system").listdir() if "gpu-memory" in name]

    def test_own_state_is_for_root_only(self, host: Any) -> None:
        state = host.file("/var/lib/gpu-memory")
        assert (state.is_directory, state.user, state.mode) == (True, "root", 0o700)

    def test_the_backend_s_own_request_makes_ollama_follow_the_profile(self, host: Any) -> None:
        body = json.dumps({"message": "Tell me a story", "conversation_id": "test1"})
        status = host.check_output(
            "curl --silent --show-error --max-time 120 --output /dev/null --write-out '%%{http_code}' "
            "--header 'Content-Type: application/json' --data %s http://127.0.0.1:8000/api/chat",
            body,
        )
        assert status == "200"
        runners = [line for line in host.check_output("ps -e -o args=").splitlines() if "llama-server" in line]
        assert len(runners) == 1
        assert f" {' '.join(self.profile.runner)} " in f"{runners[0]} "

    def test_memory_stays_under_the_threshold(self, host: Any) -> None:
        used = int(host.check_output(f"python3 {lab_host.SIMULATED_GPU} used").split()[0])
        assert 0 < used <= self.profile.max_used_mib

    def test_the_report_says_so(self) -> None:
        report = lab_host.report()
        assert (report["host"], report["profile"], report["verdict"]) == ("gpu01", self.profile.name, "pass")
        assert report["max_used_mib"] == self.profile.max_used_mib
        assert 0 < report["peak_used_mib"] <= self.profile.max_used_mib
        assert report["evidence"] in ("bounded", "sampled")
        assert set(self.profile.env) <= {setting["name"] for setting in report["settings"]}
