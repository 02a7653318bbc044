"""Overrides planted on a lab host, over systemd's own merging: drift names each with its source.

tests/unit/plugins/plugin_utils/readback/test_drift.py has the same and more, on what a host would have said.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift
from ansible_collections.selo.gpu_memory.tests.unit import builders

ROOT = Path(__file__).parents[3]
LAB = "drift-test"
UNITS = "/etc/systemd/system"
OURS = f"{UNITS}/ollama.service.d/zz-gpu-memory.conf"
OVERRIDE = f"{UNITS}/ollama.service.d/override.conf"  # the guide's machine has it, with PARALLEL=2
LATER = f"{UNITS}/ollama.service.d/zzz-mine.conf"
EARLIER = f"{UNITS}/ollama.service.d/mine.conf"
BACKENDS = f"{UNITS}/selo-backend.service.d/mine.conf"
ENV = builders.ENV_PATH
MODEL = builders.MODEL
PARALLEL, CONTEXT, MARGIN, LAYERS = (
    "OLLAMA_NUM_PARALLEL", "CHAT_NUM_CTX", "LLAMA_ARG_FIT_TARGET", "OLLAMA_GPU_LAYERS"
)  # fmt: skip
RESTART = "systemctl daemon-reload && systemctl restart ollama"
RESTART_BACKEND = "systemctl daemon-reload && systemctl restart selo-backend"


def drop_in(path: str, *lines: str) -> str:
    text = "\\n".join(["[Service]", *lines])
    return f"mkdir -p {os.path.dirname(path)} && printf '{text}\\n' > {path}"


def ask(**options: int) -> str:
    """A chat of a client of its own, once Ollama answers."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": False} | (
        {"options": options} if options else {}
    ))  # fmt: skip
    return (
        f"{RESTART} && curl --silent --fail --retry 50 --retry-connrefused --retry-delay 0 --max-time 120 --output "
        f"/dev/null --data '{body}' http://127.0.0.1:11434/api/chat"
    )


# What is planted, the setting that it turns, and the words that name its source.
PLANTED = {
    "a drop-in that sorts later": (
        f"{drop_in(LATER, f'Environment={PARALLEL}=4')} && {RESTART}",
        PARALLEL,
        f"the drop-in {LATER} sets {PARALLEL}=4",
    ),
    "a later drop-in with an empty Environment=": (
        f"{drop_in(LATER, 'Environment=')} && {RESTART}",
        PARALLEL,
        f"the drop-in {LATER} takes {PARALLEL} back (an empty Environment=)",
    ),
    "an UnsetEnvironment= in an earlier drop-in": (
        f"{drop_in(EARLIER, f'UnsetEnvironment={PARALLEL}')} && {RESTART}",
        PARALLEL,
        f"the drop-in {EARLIER} unsets {PARALLEL}",
    ),
    "an EnvironmentFile of an earlier drop-in": (
        f"echo {PARALLEL}=4 > /etc/mine.env && {drop_in(EARLIER, 'EnvironmentFile=/etc/mine.env')} && {RESTART}",
        PARALLEL,
        f"the EnvironmentFile /etc/mine.env sets {PARALLEL}=4",
    ),
    "the unit's own Environment=, and our drop-in gone": (
        f"sed -i 's/^.Service.$/&\\nEnvironment={PARALLEL}=4/' {UNITS}/ollama.service && "
        f"rm {OURS} {OVERRIDE} && {RESTART}",
        PARALLEL,
        f"the unit {UNITS}/ollama.service sets {PARALLEL}=4; {OURS} is missing",
    ),
    "our drop-in, edited by hand": (
        f"sed -i 's/{PARALLEL}=2/{PARALLEL}=4/' {OURS} && {RESTART}",
        PARALLEL,
        f"{OURS} says {PARALLEL}=4",
    ),
    "our drop-in, of which systemd does not know": (
        f"mv {OURS} /root/kept && {RESTART} && mv /root/kept {OURS}",
        PARALLEL,
        f"systemd has not read {OURS} as it is now",
    ),
    "a server that was not restarted": (
        f"sed -i 's/{PARALLEL}=2/{PARALLEL}=4/' {OURS} && {RESTART} && sleep 1 && "
        f"sed -i 's/{PARALLEL}=4/{PARALLEL}=2/' {OURS} && systemctl daemon-reload",
        PARALLEL,
        f"the server was started before {OURS} was written; restart ollama.service",
    ),
    "an ExecStart through env": (
        drop_in(LATER, "ExecStart=", f"ExecStart=/usr/bin/env {PARALLEL}=4 /usr/local/bin/ollama serve")
        + f" && {RESTART}",
        PARALLEL,
        f"ExecStart of ollama.service sets {PARALLEL}=4",
    ),
    "a wrapper": (
        f"printf '#!/bin/sh\\nexport {PARALLEL}=4\\nexec /usr/local/bin/ollama serve\\n' > /usr/local/bin/mine && "
        "chmod 755 /usr/local/bin/mine && "
        + drop_in(LATER, "ExecStart=", "ExecStart=/usr/local/bin/mine")
        + f" && {RESTART}",
        PARALLEL,
        "/usr/local/bin/mine sets it, by which ExecStart of ollama.service starts the server",
    ),
    "layers for every model": (
        f"{drop_in(EARLIER, 'Environment=LLAMA_ARG_N_GPU_LAYERS=10')} && {RESTART}",
        MARGIN,
        f"the drop-in {EARLIER} sets it",
    ),
    "a drop-in that was written for Ollama 0.24": (
        f"sed -i 's/{MARGIN}=4092/OLLAMA_GPU_OVERHEAD=4290772992/' {OURS} && {RESTART}",
        MARGIN,
        f"{OURS} was written for another Ollama: it says OLLAMA_GPU_OVERHEAD",
    ),
    "the backend's env file, edited by hand": (
        f"sed -i 's/^{CONTEXT}=4096/{CONTEXT}=8192/' {ENV} && {RESTART_BACKEND}",
        CONTEXT,
        f"{ENV} says {CONTEXT}=8192",
    ),
    "the backend's own unit": (
        f"{drop_in(BACKENDS, f'Environment={CONTEXT}=8192')} && {RESTART_BACKEND}",
        CONTEXT,
        f"the drop-in {BACKENDS} sets {CONTEXT}=8192, and load_dotenv() overrides nothing",
    ),
    "a backend that was not restarted": (
        f"touch {ENV}",
        CONTEXT,
        f"the backend was started before {ENV} was written; restart it",
    ),
    "a model's own PARAMETER": (
        "curl --silent --fail --output /dev/null --data "
        + "'"
        + json.dumps({"model": MODEL, "from": MODEL, "parameters": {"num_ctx": 2048}, "stream": False})
        + f"' http://127.0.0.1:11434/api/create && {ask()}",
        CONTEXT,
        f"PARAMETER num_ctx 2048 in the Modelfile of {MODEL}",
    ),
    "a client's num_ctx": (ask(num_ctx=8192, num_gpu=40), CONTEXT, "a client's own options: num_ctx 8192"),
    "a client's num_gpu": (ask(num_ctx=4096, num_gpu=20), LAYERS, "a client's own options: num_gpu 20"),
    "a client's num_batch": (
        ask(num_ctx=4096, num_gpu=40, num_batch=2048),  # more than Ollama itself would take
        "num_batch",
        "a client's own options: num_batch 2048",
    ),
}  # fmt: skip
MODELS = "/usr/share/ollama/.ollama/models"
KEPT = f"{UNITS}/ollama.service {UNITS}/ollama.service.d {ENV} {MODELS}"
CLEAN = f"""
rm -rf {LATER} {EARLIER} {os.path.dirname(BACKENDS)} /etc/mine.env /usr/local/bin/mine {MODELS}
tar --extract --file /root/before.tar --directory /
{RESTART} && {RESTART_BACKEND}
curl --silent --retry 50 --retry-connrefused --retry-delay 0 --output /dev/null http://127.0.0.1:11434/api/version
curl --silent --retry 50 --retry-connrefused --retry-delay 0 --output /dev/null http://127.0.0.1:8000/health
"""
Read = Callable[[str], list[dict[str, Any]]]


def run(*command: str | Path) -> str:
    environment = {
        **os.environ,
        "LAB_NAME": LAB,
        "LAB_EDITED": "1",
        "LAB_SPEEDUP": "20",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on_host(script: str) -> None:
    run(ROOT / "script" / "lab", "exec", "gpu01", "bash", "-ec", script)


@pytest.fixture(scope="module")
def drift_after(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Read]:
    """Runs a script on a host that has the profile stable, and returns what drift then says of it."""
    declared = builders.declared(models=[MODEL])
    arguments = {"backend": declared["backend"], "env_keys": declared["env_keys"], "models": declared["models"]}
    inventory = f"--inventory=.lab/{LAB}/inventory"

    def rows(script: str) -> list[dict[str, Any]]:
        on_host(CLEAN)
        on_host(script)
        module = ("gpu01", "--module-name=selo.gpu_memory.gpu_memory_info", f"--args={json.dumps(arguments)}")
        said = run("ansible", inventory, *module)
        return drift.drift(declared, json.loads(said.partition("=>")[2]))

    run(ROOT / "script" / "lab", "up", "1")
    try:
        run(ROOT / "script" / "lab", "reset", "gpu01")
        report = f"--extra-vars=gpu_memory_report_dir={tmp_path_factory.mktemp('reports')}"
        run("ansible-playbook", inventory, report, "--extra-vars=gpu_memory_verify=never", "apply-stable.yml")
        on_host(f"tar --create --file /root/before.tar $(ls -d {KEPT} 2>/dev/null) 2>/dev/null")
        yield rows
    finally:
        run(ROOT / "script" / "lab", "down")


def test_a_host_on_its_profile_has_no_drift(drift_after: Read) -> None:
    assert [row for row in drift_after("true") if drift.drifted(row)] == []


def test_a_chat_without_options_is_nobody_s_fault(drift_after: Read) -> None:
    rows = drift_after(ask())
    assert [row for row in rows if drift.drifted(row)] == []
    (batch,) = (row for row in rows if row["name"] == "num_batch")
    assert batch["state"] == "partial" and "has -b 1024" in batch["effect"]


@pytest.mark.parametrize(("script", "name", "source"), [pytest.param(*case, id=what) for what, case in PLANTED.items()])
def test_a_planted_override_is_named_with_its_source(drift_after: Read, script: str, name: str, source: str) -> None:
    (row,) = (row for row in drift_after(script) if row["name"] == name)
    assert source in (row["source"] or "")
    assert drift.drifted(row) or row["state"] == "void"
