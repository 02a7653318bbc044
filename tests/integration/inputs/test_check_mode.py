"""Check mode changes nothing: every file of the host is compared, on a fresh host and on a converged one."""

from __future__ import annotations

from pathlib import Path

from tests.integration.inputs.real_lab import Host, playbook, record

# Logs, run-time state and the kernel's own are what any login changes; of /tmp what is in it.
PICTURE = r"""
cd /
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /tmp \) -prune -o \
  -printf '%p %y %m %U:%G %s %T@ %C@ %l\n' | sort
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /tmp \) -prune -o \
  -type f -exec sha256sum {} + | sort -k 2
find /tmp -mindepth 1 -not -path '*/systemd-private-*' -printf '%p %y\n' | sort
systemctl show ollama selo-backend --property=MainPID,ActiveEnterTimestampMonotonic
ls /run /run/gpu-memory 2>/dev/null | grep gpu-memory || true
"""


def differences(before: str, after: str) -> list[str]:
    return sorted(set(before.splitlines()) ^ set(after.splitlines()))


def test_check_mode_changes_nothing(host: Host, tmp_path: Path) -> None:
    before = host.read(PICTURE)
    assert len(before.splitlines()) > 5000
    assert any(line.split()[0] == "/home/operator" for line in before.splitlines())
    for verb in ("apply-stable.yml", "playbooks/verify.yml", "playbooks/plan.yml"):
        done = playbook(verb, "--check", "--diff", report=tmp_path / "fresh")
        assert done.returncode == 0, done.stdout
        assert differences(before, host.read(PICTURE)) == [], verb
    assert not (tmp_path / "fresh").exists()

    done = playbook("apply-stable.yml", report=tmp_path / "applied")
    assert record(tmp_path / "applied")["verdict"] == "pass", done.stdout
    before = host.read(PICTURE)
    for verb in ("apply-stable.yml", "apply-conservative.yml", "playbooks/rollback.yml"):
        done = playbook(verb, "--check", "--diff", report=tmp_path / "converged")
        assert done.returncode == 0, done.stdout
        assert differences(before, host.read(PICTURE)) == [], verb
