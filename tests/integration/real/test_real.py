"""Every verb against a real Ollama and a real engine, in the order in which an operator meets them.

    OLLAMA_BINARY=/usr/local/bin/ollama script/test-long real

The device that takes the layers is a process on the processor (llama.cpp's RPC), so the load is one request of 256
tokens; NVML is simulated and follows what that process holds (runner_memory.py). What it cannot show: CUDA and its
context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration import records
from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import DROP_IN, DROP_INS, PICTURE, SETTLED, Host, playbook
from tests.integration.real import real_host
from tests.integration.real.real_host import BINARY, EMBEDDER, MODEL, SECOND

pytestmark = pytest.mark.skipif(not BINARY, reason="OLLAMA_BINARY names no Ollama")

NUM_CTX, MAX_USED_MIB = 256, 12288
DECLARED: dict[str, Any] = {
    "gpu_memory_models": [MODEL],
    # On a busy machine the processor takes minutes for what a card does in a second.
    "gpu_memory_backend": {"extends": "none", "load": {"timeout": 600}},
    "gpu_memory_overrides": {"intent": {"num_ctx": NUM_CTX, "num_parallel": 1, "max_used_mib": MAX_USED_MIB}},
    "gpu_memory_load_requests": 1,
}
RUN_S = 1800


class Lab:
    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.picture = host.read(PICTURE)

    def run(self, name: str, *arguments: str, good: bool = True, **variables: Any) -> str:
        run = playbook(self.host, self.directory, name, *arguments, **{**DECLARED, **variables})
        output, _nothing = run.communicate(timeout=RUN_S)
        assert (run.returncode == 0) == good, output
        return output

    @property
    def record(self) -> dict[str, Any]:
        return records.read(self.directory / "gpu01.json")

    def evaluated(self) -> list[int]:
        """Prompt tokens that the engine says it worked on, request by request."""
        journal = self.host.read("journalctl --unit ollama --output cat")
        return [int(tokens) for tokens in re.findall(r"prompt eval time = +[\d.]+ ms / +(\d+) tokens", journal)]

    def buffers_mib(self) -> float:
        """The last load's, on the GPU."""
        journal = self.host.read("journalctl --unit ollama --output cat")
        last = journal.rpartition('msg="starting llama-server"')[2]
        return sum(float(mib) for mib in re.findall(r"RPC0\S* .*buffer size = +([\d.]+) MiB", last))

    def runner(self) -> list[str]:
        script = "tr '\\0' '\\n' < /proc/$(pgrep --exact --newest --uid ollama llama-server)/cmdline"
        return self.host.read(script).splitlines()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    host = real_host.fresh()
    try:
        real_host.with_ollama(host)
        took = real_host.chat(host, MODEL, "one two three " * 70, NUM_CTX)
        versions = host.read("ollama --version; dpkg-query -W llama.cpp-tools | tr '\\t' ' '").strip()
        print(f"\nfigure: {versions.splitlines()[-2:]}, first chat {took:.0f} s")
        yield Lab(host, tmp_path_factory.mktemp("real"))
    finally:
        fault_lab.lab("down", name=real_host.LAB)


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_discover_finds_all_models(lab: Lab) -> None:
    there = lab.host.inventory / "host_vars" / "gpu01" / "gpu_memory.yml"
    try:
        # Shown beside what this run declares, which is not written.
        found = lab.run("playbooks/discover.yml")
        assert MODEL in found and SECOND in found and EMBEDDER in found
        assert "gpu_memory_models" not in there.read_text()
    finally:
        there.unlink(missing_ok=True)


def test_plan_and_check_write_nothing(lab: Lab) -> None:
    planned = lab.run("playbooks/plan.yml")
    assert "19 of 19" in planned
    foretold = lab.run("apply-stable.yml", "--check", "--diff")
    assert f"+Environment=OLLAMA_CONTEXT_LENGTH={NUM_CTX}" in foretold.replace('"', "").replace("+ ", "+"), foretold
    assert lab.host.read(PICTURE) == lab.picture


def test_apply_proves_what_the_engine_says_itself(lab: Lab) -> None:
    before = len(lab.evaluated())
    lab.run("apply-stable.yml")
    assert lab.record["verdict"] == "pass"
    runner = lab.runner()
    assert (after(runner, "-c"), after(runner, "-np"), after(runner, "-b")) == (str(NUM_CTX), "1", "512")
    config = lab.host.read("journalctl --unit ollama --output cat").rpartition('msg="server config"')[2]
    assert f"OLLAMA_CONTEXT_LENGTH:{NUM_CTX} " in config and "OLLAMA_NUM_PARALLEL:1 " in config
    assert max(lab.evaluated()[before:]) > NUM_CTX / 2
    states = {setting["name"]: setting["state"] for setting in lab.record["settings"]}
    assert states["OLLAMA_CONTEXT_LENGTH"] == states["OLLAMA_NUM_PARALLEL"] == "in force"
    assert "load_tensors: offloaded 19/19 layers to GPU" in lab.host.read("journalctl --unit ollama --output cat")
    print(f"\nfigure: buffers on the GPU {lab.buffers_mib():.1f} MiB, peak {lab.record['peak_used_mib']} MiB")


def test_again_changes_nothing(lab: Lab) -> None:
    pid = lab.host.read("systemctl show ollama --property MainPID")
    output = lab.run("apply-stable.yml")
    assert re.search(r"gpu01 +: ok=\d+ +changed=0 ", output), output
    assert lab.host.read("systemctl show ollama --property MainPID") == pid


def test_a_second_verify_is_a_load_too(lab: Lab) -> None:
    """The engine's prompt cache answers a repeated prompt with a handful of tokens evaluated."""
    for _ in range(2):
        before = len(lab.evaluated())
        lab.run("playbooks/verify.yml")
        assert lab.record["verdict"] == "pass"
        assert max(lab.evaluated()[before:]) > NUM_CTX / 2


def test_status_is_that_of_the_server_that_runs(lab: Lab) -> None:
    assert re.search(r"gpu01 +OK ", lab.run("playbooks/status.yml"))


def test_tune_ends_with_a_setting_that_held(lab: Lab) -> None:
    lab.run("playbooks/tune.yml", gpu_memory_tune_max_probes=2)
    tuned = json.loads((lab.directory / "gpu01.tune.json").read_text())
    assert "held" in json.dumps(tuned)


def test_every_declared_model_is_loaded_the_way_it_is_used(lab: Lab) -> None:
    """One with sliding windows, one without, and an embedder, which Ollama made of its published files itself."""
    lab.run("playbooks/verify.yml", gpu_memory_models=[MODEL, SECOND, EMBEDDER])
    assert lab.record["verdict"] == "pass"
    load = lab.record["load"]
    assert [load["model"], *(other["model"] for other in load["others"])] == [MODEL, SECOND, EMBEDDER]
    assert {MODEL, SECOND, EMBEDDER} <= set(load["loaded"])
    assert lab.host.holds("journalctl --unit ollama --output cat --grep 'GIN.* 200 .*\"/api/embed\"'")
    print(f"\nfigure: three models, peak {lab.record['peak_used_mib']} MiB, load {load['wall_s']:.0f} s")


def test_a_load_that_cannot_allocate_is_rolled_back_and_told_in_the_engines_words(lab: Lab) -> None:
    """Runner and device may have 3 GiB of addresses each; the cache alone that is asked for takes 2.8."""
    limit = f"{DROP_INS}/limit.conf"
    again = "systemctl daemon-reload && systemctl restart ollama"
    before = lab.host.read(f"cat {DROP_IN}")
    too_large = {"intent": {"num_ctx": 8192, "num_parallel": 16, "max_used_mib": MAX_USED_MIB}}
    lab.host.read(f"printf '[Service]\\nLimitAS=3G\\n' > {limit} && {again}")
    try:
        output = lab.run("apply-stable.yml", good=False, gpu_memory_models=[SECOND], gpu_memory_overrides=too_large)
    finally:
        lab.host.read(f"rm {limit} && {again}")
    assert "ROLLED BACK" in output and lab.record["verdict"] == "rolled_back"
    (failure,) = lab.record["journal"]["failures"]
    assert re.search(r"failed to allocate RPC0\S* buffer of size 3019898880", failure["line"])
    assert failure["line"] in lab.record["reason"]
    assert lab.host.read(f"cat {DROP_IN}") == before


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("LLAMA_ARG_DEVICE=none", "all of it is on the CPU by its buffers"),
        ("LLAMA_ARG_NO_KV_OFFLOAD=0", "its cache is on the CPU by its buffers"),
    ],
)
def test_what_is_on_the_cpu_is_no_proof_though_the_engine_says_all_layers_are_on_the_gpu(
    lab: Lab, setting: str, words: str
) -> None:
    theirs = f"{DROP_INS}/theirs.conf"
    again = "systemctl daemon-reload && systemctl restart ollama"
    lab.host.read(f"printf '[Service]\nEnvironment={setting}\n' > {theirs} && {again}")
    try:
        lab.run("playbooks/verify.yml", good=False)
    finally:
        lab.host.read(f"rm {theirs} && {again}")
    assert "load_tensors: offloaded 19/19 layers to GPU" in lab.host.read("journalctl --unit ollama --output cat")
    assert lab.record["verdict"] == "fail"
    assert words in lab.record["reason"]


def test_the_monitor_reads_the_real_server_and_goes(lab: Lab) -> None:
    lab.run("playbooks/monitor.yml")
    lab.host.wait_until("grep -q ^gpu_memory /run/gpu-memory-monitor/gpu_memory.prom", 120)
    lab.run("playbooks/monitor.yml", monitor_state="absent")
    assert not lab.host.holds("ls /etc/systemd/system/gpu-memory-monitor*")


def test_rollback_and_remove_leave_the_host_as_it_was(lab: Lab) -> None:
    lab.run("playbooks/rollback.yml")
    assert not lab.host.holds(f"test -e {DROP_IN}")
    lab.run("playbooks/remove.yml")
    assert lab.host.holds(SETTLED)
    assert hashes(lab.host.read(PICTURE)) == hashes(lab.picture)


def hashes(picture: str) -> list[str]:
    return [line for line in picture.splitlines() if re.match(r"[0-9a-f]{64} ", line)]
