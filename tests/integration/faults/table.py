"""The faults: when each strikes, how it is made on a host, and how an apply of the profile stable must end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.integration.faults.fault_lab import (
    ANSWERS,
    BACKEND,
    DROP_IN,
    DROP_INS,
    GPU,
    KEPT,
    PID,
    RESTORE_AFTER_S,
    SECOND,
    STRUCK,
)

SAME, NEW, OPEN = "same", "new", "open"


@dataclass(frozen=True)
class Fault:
    """One row: at `moment` (`before` the run, or one of `fault_lab.MOMENTS`) `script` runs on the host, as root.

    `prepare` runs before the run in any case, and then the playbooks of `first`, which end well. The run then ends
    with `verdict`, each of `says` stands in its reason, and the host is on the `SAME` files and settings as before
    the run, on the `NEW` ones, or on these without a proof (`OPEN`). `edits`: the file that the script changes, of
    which no picture is taken; `then` must hold on the host in the end. `runs`: whether services answer then, as far
    as the fault allows. `settles`: whether the host is left alone then; if not, it waits for a human. `reboots`: the
    fault is a reboot; `rival`: another run that is there first, and passes. `short`: one of those that `script/test`
    tries.
    """

    name: str
    moment: str
    script: str
    verdict: str
    says: tuple[str, ...]
    prepare: str = ""
    first: tuple[str, ...] = ()
    ends: str = SAME
    edits: str = ""
    then: str = "true"
    runs: bool = True
    settles: bool = True
    reboots: bool = False
    rival: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    short: bool = False

    @property
    def is_second(self) -> bool:
        """Whether an apply has ended before this one."""
        return any("apply" in name for name in self.first)


def on_new_settings(service: str, what: str, script: str) -> str:
    """A service that has its fault only with the new settings: a drop-in of the machine's owner with `what`."""
    new = {"ollama": 'test -n "$OLLAMA_CONTEXT_LENGTH"', "selo-backend": f"grep -q ^CHAT_NUM_CTX=4096 {BACKEND}/.env"}
    directory = f"/etc/systemd/system/{service}.service.d"
    return f"""
mkdir -p {directory} /opt/fault
cat > /opt/fault/{service} <<'END'
#!/bin/bash
if {new[service]}; then
{script}
fi
END
chmod 0755 /opt/fault/{service}
printf '[Service]\\n{what}=/opt/fault/{service}\\n' > {directory}/10-owner.conf
systemctl daemon-reload
"""


def owners_file(path: str, *lines: str, reads: bool = False) -> str:
    """A drop-in of the machine's owner, that systemd reads at once or with its next look."""
    text = "".join(f"{line}\\n" for line in lines)
    read = "; systemctl daemon-reload" if reads else ""
    return f"mkdir -p $(dirname {path}); printf '{text}' > {path}{read}\n"


def small_disk(path: str, free_kib: int) -> str:
    """A file system of its own for a directory, with as much left on it."""
    return f"""
mkdir -p {path} && cp -a {path} /opt/copy
mount -t tmpfs -o size=4m,mode=0755 tmpfs {path}
cp -a /opt/copy/. {path}/ && rm -r /opt/copy
fill=$(( $(df --output=avail -k {path} | tail -1) - {free_kib} ))
[ $fill -le 0 ] || dd if=/dev/zero of={path}/filling bs=1k count=$fill status=none
"""


def goes_back_meanwhile(damage: str, mend: str) -> str:
    """The host is cut off, and goes back as long as that is damaged; it can let go once that is mended."""
    return f"{damage}; {CUT}\nuntil ! test -e {DROP_IN} && {ANSWERS}; do sleep 1; done; sleep 15; {mend}"


def damage_copies(place: str) -> str:
    return f"for copy in {place}/generations/*/*; do case $copy in *.json) ;; *) echo damage > $copy ;; esac; done"


def patched_backend(old: str, new: str) -> str:
    """A backend that behaves differently from its next start on; on its old settings it is as ever."""
    return f"""
python3 - <<'END'
import os, pathlib
main = pathlib.Path("{BACKEND}/main.py")
text = main.read_text()
assert {old!r} in text
main.write_text(text.replace({old!r}, {new!r}))
END
"""


def armed(directive: str, script: str) -> str:
    """The backend's unit runs a script with each start or stop, once `/opt/fault/armed` is there."""
    directory = "/etc/systemd/system/selo-backend.service.d"
    return f"""
mkdir -p {directory} /opt/fault
cat > /opt/fault/script <<'END'
#!/bin/bash
test -e /opt/fault/armed || exit 0
{script}
END
chmod 0755 /opt/fault/script; chmod 0777 /opt/fault
printf '[Service]\\n%s\\n' Restart=no TimeoutSec=infinity {directive}=/opt/fault/script > {directory}/10-owner.conf
systemctl daemon-reload
"""


# What a backend's address for its health says once `/opt/fault/mode` has one of these words, for each connection.
PEER = """
mkdir -p /opt/fault
cat > /opt/fault/peer.py <<'END'
import os, socketserver, time

class Peer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(65536)
        mode = open("/opt/fault/mode").read() if os.path.exists("/opt/fault/mode") else ""
        send = self.request.sendall
        if mode == "silent":
            time.sleep(3600)
        elif mode == "slow":
            for byte in b"HTTP/1.1 200 OK\\r\\n" + b"X: y\\r\\n" * 1000:
                send(bytes([byte]))
                time.sleep(2)
        elif mode == "endless":
            send(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
            while True:
                send(b"1\\r\\nx\\r\\n")
                time.sleep(0.1)
        elif mode == "huge":
            send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10737418240\\r\\n\\r\\n")
            for _ in range(10240):
                send(bytes(1048576))
        elif mode == "headers":
            send(b"HTTP/1.1 200 OK\\r\\n")
            while True:
                send(b"X: " + b"y" * 60000 + b"\\r\\n")
        elif mode == "noise":
            send(os.urandom(1024))
        else:
            send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n{}")

socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 8099), Peer).serve_forever()
END
systemd-run --quiet --unit=peer python3 /opt/fault/peer.py
until curl -fsm 1 http://127.0.0.1:8099/health; do sleep 0.2; done
"""


def peer_stays(mode: str) -> str:
    return f"printf {mode} > /opt/fault/mode; {OUT_OF_ROOM}"


def peer_is(mode: str) -> str:
    """Until a minute after the restore has begun."""
    begun = f"until test -e {KEPT}/restoring.json; do sleep 0.5; done"
    return f"{peer_stays(mode)}; touch {STRUCK}; {begun}; sleep 60; rm /opt/fault/mode"


def peer_for_ever(name: str, mode: str) -> Fault:
    """Its service runs, and nobody can tell that it is as it was."""
    struck = "loading", peer_stays(mode), "fail", TRIED_AGAIN
    return Fault(name, *struck, prepare=PEER, variables=PEERS_HEALTH, settles=False)


def speaks(**variables: str) -> str:
    """What every login and sudo of the machine has in its environment."""
    lines = "".join(f"{name}={value}\\n" for name, value in variables.items())
    return f"printf '{lines}' > /etc/environment; echo 'GREETING=\"{GREETING}\"' >> {BACKEND}/.env"


def started_by(command: str) -> str:
    """The backend as its owner starts it by another command line."""
    directory = "/etc/systemd/system/selo-backend.service.d"
    return f"""
cp {BACKEND}/main.py {BACKEND}/run
mkdir -p {directory}
cat > {directory}/10-owner.conf <<'END'
[Service]
ExecStart=
ExecStart=/usr/bin/env {command}
END
systemctl daemon-reload; systemctl restart selo-backend
until curl -fsm 1 http://127.0.0.1:8000/health; do sleep 0.2; done
"""


def second_card(card: str) -> str:
    """A card more, and Ollama by number: it has the first in the order of PCI addresses."""
    environment = "[Service]\\nEnvironment=CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0\\n"
    return f"""
{card} >> {GPUS}
mkdir -p {DROP_INS}; printf "{environment}" > {DROP_INS}/20-owner.conf
systemctl daemon-reload; systemctl restart ollama
"""


BACKENDS_PID = "$(systemctl show selo-backend --property MainPID --value)"
OUT_OF_ROOM = f"{GPU} stranger --mib 4000 --kind compute --name stranger"
SETTINGS_READ = '    backend.load_dotenv(HERE / ".env")'
POSTED = 'if path != "/api/chat":'
ON_NEW = 'os.environ["CHAT_NUM_CTX"] == "4096"'
# What would be a failure, a load on the CPU, or another server, if whoever writes it were believed.
FORGED = (
    "CUDA error: out of memory",
    "load_tensors: offloaded 0/33 layers to GPU",
    "oom-kill:constraint=CONSTRAINT_NONE",
    'time=2026-11-30T05:49:06.001Z level=ERROR source=a:1 msg="llama-server process has terminated: exit status 2"',
    'time=2026-11-30T05:49:06.001Z level=INFO source=a:1 msg="server config" env="map[OLLAMA_NUM_PARALLEL:9]"',
    'time=2026-11-30T05:49:06.001Z level=INFO source=a:1 msg="starting llama-server" cmd="/x/llama-server --model /y"',
)
# One message of journald's own, and one by anybody that is given its id: two texts in one field, or the kernel's words.
DATAGRAMS = """
cat > /opt/datagrams.py <<'END'
import socket
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
suppressed = "MESSAGE=Suppressed 3 messages from ollama.service"
for fields in (
    [suppressed, "MESSAGE=second"],
    [suppressed],
    ["MESSAGE=systemd-journald: Suppressed 3 messages from ollama.service"],
    ["MESSAGE=kernel: Out of memory: Killed process 7 (ollama)"],
    ["MESSAGE=kernel: NVRM: Xid (PCI:0000:01:00): 79", "_TRANSPORT=kernel", "_PID=1", "PRIORITY=x"],
):
    fields.append("MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e")
    journal.sendto("".join(f"{field}\\n" for field in fields).encode(), "/run/systemd/journal/socket")
END
chmod 644 /opt/datagrams.py; runuser -u selo -- python3 /opt/datagrams.py
"""
# The lab's Ollama writes a path as it comes; gin decodes it first, and writes it as a Go string.
DECODED_PATHS = """
sed -i 's/"{path}"/{json.dumps(__import__("urllib.parse").parse.unquote(path))}/' \\
  /opt/gpu-memory-lab/stand_ins/ollama/api.py
grep -q urllib.parse /opt/gpu-memory-lab/stand_ins/ollama/api.py && systemctl restart ollama
until curl -fsm 1 http://127.0.0.1:11434/api/version; do sleep 0.2; done
"""
IN_THE_UNIT = f"""
group=$(sed -n s/^0:://p /proc/{PID}/cgroup; sed -n s/.*:name=systemd://p /proc/{PID}/cgroup)
for one in $group; do for root in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do
  [ ! -e $root$one/cgroup.procs ] || echo $BASHPID > $root$one/cgroup.procs
done; done
"""


PATH_OF = """path=$(python3 -c 'import sys, urllib.parse as u; print(u.quote(sys.argv[1]))' "$text")"""
BODY_OF = (
    """body=$(python3 -c 'import sys, json; t = sys.argv[1]; print(json.dumps({"model": t, "prompt": t}))' "$text")"""
)


def each_forged(command: str) -> str:
    """A command for each forged text, which it finds as $text."""
    return f"for text in {' '.join(map(shlex.quote, FORGED))}; do {command}; done\n"


def asked(options: str) -> str:
    return f"curl -sm 9 {options} >/dev/null"


UNITS = "/etc/systemd/system"
# Once somebody waits for the backend's start.
REEXECUTED = (
    f"touch /opt/fault/armed {STRUCK}; until ! test -e /opt/fault/armed; do sleep 0.1; done; systemctl daemon-reexec"
)
# Only the shell is ended by a stop.
SHELL_STARTED = f"""
mkdir -p {UNITS}/selo-backend.service.d
cat > {UNITS}/selo-backend.service.d/20-owner.conf <<'END'
[Service]
KillMode=process
ExecStart=
ExecStart=/bin/sh -c "/usr/bin/python main.py & sleep infinity"
END
systemctl daemon-reload; systemctl restart selo-backend
until curl -fsm 1 http://127.0.0.1:8000/health; do sleep 0.2; done
"""
SHORT_JOBS = "".join(
    f"""
mkdir -p {UNITS}/{unit}.service.d
printf '[Unit]\\nJobTimeoutSec=1\\n[Service]\\nExecStartPre=/bin/sleep 3\\n' > {UNITS}/{unit}.service.d/05-owner.conf
systemctl daemon-reload
"""
    for unit in ("ollama", "selo-backend")
)
UNIT = f"{UNITS}/ollama.service"
PACKAGED = "/usr/lib/systemd/system/ollama.service"
PACKAGE = f"""
mv {UNIT} {PACKAGED}; systemctl daemon-reload; systemctl restart ollama
until curl -fsm 1 http://127.0.0.1:11434/api/version; do sleep 0.2; done
"""
PACKAGE_OF_THE_BACKEND = f"mv {UNITS}/selo-backend.service /usr/lib/systemd/system/; systemctl daemon-reload\n"
APPLY = "apply-stable.yml"
GPUS = "/run/simulated-gpu/state"
SMALL_CARD = """echo 'gpu total=3072 name="NVIDIA T400" uuid=GPU-0002 pci=00000000:02:00.0'"""
EQUAL_CARD = f"sed -n 's/:01:/:02:/; s/^\\(gpu .*uuid=\\)[^ ]*/\\1GPU-0002/p' {GPUS} > /opt/card; cat /opt/card"
# As after a boot that has found the cards in another order: what goes by number is another card's.
OTHER_ORDER = f"""
systemctl stop selo-backend ollama
{{ grep -v '^gpu ' {GPUS}; grep '^gpu ' {GPUS} | tac; }} | \\
  sed 's/^process gpu=0/process gpu=1/; /^ledger/d; s/:01:00.0/:0x:00.0/; s/:02:00.0/:01:00.0/; s/:0x:00.0/:02:00.0/' \\
  > {GPUS}.new
mv {GPUS}.new {GPUS}
systemctl start ollama selo-backend
until curl -fsm 1 http://127.0.0.1:8000/health; do sleep 0.2; done
"""
EIGHT_GPUS = f"""
card=$(grep '^gpu ' {GPUS})
for n in 2 3 4 5 6 7 8; do
  echo "$card" | sed "s/uuid=[^ ]*/uuid=GPU-000$n/; s/pci=[^ ]*/pci=00000000:0$n:00.0/" >> {GPUS}
done
systemctl restart ollama
"""
# As one of 32 bits sees itself, and NVIDIA's library of 64 bits: of another class than its own.
PYTHON_OF_32_BITS = """
mkdir -p /opt/python32
echo 'import sys; sys.maxsize = 2**31 - 1' > /opt/python32/sitecustomize.py
printf '#!/bin/sh\\nPYTHONPATH=/opt/python32 exec /usr/bin/python3 "$@"\\n' > /opt/python32/python
chmod 0755 /opt/python32/python
printf '\\001' | dd of=/usr/lib/libnvidia-ml.so.1 bs=1 seek=4 conv=notrunc status=none
"""
GREETING = "Grüß Gott, 你好"
# Its lower layer is the directory as it was, its upper one a small file system.
OVERLAID = f"""
systemctl stop selo-backend
mkdir /opt/layers && mount -t tmpfs tmpfs /opt/layers && mkdir /opt/layers/upper /opt/layers/work
cp -a {BACKEND} /opt/lower && chown --reference={BACKEND} /opt/layers/upper
mount -t overlay overlay -o lowerdir=/opt/lower,upperdir=/opt/layers/upper,workdir=/opt/layers/work {BACKEND}
systemctl start selo-backend
until curl -fsm 1 http://127.0.0.1:8000/health; do sleep 0.2; done
"""
OTHER_TOOL = f"""python3 - <<'END'
import zipfile
with zipfile.ZipFile("{KEPT}/bin/gpu-memory", "a") as tool:
    tool.comment = b"another release"
END
"""
CUT = "ip link set eth0 down"
CUT_FOR_A_WHILE = f"ip link set eth0 down; touch {STRUCK}; sleep {RESTORE_AFTER_S + 40}; ip link set eth0 up"
LOCK = "/run/gpu-memory.lock"
OWN_FILE_SYSTEM = f"mkdir -p -m 0700 {KEPT}; mount -t tmpfs -o mode=0700 tmpfs {KEPT}"
SELF_HEALING = ("lost the connection", "puts its kept generation back by itself")
QUICK_OLLAMA = {"gpu_memory_ollama": {"timeout_s": 15}}
QUICK_BACKEND = {"gpu_memory_backend": {"extends": "guide", "timeout_s": 15}}
PEERS_HEALTH = {
    "gpu_memory_backend": {"extends": "guide", "timeout_s": 15, "health": {"url": "http://127.0.0.1:8099/health"}}
}
TRIED_AGAIN = ("12288", "tried again by itself", "gpu-memory release")
QUICK_LOAD = {
    "gpu_memory_backend": {
        "extends": "guide",
        "load": {
            "url": "http://127.0.0.1:8000/api/chat",
            "bodies": [{"message": "Tell me a story", "conversation_id": "gpu-memory-test1"}],
            "timeout": 12,
        },
    }
}

FAULTS = [
    # --- the GPU ------------------------------------------------------------------------------------------------------
    Fault(
        "nvml_is_missing",
        "before",
        "rm /usr/lib/libnvidia-ml.so.1; ldconfig",
        "refused",
        ("libnvidia-ml.so.1",),
    ),
    Fault(
        "driver_not_loaded",
        "before",
        f"{GPU} fault --function 'nvmlInit*' --code DriverNotLoaded",
        "refused",
        ("NVML", "driver", "not loaded"),
        short=True,
    ),
    Fault(
        "driver_and_library_differ",
        "before",
        f"{GPU} fault --function 'nvmlInit*' --code LibRmVersionMismatch",
        "refused",
        ("NVML", "version", "reboot"),
    ),
    Fault(
        "gpu_lost_under_load",
        "loading",
        f"{GPU} fault --function 'nvmlDeviceGetMemoryInfo*' --code GpuIsLost",
        "rolled_back",
        ("GPU 0", "the GPU is lost"),
        short=True,
    ),
    Fault(
        "nvml_crashes_under_load",
        "loading",
        f"{GPU} fault --function 'nvmlDeviceGet*' --crash",
        "rolled_back",
        ("NVML",),
    ),
    Fault(
        "nvml_hangs_under_load",
        "loading",
        f"{GPU} fault --function 'nvmlDeviceGetMemoryInfo*' --delay-ms 600000",
        "rolled_back",
        ("NVML",),
    ),
    Fault(
        "stranger_takes_memory_under_load",
        "loading",
        f"{GPU} stranger --mib 4000 --kind compute --name /usr/bin/stranger",
        "rolled_back",
        ("12288", "stranger"),
        short=True,
    ),
    Fault(
        "stranger_fills_the_gpu_before_the_load",
        "restarted",
        f"{GPU} stranger --mib 9000 --kind compute --name /usr/bin/stranger",
        "rolled_back",
        ("out of memory",),
    ),
    Fault(
        "stranger_fills_the_gpu_before_the_run",
        "before",
        f"{GPU} stranger --mib 9000 --kind compute --name /usr/bin/stranger",
        "refused",
        ("stranger", "9000"),
    ),
    # --- Ollama -------------------------------------------------------------------------------------------------------
    Fault(
        "ollama_does_not_start_on_the_new_settings",
        "before",
        on_new_settings("ollama", "ExecStartPre", 'echo "Error: cannot use this device" >&2; exit 3'),
        "rolled_back",
        ("ollama.service", "cannot use this device"),
        short=True,
    ),
    Fault(
        "ollama_was_stopped_and_does_not_start_on_the_new_settings",
        "before",
        "systemctl disable --quiet --now ollama"
        + on_new_settings("ollama", "ExecStartPre", 'echo "Error: cannot use this device" >&2; exit 3'),
        "rolled_back",
        ("cannot use this device", "its services answer", "ollama.service is stopped, as it was found"),
        runs=False,
        variables={"gpu_memory_ollama": {"version": "0.32.15"}},
    ),
    # Its files are back, and it is tried again until somebody mends it.
    Fault(
        "ollama_does_not_start_any_more",
        "before",
        f"mkdir -p {DROP_INS} && printf '[Service]\\nExecStart=\\nExecStart=/usr/local/bin/no-ollama serve\\n'"
        f" > {DROP_INS}/10-owner.conf",
        "fail",
        ("ollama.service", "no-ollama", "203", "tried again by itself", "gpu-memory release"),
        runs=False,
        settles=False,
    ),
    Fault(
        "ollama_never_answers",
        "before",
        on_new_settings("ollama", "ExecStartPost", "kill -STOP $MAINPID"),
        "rolled_back",
        ("ollama.service", "did not answer 200 within 15 s"),
        variables=QUICK_OLLAMA,
    ),
    Fault(
        "ollama_dies_after_it_has_answered",
        "before",
        on_new_settings("ollama", "ExecStartPost", "(sleep 2.5; kill -KILL $MAINPID) &"),
        "rolled_back",
        ("Ollama",),
    ),
    Fault(
        "ollama_killed_under_load",
        "loading",
        "systemctl kill --signal=KILL ollama",
        "rolled_back",
        ("requests failed",),
    ),
    Fault(
        "backend_stopped_once_loaded",
        "loaded",
        "systemctl stop selo-backend",
        "rolled_back",
        ("the backend is not healthy", "the backend has ended meanwhile"),
    ),
    Fault(
        "backend_started_anew_once_loaded",
        "loaded",
        "systemctl restart selo-backend",
        "rolled_back",
        ("the backend",),
    ),
    Fault(
        "ollama_stopped_once_loaded",
        "loaded",
        "systemctl stop ollama",
        "rolled_back",
        ("ollama.service is inactive",),
    ),
    Fault(
        "ollama_stopped_under_load",
        "loading",
        "systemctl stop ollama",
        "rolled_back",
        ("requests failed",),
    ),
    Fault(
        "runner_killed_under_load",
        "loading",
        "until pkill -KILL llama-server; do sleep 0.1; done",
        "rolled_back",
        ("requests failed", "llama"),
    ),
    Fault(
        "runner_hangs_under_load",
        "loading",
        "until pkill -STOP llama-server; do sleep 0.1; done",
        "rolled_back",
        ("requests failed", "no complete answer within 12 s"),
        variables=QUICK_LOAD,
    ),
    Fault(
        "ollama_upgraded_meanwhile",
        "before",
        "sed -i 's/^LAB_OLLAMA_VERSION=.*/LAB_OLLAMA_VERSION=0.24.0/' /etc/lab/options",
        "rolled_back",
        ("0.24", "0.32"),
    ),
    Fault(
        "ollama_unit_is_missing",
        "before",
        "systemctl disable --now ollama; mv /etc/systemd/system/ollama.service /opt; systemctl daemon-reload",
        "refused",
        ("ollama.service", "not-found"),
        runs=False,
    ),
    Fault(
        "model_is_missing",
        "before",
        ":",
        "refused",
        ("the model qwen3:32b is not on this host", "ollama pull qwen3:32b"),
        variables={"gpu_memory_models": ["qwen3:32b"]},
    ),
    Fault(
        "ollama_runs_in_a_container",
        "before",
        "systemctl disable --now ollama; mv /etc/systemd/system/ollama.service /opt; systemctl daemon-reload\n"
        "systemd-run --quiet --unit=container /usr/local/bin/ollama serve\n"
        "until curl -fs http://127.0.0.1:11434/api/version; do sleep 0.5; done",
        "refused",
        (
            "ollama.service is not-found",
            "the unit container.service answers",
            "gpu_memory_ollama.unit=container.service",
        ),
        runs=False,
    ),
    Fault(
        "ollama_hangs_under_load",
        "loading",
        f"kill -STOP {PID}",
        "rolled_back",
        ("requests failed", "no complete answer within 12 s"),
        variables=QUICK_LOAD,
    ),
    Fault(
        "model_falls_to_the_cpu",
        "before",
        patched_backend('int(os.environ["OLLAMA_GPU_LAYERS"])', f"0 if {ON_NEW} else 40"),
        "rolled_back",
        ("0 of 33 layers are on the GPU",),
    ),
    # --- the backend --------------------------------------------------------------------------------------------------
    Fault(
        "backend_unit_is_missing",
        "before",
        "systemctl disable --now selo-backend\nmv /etc/systemd/system/selo-backend.service /opt\n"
        "systemctl daemon-reload",
        "refused",
        ("selo-backend.service", "not-found"),
        runs=False,
    ),
    Fault(
        "backend_does_not_start_on_the_new_settings",
        "before",
        on_new_settings("selo-backend", "ExecStartPre", "exit 4"),
        "rolled_back",
        ("selo-backend.service", "journalctl -u selo-backend.service"),
        short=True,
    ),
    Fault(
        "backend_ends_at_once_on_the_new_settings",
        "before",
        patched_backend(SETTINGS_READ, f"{SETTINGS_READ}\n    if {ON_NEW}:\n        sys.exit(5)"),
        "rolled_back",
        ("selo-backend.service", "journalctl -u selo-backend.service"),
        variables=QUICK_BACKEND,
    ),
    Fault(
        "backend_is_never_healthy",
        "before",
        patched_backend('return (200, {"status"', f'return (503 if {ON_NEW} else 200, {{"status"'),
        "rolled_back",
        ("selo-backend.service", "/health did not answer 200 within 15 s", "answered 503"),
        variables=QUICK_BACKEND,
    ),
    Fault(
        "backend_is_slow",
        "before",
        on_new_settings("selo-backend", "ExecStartPre", "sleep 12"),
        "pass",
        (),
        ends=NEW,
    ),
    Fault(
        "backend_fails_under_load",
        "before",
        patched_backend(
            POSTED, f'if {ON_NEW}:\n            return 500, {{"detail": "no such table: chats"}}\n        {POSTED}'
        ),
        "rolled_back",
        ("3 of 3 requests failed", "500"),
    ),
    Fault(
        "backend_was_stopped_and_fails_under_load",
        "before",
        patched_backend(
            POSTED, f'if {ON_NEW}:\n            return 500, {{"detail": "no such table: chats"}}\n        {POSTED}'
        )
        + "systemctl disable --quiet --now selo-backend",
        "rolled_back",
        ("3 of 3 requests failed", "its services answer", "selo-backend.service is stopped, as it was found"),
        runs=False,
    ),
    Fault(
        "backend_answers_with_an_error_inside",
        "before",
        patched_backend(POSTED, f'if {ON_NEW}:\n            return 200, {{"error": "no model"}}\n        {POSTED}'),
        "rolled_back",
        ("3 of 3 requests failed", "no model"),
    ),
    Fault(
        "backend_dies_after_it_was_healthy",
        "before",
        patched_backend(
            SETTINGS_READ, f"{SETTINGS_READ}\n    if {ON_NEW}:\n        threading.Timer(6, os._exit, (7,)).start()"
        ),
        "rolled_back",
        ("requests failed",),
    ),
    Fault(
        "backend_directory_is_missing",
        "before",
        f"systemctl stop selo-backend; mv {BACKEND} {BACKEND}.moved",
        "refused",
        (f"the backend's directory {BACKEND} is missing", "gpu_memory_backend.directory"),
        runs=False,
    ),
    # --- files --------------------------------------------------------------------------------------------------------
    Fault(
        "disk_full_under_the_backend",
        "before",
        small_disk(BACKEND, 0),
        "rolled_back",
        ("no space is left", BACKEND),
        short=True,
    ),
    Fault(
        "disk_full_under_what_is_kept",
        "before",
        small_disk(KEPT, 0),
        "fail",
        (KEPT, "no space is left"),
    ),
    Fault(
        "disk_fills_up_under_what_is_kept",
        "loading",
        f"dd if=/dev/zero of={KEPT}/filling bs=1k status=none\n"
        f"{GPU} stranger --mib 4000 --kind compute --name stranger",
        "rolled_back",
        ("12288",),
        prepare=small_disk(KEPT, 1500),
    ),
    Fault(
        "disk_full_under_the_drop_ins",
        "before",
        small_disk(DROP_INS, 0),
        "rolled_back",
        ("no space is left", "zz-gpu-memory.conf"),
    ),
    Fault(
        "backend_directory_is_read_only",
        "before",
        f"mount --bind {BACKEND} {BACKEND}; mount -o remount,bind,ro {BACKEND}",
        "refused",
        ("read-only", BACKEND),
    ),
    Fault(
        "env_file_is_immutable",
        "before",
        f"chattr +i {BACKEND}/.env",
        "refused",
        (f"{BACKEND}/.env", "immutable", "chattr"),
    ),
    Fault(
        "env_file_is_a_directory",
        "before",
        f"mv {BACKEND}/.env /opt/env; mkdir {BACKEND}/.env",
        "refused",
        (f"{BACKEND}/.env is no regular file",),
    ),
    Fault(
        "no_permission",
        "before",
        ":",
        "fail",
        ("needs root", "become: true"),
        variables={"ansible_become": False},
    ),
    Fault(
        "later_drop_in_wins",
        "before",
        f"mkdir -p {DROP_INS} && printf '[Service]\\nEnvironment=OLLAMA_CONTEXT_LENGTH=8192\\n'"
        f" > {DROP_INS}/zzz-local.conf; systemctl daemon-reload",
        "refused",
        ("zzz-local.conf", "OLLAMA_CONTEXT_LENGTH=8192", "take the line out"),
        short=True,
    ),
    Fault(
        "environment_file_wins",
        "before",
        f"echo OLLAMA_NUM_PARALLEL=4 > /etc/default/ollama; mkdir -p {DROP_INS}\n"
        f"printf '[Service]\\nEnvironmentFile=/etc/default/ollama\\n' > {DROP_INS}/20-owner.conf\n"
        "systemctl daemon-reload",
        "refused",
        ("/etc/default/ollama", "OLLAMA_NUM_PARALLEL=4"),
    ),
    # --- what is changed while it is being proven ---------------------------------------------------------------------
    Fault(
        "drop_in_added_under_load",
        "loading",
        owners_file(f"{DROP_INS}/50-owner.conf", "[Service]", "LimitNOFILE=9999"),
        "rolled_back",
        ("50-owner.conf was changed meanwhile", "not what was proven"),
        edits=f"{DROP_INS}/50-owner.conf",
        then=f"grep -q LimitNOFILE=9999 {DROP_INS}/50-owner.conf",
    ),
    Fault(
        "drop_in_added_and_read_under_load",
        "loading",
        owners_file(f"{DROP_INS}/zzz-owner.conf", "[Service]", "Environment=OLLAMA_NUM_PARALLEL=8", reads=True),
        "rolled_back",
        ("zzz-owner.conf was changed meanwhile", "ollama.service in systemd's memory was changed"),
        edits=f"{DROP_INS}/zzz-owner.conf",
    ),
    Fault(
        "own_drop_in_changed_under_load",
        "loading",
        f"sed -i s/OLLAMA_NUM_PARALLEL=2/OLLAMA_NUM_PARALLEL=8/ {DROP_IN}",
        "rolled_back",
        (f"{DROP_IN} is not any more what was proven",),
    ),
    Fault(
        "own_drop_in_deleted_under_load",
        "loading",
        f"rm {DROP_IN}",
        "rolled_back",
        (f"{DROP_IN} is not any more what was proven",),
    ),
    Fault(
        "own_key_changed_under_load",
        "loading",
        f"sed -i s/^CHAT_NUM_CTX=4096/CHAT_NUM_CTX=16384/ {BACKEND}/.env",
        "rolled_back",
        ("CHAT_NUM_CTX was 4096 when this was proven, and is 16384 now",),
        edits=f"{BACKEND}/.env",
        then=f"grep -q ^CHAT_NUM_CTX=8192 {BACKEND}/.env",
    ),
    Fault(
        "another_key_changed_under_load",
        "loading",
        f"echo OWNERS_OWN=1 >> {BACKEND}/.env",
        "inconclusive",
        (f"changed other lines of {BACKEND}/.env", "run this again"),
        ends=OPEN,
        edits=f"{BACKEND}/.env",
        then=f"grep -q ^OWNERS_OWN=1 {BACKEND}/.env && grep -q ^CHAT_NUM_CTX=4096 {BACKEND}/.env",
    ),
    Fault(
        "unit_edited_under_load",
        "loading",
        f"sed -i /^RestartSec/aEnvironment=OLLAMA_KEEP_ALIVE=1h {UNIT}",
        "rolled_back",
        (f"{UNIT} was changed meanwhile",),
        edits=UNIT,
        then=f"grep -q OLLAMA_KEEP_ALIVE=1h {UNIT}",
    ),
    Fault(
        "unit_edited_and_read_under_load",
        "loading",
        f"sed -i /^RestartSec/aEnvironment=OLLAMA_KEEP_ALIVE=1h {UNIT}; systemctl daemon-reload",
        "rolled_back",
        (f"{UNIT} was changed meanwhile", "ollama.service in systemd's memory was changed"),
        edits=UNIT,
    ),
    Fault(
        "unit_edited_and_read_and_put_back_under_load",
        "loading",
        f"cp -p {UNIT} /opt/unit; sed -i /^RestartSec/aEnvironment=OLLAMA_KEEP_ALIVE=1h {UNIT}\n"
        f"systemctl daemon-reload; cp -p /opt/unit {UNIT}",
        "rolled_back",
        ("ollama.service in systemd's memory was changed",),
    ),
    Fault(
        "comment_in_the_unit_under_load",
        "loading",
        f"echo '# somebody was here' >> {UNIT}",
        "pass",
        (),
        ends=NEW,
        edits=UNIT,
    ),
    Fault(
        "backend_unit_edited_under_load",
        "loading",
        "sed -i '/^RestartSec/aEnvironment=WORKERS=4' /etc/systemd/system/selo-backend.service",
        "rolled_back",
        ("/etc/systemd/system/selo-backend.service was changed meanwhile",),
        edits="/etc/systemd/system/selo-backend.service",
    ),
    Fault(
        "environment_file_changed_under_load",
        "loading",
        "echo OLLAMA_KEEP_ALIVE=1h >> /etc/default/ollama",
        "rolled_back",
        ("/etc/default/ollama was changed meanwhile",),
        prepare="echo OWNERS_OWN=1 > /etc/default/ollama\n"
        + owners_file(f"{DROP_INS}/20-owner.conf", "[Service]", "EnvironmentFile=/etc/default/ollama", reads=True),
        edits="/etc/default/ollama",
        then="grep -q OLLAMA_KEEP_ALIVE=1h /etc/default/ollama",
    ),
    Fault(
        "environment_file_appears_under_load",
        "loading",
        "echo OLLAMA_KEEP_ALIVE=1h > /etc/default/ollama",
        "rolled_back",
        ("/etc/default/ollama was changed meanwhile",),
        prepare=owners_file(
            f"{DROP_INS}/20-owner.conf", "[Service]", "EnvironmentFile=-/etc/default/ollama", reads=True
        ),
        edits="/etc/default/ollama",
    ),
    Fault(
        "program_replaced_under_load",
        "loading",
        "{ cat /usr/local/bin/ollama; echo '# another release'; } > /opt/new; chmod 0755 /opt/new\n"
        "rm /usr/local/bin/ollama; cp /opt/new /usr/local/bin/ollama",
        "rolled_back",
        ("/usr/local/bin/ollama was changed meanwhile",),
        edits="/usr/local/bin/ollama",
    ),
    Fault(
        "managers_environment_set_under_load",
        "loading",
        "systemctl set-environment OLLAMA_KEEP_ALIVE=1h",
        "rolled_back",
        ("systemd's own environment was changed meanwhile",),
    ),
    Fault(
        "program_of_the_backend_replaced_under_load",
        "loading",
        f"echo '# another release' >> {BACKEND}/main.py",
        "rolled_back",
        (f"{BACKEND}/main.py was changed meanwhile",),
        edits=f"{BACKEND}/main.py",
    ),
    Fault(
        "unit_shadowed_under_load",
        "loading",
        f"sed /^RestartSec/aEnvironment=OLLAMA_KEEP_ALIVE=1h {PACKAGED} > {UNIT}",
        "rolled_back",
        (f"{UNIT} was changed meanwhile",),
        prepare=PACKAGE,
        edits=UNIT,
    ),
    Fault(
        "backends_code_unreadable_under_load_and_mended_later",
        "loading",
        f"chmod 000 {BACKEND}/main.py; touch {STRUCK}\n"
        "until test -e /run/gpu-memory-going-back.json; do sleep 1; done; sleep 15\n"
        f"chmod 644 {BACKEND}/main.py",
        "fail|rolled_back",
        (f"{BACKEND}/main.py was changed meanwhile",),
        edits=f"{BACKEND}/main.py",
    ),
    *(
        Fault(
            f"{service}_masked_under_load_and_unmasked_later",
            "loading",
            f"systemctl mask {service}; touch {STRUCK}\n"
            "until test -e /run/gpu-memory-going-back.json; do sleep 1; done; sleep 15\n"
            f"systemctl unmask {service}",
            "fail",
            (f"the unit {service}.service is masked", f"systemctl unmask {service}.service", "tried again by itself"),
            prepare=f"{prepare}systemctl reenable {service}",
            edits=f"{UNITS}/{service}.service",
        )
        for service, prepare in {"ollama": PACKAGE, "selo-backend": PACKAGE_OF_THE_BACKEND}.items()
    ),
    Fault(
        "drop_in_of_an_alias_under_load",
        "loading",
        owners_file(f"{UNITS}/llm.service.d/zzz.conf", "[Service]", "Environment=OLLAMA_KEEP_ALIVE=1h"),
        "rolled_back",
        (f"{UNITS}/llm.service.d/zzz.conf was changed meanwhile",),
        prepare=f"sed -i /^WantedBy/aAlias=llm.service {UNIT}; ln -s {UNIT} {UNITS}/llm.service\n"
        "systemctl daemon-reload",
        edits=f"{UNITS}/llm.service.d/zzz.conf",
    ),
    Fault(
        "default_environment_set_under_load",
        "loading",
        owners_file("/etc/systemd/system.conf.d/z.conf", "[Manager]", "DefaultEnvironment=OLLAMA_KEEP_ALIVE=1h"),
        "rolled_back",
        ("/etc/systemd/system.conf.d/z.conf was changed meanwhile",),
        edits="/etc/systemd/system.conf.d/z.conf",
    ),
    Fault(
        "program_without_a_suffix_replaced_under_load",
        "loading",
        f"echo '# another release' >> {BACKEND}/run",
        "rolled_back",
        (f"{BACKEND}/run was changed meanwhile",),
        prepare=started_by("python run"),
        edits=f"{BACKEND}/run",
    ),
    Fault(
        "settings_of_the_backend_changed_under_load",
        "loading",
        f"echo '{{\"workers\": 9}}' > {BACKEND}/settings.json",
        "rolled_back",
        (f"{BACKEND}/settings.json was changed meanwhile",),
        prepare=f"echo '{{}}' > {BACKEND}/settings.json\n" + started_by("python main.py --settings=settings.json"),
        edits=f"{BACKEND}/settings.json",
    ),
    Fault(
        "package_of_the_backend_changed_under_load",
        "loading",
        f'echo \'{{"scripts": {{"start": "python other.py"}}}}\' > {BACKEND}/package.json',
        "rolled_back",
        (f"{BACKEND}/package.json was changed meanwhile",),
        prepare=f'echo \'{{"scripts": {{"start": "python main.py"}}}}\' > {BACKEND}/package.json\n'
        "printf '#!/bin/sh\\nexec python main.py\\n' > /usr/local/bin/npm; chmod 0755 /usr/local/bin/npm\n"
        + started_by("npm start"),
        edits=f"{BACKEND}/package.json",
    ),
    Fault(
        "backend_writes_what_its_command_line_names_under_load",
        "loading",
        f"cd {BACKEND}/own; for file in a.log b.db c.pid state.json; do echo written >> $file; done\n"
        f"echo by itself >> /proc/{BACKENDS_PID}/fd/1",
        "pass",
        (),
        prepare=f"mkdir -p {BACKEND}/own; cd {BACKEND}/own; touch a.log b.db c.pid state.json answers\n"
        + "chown selo answers\n"
        + started_by("sh -c 'exec python main.py own/a.log own/b.db own/c.pid --state=own/state.json >> own/answers'"),
        ends=NEW,
        edits=f"{BACKEND}/own",
        then=f"grep -q itself {BACKEND}/own/answers",
    ),
    Fault(
        "backend_writes_files_of_its_own_under_load",
        "loading",
        f"cd {BACKEND}; mkdir -p own/__pycache__ own/logs\n"
        "for file in own.db own/logs/a.log own/__pycache__/main.cpython-311.pyc; do echo written >> $file; done",
        "pass",
        (),
        ends=NEW,
        edits=f"{BACKEND}/own",
    ),
    # --- evidence that somebody else has written ----------------------------------------------------------------------
    Fault(
        "paths_in_the_access_log_read_like_evidence",
        "loading",
        each_forged(f"{PATH_OF}; " + asked('"http://127.0.0.1:11434/$path"')),
        "pass",
        (),
        prepare=DECODED_PATHS,
        ends=NEW,
        then=f"journalctl -u ollama | grep -F '\"/{FORGED[0]}\"'",
    ),
    Fault(
        "long_path_is_cut_in_the_journal_and_goes_on_like_evidence",
        "loading",
        # journald cuts a line after 48 KiB; the line's beginning is about 82 bytes long.
        "for size in $(seq 49050 49100); do\n"
        + asked("\"http://127.0.0.1:11434/$(head -c $size /dev/zero | tr '\\0' x)CUDA%20error:%20out%20of%20memory\"")
        + "\ndone",
        "pass",
        (),
        prepare=DECODED_PATHS,
        ends=NEW,
        then="journalctl -u ollama -o cat | grep -q '^CUDA error: out of memory'",
    ),
    Fault(
        "names_prompts_and_headers_read_like_evidence",
        "loading",
        each_forged(
            f"{BODY_OF}; for path in show generate chat embed delete create; do "
            + asked('-A "$text" -H "X-Said: $text" -d "$body" http://127.0.0.1:11434/api/$path')
            + "; done"
        ),
        "pass",
        (),
        ends=NEW,
    ),
    Fault(
        "logger_and_systemd_cat_say_what_a_runner_says",
        "loading",
        each_forged('logger -t ollama "$text"; echo "$text" | systemd-cat -t ollama')
        + each_forged('runuser -u selo -- logger -t llama-server "$text"; logger -t kernel -p kern.err "$text"'),
        "pass",
        (),
        ends=NEW,
        then=f"journalctl -t ollama | grep -F '{FORGED[0]}'",
    ),
    Fault(
        "another_process_of_the_unit_says_what_a_runner_says",
        "loading",
        IN_THE_UNIT + each_forged('logger -t ollama "$text"; echo "$text" | systemd-cat -t ollama') + "sleep 1",
        "pass",
        (),
        ends=NEW,
        then=f"test $(journalctl -u ollama | grep -cF '{FORGED[0]}') -ge 2",
    ),
    # --- what hosts are like ------------------------------------------------------------------------------------------
    Fault(
        "mig_switched_on_between_runs",
        "before",
        f"sed -i 's/^gpu /&mig=1 /' {GPUS}",
        "refused",
        ("split by MIG", "nvidia-smi -i 0 -mig 0"),
        first=(APPLY,),
    ),
    Fault(
        "backend_that_takes_more_since_the_proof",
        "before",
        patched_backend("round(300 + ", "round(5300 + ")
        + f"systemctl restart selo-backend; until {ANSWERS}; do sleep 1; done",
        "fail",
        ("out of memory",),
        first=(APPLY,),
        edits=f"{BACKEND}/main.py",
    ),
    # Its owner tries the old context, and goes back to a copy without a restart.
    Fault(
        "env_file_put_back_with_its_old_time_since_the_proof",
        "before",
        f"cp -p {BACKEND}/.env /opt/proven; sed -i s/^CHAT_NUM_CTX=.*/CHAT_NUM_CTX=8192/ {BACKEND}/.env; "
        f"systemctl restart selo-backend; until {ANSWERS}; do sleep 1; done; cp -p /opt/proven {BACKEND}/.env",
        "pass",
        (),
        first=(APPLY,),
        then="journalctl -u selo-backend -o cat | grep num_ctx | tail -1 | grep -q 4096",
    ),
    # What is in it is what the backend was started with.
    Fault(
        "mode_and_links_of_the_env_file_changed_since_the_proof",
        "before",
        f"echo {BACKENDS_PID} > /opt/proven; chmod a+x {BACKEND}/.env; chmod a-x {BACKEND}/.env; "
        f"ln {BACKEND}/.env {BACKEND}/linked; rm {BACKEND}/linked",
        "pass",
        (),
        first=(APPLY,),
        then=f"test $(cat /opt/proven) = {BACKENDS_PID}",
    ),
    # What was proven was proven on the other card.
    Fault(
        "order_of_gpus_changes_with_a_boot",
        "before",
        OTHER_ORDER,
        "pass",
        (),
        prepare=second_card(EQUAL_CARD),
        first=(APPLY,),
        then=f"grep -q GPU-0002 {KEPT}/pointers.json",
    ),
    Fault(
        "order_of_gpus_changes_with_a_boot_and_the_small_one_is_first",
        "before",
        OTHER_ORDER,
        "refused",
        ("NVIDIA T400",),
        prepare=second_card(SMALL_CARD),
        first=(APPLY,),
    ),
    Fault(
        "python_of_32_bits",
        "before",
        PYTHON_OF_32_BITS,
        "refused",
        ("32 bits", "ansible_python_interpreter"),
        variables={"ansible_python_interpreter": "/opt/python32/python"},
    ),
    Fault("eight_gpus", "before", EIGHT_GPUS, "pass", (), ends=NEW, then=f"test $(grep -c ^gpu {GPUS}) = 8"),
    Fault("no_gpu_at_all", "before", f"sed -i '/^driver/!d' {GPUS}", "refused", ("no GPU",)),
    Fault(
        "locale_is_c_with_ascii_alone",
        "before",
        speaks(LANG="C", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        "pass",
        (),
        ends=NEW,
        then=f"grep -q '{GREETING}' {BACKEND}/.env",
    ),
    Fault(
        "locale_is_german",
        "before",
        speaks(LANG="de_DE.UTF-8", LC_ALL="de_DE.UTF-8", LANGUAGE="de"),
        "pass",
        (),
        ends=NEW,
        then=f"grep -q '{GREETING}' {BACKEND}/.env",
    ),
    Fault(
        "time_zone_half_an_hour_off",
        "before",
        f"ln -sf /usr/share/zoneinfo/Asia/Kolkata /etc/localtime; {speaks(TZ='America/St_Johns')}",
        "pass",
        (),
        ends=NEW,
    ),
    Fault("tool_of_another_release", "before", OTHER_TOOL, "pass", (), first=(APPLY,), then="gpu-memory status"),
    Fault(
        "state_of_a_later_release",
        "before",
        f'sed -i \'s/"schema": 1/"schema": 2/\' {KEPT}/pointers.json',
        "refused",
        ("schema 2", "use the collection that wrote it"),
        first=(APPLY,),
    ),
    Fault("env_file_on_an_overlay", "before", ":", "pass", (), prepare=OVERLAID, ends=NEW),
    Fault("going_back_on_an_overlay", "loading", OUT_OF_ROOM, "rolled_back", ("12288",), prepare=OVERLAID),
    Fault(
        "monitor_during_an_apply",
        "before",
        ":",
        "pass",
        (),
        first=("playbooks/monitor.yml",),
        ends=NEW,
        then="grep -qx 'gpu_memory_nvml_up 1' /run/gpu-memory-monitor/gpu_memory.prom",
    ),
    # It sees a breach once a minute, and asks for what was proven before.
    Fault(
        "monitor_that_puts_back_during_an_apply",
        "before",
        ":",
        "pass",
        (),
        first=("apply-conservative.yml", "playbooks/monitor.yml"),
        variables={
            "monitor_action": "restore",
            "monitor_action_interval": 60,
            "monitor_max_used_mib": 6000,
            "monitor_period": 5,
        },
        ends=NEW,
        then="systemctl is-active gpu-memory-monitor",
    ),
    Fault(
        "backend_was_unhealthy_before_the_run",
        "before",
        patched_backend('return (200, {"status"', 'return (503, {"status"') + "systemctl restart selo-backend",
        "rolled_back",
        ("/health did not answer 200 within 15 s", "selo-backend.service is unhealthy, as it was found"),
        variables=QUICK_BACKEND,
        runs=False,
    ),
    # --- the network --------------------------------------------------------------------------------------------------
    # The answer that the state is kept may be lost, too; then nothing was written.
    Fault("network_cut_when_kept", "kept", CUT, "fail|untouched", ("lost the connection",)),
    Fault("network_cut_when_written", "written", CUT, "fail", SELF_HEALING),
    Fault("network_cut_in_the_restart", "restarting", CUT, "fail", SELF_HEALING),
    Fault("network_cut_under_load", "loading", CUT, "fail", SELF_HEALING, short=True),
    Fault(
        "network_cut_and_rescue_and_back_under_load",
        "loading",
        f"{CUT}; systemctl isolate rescue.target; sleep 5; systemctl isolate default.target",
        "fail",
        SELF_HEALING,
    ),
    Fault(
        "network_cut_under_load_where_a_unit_may_start_three_times_an_hour",
        "loading",
        CUT,
        "fail",
        SELF_HEALING,
        prepare=owners_file(
            "/etc/systemd/system.conf.d/x.conf",
            "[Manager]",
            "DefaultStartLimitIntervalSec=1h",
            "DefaultStartLimitBurst=3",
        )
        + "systemctl daemon-reexec",
    ),
    Fault(
        "network_cut_under_load_where_all_services_are_hardened",
        "loading",
        CUT,
        "fail",
        SELF_HEALING,
        prepare=owners_file(
            f"{UNITS}/service.d/90-hardening.conf",
            "[Service]",
            "ProtectSystem=full",
            "ProtectHome=yes",
            "NoNewPrivileges=yes",
        )
        + "systemctl daemon-reload",
    ),
    # --- systemd itself ---
    Fault(
        "what_a_start_needs_is_gone",
        "before",
        owners_file(f"{DROP_INS}/20-owner.conf", "[Unit]", "ConditionPathExists=/etc/ollama.enabled")
        + owners_file(
            f"{UNITS}/selo-backend.service.d/20-owner.conf", "[Service]", "StandardOutput=append:/srv/log/out"
        )
        + "systemctl daemon-reload",
        "refused",
        (
            "has ConditionPathExists=/etc/ollama.enabled, which does not hold now",
            "StandardOutput=/srv/log, which is not",
        ),
    ),
    Fault(
        "program_not_executable_under_load_and_mended_later",
        "loading",
        f"{OUT_OF_ROOM}; chmod a-x /usr/local/bin/ollama; touch {STRUCK}\n"
        "until test -e /run/gpu-memory-going-back.json; do sleep 1; done; sleep 15\n"
        "chmod a+x /usr/local/bin/ollama",
        "fail",
        ("starts /usr/local/bin/ollama, which nobody may execute", "tried again by itself"),
    ),
    Fault(
        "systemd_executes_itself_anew_in_the_restart",
        "kept",
        REEXECUTED,
        "pass",
        (),
        prepare=armed("ExecStartPre", "rm /opt/fault/armed; sleep 5"),
        ends=NEW,
        then="journalctl --no-pager --output=cat _PID=1 | grep -q Reexecuting",
    ),
    Fault(
        "systemd_executes_itself_anew_in_the_restore",
        "loading",
        f"{OUT_OF_ROOM}; {REEXECUTED}",
        "rolled_back",
        ("12288", "is back and its services answer"),
        prepare=armed("ExecStartPre", "rm /opt/fault/armed; sleep 5"),
        then="journalctl --no-pager --output=cat _PID=1 | grep -q Reexecuting",
    ),
    Fault(
        "old_backend_answers_for_the_new_one_until_somebody_ends_it",
        "restarting",
        f"touch {STRUCK}; until test -e {KEPT}/restoring.json; do sleep 1; done; sleep 30\n"
        "kill $(pgrep --full --oldest '^/usr/bin/python main.py')",
        "rolled_back|fail",
        ("is from before the restart, goes on, and takes the connections: run kill", "KillMode=control-group"),
        prepare=SHELL_STARTED,
        variables=QUICK_BACKEND,
    ),
    Fault(
        "sudo_taken_away_under_load",
        "loading",
        f"rm -f /etc/sudoers.d/*; {OUT_OF_ROOM}",
        "fail",
        ("the host does not let us become root", "the host puts it back by itself"),
        edits="/etc/sudoers",
    ),
    Fault("job_ends_before_a_start_does", "before", "true", "pass", (), prepare=SHORT_JOBS, ends=NEW),
    Fault("network_cut_at_the_proof", "loaded", CUT, "fail", SELF_HEALING),
    Fault(
        "network_gone_for_a_moment_under_load",
        "loading",
        f"ip link set eth0 down; touch {STRUCK}; sleep 8; ip link set eth0 up",
        "pass",
        (),
        ends=NEW,
    ),
    Fault(
        "network_back_after_the_host_went_back",
        "restarting",
        CUT_FOR_A_WHILE,
        "fail",
        SELF_HEALING,
    ),
    # --- the host and the controller ---
    Fault("reboot_in_the_restart", "restarting", "", "rolled_back|fail", (), reboots=True),
    Fault("reboot_under_load", "loading", "", "rolled_back|fail", (), reboots=True),
    Fault(
        "two_runs_at_once",
        "kept",
        "",
        "refused",
        ("another run holds this host until", "applies stable", "wait"),
        ends=NEW,
        rival=True,
    ),
    Fault(
        "clock_was_set_back",
        "before",
        f"touch -d '+2 days' {BACKEND}/.env",
        "pass",
        (),
        ends=NEW,
    ),
    # --- what is kept -------------------------------------------------------------------------------------------------
    Fault(
        "kept_state_unreadable",
        "before",
        f"mkdir -p {KEPT} && echo '{{' > {KEPT}/pointers.json",
        "refused",
        (f"{KEPT}/pointers.json is damaged",),
    ),
    Fault(
        "generation_damaged_during_the_run",
        "loading",
        f"{damage_copies(KEPT)}\n{OUT_OF_ROOM}",
        "rolled_back",
        ("12288",),
    ),
    Fault(
        "generation_damaged_in_both_places",
        "loading",
        f"{damage_copies(KEPT)}\n{damage_copies(SECOND)}\n{OUT_OF_ROOM}",
        "fail",
        ("12288", "is damaged: the copy of", "nothing was touched", "gpu-memory release"),
        ends=NEW,
        settles=False,
    ),
    Fault("state_removed_under_load", "loading", f"rm -r {KEPT}; {OUT_OF_ROOM}", "rolled_back", ("12288",)),
    Fault("state_removed_and_the_load_passes", "loading", f"rm -r {KEPT}", "pass", (), ends=NEW),
    Fault("state_removed_in_the_restart_and_network_cut", "restarting", f"rm -r {KEPT}; {CUT}", "fail", SELF_HEALING),
    Fault(
        "state_emptied_under_load_and_network_cut",
        "loading",
        f"find {KEPT} -mindepth 1 -delete; {CUT}",
        "fail",
        SELF_HEALING,
    ),
    Fault("lease_emptied_under_load_and_network_cut", "loading", f": > {KEPT}/lease.json; {CUT}", "fail", SELF_HEALING),
    Fault(
        "lease_damaged_and_kept_nowhere_else",
        "loading",
        f"rm -r {SECOND}; echo '{{' > {KEPT}/lease.json; {CUT}",
        "fail",
        SELF_HEALING,
    ),
    Fault(
        "manifest_truncated_and_network_cut",
        "loading",
        f"truncate -s 300 {KEPT}/generations/*/manifest.json; {CUT}",
        "fail",
        SELF_HEALING,
    ),
    Fault(
        "manifest_changed_under_load",
        "loading",
        f"sed -i 's/CHAT_NUM_CTX/CHAT_NUM_CTZ/' {KEPT}/generations/*/manifest.json; {OUT_OF_ROOM}",
        "rolled_back",
        ("12288",),
    ),
    Fault(
        "copy_with_a_flipped_byte_and_network_cut",
        "loading",
        f"for copy in {KEPT}/generations/*/*; do case $copy in *.json) ;; "
        f"*) printf '\\377' | dd of=$copy bs=1 seek=5 conv=notrunc status=none ;; esac; done\n{CUT}",
        "fail",
        SELF_HEALING,
    ),
    *(
        Fault(f"{what}_and_network_cut", "loading", f"{script}; {CUT}", "fail", SELF_HEALING)
        for what, script in {
            "lease_with_another_generation": f"sed -i '/\"generation\"/s/0001/0009/' {KEPT}/lease.json",
            "lease_with_a_digit_more_in_its_deadline": f"sed -i '/\"deadline_s\"/s/: /: 9/' {KEPT}/lease.json",
            "lease_of_another_schema": f"sed -i '/\"schema\"/s/1/9/' {KEPT}/lease.json",
            "lease_is_a_directory": f"rm {KEPT}/lease.json; mkdir {KEPT}/lease.json",
            "leases_deleted_in_both_places": f"rm {KEPT}/lease.json {SECOND}/lease.json",
            "manifest_nested_too_deep": f"yes [ | head -200000 | tee {KEPT}/generations/*/manifest.json >/dev/null",
            "state_is_a_file": f"rm -r {KEPT}; touch {KEPT}",
            "lock_is_a_directory": f"rm {LOCK}; mkdir {LOCK}",
            "ollama_hangs": f"kill -STOP {PID}",
        }.items()
    ),
    *(
        Fault(f"{what}_and_network_cut", "loading", goes_back_meanwhile(*script), "fail", SELF_HEALING, prepare=prepare)
        for what, script, prepare in (
            ("lease_cannot_be_read", (f"mount --bind /proc/1/mem {KEPT}/lease.json", f"umount {KEPT}/lease.json"), ""),
            ("state_immutable_to_its_last_file", (f"chattr -R +i {KEPT}", f"chattr -R -i {KEPT}"), ""),
            ("state_read_only", (f"mount -o remount,ro {KEPT}", f"mount -o remount,rw {KEPT}"), OWN_FILE_SYSTEM),
        )
    ),
    *(
        Fault(f"released_{when}", moment, "gpu-memory release", "rolled_back", ("released by hand on the host",))
        for when, moment in {
            "once_kept": "kept",
            "while_files_are_written": "written",
            "in_the_restart": "restarting",
            "under_load": "loading",
        }.items()
    ),
    *(
        Fault(
            f"released_{when}_and_network_cut", moment, f"{CUT}; gpu-memory release", "fail", ("lost the connection",)
        )
        for when, moment in {"while_files_are_written": "written", "in_the_restart": "restarting"}.items()
    ),
    Fault("tool_removed_and_network_cut", "loading", f"rm -r {KEPT}/bin; {CUT}", "fail", SELF_HEALING),
    Fault("tool_emptied_and_network_cut", "loading", f": > {KEPT}/bin/gpu-memory; {CUT}", "fail", SELF_HEALING),
    Fault("second_place_removed_under_load", "loading", f"rm -r {SECOND}; {OUT_OF_ROOM}", "rolled_back", ("12288",)),
    Fault("second_place_is_taken", "before", f"touch {SECOND}", "fail", (SECOND,), settles=False),
    Fault(
        "pointers_damaged_under_load",
        "loading",
        f"echo '{{' > {KEPT}/pointers.json",
        "rolled_back",
        (f"{KEPT}/pointers.json is damaged",),
    ),
    Fault(
        "last_restore_damaged_before_the_run",
        "before",
        f"mkdir -p -m 0700 {KEPT} && echo '{{' > {KEPT}/restored.json",
        "pass",
        (),
        ends=NEW,
    ),
    Fault(
        "restore_damaged_before_the_run",
        "before",
        f"mkdir -p -m 0700 {KEPT} && echo '{{' > {KEPT}/restoring.json",
        "refused",
        (f"{KEPT}/restoring.json is damaged", "gpu-memory rollback", "gpu-memory release"),
        settles=False,
    ),
    Fault(
        "state_immutable_before_the_run",
        "before",
        f"mkdir -p -m 0700 {KEPT} && chattr +i {KEPT}",
        "refused",
        (f"{KEPT} is immutable", "chattr -i"),
    ),
    Fault(
        "state_immutable_under_load",
        "loading",
        f"chattr +i {KEPT}; {OUT_OF_ROOM}",
        "fail",
        ("12288", KEPT, "lsattr"),
        settles=False,
    ),
    # --- a restore whose services do not come up ----------------------------------------------------------------------
    Fault(
        "backend_unhealthy_for_90_s_after_the_restore",
        "loading",
        f"touch /opt/fault/armed; {OUT_OF_ROOM}; touch {STRUCK}; sleep 90; rm /opt/fault/armed",
        "fail",
        ("/health did not answer 200 within 15 s", *TRIED_AGAIN),
        prepare="mkdir -p /opt/fault"
        + patched_backend(
            'return (200, {"status"', 'return (503 if os.path.exists("/opt/fault/armed") else 200, {"status"'
        ),
        variables=QUICK_BACKEND,
    ),
    Fault(
        "backend_starts_at_the_third_try_after_the_restore",
        "loading",
        f"touch /opt/fault/armed; {OUT_OF_ROOM}",
        "fail",
        ("selo-backend.service", *TRIED_AGAIN),
        prepare=armed("ExecStartPre", "echo >> /opt/fault/starts; [ $(wc -l < /opt/fault/starts) -gt 2 ] || exit 4"),
        variables=QUICK_BACKEND,
    ),
    Fault(
        "backend_never_starts_after_the_restore",
        "loading",
        f"touch /opt/fault/armed; {OUT_OF_ROOM}",
        "fail",
        ("selo-backend.service", *TRIED_AGAIN),
        prepare=armed("ExecStartPre", "exit 4"),
        variables=QUICK_BACKEND,
        runs=False,
        settles=False,
    ),
    Fault("peer_is_silent", "loading", peer_is("silent"), "fail", TRIED_AGAIN, prepare=PEER, variables=PEERS_HEALTH),
    Fault(
        "peer_that_sends_a_byte_of_a_header_every_2_s",
        "loading",
        peer_is("slow"),
        "fail",
        TRIED_AGAIN,
        prepare=PEER,
        variables=PEERS_HEALTH,
    ),
    Fault(
        "peer_answers_without_end",
        "loading",
        peer_is("endless"),
        "fail",
        TRIED_AGAIN,
        prepare=PEER,
        variables=PEERS_HEALTH,
    ),
    Fault(
        "peer_answers_with_10_gb", "loading", peer_is("huge"), "fail", TRIED_AGAIN, prepare=PEER, variables=PEERS_HEALTH
    ),
    Fault(
        "peer_sends_headers_without_end",
        "loading",
        peer_is("headers"),
        "fail",
        TRIED_AGAIN,
        prepare=PEER,
        variables=PEERS_HEALTH,
    ),
    Fault(
        "peer_speaks_no_http", "loading", peer_is("noise"), "fail", TRIED_AGAIN, prepare=PEER, variables=PEERS_HEALTH
    ),
    peer_for_ever("peer_is_silent_for_ever", "silent"),
    peer_for_ever("peer_sends_a_byte_of_a_header_every_2_s_for_ever", "slow"),
    peer_for_ever("peer_answers_without_end_for_ever", "endless"),
    peer_for_ever("peer_answers_with_10_gb_for_ever", "huge"),
    Fault(
        "backend_takes_130_s_to_stop_at_the_restore",
        "loading",
        f"touch /opt/fault/armed; {OUT_OF_ROOM}",
        "fail",
        ("selo-backend.service", *TRIED_AGAIN),
        prepare=armed("ExecStop", "rm /opt/fault/armed; sleep 130"),
    ),
    Fault(
        "release_while_a_restore_hangs",
        "loading",
        f"touch /opt/fault/armed; {CUT}; touch {STRUCK}\n"
        f"until test -e {KEPT}/restoring.json && systemctl show gpu-memory-restore | grep -q ^ActiveState=activating\n"
        "do sleep 1; done; sleep 5\n"
        "gpu-memory release",
        "fail",
        SELF_HEALING,
        prepare=armed("ExecStartPre", "sleep 600"),
        runs=False,
    ),
    # --- what others say ----------------------------------------------------------------------------------------------
    Fault("rows_of_the_journal_that_anybody_can_write", "loading", DATAGRAMS, "pass", (), ends=NEW),
    Fault(
        "backend_tells_figures_of_no_kind",
        "before",
        patched_backend(
            'return 200, {"response"',
            'return 200, {"eval_count": "9", "eval_duration": "x", "prompt_eval_count": float("nan"), '
            '"usage": {"prompt_tokens": {"cached": -1e400}}, "response"',
        ),
        "pass",
        (),
        ends=NEW,
    ),
]
