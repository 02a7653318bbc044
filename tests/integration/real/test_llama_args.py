"""What llama-server makes of its environment, asked of Debian's own: each row of tests/data/llama_args.csv.

script/test-long real

Whether it starts is asked of `--list-devices`, which Ollama starts first; what it takes, of the lines of a load.
"""

from __future__ import annotations

import csv
import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import llama_args

from bench.planner import show
from tests.integration.real import real_host, sparse_gguf, truth

TABLE = Path(__file__).resolve().parents[2] / "data" / "llama_args.csv"
MODEL = "gemma3-4b"  # it has sliding windows
STARTS = r"""
while IFS= read -r -d '' name && IFS= read -r -d '' value; do
  env "$name=$value" llama-server --list-devices < /dev/null > /dev/null 2>&1 && echo starts || echo ends
done
"""
LOADS = r"""
"/usr/libexec/$(uname -m)-linux-gnu/llama/bin/ggml-rpc-server" --device CPU --port 50052 > /dev/null 2>&1 &
until (: > /dev/tcp/127.0.0.1/50052) 2> /dev/null; do sleep 0.05; done
while IFS= read -r -d '' name && IFS= read -r -d '' value; do
  env LLAMA_ARG_RPC=127.0.0.1:50052 "$name=$value" llama-server --model /models/model.gguf -c 4096 -np 1 --port 18080 \
    --host 127.0.0.1 --no-webui --offline --no-log-prefix --no-log-timestamps --log-verbosity 4 --no-warmup \
    < /dev/null > /log 2>&1 & pid=$!
  for _ in $(seq 1200); do
    grep -qE 'model loaded|exiting due to' /log && break
    kill -0 $pid 2> /dev/null || break
    sleep 0.05
  done
  kill -9 $pid 2> /dev/null
  wait $pid 2> /dev/null
  cat /log
  printf '\0'
done
"""
WITHIN_S = 1500


def asked(script: str, pairs: list[tuple[str, str]], models: Path | None = None) -> str:
    """What the script says of each pair of name and value, in a container without a network."""
    command = [real_host.ENGINE, "run", "--rm", "--interactive", "--network", "none", *truth.LIMITS]
    command += ["--volume", f"{models}:/models:ro"] if models else []
    words = "".join(f"{name}\0{value}\0" for name, value in pairs)
    done = subprocess.run(
        [*command, real_host.base_image(), "bash", "-c", script],
        input=words.encode(),
        capture_output=True,
        check=True,
        timeout=WITHIN_S,
    )
    return done.stdout.decode(errors="replace")


def test_llama_server_starts_or_ends_as_the_table_says() -> None:
    rows = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    said = asked(STARTS, [(row["variable"], row["value"]) for row in rows]).split()
    assert len(said) == len(rows)
    wrong = [(row["variable"], row["value"], now) for row, now in zip(rows, said) if row["outcome"] != now]
    print(f"\nfigure: {len(rows)} values, {len(wrong)} other than the table")
    assert not wrong


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("LLAMA_ARG_FIT_TARGET", "1GiB", r">= 1 MiB of free"),
        ("LLAMA_ARG_FIT_TARGET", "1.5", r">= 1 MiB of free"),
        ("LLAMA_ARG_FIT_TARGET", "-1", r">= -1 MiB of free"),
        ("LLAMA_ARG_N_GPU_LAYERS", "5abc", r"offloaded 5/35 layers"),
        ("LLAMA_ARG_N_GPU_LAYERS", "all", r"offloaded 35/35 layers"),
        ("LLAMA_ARG_NO_KV_OFFLOAD", "0", r"CPU KV buffer size"),
        ("LLAMA_ARG_DEVICE", "none", r"offloaded 35/35 layers"),  # and every buffer is the CPU's
        ("LLAMA_ARG_SWA_FULL", "yes", r"creating     SWA KV cache, size = (?!4096)"),
        ("LLAMA_ARG_SWA_FULL", "1", r"creating     SWA KV cache, size = 4096"),
        ("LLAMA_ARG_CACHE_TYPE_K", "q8_0", r"K \(q8_0\)"),
        ("LLAMA_ARG_CTX_SIZE", "64", r"n_ctx +=? ?4096"),  # the flag wins
        ("LLAMA_ARG_OVERRIDE_TENSOR", "[=CPU", r"error loading model"),
    ],
)
def test_what_it_takes_of_a_value_shows_in_a_load(name: str, value: str, line: str, tmp_path: Path) -> None:
    sparse_gguf.write(tmp_path / "model.gguf", show(MODEL))
    tmp_path.chmod(0o755)
    (log, _rest) = asked(LOADS, [(name, value)], tmp_path).split("\0")
    assert llama_args.of(name)
    assert re.search(line, log), log[-4000:]
