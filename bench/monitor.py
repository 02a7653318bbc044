#!/usr/bin/env python3
"""What the monitor costs on a host: processor time and memory of its control group, or of its processes.

  bench/monitor.py [MINUTES] [HOST]      on a lab host (default 5, gpu01) that the playbook monitor.yml has run on

Processor time is a share of one core, over the whole time. Memory is the peak of the control group where the host has
one for the unit (it counts files read, too), else the highest sum of the processes' own shares (PSS) over the time.
While it measures, chats go through the backend every 10 s, so that there is a journal to read.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOOK_S = 5
MOST_CORE_PERCENT, MOST_MIB = 0.5, 40
LOOK = """
import json, os, subprocess
def show(name):
    command = ["systemctl", "show", "gpu-memory-monitor", "--property", name, "--value"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode().strip()
def read(path):
    with open(path) as file:
        return file.read()
def number(text):
    return int(text) if text.isdigit() and int(text) < 1 << 62 else None
main = int(show("MainPID"))
parent = lambda pid: int(read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])
family = [main]
for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
    try:
        family += [pid] if parent(pid) == main else []
    except OSError:
        pass
pss = ticks = 0
for pid in family:
    rows = dict(line.split(":") for line in read(f"/proc/{pid}/smaps_rollup").splitlines()[1:])
    pss += int(rows["Pss"].split()[0])
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    ticks += sum(map(int, fields[11:15]))
print(json.dumps({
    "main": main, "pss_kib": pss, "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
    "cgroup_cpu_ns": number(show("CPUUsageNSec")), "cgroup_peak": number(show("MemoryPeak") or show("MemoryCurrent")),
}))
"""


def on_host(host: str, *command: str, given: str | None = None) -> str:
    whole = [ROOT / "script" / "lab", "exec", host, *command]
    done = subprocess.run(whole, input=given, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{host}: {done.stderr.strip()}")
    return done.stdout


def main(minutes: float, host: str) -> int:
    def look() -> dict[str, int | float | None]:
        found: dict[str, int | float | None] = json.loads(on_host(host, "python3", "-", given=LOOK))
        return found

    body = json.dumps({"message": "Tell me a story", "conversation_id": "bench"})
    # As a unit of its own, so that it outlives this command and is not waited for.
    chat = ["systemd-run", "--quiet", "curl", "--silent", "--max-time", "60", "--output", "/dev/null"]
    chat += ["--header", "Content-Type: application/json", "--data", body, "http://127.0.0.1:8000/api/chat"]
    first, started, looks = look(), time.monotonic(), []
    while time.monotonic() - started < 60 * minutes:
        if len(looks) % 2 == 0:
            on_host(host, *chat)
        time.sleep(LOOK_S)
        looks.append(look())
    seconds, last = time.monotonic() - started, looks[-1]
    if last["main"] != first["main"]:
        sys.exit(f"{host}: the monitor was restarted meanwhile")
    if last["cgroup_cpu_ns"] is not None:
        cpu_s, how = (last["cgroup_cpu_ns"] - first["cgroup_cpu_ns"]) / 1e9, "control group"
    else:
        cpu_s, how = last["cpu_s"] - first["cpu_s"], "its processes; the host has no control group with figures"
    if last["cgroup_peak"] is not None:
        mib, memory_how = last["cgroup_peak"] / 2**20, "peak of the control group"
    else:
        mib, memory_how = max(seen["pss_kib"] for seen in looks) / 1024, "highest sum of PSS"
    percent = 100 * cpu_s / seconds
    print(f"minutes    {seconds / 60:.1f}, load average {os.getloadavg()[0]:.1f}")
    print(f"processor  {percent:.3f} % of a core, at most {MOST_CORE_PERCENT} ({how})")
    print(f"memory     {mib:.1f} MiB, at most {MOST_MIB} ({memory_how})")
    return int(percent > MOST_CORE_PERCENT or mib > MOST_MIB)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(float(arguments[0]) if arguments else 5, arguments[1] if len(arguments) > 1 else "gpu01"))
