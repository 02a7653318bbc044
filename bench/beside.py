#!/usr/bin/env python3
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner beside gguf-parser and node-llama-cpp on the same rows: how far each is from llama.cpp's own projection.

./script/bench beside

Both are fetched into a temporary directory; it needs go and npm. Of each only what llama.cpp's projection covers is
asked: weights, cache and compute buffer on one GPU, without what a process takes.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench import planner  # noqa: E402
from tests.integration.real import sparse_gguf  # noqa: E402

GGUF_PARSER, NODE_LLAMA_CPP = "v0.28.2", "3.22.1"
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


if __name__ == "__main__":
    main()
