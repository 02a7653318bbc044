#!/usr/bin/env python3
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner beside gguf-parser and node-llama-cpp on the same rows: how far each is from llama.cpp's own projection;
and the time of one estimate as a command beside gguf-parser's, on the same files.

./script/bench beside [GGUF file...]

Both are fetched into a temporary directory; it needs go and npm. Of each only what llama.cpp's projection covers is
asked: weights, cache and compute buffer on one GPU, without what a process takes.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool  # noqa: E402

from bench import planner  # noqa: E402
from tests.integration.real import sparse_gguf  # noqa: E402

GGUF_PARSER, NODE_LLAMA_CPP = "v0.28.2", "3.22.1"
TURNS = 15
TABLES = ("engine_projection", "architectures_projection")


def rows() -> list[tuple[dict[str, str], float, float]]:
    """Each row that says one GPU's memory and predicts no further tokens, with the engine's word and ours in MiB."""
    return [
        (row, planner.told(row), planner.projected(planned))
        for name in TABLES
        for row, planned in planner.rows(name)
        if row.get("draft_num_predict", "0") == "0" and int(row["num_gpu"]) >= 3
    ]


def asked(table: list[tuple[dict[str, str], float, float]], models: Path) -> str:
    lines = []
    for row, _told, _ours in table:
        file = models / f"{planner.name_of(row)}.gguf"
        if not file.exists():
            sparse_gguf.write(file, planner.show(planner.name_of(row)))
        keys = row.get("cache_type_k", row["cache_type"])
        settings = [row[key] for key in ("num_gpu", "num_ctx", "num_parallel", "num_batch")]
        lines.append(" ".join([str(file), *settings, keys, row["cache_type"], row["flash_attention"]]))
    return "\n".join(lines) + "\n"


def go_answers(directory: Path, text: str) -> list[str]:
    shutil.copy(HERE / "beside.go", directory / "main.go")
    subprocess.run(["go", "mod", "init", "beside"], cwd=directory, check=True, capture_output=True)
    subprocess.run(
        ["go", "get", f"github.com/gpustack/gguf-parser-go@{GGUF_PARSER}"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    subprocess.run(["go", "build", "-o", "beside", "."], cwd=directory, check=True)
    done = subprocess.run([directory / "beside"], input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def node_answers(directory: Path, text: str) -> list[str]:
    shutil.copy(HERE / "beside.mjs", directory / "main.mjs")
    package = f"node-llama-cpp@{NODE_LLAMA_CPP}"
    install = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", directory, package]
    subprocess.run(install, check=True, capture_output=True)
    done = subprocess.run(["node", "main.mjs"], cwd=directory, input=text, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def figures(name: str, told: list[float], answers: list[str], seconds: float) -> None:
    """Median, 95th percentile and worst of what one is off, in MiB; a refusal counts apart."""
    said = [(float(answer), truth) for answer, truth in zip(answers, told) if not answer.startswith("refused")]
    off = sorted(abs(answer - truth) for answer, truth in said)
    p95 = off[int(0.95 * (len(off) - 1))]
    print(
        f"{name:<22} {len(off):>5} {len(told) - len(off):>8} {statistics.median(off):>9.1f} {p95:>9.1f} {off[-1]:>9.1f}"
        f" {seconds:>7.1f}"
    )


def times(go: Path, directory: Path, files: list[Path]) -> None:
    """Of one estimate as a process of its own, in turns: the medians, and the median of each turn's ratio."""
    tool = directory / "gpu-memory"
    tool.write_bytes(host_tool.compiled_archive(None))
    ours = [sys.executable, "-IS", str(tool), "plan"]
    print(f"\n{'one estimate, s':<22} {'gguf-parser':>12} {'gpu-memory':>12} {'ratio':>7} {'CPU ratio':>10}")
    for file in files:
        turns = []
        for _unused in range(TURNS):
            line = f"{file} 999 8192 1 512 f16 f16 off\n"
            theirs_s, theirs_cpu = took([str(go)], line)
            ours_s, ours_cpu = took([*ours, str(file), "--num-ctx", "8192", "--num-batch", "512"])
            turns.append((theirs_s, ours_s, ours_s / theirs_s, ours_cpu / theirs_cpu))
        theirs, mine, ratio, cpu = (statistics.median(column) for column in zip(*turns))
        print(f"{file.name:<22} {theirs:>12.3f} {mine:>12.3f} {ratio:>7.1f} {cpu:>10.1f}")


def took(command: list[str], given: str = "") -> tuple[float, float]:
    """Elapsed and processor time of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, input=given, text=True, check=True, stdout=subprocess.DEVNULL)
    elapsed, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return elapsed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    table = rows()
    told = [truth for _row, truth, _ours in table]
    print(f"{'MiB off llama.cpp':<22} {'rows':>5} {'refused':>8} {'median':>9} {'p95':>9} {'worst':>9} {'s':>7}")
    started = time.monotonic()
    figures("this planner", told, [str(ours) for _row, _told, ours in rows()], time.monotonic() - started)
    with tempfile.TemporaryDirectory() as directory:
        text = asked(table, Path(directory))
        for name, answers in (
            (f"gguf-parser {GGUF_PARSER}", go_answers),
            (f"node-llama-cpp {NODE_LLAMA_CPP}", node_answers),
        ):
            own = Path(directory, name.split()[0])
            own.mkdir()
            started = time.monotonic()
            figures(name, told, answers(own, text), time.monotonic() - started)
        recorded = Path(directory, f"{planner.name_of(table[0][0])}.gguf")
        times(Path(directory, "gguf-parser", "beside"), Path(directory), [recorded, *map(Path, sys.argv[1:])])


if __name__ == "__main__":
    main()
