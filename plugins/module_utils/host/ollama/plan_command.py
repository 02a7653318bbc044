# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner as a command: `gpu-memory plan MODEL...` on a host, on a controller

    python -m ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.plan_command MODEL...

A model is a GGUF file, a file with what /api/show answers or `ollama show --verbose` prints, or a name that a running
Ollama knows. Nothing is loaded, and no GPU is read.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    launch,
    modelfile,
    settings,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import gguf_header, planner

URL = "http://127.0.0.1:11434"
NEWEST_KNOWN = "0.32.15"  # the release that is planned for where no Ollama is asked
LARGEST_DUMP = 64 * 1024 * 1024
HEADINGS = (
    "model",
    "layers",
    "context",
    "batch",
    "weights",
    "KV",
    "compute",
    "offload",
    "runtime",
    "total",
    "low",
    "high",
)


class CannotPlan(Exception):
    """A model that cannot be planned; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 all were planned (and fit, where a limit is given), 1 one was not, 2 the command line is wrong."""
    wanted = _parser().parse_args(arguments)
    release = wanted.ollama_version
    rows: list[list[str]] = []
    notes: list[str] = []
    done: list[dict[str, object]] = []
    good = True
    for name in wanted.model:
        try:
            show, served_by = _show(name, wanted.url)
            plan = _plan(show, wanted, release or served_by or NEWEST_KNOWN)
        except (CannotPlan, planner.ModelUnreadable, planner.ScenarioInvalid) as why:
            _say(f"{name}: {why}", sys.stderr)
            good = False
            continue
        fits = wanted.max_used_mib is None or plan.total_mib + wanted.other_used_mib <= wanted.max_used_mib
        good = good and fits
        notes += [f"{name}: {warning}" for warning in plan.warnings]
        notes += [] if fits else [f"{name}: does not fit into {wanted.max_used_mib} MiB"]
        rows.append(_row(name, plan))
        done.append({"model": name, **_figures(plan), "warnings": plan.warnings})
    if wanted.json:
        _say(json.dumps(done, indent=2))
    elif rows:
        _say("\n".join([*_table([list(HEADINGS), *rows]), *notes]))
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu-memory plan",
        description="Predict the GPU memory of models, in MiB; nothing is loaded.",
        epilog="What is not given comes from the model's own PARAMETERs, then from --env, as in Ollama.",
    )
    parser.add_argument("model", nargs="+", help="a GGUF file, a dump of /api/show or ollama show --verbose, or a name")
    parser.add_argument("--url", default=URL, help=f"the Ollama that knows the names (default {URL})")
    parser.add_argument("--ollama-version", help=f"default: of the Ollama that is asked, or {NEWEST_KNOWN}")
    for option, what in (
        ("num-gpu", "layers on the GPU; default: all"),
        ("num-ctx", "context of one slot"),
        ("num-parallel", "slots"),
        ("num-batch", "tokens in a batch"),
        ("draft-num-predict", "further tokens that are predicted"),
    ):
        parser.add_argument(f"--{option}", type=int, help=what)
    parser.add_argument("--kv-cache-type", help="type of the cache")
    parser.add_argument("--flash-attention", choices=("on", "off", "auto"))
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="of the server, repeatable")
    parser.add_argument(
        "--gpu", action="append", default=[], type=int, metavar="MIB", help="a GPU's memory, repeatable"
    )
    parser.add_argument("--free-mib", type=int, help="of the only GPU: what does not fit is left on the CPU")
    parser.add_argument("--max-used-mib", type=int, help="exit with 1 where a model takes more")
    parser.add_argument("--other-used-mib", type=int, default=0, help="what others hold")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    return parser


def _show(name: str, url: str) -> tuple[dict[str, object], str | None]:
    """What /api/show says, or would, and the release of the Ollama that was asked."""
    if os.path.isfile(name):
        return _of_file(name), None
    # Only here: a file needs no HTTP.
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import shown
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

    try:
        answer = shown.with_arrays(url.rstrip("/"), name)
        version = http_client.get_json(url.rstrip("/") + endpoints.VERSION, timeout=5).get("version")
        if answer.get("projector_info") or "\nADAPTER " in str(answer.get("modelfile")):
            # what files beside the model's take is said here alone
            listed = http_client.get_json(url.rstrip("/") + endpoints.MODELS, timeout=10).get("models")
            same = [each for each in listed or () if each.get("name") in (name, f"{name}:latest")]
            answer["size"] = same[0].get("size") if same else None
    except (http_client.HttpError, AttributeError, TypeError) as why:
        raise CannotPlan(f"no file, and no model of Ollama's: {why}") from None
    if not answer:
        raise CannotPlan(f"what answers {url}{endpoints.SHOW} is no Ollama")
    return answer, str(version) if settings.parse_version(version) else None


def _of_file(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            if file.read(len(gguf_header.MAGIC)) == gguf_header.MAGIC:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                    return gguf_header.show(view)
            file.seek(0)
            text = file.read(LARGEST_DUMP).decode(errors="replace")
    except OSError as why:
        raise CannotPlan(str(why.strerror)) from None
    if not text.lstrip().startswith("{"):
        # Only here: hardly a model comes as this text.
        from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import show_text

        return show_text.show(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise CannotPlan("neither a GGUF file nor a dump of /api/show") from None
    return dict(found)


def _plan(show: Mapping[str, object], wanted: argparse.Namespace, release: str) -> planner.Plan:
    version = settings.parse_version(release)
    written = show.get("parameters")
    told = launch.told(
        dict(pair.partition("=")[::2] for pair in wanted.env),
        modelfile.memory_options(written) if isinstance(written, str) else {},
        {name: getattr(wanted, name) for name in ("num_gpu", "num_ctx", "num_batch", "draft_num_predict")},
        version,
    )
    if told.refused:
        raise CannotPlan(told.refused)
    given = {name: getattr(wanted, name) for name in ("num_parallel", "kv_cache_type", "flash_attention")}
    context = settings.default_num_ctx([{"total_mib": mib} for mib in wanted.gpu], version)
    values = {
        "num_ctx": context,
        **told.scenario,
        **{name: value for name, value in given.items() if value is not None},
    }
    model, scenario = planner.Model.from_show(show), planner.Scenario.from_dict(values)
    if told.fits and wanted.free_mib is not None:
        room = wanted.free_mib - launch.left_free_mib(told.margin_mib, version)
        scenario = planner.fitted(
            model, scenario, room, ollama_version=release, projector_counts=told.margin_mib is None
        )
    return planner.plan(model, scenario, ollama_version=release)


def _figures(plan: planner.Plan) -> dict[str, object]:
    low, high = plan.band_mib.get("total_mib", [plan.total_mib, plan.total_mib])
    return {
        "offloaded_layers": plan.offloaded_layers,
        "offloadable_layers": plan.offloadable_layers,
        "partial_layers": plan.partial_layers,
        "num_ctx": plan.num_ctx,
        "num_parallel": plan.num_parallel,
        "num_batch": plan.num_batch,
        "weights_mib": round(plan.weights_mib, 1),
        "kv_mib": round(plan.kv_mib, 1),
        "compute_mib": round(plan.compute_mib, 1),
        "op_offload_mib": round(plan.op_offload_mib, 1),
        "runtime_mib": round(plan.runtime_mib, 1),
        "total_mib": round(plan.total_mib, 1),
        "low_mib": round(low, 1),
        "high_mib": round(high, 1),
        "host_mib": round(plan.host_mib, 1),
    }


def _row(name: str, plan: planner.Plan) -> list[str]:
    low, high = plan.band_mib.get("total_mib", [plan.total_mib, plan.total_mib])
    terms = (plan.weights_mib, plan.kv_mib, plan.compute_mib, plan.op_offload_mib, plan.runtime_mib, plan.total_mib)
    layers, context = f"{plan.offloaded_layers}/{plan.offloadable_layers}", f"{plan.num_ctx} x {plan.num_parallel}"
    shown = name if name.isprintable() else ascii(name)
    return [shown, layers, context, str(plan.num_batch), *(f"{mib:.0f}" for mib in (*terms, low, high))]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    ]


def _say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(f"{text}\n")


if __name__ == "__main__":
    raise SystemExit(main())
