# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of many hosts as one (`<report_dir>/all.json`), and what the page shows of each. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import series
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import Fleet
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record, RecordedGpu
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import (
    budget_svg,
    host_record,
    host_text,
    memory_parts,
)

SCHEMA = 1
# Bounds, so that the page of a thousand hosts stays a few MB. A host's own record has everything.
POINTS_OF_ALL, POINTS_MOST, POINTS_LEAST = 40_000, 500, 60
TEXT_MOST, ROWS_MOST = 1000, 60
MOMENTS = 12
FIRST = ("profile", "verdict", "reasons", "peak_used_mib")  # of what was tried before a host fell back
# A term of `memory.terms_mib` -> its kind in the pictures.
MEASURED_KINDS = {"weights": "weights_mib", "kv": "kv_mib", "compute": "compute_mib", "runtime": "runtime_mib"}


def fleet(records: Sequence[Record], at: float) -> Fleet:
    """All records, with the counts of their verdicts and `at`, the time of the report (Unix, s).

    Timelines are thinned to what the number of hosts allows, their peaks kept; texts are cut and made printable.
    """
    points = max(POINTS_LEAST, min(POINTS_MOST, POINTS_OF_ALL // max(1, len(records))))
    return {
        "schema": SCHEMA,
        "at": at,
        "counts": dict(sorted(Counter(record["verdict"] for record in records).items())),
        "hosts": [cast(Record, _bounded(_thinned(record, points))) for record in records],
    }


def row(record: Record, undo: str | None = None) -> dict[str, object]:
    """What the page shows of a host, in the words of the terminal; `record` comes from `fleet`."""
    peak, threshold, previous = record["peak_used_mib"], record["max_used_mib"], record.get("previous")
    return {
        **{name: record.get(name) for name in ("host", "verdict", "profile", "reasons", "wave", "at", "speed")},
        "peak": peak,
        "threshold": threshold,
        "headroom": None if peak is None or threshold is None else threshold - peak,
        "card": max((gpu["total_mib"] or 0 for gpu in record["gpus"]), default=0) or None,
        "peak_text": host_record.peak_text(record),
        "facts": [*host_record.facts(record), *_facts_of_the_host(record)],
        "settings_when": host_record.settings_when(record),
        "settings": [
            {name: each.get(name) for name in ("name", "wanted", "effect", "state", "read_by", "set_by", "source")}
            for state in host_record.STATES
            for each in record["settings"]
            if each["state"] == state
        ],
        "since": previous["at"] if previous else None,
        "changes": record.get("changes") or [],
        "faults": faults(record),
        "notes": host_record.notes(record),
        "bars": bars(record),
        "moments": moments(record),
        "undo": host_text.for_host(undo, record["host"]) if undo and host_record.can_be_undone(record) else None,
    }


def expected_mib(record: Record) -> int | None:
    """What the GPU was expected to show under load: Ollama as predicted, and others as measured, or as read before.

    Of several GPUs the fullest, with others as read before. None without a prediction.
    """
    predicted, memory = record["predicted"], record["memory"]
    if predicted and len(record["gpus"]) > 1:
        highest = host_record.fullest(record["gpus"])
        planned = [gpu for gpu in predicted.get("gpus") or [] if highest and gpu["uuid"] == highest["uuid"]]
        return planned[0]["total_mib"] + planned[0]["others_mib"] if planned else None
    if not predicted or not record["gpus"]:
        return None
    others = predicted["others_mib"]
    if memory and memory["others"]:
        others = sum(other["peak_mib"] or 0 for other in memory["others"])
    return int(predicted["total_mib"] + others)


def bars(record: Record) -> list[dict[str, object]]:
    """The budget as predicted and as measured, then each GPU as a whole: a `label` and `parts` (kind, name, MiB) each.

    A kind is one of `budget_svg.KINDS` or `parts.KINDS`. What is reserved stands last: it is not used, so
    that it must not push what is used over the mark of the threshold.
    """
    predicted, memory = record["predicted"], record["memory"]
    found: list[tuple[str, list[tuple[str, str, object]]]] = []
    parts: list[tuple[str, str, object]]
    if predicted:
        parts = [
            (kind, budget_svg.KINDS[kind][0], predicted.get(kind)) for kind in budget_svg.KINDS if kind.endswith("_mib")
        ]
        parts.append(("others", "held by others before the load", predicted["others_mib"]))
        backend = any(other["name"] == "backend" for other in (memory["others"] if memory else []))
        found.append(("predicted, without the backend" if backend else "predicted", parts))
    if memory:
        terms = memory["terms_mib"]
        parts = [(kind, budget_svg.KINDS[kind][0], terms.get(term)) for term, kind in MEASURED_KINDS.items()]
        unsplit = memory["ollama_mib"] - sum(terms.values())
        parts.append(("runtime_mib", "Ollama, not told apart", unsplit if unsplit > len(terms) else 0))
        for other in memory["others"]:
            kind = "backend" if other["name"] == "backend" else "others"
            parts.append((kind, other["name"], other["peak_mib"]))
        found.append(("measured, each at its most", parts))
    for gpu in record["gpus"]:
        shown = sorted(gpu.get("parts") or [], key=lambda part: part["what"] == memory_parts.RESERVED)
        parts = [(part["what"], part["name"], part["mib"]) for part in shown]
        found.append((f"GPU {gpu['index']} {host_record.when(gpu)}", parts))
    return [
        {"label": label, "parts": [{"kind": kind, "name": name, "mib": mib} for kind, name, mib in parts if mib]}
        for label, parts in found
        if any(mib for _unused, _unused, mib in parts)
    ]


def moments(record: Record) -> list[list[float]]:
    """The timeline of the GPU with the highest peak as a few [seconds, MiB], the highest of each stretch of it."""
    highest = max(_timelines(record), key=lambda points: max(used for _unused, used in points), default=[])
    return _thin(highest, MOMENTS) if highest else []


def faults(record: Record) -> list[dict[str, object]]:
    """What went wrong, each once: `source`, `severity`, `text`, and `count`, how often it is in the record."""
    found = [
        ("journal", failure["severity"], failure["line"]) for failure in (record["journal"] or {}).get("failures") or []
    ]
    found += [("request", "fatal", error) for error in (record["load"] or {}).get("errors") or []]
    found += [(f"GPU {gpu['index']}", "fatal", str(gpu["error"])) for gpu in record["gpus"] if gpu.get("error")]
    return [
        {"source": source, "severity": severity, "text": text, "count": count}
        for (source, severity, text), count in Counter(found).items()
    ]


def _facts_of_the_host(record: Record) -> list[tuple[str, str]]:
    facts = []
    for gpu, ignored in [
        *((gpu, None) for gpu in record["gpus"]),
        *((gpu, "ignored") for gpu in record.get("ignored") or []),
    ]:
        size = f"{gpu['total_mib']} MiB" if gpu["total_mib"] else None
        facts.append(
            (f"GPU {gpu['index']}", ", ".join(filter(None, [gpu.get("name"), size, gpu.get("uuid"), ignored])))
        )
    facts += [(name, str(version)) for name, version in record["versions"].items() if version]
    restored = record.get("restored") or {}
    if restored.get("generation"):
        facts.append(("put back", f"generation {restored['generation']}"))
    elif record.get("generation"):
        facts.append(("kept", f"generation {record['generation']}, the state before this run"))
    return facts


def _timelines(record: Record) -> list[list[list[float]]]:
    return [gpu["timeline"] for gpu in record["gpus"] if gpu.get("timeline")]


def _thinned(record: Record, points: int) -> Record:
    gpus: list[RecordedGpu] = [
        {**gpu, "timeline": _thin(gpu["timeline"], points)} if gpu.get("timeline") else gpu for gpu in record["gpus"]
    ]
    first = record.get("first")
    return {
        **record,
        "gpus": gpus,
        "first": cast(Record, {name: first.get(name) for name in FIRST}) if first else None,
    }


def _thin(points: Sequence[Sequence[float]], most: int) -> list[list[float]]:
    times, used = ([point[column] for point in points] for column in (0, 1))
    return series.without_levels(series.timeline(times, used, most))


def _bounded(value: object, name: str = "") -> object:
    """Texts come from hosts: cut, and nothing in them that steers a terminal or turns the order of letters around."""
    if isinstance(value, str):
        text = host_text.printable(value)
        return text if len(text) <= TEXT_MOST else text[: TEXT_MOST - 1] + "…"
    if isinstance(value, Mapping):
        return {_bounded(str(key)): _bounded(each, str(key)) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if name == "timeline" else [_bounded(each) for each in value[:ROWS_MOST]]
    return value
