"""What llama.cpp itself says of the models in tests/data/planner, asked again: each difference to what is recorded.

    python -m tests.integration.real.truth [--write] [--only TEXT] [TABLE...]

Debian's programs get GGUF files with a model's metadata and shapes and no data. `--write` records what they say and
their version, in tests/data/planner.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.planner import DATA, name_of, show
from tests.integration.real import real_host, sparse_gguf

DRIVER = Path(__file__).with_name("engine_driver.sh")
VERSION = DATA / "engine.txt"
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=16384:16384")
SERVER = (
    "llama-server --port 18080 --host 127.0.0.1 --no-webui --offline --no-log-prefix --no-log-timestamps"
    " --log-verbosity 4 --no-warmup"
)
# What is asked for is told with the first line that one of these finds.
PROJECTED, FITTED = "projected to use |load_tensors: |^Host ", "fitting params to free memory took"
FITTER = "llama-fit-params --fit-print on"
# One table for the model, and one for what predicts further tokens, which has the model's weights once more.
_OF_DEVICE = re.compile(r"\|   - (\w+) .*?= *(\d+) \+ +(\d+) \+ +(\d+)")
_DECIDED = re.compile(r"_fit_impl: +- \w+ .*: +(\d+) layers.*, +(\d+) MiB used")
_TRIED = re.compile(r"n_layer= *(\d+), n_part= *(\d+), overflow_type=\d, mem= *(\d+) MiB")
_OF_FIRST = re.compile(r"overflow_type\)=\(\d+, \d+, (\w+)\)")
_PRINTED = re.compile(r"(\w+) (\d+) (\d+) (\d+) *$")


@dataclass(frozen=True)
class Said:
    """What one start told: model, context and compute in MiB, of each device and of the host."""

    devices: list[tuple[int, ...]]
    host: tuple[int, ...]
    projected: int | None
    lines: list[str]

    @classmethod
    def of(cls, lines: list[str]) -> Said:
        found: dict[str, tuple[int, int, int]] = {}
        for line in lines:
            if match := _OF_DEVICE.search(line) or _PRINTED.match(line):
                where = match[1] if match[1].startswith("RPC") else "host"
                model, context, compute = map(int, match.groups()[1:])
                before = found.get(where, (model, 0, 0))
                found[where] = (before[0], before[1] + context, before[2] + compute)
        host = found.pop("host", (0, 0, 0))
        sums = [int(match[1]) for line in lines if (match := re.search(r"projected to use (\d+) MiB of device", line))]
        return cls([*found.values()], host, sums[-1] if sums else None, lines)

    def refusal(self) -> str:
        return next((line for line in self.lines if "error" in line or "failed" in line), "it says nothing")


class Refused(Exception):
    """The engine does not load it; the message names the start and its first error."""


class Engine:
    """Debian's llama.cpp with so many devices of its own, in a container without a network."""

    def __init__(self, models: Path, devices: int) -> None:
        command = [real_host.ENGINE, "run", "--rm", "--interactive", "--network", "none", *LIMITS]
        command += ["--volume", f"{models}:/models:ro", "--volume", f"{DRIVER}:/driver.sh:ro", real_host.base_image()]
        self.command = [*command, "bash", "/driver.sh", str(devices)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str, until: str = PROJECTED) -> Said:
        for _again in range(2):
            assert self.process.stdin and self.process.stdout
            self.process.stdin.write(f"{until}\t{command}\n")
            self.process.stdin.flush()
            said = Said.of(
                [line.rstrip("\n") for line in iter(self.process.stdout.readline, "end\n") if line or _ended()]
            )
            if said.lines and not any("connect" in line for line in said.lines):
                break
            print(said.lines[-5:], file=sys.stderr)
            # a device does not outlive every program that is killed while it talks to it
            self.close()
            self.start()
        return said

    def version(self) -> str:
        (line,) = [line for line in self.ask("llama-server --version").lines if line.startswith("version: ")]
        return line.partition(": ")[2]

    def device_mib(self) -> int:
        (line,) = [line for line in self.ask("llama-server --list-devices").lines if "RPC0" in line]
        return int(line.rpartition("(")[2].split()[0])

    def close(self) -> None:
        self.process.communicate("")


def _ended() -> bool:
    raise RuntimeError("the container ended")


def arguments(row: dict[str, str]) -> str:
    """What Ollama would start the engine with."""
    slots, batch = int(row["num_parallel"]), row["num_batch"]
    words = f"-m /models/{name_of(row)}.gguf -c {int(row['num_ctx']) * slots} -np {slots} -b {batch} -ub {batch}"
    keys = row.get("cache_type_k") or row["cache_type"]
    words += f" -ctk {keys} -ctv {row['cache_type']} --flash-attn {row['flash_attention']}"
    layers = int(row.get("num_gpu", -1))
    words += f" -ngl {layers}" if layers >= 0 else ""
    if any(key.endswith(".pooling_type") for key in show(name_of(row))["model_info"]):
        words += " --embedding"
    predicted = int(row.get("draft_num_predict", 0))
    if predicted:
        words += f" --spec-type draft-mtp --spec-draft-n-max {predicted} --spec-draft-backend-sampling"
    return words


def asked(engine: Engine, row: dict[str, str]) -> dict[str, str]:
    """The row with what the engine says of it now."""
    if "target_mib" in row:
        return row | fitted(engine, row)
    fitter = "gpu_weights_mib" in row
    told = "".join(f"{pair} " for pair in row.get("environment", "").split())
    said = engine.ask(f"env {told}{FITTER if fitter else SERVER} {arguments(row)}")
    if not said.devices:
        raise Refused(f"{arguments(row)}: {said.refusal()}")
    if fitter:
        names = [f"{where}_{what}_mib" for where in ("gpu", "host") for what in ("weights", "kv", "compute")]
        return row | dict(zip(names, [str(mib) for where in (*said.devices, said.host) for mib in where]))
    if "devices" in row:
        devices = ["+".join(map(str, device)) for device in (*said.devices, said.host)]
        return row | {"gpu_mib": " ".join(devices[:-1]), "host_mib": devices[-1]}
    return row | {"projected_gpu_mib": str(said.projected)}


def fitted(engine: Engine, row: dict[str, str]) -> dict[str, str]:
    """What llama-server puts on a device of which it may use `target_mib`."""
    margin = engine.device_mib() - int(row["target_mib"])
    said = engine.ask(f"{SERVER} {arguments(row)} --fit-target {margin}", FITTED)
    decided = [match for line in said.lines if (match := _DECIDED.search(line))]
    if margin < 0 or not decided:
        raise Refused(f"{arguments(row)}: {said.refusal()}")
    layers, used = decided[-1][1], decided[-1][2]
    # of a model whose dense part alone does not fit it says only what it tried
    tried = [match.groups() for line in said.lines if (match := _TRIED.search(line))]
    in_part = next(in_part for count, in_part, mib in reversed(tried) if (count, mib) == (layers, used))
    of_first = [match[1] for line in said.lines if (match := _OF_FIRST.search(line))]
    return {"layers": layers, "overflowing": in_part, "of_first": (of_first or [""])[-1], "used_mib": used}


@contextlib.contextmanager
def engines() -> Iterator[Any]:
    """Gives an engine for a number of devices, and files for models, each made once."""
    with tempfile.TemporaryDirectory(prefix="truth-") as directory, contextlib.ExitStack() as stack:
        os.chmod(directory, 0o755)
        running: dict[int, Engine] = {}

        def engine(row: dict[str, str]) -> Engine:
            file = Path(directory, f"{name_of(row)}.gguf")
            if not file.exists():
                sparse_gguf.write(file, show(name_of(row)))
            devices = int(row.get("devices", 1))
            if devices not in running:
                running[devices] = Engine(Path(directory), devices)
                stack.callback(running[devices].close)
            return running[devices]

        yield engine


def remake(table: Path, engine: Any, only: str, write: bool) -> tuple[int, list[str]]:
    """How many rows were asked, and each difference."""
    with table.open() as lines:
        reader = csv.DictReader(lines)
        names, rows = list(reader.fieldnames or ()), list(reader)
    fresh, different, count = [], [], 0
    for row in rows:
        if re.search(only, name_of(row)):
            try:
                now = asked(engine(row), row)
            except Refused as refused:
                different.append(f"{table.stem}: {refused}")
                now = row
            count += 1
            if now != row:
                changes = ", ".join(
                    f"{key} {row[key] or 'nothing'} -> {now[key]}" for key in now if now[key] != row[key]
                )
                different.append(f"{table.stem}: {arguments(row)}: {changes}")
            row = now
        fresh.append(row)
    if write:
        with table.open("w", newline="") as lines:
            writer = csv.DictWriter(lines, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(fresh)
    return count, different


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="", help="models whose name this expression finds")
    parser.add_argument("tables", nargs="*")
    given = parser.parse_args()
    tables = [DATA / f"{name}.csv" for name in given.tables] or sorted(DATA.glob("*_projection.csv"))
    count, different = 0, []
    with engines() as engine:
        version = engine({"case": "qwen3-0.6b"}).version()
        recorded = VERSION.read_text().strip() if VERSION.exists() else "nothing"
        if version != recorded:
            different.append(f"the engine: {recorded} -> {version}")
        if given.write:
            VERSION.write_text(version + "\n")
        for table in tables:
            rows, changes = remake(table, engine, given.only, given.write)
            count, different = count + rows, different + changes
    print("\n".join(different))
    print(f"figure: {count} rows asked of llama.cpp {version}, {len(different)} differences to what is recorded")
    return 0 if given.write or not different else 1


if __name__ == "__main__":
    sys.exit(main())
