#!/usr/bin/env python3
# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the planner's accuracy against llama.cpp's own projections, and what 100 scenarios cost.

./script/bench planner [GGUF file...]
"""

from __future__ import annotations

import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner.planner import Model, Plan, Scenario, plan
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import host_tool
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import plan_command
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.core.planner import recorded_models

DATA = recorded_models.DATA
VERSION = "0.32.13"
_models: dict[str, Model] = {}


def model(name: str) -> Model:
    if name not in _models:
        _models[name] = Model.from_show(show(name))
    return _models[name]


def show(name: str) -> dict[str, object]:
    """The /api/show answer of a model, with the values of arrays."""
    return recorded_models.answer_of(name)


def name_of(row: dict[str, str]) -> str:
    return f"{row['case']}-{row['quant']}" if "quant" in row else row["case"]


def rows(name: str, version: str = VERSION) -> Iterator[tuple[dict[str, str], Plan]]:
    """Each row of one projection table, and the plan for the same settings."""
    with (DATA / f"{name}.csv").open() as table:
        for row in csv.DictReader(table):
            if row.get("devices", "1") != "1":
                continue
            scenario = Scenario.from_dict(
                {key: row[key] for key in ("num_gpu", "num_ctx", "num_parallel", "num_batch", "flash_attention")}
                | {"kv_cache_type": row.get("cache_type_k", row["cache_type"]), "v_cache_type": row["cache_type"]}
                | {"draft_num_predict": row.get("draft_num_predict", 0)}
            )
            yield (
                row,
                plan(model(name_of(row)), scenario, ollama_version=version),
            )


def projected(planned: Plan) -> float:
    """What llama.cpp's own projection covers of a plan."""
    return planned.weights_mib + planned.kv_mib + planned.compute_mib


def told(row: dict[str, str]) -> float:
    """What the engine said of one row, in all."""
    return float(row.get("projected_gpu_mib") or sum(map(int, row["gpu_mib"].split("+"))))


def accuracy() -> None:
    print(f"{'table':<26} {'rows':>5} {'worst MiB':>10} {'worst %':>8}  what")
    exact = [
        abs(got - float(row[key]))
        for row, planned in rows("llama_projection")
        for key, got in (("gpu_weights_mib", planned.weights_mib), ("gpu_kv_mib", planned.kv_mib))
    ]
    print(f"{'llama_projection':<26} {len(exact) // 2:>5} {max(exact):>10.2f} {'':>8}  weights, KV")
    for name in ("llama_server_projection", "lab_models_projection", "architectures_projection", "engine_projection"):
        off = [
            (abs(projected(planned) - told(row)), told(row)) for row, planned in rows(name) if int(row["num_gpu"]) >= 3
        ]
        relative = max(difference / whole for difference, whole in off)
        worst = max(off)[0]
        print(f"{name:<26} {len(off):>5} {worst:>10.2f} {100 * relative:>7.2f}%  weights + KV + compute")


def by_architecture() -> None:
    """The worst row of each architecture, for the lists in docs/planner.md."""
    worst: dict[str, tuple[float, str]] = {}
    for row, planned in [*rows("architectures_projection"), *rows("engine_projection")]:
        architecture = model(name_of(row)).architecture
        difference = projected(planned) - told(row)
        if abs(difference) >= abs(worst.get(architecture, (0.0, ""))[0]):
            worst[architecture] = difference, name_of(row)
    print(f"\n{'architecture':<20} {'worst MiB':>10}  model")
    for architecture, (difference, name) in sorted(worst.items(), key=lambda entry: abs(entry[1][0])):
        print(f"{architecture:<20} {difference:>+10.1f}  {name}")


def cost() -> None:
    show = (DATA / "llama31-8b-q8_0.show.json").read_text()
    started = time.process_time()
    subject = Model.from_show(json.loads(show))
    for number in range(100):
        scenario = Scenario(num_gpu=number % 34, num_ctx=1024 * (1 + number % 16), num_parallel=1 + number % 3)
        plan(subject, scenario, ollama_version=VERSION)
    spent = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"100 scenarios: {spent:.2f} s of CPU, {peak:.0f} MiB at most in this process")


def host_tool_start() -> None:
    """The start of the tool on a host from bytecode beside that from sources, in turns, in processor time."""
    model = str(DATA / "llama31-8b-q8_0.show.json")
    with tempfile.TemporaryDirectory() as directory:
        tools = [Path(directory, name) for name in ("compiled", "sources")]
        for tool, content in zip(tools, (host_tool.compiled_archive(None), host_tool.archive())):
            tool.write_bytes(content)
        for arguments in (["plan", model, "--num-ctx", "8192"], ["status", "--help"]):
            turns = [[_cpu_s([sys.executable, "-IS", str(tool), *arguments]) for tool in tools] for _unused in range(9)]
            ours, sources = (statistics.median(column) for column in zip(*turns))
            ratio = statistics.median(one / other for one, other in turns)
            print(f"host tool, {arguments[0]}: {ours:.3f} s of CPU, from sources {sources:.3f}, ratio {ratio:.2f}")


def _cpu_s(arguments: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command() -> None:
    """What the command costs as a process of its own, for the largest tokenizer among the files that are given."""
    for path in sys.argv[1:] or [str(DATA / "llama31-8b-q8_0.show.json")]:
        arguments = [sys.executable, "-m", plan_command.__name__, path, "--num-ctx", "8192", "--num-batch", "512"]
        times = []
        for _unused in range(9):
            started = time.perf_counter()
            subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - started)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = (used.ru_utime + used.ru_stime) / len(times)
        cost_of = f"{min(times):.2f} s at best, {cpu:.2f} s of CPU, {used.ru_maxrss // 1024} MiB"
        print(f"as a command, {Path(path).name}: {cost_of}")


if __name__ == "__main__":
    command()
    host_tool_start()
    cost()
    accuracy()
    by_architecture()
