"""Lab hosts for faults: a fresh host a run, faults that strike at a moment of an apply, and a host's whole picture.

Nothing here shares code with the collection: what a run leaves behind is read with plain commands.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
LAB = os.environ.get("FAULT_LAB_NAME", "fault-test")
ENGINE = os.environ.get("LAB_ENGINE") or ("podman" if shutil.which("podman") else "docker")
# 30 s is the least that the collection allows, for a machine that does nothing else.
RESTORE_AFTER_S = int(os.environ.get("FAULTS_RESTORE_AFTER", "60"))
BACKEND = "/mnt/local/Projects/SELODSP/selo-ai/backend"
DROP_INS = "/etc/systemd/system/ollama.service.d"
DROP_IN = f"{DROP_INS}/zz-gpu-memory.conf"
KEPT = "/var/lib/gpu-memory"
SECOND = "/root/.gpu-memory-kept"
GPU = "python3 /opt/gpu-memory-lab/simulated_gpu/simulated_gpu.py"

# Whatever a run may write, without what it keeps for itself (`SETTLED` is without the timer), and without what the
# container engine writes at a start.
OTHERS = "! -path etc/hosts ! -path etc/resolv.conf ! -name 'gpu-memory-restore*'"
PICTURE = f"""
cd / && find etc usr/local {BACKEND[1:]} -xdev ! -type d ! -path usr/local/sbin/gpu-memory {OTHERS} \\
  -printf '%p %y %m %U:%G %T@ %l\\n' | sort
find etc usr/local {BACKEND[1:]} -xdev -type f {OTHERS} -exec sha256sum {{}} + | sort -k 2
"""
PID = "$(systemctl show ollama --property MainPID --value)"
# The process, not `systemctl show`: a unit that was read again says nothing of what runs.
NEW_RUNS = f"grep -qz ^OLLAMA_CONTEXT_LENGTH= /proc/{PID}/environ"
ANSWERS = (
    "curl -fsm 5 http://127.0.0.1:11434/api/version && curl -fsm 5 http://127.0.0.1:8000/health && "
    "systemctl is-active ollama selo-backend"
)
# A host that nobody holds and that will not change any more by itself.
SETTLED = (
    f"! test -e {KEPT}/lease.json && ! test -e {KEPT}/restoring.json && ! test -e {SECOND} && "
    "! test -e /run/gpu-memory-going-back.json && "
    "! systemctl is-active --quiet gpu-memory-restore.service && "
    "! systemctl is-active --quiet gpu-memory-restore.timer && "
    "! ls /etc/systemd/system/gpu-memory-r* /etc/systemd/system/*.wants/gpu-memory-r* 2>/dev/null | grep ."
)
LEFT_BEHIND = (
    "ls -d /run/gpu-memory-progress* /run/.progress* /run/gpu-memory-load* /run/gpu-memory-tune* /tmp/gpu-memory* "
    "/root/.gpu-memory-jobs* /root/.ansible_async/* /home/operator/.ansible_async/* "
    "/root/.ansible/tmp/* /home/operator/.ansible/tmp/* "
    f"{BACKEND}/.*.new {BACKEND}/.*.gpu-memory {BACKEND}/.ansible* 2>/dev/null || true"
)

# There on a host from when a fault has struck; a script that goes on after that says so itself, else its end does.
STRUCK = "/dev/shm/struck"

# When a fault strikes: what is true on the host from that moment of an apply on.
MOMENTS = {
    "kept": f"test -e {KEPT}/lease.json",
    "written": f"test -e {DROP_IN}",
    "restarting": f"test -e {DROP_IN} && ! systemctl is-active --quiet selo-backend",
    "restarted": f"{NEW_RUNS} && curl -fsm 1 http://127.0.0.1:8000/health",
    "loading": "test -e /run/gpu-memory-progress.json",
    "loaded": f"test -e {KEPT}/seen-loading && ! test -e /run/gpu-memory-progress.json",
}


def lab(*words: str, name: str, **options: str) -> None:
    environment = {**os.environ, **options, "LAB_NAME": name}
    done = subprocess.run([ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Host:
    def __init__(self, name: str, lab: str = LAB, **options: str) -> None:
        self.name = name
        self.container = f"{os.environ.get('LAB_PREFIX', '')}{lab}-{name}"
        self.lab = lab
        self.options = options
        self.inventory = ROOT / ".lab" / lab / "inventory"

    def reset(self) -> None:
        lab("reset", self.name, name=self.lab, **self.options)

    def fresh(self) -> None:
        """The lab's only host, made if it is not there."""
        lab("down", name=self.lab)
        lab("up", "1", name=self.lab, **self.options)

    def run(self, script: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
        """Run a script as root with all capabilities, over no network."""
        command = [ENGINE, "exec", "--privileged", "--interactive", self.container, "bash"]
        return subprocess.run(command, input=script, capture_output=True, text=True, timeout=timeout_s)

    def read(self, script: str) -> str:
        done = self.run(f"set -e\n{script}")
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def holds(self, condition: str) -> bool:
        return self.run(condition).returncode == 0

    def wait_until(self, condition: str, timeout_s: float) -> None:
        """The host itself looks, so that no short moment is missed; over and over, since it may start meanwhile."""
        deadline = time.monotonic() + timeout_s
        waiting = f"until {{ {condition}; }} >/dev/null 2>&1; do sleep 0.1; done"
        while not self.holds(f"timeout 10 bash -c {shlex.quote(waiting)}"):
            journal = self.run("journalctl -n 40 --no-pager").stdout if time.monotonic() > deadline else ""
            assert time.monotonic() < deadline, f"{self.name}, {timeout_s} s: {condition}\n{journal}"
            time.sleep(0.2)

    def strike_at(self, moment: str, script: str) -> None:
        """Run a script on the host as soon as an apply has come to that moment."""
        waiting = f"until {{ {MOMENTS[moment]}; }} >/dev/null 2>&1; do sleep 0.2; done"
        if moment == "loaded":
            seen = f"until {MOMENTS['loading']}; do sleep 0.2; done; touch {KEPT}/seen-loading"
            waiting = f"{seen}; {waiting}; rm {KEPT}/seen-loading"
        command = [
            ENGINE,
            "exec",
            "--privileged",
            "--detach",
            self.container,
            "bash",
            "-c",
            f"{waiting}\n{script}\ntouch {STRUCK}",
        ]
        subprocess.run(command, check=True, capture_output=True)

    def time_restore(self) -> None:
        """Have the host measure the first try of a restore, from its begin until it is over or has failed."""
        script = f"""
until test -e {KEPT}/restoring.json; do sleep 0.1; done
read began _ < /proc/uptime
while test -e {KEPT}/restoring.json && ! test -e /run/gpu-memory-going-back.json; do sleep 0.1; done
read ended _ < /proc/uptime
awk "BEGIN {{ print $ended - $began }}" > /dev/shm/restore-s
"""
        command = [ENGINE, "exec", "--privileged", "--detach", self.container, "bash", "-c", script]
        subprocess.run(command, check=True, capture_output=True)

    def restore_took(self) -> float | None:
        """Its seconds; None where there was none, or a boot has ended what measured it."""
        seconds = self.run("cat /dev/shm/restore-s").stdout
        return float(seconds) if seconds else None

    def restart_at(self, moment: str) -> None:
        """A reboot, as hard as one can be."""
        self.wait_until(MOMENTS[moment], 300)
        self.reboot()

    def reboot(self) -> None:
        subprocess.run([ENGINE, "restart", "--time", "0", self.container], check=True, capture_output=True)


def daemon_reloads(host: Host) -> int:
    """How often this host's systemd has read its units again since it started."""
    return int(host.read("journalctl --boot --no-pager --output=cat _PID=1 | grep -c '^Reloading\\.' || true"))


def playbook(
    host: Host, directory: Path, name: str = "apply-stable.yml", *arguments: str, **variables: Any
) -> subprocess.Popen[str]:
    """Start a playbook on one host; its record goes to `directory`, its output into its pipe."""
    settings = {"gpu_memory_restore_after": RESTORE_AFTER_S, "gpu_memory_report_dir": str(directory), **variables}
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", str(host.inventory), name, "--limit", host.name, "-e", json.dumps(settings), *arguments]
    environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_LOCAL_TEMP": str(directory / "tmp")}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
