#!/usr/bin/env python3
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs: each verb on lab hosts, beside the guide done by hand as a shell script over parallel ssh.

    script/bench fleet                         1, 4, 16 and 32 hosts
    FLEET_SIZES="16 32 16" script/bench fleet  so many; of both 16 the mean counts, as the machine's speed changes
    FLEET_LOAD_S=60 script/bench fleet         a wave of each size with load tests of about so long, and without

With mitogen installed (`pip install mitogen`) the reading verbs are tried under `mitogen_linear` as well.
Services and chats take their time; with LAB_SPEEDUP=10 they take a tenth, and processors are all that is waited for.
Prints wall time, the ratio to the shell script, the controller's CPU seconds and memory, and how many Python programs
Ansible started on a host. Hosts and controller share this machine, so that ratios say more than seconds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAB = "fleet-bench"
STATE = ROOT / ".lab" / LAB
INVENTORY = STATE / "inventory" / "hosts.yml"
ENV = "/mnt/local/Projects/SELODSP/selo-ai/backend/.env"
COUNTER = "/usr/local/bin/counting-python"
LOG = "/run/python-was-started"
# As in tests/integration/lab/test_executions.py: each module starts the interpreter that Ansible was told of once.
COUNT = f"""printf '#!/bin/sh\\necho x >> {LOG}\\nexec /usr/bin/python3 "$@"\\n' > {COUNTER}
chmod 755 {COUNTER}; : > {LOG}; chmod 666 {LOG}"""

# The guide by hand: its keys into .env, both restarts, two chats at once, and a look at the memory.
BY_HAND = f"""set -e
sed -i -e s/^OLLAMA_GPU_LAYERS=.*/OLLAMA_GPU_LAYERS=40/ -e s/^CHAT_NUM_CTX=.*/CHAT_NUM_CTX=4096/ {ENV}
systemctl restart ollama; until curl -fsm 5 -o /dev/null http://127.0.0.1:11434/api/version; do sleep 0.2; done
systemctl restart selo-backend; until curl -fsm 5 -o /dev/null http://127.0.0.1:8000/health; do sleep 0.2; done
for n in 1 2; do curl -fsm 120 -o /dev/null http://127.0.0.1:8000/api/chat -H 'Content-Type: application/json' \\
  -d '{{"message": "Tell me a story", "conversation_id": "test'$n'"}}' & done; wait
python3 -c 'import pynvml as n; n.nvmlInit(); print(n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0)).used)' \\
  2>/dev/null || true"""
# What gpu_memory_info reads, with the tools that a shell has.
READS = f"""systemctl --version; systemctl show ollama; systemctl show selo-backend; cat {ENV}
cat /etc/systemd/system/ollama.service /etc/systemd/system/ollama.service.d/*
sha256sum {ENV} /etc/systemd/system/ollama.service.d/*; stat {ENV}
for unit in ollama selo-backend; do pid=$(systemctl show $unit --property MainPID --value)
  tr '\\0' '\\n' < /proc/$pid/environ; cat /proc/$pid/stat; done
for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; done
for path in version tags ps; do curl -fsm 5 http://127.0.0.1:11434/api/$path; done
curl -fsm 5 http://127.0.0.1:11434/api/show -d '{{"model": "llama3.1:8b-instruct-q8_0"}}'
curl -fsm 5 http://127.0.0.1:8000/health
journalctl -u ollama --no-pager -o json | grep -ci 'out of memory'; journalctl -k --no-pager | grep -c NVRM
python3 -c 'import ctypes; n = ctypes.CDLL("libnvidia-ml.so.1"); n.nvmlInit_v2(); h = ctypes.c_void_p()
n.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(h)); m = (ctypes.c_uint64 * 3)()
n.nvmlDeviceGetMemoryInfo(h, m); print(list(m))'
cat /var/lib/gpu-memory/*.json"""


@dataclass
class Cost:
    wall_s: float
    cpu_s: float
    memory_mib: float
    executions: float = 0.0


def lab(*words: str) -> str:
    environment = {**os.environ, "LAB_NAME": LAB}
    done = subprocess.run([ROOT / "script" / "lab", *words], env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def addresses() -> dict[str, str]:
    _, _, text = INVENTORY.read_text().partition("\n{")
    hosts: dict[str, dict[str, str]] = json.loads("{" + text)["all"]["hosts"]
    return {name: host["ansible_host"] for name, host in hosts.items()}


def ssh(address: str, script: str) -> str:
    options = ["-i", str(STATE / "id_ed25519"), "-o", f"UserKnownHostsFile={STATE / 'known_hosts'}"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
    command = ["ssh", *options, f"operator@{address}", "sudo", "bash", "-s"]
    return subprocess.run(command, input=script, capture_output=True, text=True).stdout


def parallel(script: str) -> list[str]:
    hosts = addresses().values()
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(lambda address: ssh(address, script), hosts))


def measured(action: Any) -> Cost:
    """Wall time, CPU seconds of all that `action` starts here, and the most memory it had in all (PSS)."""
    most, done = [0.0], threading.Event()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()

    def watch() -> None:
        # Ever more seldom: a look is work on all processes, and would weigh most where there are many for long.
        while not done.wait(0.25 + (time.monotonic() - began) / 5):
            most[0] = max(most[0], family_mib(os.getpid()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        action()
    finally:
        done.set()
        watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.monotonic() - began, cpu_s, most[0])


def family_mib(root: int) -> float:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    total = 0
    for pid in family - {root}:
        try:
            total += int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("Pss:")[2].split()[0])
        except (OSError, IndexError):
            continue
    return total / 1024


def playbook(name: str, reports: str, environment: dict[str, str] | None = None, **variables: Any) -> Cost:
    parallel(f": > {LOG}")
    settings = {"ansible_python_interpreter": COUNTER, "gpu_memory_report_dir": reports, **variables}
    command = ["ansible-playbook", "-i", str(STATE / "inventory"), name, "-e", json.dumps(settings)]

    def run() -> None:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-1000:], file=sys.stderr)
            sys.exit(f"{name} ended with {done.returncode}")

    cost = measured(run)
    counts = [int(text or 0) for text in parallel(f"wc -l < {LOG}")]
    cost.executions = sum(counts) / len(counts)
    return cost


def mitogen() -> dict[str, str] | None:
    """The environment in which ansible-playbook uses mitogen_linear, where it is installed."""
    spec = importlib.util.find_spec("ansible_mitogen")
    if spec is None or not spec.submodule_search_locations:
        return None
    plugins = Path(next(iter(spec.submodule_search_locations))) / "plugins" / "strategy"
    return {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"}


def fresh(hosts: int) -> None:
    if INVENTORY.exists() and len(addresses()) > hosts:
        lab("down")
    lab("up", str(hosts))
    lab("reset")
    parallel(COUNT)


def row(hosts: int, what: str, cost: Cost, by_hand: Cost) -> None:
    print(
        f"| {hosts} | {what} | {cost.wall_s:.1f} | {cost.wall_s / by_hand.wall_s:.1f} x | {cost.cpu_s / hosts:.2f} "
        f"| {cost.memory_mib / hosts:.0f} | {cost.executions:.0f} |",
        flush=True,
    )


def verbs(hosts: int, reports: str) -> dict[str, float]:
    """Each verb on so many hosts, as a table; the seconds of each."""
    fresh(hosts)
    by_hand = measured(lambda: parallel(BY_HAND))
    row(hosts, "the guide by hand", by_hand, by_hand)
    fresh(hosts)
    found = {"first apply": playbook("apply-stable.yml", reports, gpu_memory_batches="100%")}
    row(hosts, "first apply, one wave", found["first apply"], by_hand)
    found.update(reading_verbs(hosts, reports))
    found["verify"] = playbook("playbooks/verify.yml", reports)
    row(hosts, "verify", found["verify"], by_hand)
    return {what: cost.wall_s for what, cost in found.items()}


def reading_verbs(hosts: int, reports: str) -> dict[str, Cost]:
    """The verbs that only read, on hosts that are proven."""
    reads = measured(lambda: parallel(READS))
    row(hosts, "the reads by hand", reads, reads)
    found = {}
    for what, name in (("no-change apply", "apply-stable.yml"), ("status", "playbooks/status.yml")):
        found[what] = playbook(name, reports, gpu_memory_batches="100%")
        row(hosts, what, found[what], reads)
        environment = mitogen()
        if environment:
            cost = playbook(name, reports, environment, gpu_memory_batches="100%")
            row(hosts, f"{what}, mitogen_linear", cost, reads)
    return found


def wave(hosts: int, reports: str, load_s: float) -> None:
    """A wave with load tests of about `load_s` seconds, and the same one without."""
    fresh(hosts)
    without = playbook("apply-stable.yml", reports, gpu_memory_batches="100%", gpu_memory_verify="never")
    fresh(hosts)
    # Three chats take about 3.3 seconds.
    requests = round(load_s / 1.1)
    loaded = playbook("apply-stable.yml", reports, gpu_memory_batches="100%", gpu_memory_load_requests=requests)
    took = [json.loads(file.read_text())["load"]["wall_s"] for file in Path(reports).glob("gpu*.json")]
    print(
        f"{hosts} hosts, load tests of {min(took):.0f} to {max(took):.0f} s: {loaded.wall_s:.0f} s; "
        f"without: {without.wall_s:.0f} s; {loaded.wall_s - max(took):.0f} s besides the load are "
        f"{(loaded.wall_s - max(took)) / without.wall_s:.2f} x those"
    )


def large_inventory(hosts: int) -> None:
    """What a controller needs before it contacts the first of so many hosts."""
    with tempfile.TemporaryDirectory() as directory:
        inventory = Path(directory) / "hosts"
        inventory.write_text("\n".join(f"gpu{number:05d}.example.net" for number in range(hosts)) + "\n")
        command = ["ansible-playbook", "-i", str(inventory), "playbooks/apply.yml", "--list-hosts"]
        cost = measured(lambda: subprocess.run(command, cwd=ROOT, capture_output=True, check=True))
        print(f"an inventory of {hosts}: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} s CPU, {cost.memory_mib:.0f} MiB")


def mean(walls: list[dict[str, float]], what: str) -> float:
    return statistics.fmean(one[what] for one in walls)


def main() -> None:
    sizes = [int(size) for size in os.environ.get("FLEET_SIZES", "1 4 16 32").split()]
    load_s = float(os.environ.get("FLEET_LOAD_S", "0"))
    with tempfile.TemporaryDirectory() as reports:
        try:
            if load_s:
                for size in sizes:
                    wave(size, reports, load_s)
                return
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
            print("| hosts | what | wall s | to by hand | CPU s a host | MiB a host | executions a host |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            walls: dict[int, list[dict[str, float]]] = {}
            for size in sizes:
                walls.setdefault(size, []).append(verbs(size, reports))
            for few, many in zip(sorted(walls), sorted(walls)[1:]):
                ratios = ", ".join(
                    f"{what} {mean(walls[many], what) / mean(walls[few], what):.2f}" for what in walls[few][0]
                )
                print(f"t({many}) / t({few}): {ratios}")
            for size in (1000, 10000):
                large_inventory(size)
        finally:
            lab("down")


if __name__ == "__main__":
    main()
