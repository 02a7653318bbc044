# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a host (what `<report_dir>/<host>.json` holds) and its text for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import series
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Decision
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Answer, Gpu
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import Proof
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import AtMost, Figures, LoadResult
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import (
    MemorySplit,
    Record,
    RecordedGpu,
    Row,
    Sampling,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import Restarted, Restored
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.plan import calibration
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift, evidence
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_text, memory_parts

GOOD = ("pass",)
STATES = (drift.IN_FORCE, drift.PARTIAL, drift.INSTEAD, drift.NO_EFFECT, drift.VOID)
LINES_ABOVE = 4
TERMS = ("weights", "kv", "compute", "runtime")


def record(
    host: str,
    declared: Sized | None,
    verdict: str,
    reasons: Sequence[str],
    *,
    decision: Decision | None = None,
    before: HostFacts | None = None,
    load: LoadResult | None = None,
    after: HostFacts | None = None,
    restarted: Restarted | None = None,
    restored: Restored | None = None,
    generation: str | None = None,
    wave: int | None = None,
) -> Record:
    """Everything known about a host at the end of a run; what was not measured is null, never a guess."""
    load, now = load or {}, after or before
    reasons = [" ".join(str(reason).split()) for reason in reasons]
    profile = (declared.get("profile") if declared else None) or {}
    journal = after["ollama"]["journal"] if after and after.get("ollama") else None
    nvml, ollama = (now.get("nvml"), now.get("ollama")) if now else (None, None)
    owners = memory_parts.known([before, after], load.get("processes") or [])
    result: Record = {
        "schema": verdicts.SCHEMA,
        "host": host,
        "profile": profile.get("label"),
        "verdict": verdict,
        "reason": "; ".join(reasons) or None,
        "reasons": reasons,
        "max_used_mib": profile.get("max_used_mib"),
        "peak_used_mib": load.get("peak_used_mib"),
        "gpus": _gpus(load, nvml["gpus"] if nvml else [], owners),
        "ignored": _gpus({}, (nvml.get("ignored") if nvml else None) or [], owners),
        "evidence": load.get("evidence"),
        "predicted": (decision or {}).get("predicted"),
        "settings": [],
        "load": load.get("load"),
        "sampling": _sampling(load) if load else None,
        "versions": {
            "ollama": ollama["api"]["version"] if ollama else None,
            "driver": nvml.get("driver_version") if nvml else None,
        },
        "generation": generation,
        "wave": wave,
        "notes": list((decision or {}).get("notes") or []),
        "speed": None,
        "speed_is_of": [],
        "before": verdicts.before_text(before, after, load.get("load")) if before else None,
        "memory": None,
        "journal": None,
        "calibration": [],
        "restarts": restarted,
        "restored": restored,
        "acted": bool((decision or {}).get("acts")),
    }
    if declared and after and journal is not None and load:
        _add_load(result, declared, before, load, after)
    return result


def _add_load(record: Record, declared: Sized, before: HostFacts | None, load: LoadResult, after: HostFacts) -> None:
    """What a load has shown, and what was read after it."""
    figures, journal = load.get("load") or {}, after["ollama"]["journal"]
    turns = int(figures.get("requests") or 0)
    record["settings"] = drift.drift(declared, after, load)
    record["memory"] = verdicts.memory_split(load, after, before)
    record["speed"] = verdicts.speed_of(figures, journal)
    record["speed_is_of"] = verdicts.speed_is_of(figures, after["ollama"]["api"]["show"])
    record["calibration"] = calibration.measure(load, after)
    record["effects"] = drift.effects(load, after)
    record["journal"] = {
        "failures": journal["failures"][:50],
        "loads": len(journal["loads"]),
        "reloads": verdicts.reloads(journal),
        "reloads_per_turn": round(verdicts.reloads(journal) / turns, 2) if turns else None,
        "reloads_beyond_plan": verdicts.reloads_beyond_plan(declared, after, figures),
        "longest_prompt": journal.get("longest_prompt"),
        "longest_sent": journal.get("longest_sent"),
        "most_reused": journal.get("most_reused"),
        "truncated": journal.get("truncated"),
        "log": journal.get("log"),
        "not_read": evidence.not_read(journal, turns > 0),
    }
    record["notes"] += [*evidence.notes(journal, turns > 0), *drift.keep_alives(after)]


def of_proof(host: str, proof: Proof, notes: Sequence[str]) -> Record:
    """The record of a host whose proof holds: the proof is the host's own, what it is called is this inventory's."""
    again: Record = {**proof["record"], "host": host, "acted": False, "restarts": None, "proven_at": proof["at"]}
    again["notes"] = list(notes)
    return again


def _sampling(load: LoadResult) -> Sampling:
    return {
        "samples": load.get("samples"),
        "interval_ms": load.get("interval_ms"),
        "max_gap_ms": load.get("max_gap_ms"),
    }


def _gpus(load: LoadResult, read: Sequence[Gpu], owners: memory_parts.Known) -> list[RecordedGpu]:
    """As the load test saw them, which does not know their names; without one, as they were read.

    `parts` are those of the listing nearest to the peak, at `parts_at_s`; without a load those of the read.
    """
    names = {gpu["uuid"]: gpu.get("name") for gpu in read}
    loaded: list[dict[str, object]] = [
        {
            **{name: value for name, value in gpu.items() if name != "at_most"},
            "name": names.get(gpu["uuid"]),
            "timeline": series.without_levels(gpu.get("timeline") or []),
            **_parts(gpu.get("at_most"), owners),
        }
        for gpu in load.get("gpus") or []
    ]
    seen: list[dict[str, object]] = loaded or [
        {**{name: value for name, value in gpu.items() if name != "memory"}, **_parts(gpu, owners)} for gpu in read
    ]
    return cast(list[RecordedGpu], seen)


def _parts(moment: AtMost | Gpu | None, owners: memory_parts.Known) -> RecordedGpu:
    """Of a listing with the memory beside it; null where there is none."""
    memory = moment.get("memory") if moment else None
    at_s = moment.get("at_s") if moment else None
    return {
        "parts": memory_parts.split(memory, moment["processes"], owners) if moment and memory else None,
        "parts_at_s": cast("float | None", at_s),
    }


def block(record: Record, undo: str | None = None) -> str:
    """The lines for one host, the widest first line first; only what was measured or read back appears."""
    lines = [_headline(record), *(_line(label, text) for label, text in facts(record))]
    lines += [_line("settings", text) for text in [settings_when(record)] if text]
    for state in STATES:
        for row in record["settings"]:
            if row["state"] == state:
                lines.append(_line(state, f"{row['name']}={row['wanted']}", row["effect"] + _who(row) + _whose(row)))
    lines += [_line("reason", text) for text in record["reasons"]]
    lines += [_line("note", text) for text in _once(record, notes(record))]
    if undo and can_be_undone(record):
        lines.append(_line("undo", undo))
    return "\n".join(map(host_text.printable, lines))


def facts(record: Record) -> list[tuple[str, str]]:
    """What was measured, as pairs of a label and a sentence."""
    texts = [
        ("proof", _proof_text(record)),
        ("load", _load_text(record)),
        ("speed", _speed_text(record)),
        ("memory", _memory_text(record)),
        *(("memory", _parts_text(gpu)) for gpu in record["gpus"]),
        *(("ignored", _ignored_text(gpu)) for gpu in record.get("ignored") or []),
        ("predicted", _predicted_text(record)),
    ]
    return [(label, text) for label, text in texts if text]


def notes(record: Record) -> list[str]:
    """What a load has shown by the rows of the settings needs no warning any more."""
    predicted = None if record["settings"] else record["predicted"]
    return [*record["notes"], *((predicted.get("warnings") if predicted else None) or [])]


def settings_when(record: Record) -> str | None:
    """When the settings were so, where they are not any more."""
    undone = record["settings"] and record["verdict"] == "rolled_back"
    return "as they were under load, before the host went back" if undone else None


def can_be_undone(record: Record) -> bool:
    return bool(record["acted"] and record["verdict"] in ("pass", "fell_back"))


def _who(row: Row) -> str:
    """Who overrides; of what is not in force the reasons tell it."""
    return f"; {row['source']}" if row.get("source") and row["state"] != drift.INSTEAD else ""


def _once(record: Record, notes: Sequence[str]) -> list[str]:
    """Notes in full where something was done or loaded; of a host that is as it was before, their number.

    What a client has running now is never as before.
    """
    new = [note for note in notes if note.startswith(drift.RUNS_NOW)]
    if not record.get("proven_at") or len(notes) - len(new) < 2:
        return list(notes)
    return [*new, f"{len(notes) - len(new)} notes as before, in full in {record['host']}.json and in the plan"]


def is_overridden(record: Record) -> bool:
    """Whether a profile that is in force is not what runs now, because of a client."""
    return any(note.startswith(drift.RUNS_NOW) for note in record["notes"])


def _whose(row: Row) -> str:
    """A backend's key that the profile does not name must not pass for the profile's."""
    ours = row.get("set_by") == "collection" and row["read_by"] == "backend"
    return "; set by this collection, not by the profile" if ours else ""


def one_line(record: Record) -> str:
    """One host in one line, for fleets."""
    now = f"  {drift.RUNS_NOW}" if is_overridden(record) else ""
    reason = now if record["verdict"] == "pass" else f"  {record.get('reason') or ''}"
    return host_text.printable(_headline(record) + reason.rstrip())


def summary(records: Sequence[Record], undo: str | None = None) -> list[tuple[Record | None, str]]:
    """All hosts as (record, text): a block each, or above `LINES_ABOVE` hosts a line each and then the counts."""
    if len(records) <= LINES_ABOVE:
        return [
            (record, block(record, host_text.for_host(undo, record["host"]) if undo else None)) for record in records
        ]
    counts: dict[str, int] = {}
    for record in records:
        counts[record["verdict"]] = counts.get(record["verdict"], 0) + 1
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return [*((record, one_line(record)) for record in records), (None, f"{len(records)} hosts: {total}")]


def lost(host: str) -> Record:
    """The record of a host that left the run without one."""
    reason = ["no result: the host was lost during the run; if anything was written, it puts it back by itself"]
    return {**record(host, None, "inconclusive", reason), "ok": False}


def unreadable(host: str, why: str) -> Record:
    """What is shown of a host whose record cannot be."""
    return {**record(host, None, "inconclusive", [why]), "ok": False}


def is_lost(record: Record | None) -> bool:
    """Whether a host has begun and not ended, by what it has registered: only the end knows the wave."""
    return record is not None and record.get("wave") is None


def progress_line(host: str, wave: int, progress: Answer) -> str:
    """One line while a load runs."""
    now, peak, threshold = (progress.get(name) for name in ("used_mib", "peak_used_mib", "max_used_mib"))
    of = f" of {threshold}" if threshold is not None else ""
    memory = "memory not read" if now is None or peak is None else f"memory now {now}, peak {peak}{of} MiB"
    what = progress.get("what") or "load"
    return (
        f"{host}  wave {wave}  {what} {progress.get('requests_done') or 0}/{progress.get('requests') or 0}  "
        f"{progress.get('t_s') or 0:.0f} s  {memory}"
    )


def _line(label: str, *columns: str) -> str:
    first = f"  {label:<10} "
    return (first + (f"{columns[0]:<38} {columns[1]}" if len(columns) > 1 else columns[0])).rstrip()


def _headline(record: Record) -> str:
    verdict = record["verdict"].upper().replace("_", " ")
    head = f"{record['host']}  {record['profile'] or '-'}  {verdict}"
    peak = peak_text(record)
    return f"{head}   {peak}" if peak else head


def peak_text(record: Record) -> str | None:
    """The measured peak against the threshold, with how sure it is."""
    peak, threshold = record["peak_used_mib"], record["max_used_mib"]
    if peak is None:
        return None
    of = f" of {threshold} MiB, headroom {threshold - peak}" if threshold is not None else " MiB, no threshold"
    highest = fullest(record["gpus"])
    where = f" on GPU {highest['index']}" if highest and len(record["gpus"]) > 1 else ""
    return f"peak {peak}{of}{where}{_evidence_text(record)}"


def fullest(gpus: Sequence[RecordedGpu]) -> RecordedGpu | None:
    """The one with the highest peak of a load; None without one."""
    return max(
        (gpu for gpu in gpus if gpu.get("peak_used_mib")), key=lambda gpu: gpu["peak_used_mib"] or 0, default=None
    )


def _evidence_text(record: Record) -> str:
    sampling = record.get("sampling") or {}
    if record["evidence"] == "bounded":
        return " (bounded by accounting)"
    interval_ms, max_gap_ms = sampling.get("interval_ms"), sampling.get("max_gap_ms")
    if record["evidence"] == "sampled" and interval_ms and max_gap_ms is not None:
        return f" (sampled {1000 / interval_ms:.0f} Hz, worst gap {max_gap_ms:.0f} ms: a lower bound)"
    return {"sampled": " (sampled: a lower bound)", "none": " (no evidence)"}.get(record["evidence"] or "", "")


def _moment(unix_time: float) -> str:
    return datetime.fromtimestamp(float(unix_time), timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def _proof_text(record: Record) -> str | None:
    at = record.get("proven_at")
    return f"of {_moment(at)} holds, so nothing was loaded; it showed:" if at else None


def _predicted_text(record: Record) -> str | None:
    predicted, memory = record["predicted"], record["memory"]
    if not predicted:
        return None
    low, high = predicted["band_mib"]
    measured = [at for at in (predicted.get("measured_at") or {}).values() if at is not None]
    how = f"calibrated {_moment(min(measured))}" if measured else f"{low} to {high}"
    text = f"Ollama {predicted['total_mib']} MiB ({how})"
    held = _held_by(memory, len(predicted["models"])) if memory else None
    if held:
        text += f", measured {held - predicted['total_mib']:+d}"
    for gpu in predicted.get("gpus") or []:
        low, high = gpu["band_mib"]
        text += f"; GPU {gpu['index']} {gpu['total_mib']} ({low} to {high})"
        text += f" and {', '.join(gpu['others'])}" if gpu["others"] else ""
    return text


def _held_by(memory: MemorySplit, models: int) -> int | None:
    """What so many models held together: the largest runner for one; else of all, where there was one for each."""
    if not memory["ollama_mib"] or not memory.get("loaded", True):
        return None
    if models == 1:
        return memory["ollama_mib"]
    return memory.get("all_mib") if memory.get("runners") == models else None


def _load_text(record: Record) -> str | None:
    load, journal = record["load"], record["journal"]
    if not load:
        return None
    embeds = (record.get("effects") or {}).get("embedder")
    what = f"{load['requests']} chats at once" if not embeds else f"embeddings{_up_to(load)}"
    text = f"{what}, {load['wall_s']:.0f} s: {load['failed']} errors"
    if journal:
        text += f", {evidence.fatal_text(journal, load['requests'] > 0)}"
    if journal and not journal.get("not_read"):
        text += ", "
        if journal.get("reloads") or (journal.get("loads") or 0) > 1:
            text += f"{journal['reloads']} reloads of models ({journal['reloads_per_turn']:.1f} for each request), "
        text += f"{journal['reloads_beyond_plan']} reloads beyond plan"
        context = (record.get("effects") or {}).get("num_ctx")
        if journal.get("longest_prompt") and context:
            text += f", longest prompt {journal['longest_prompt']} of {context} tokens"
        if (journal.get("most_reused") or 0) > (journal.get("longest_prompt") or 0):
            text += f", up to {journal['most_reused']} tokens of a prompt from the cache"
        if journal.get("truncated"):
            text += f", {journal['truncated']} prompts shortened"
    used = load.get("used") or []
    if len(used) > 1:
        text += f"; used meanwhile, by it or by other clients, which Ollama does not tell: {', '.join(used)}"
    if load.get("others"):
        others = [f"{one['model']} ({one['ok']} of {one['requests']}{_up_to(one)})" for one in load["others"]]
        text += f"; then, one after another: {', '.join(others)}"
    if load.get("not_forgotten"):
        text += f", {len(load['not_forgotten'])} chats stay with the backend: {load['not_forgotten'][0]}"
    return text


def _up_to(figures: Figures) -> str:
    """The longest prompt as answers tell it."""
    longest = figures.get("longest_prompt_tokens")
    return f" of up to {longest} tokens" if longest else ""


def _speed_text(record: Record) -> str | None:
    """The load's own figures, and behind them the speed of each model that Ollama was asked for afterwards."""
    parts, load = [], record["load"] or {}
    others = [one for one in load.get("others") or [] if one.get("tokens_per_s")]
    if record["speed"] is not None:
        models = record.get("speed_is_of") or []
        about = [" and ".join(models)] if len(models) > 1 or models and others else []
        if record["before"] and not record.get("proven_at"):
            about.append(f"before: {record['before']}")
        parts.append(f"{record['speed']} tok/s" + (f" ({'; '.join(about)})" if about else ""))
    if load.get("p95_s") is not None:
        parts.append(f"p95 {load['p95_s']:.1f} s")
    downtime_s = _downtime_s(record)
    if downtime_s is not None:
        parts.append(f"downtime {downtime_s:.0f} s")
    further = [f"{one['model']} {one['tokens_per_s']:.1f} tok/s" for one in others]
    return "; ".join(filter(None, [", ".join(parts), *further])) or None


def _downtime_s(record: Record) -> float | None:
    """Of all restarts of a run: those of this attempt and of the one before, and of putting the host back after each.

    None where nothing was restarted, or where it is not known of a part of it.
    """
    attempts = [attempt for attempt in (record.get("first"), record) if attempt]
    outages = [outage for attempt in attempts for outage in _outages(attempt)]
    known = [outage for outage in outages if outage is not None]
    return sum(known) if len(known) == len(outages) and any(known) else None


def _outages(attempt: Record) -> list[float | None]:
    """The seconds of each outage; None of one without an end. A failed restart ends with the restore."""
    restarted, restored = attempt.get("restarts") or {}, attempt.get("restored") or {}
    back_at = None if restored.get("failed") or not restored.get("services") else restored.get("at")
    if restarted.get("services") == {}:  # nothing was stopped, failed or not
        restarted = {}
    if restarted.get("failed"):
        stopped = [at for service in (restarted.get("services") or {}).values() if (at := service.get("stopped_at"))]
        return [back_at - min(stopped) if back_at and stopped else None]
    return [None if part.get("failed") else part.get("downtime_s") for part in (restarted, restored) if part]


def _memory_text(record: Record) -> str | None:
    memory = record["memory"]
    if not memory or not memory["ollama_mib"]:
        return None
    terms = ", ".join(f"{name} {memory['terms_mib'][name]}" for name in TERMS if name in memory["terms_mib"])
    others = ", ".join(f"{other['name']} {other['peak_mib']}" for other in memory["others"] if other["peak_mib"])
    return (
        f"Ollama {memory['ollama_mib']} MiB"
        + (f" ({terms})" if terms else "")
        + (f"; others: {others}" if others else "")
    )


def _parts_text(gpu: RecordedGpu) -> str | None:
    """All of a GPU's memory at one moment, as a sum."""
    parts = gpu.get("parts")
    return f"GPU {gpu['index']} {when(gpu)}: {memory_parts.text(gpu['total_mib'], parts)}" if parts else None


def _ignored_text(gpu: RecordedGpu) -> str:
    """A GPU that counts neither for the threshold nor for the verdict, as it was read beside the others."""
    return _parts_text(gpu) or f"GPU {gpu['index']}: {gpu.get('error') or gpu.get('name') or 'not read'}"


def when(gpu: RecordedGpu) -> str:
    """When the parts of a GPU were read."""
    at = gpu.get("parts_at_s")
    return "now" if at is None else f"at {at:.1f} s"
