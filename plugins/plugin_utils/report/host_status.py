# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host is now, without any load, and what to do next; and its text for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import utc
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import Decision
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal, LogLine
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.host import HostFacts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.kept import State
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.plan import (
    HolderNow,
    MemoryNow,
    ProofAge,
    Status,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Row
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.decide import decisions
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import lasting, verdicts
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.profile import sizes, wanted_settings
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import drift as readback_drift
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.readback import evidence
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.report import host_text, memory_parts

# From the worst to the best. Whoever is woken looks at the first ones.
UNREADABLE, HELD, DOWN, OUT_OF_MEMORY = "not readable", "in a run", "down", "out of memory"
DRIFTED, BY_CLIENT, OVER, UNPROVEN, WELL = "drift", "by a client", "over", "not proven", "ok"
STATES = (UNREADABLE, DOWN, OUT_OF_MEMORY, OVER, DRIFTED, BY_CLIENT, HELD, UNPROVEN, WELL)
NEEDS_SOMEONE = STATES[: STATES.index(HELD)]
HOSTS_SHOWN = 40
LINES_SHOWN = 3
WRONG_SHOWN = 4
LOG_UNREAD = "log not read as a whole"


def status(host: str, declared: Declared | None, read: HostFacts, command: Callable[[str], str]) -> Status:
    """How one host is: `state` (of `STATES`), `wrong` (why, in sentences), `next` (a command or an action), and facts.

    `declared`: `_declare.resolve`. `read`: gpu_memory_info, its journal of the last hours; one that failed has `msg`.
    `command`: how a playbook is run, with C({host}) for the host.
    The facts: `profile`, `proof` {at, age_s, holds} or None, `failures` (fatal lines since the proof, {at, line}),
    `memory` (a GPU each: index, used_mib, total_mib, allowed_mib, `ignored` (whether it judges nothing), holders by
    size, `parts` as in `memory_parts.split`), `notes` (what was not read, so that nobody takes its silence for a good
    sign), `loaded` (models that stay as long as a request has said), `problems` of the declaration.
    """
    profile = declared["profile"] if declared else None
    base: Status = {
        "host": host,
        "profile": profile.get("label") if profile else None,
        "proof": None,
        "failures": [],
        "memory": [],
        "notes": [],
        "loaded": [],
        "state": UNREADABLE,
        "wrong": [],
        "next": "",
    }
    if not declared or "ollama" not in read:
        why = str(read.get("msg") or "no message").strip()
        return {**base, "wrong": [why], "next": "see whether it is up; an apply that was cut off it undoes by itself"}
    declared = sizes.sized(declared, read)
    decision = decisions.decide(declared, read, deploys=False)
    proof = _proof_age(read, decision)
    failures = _fatal_lines(read["ollama"]["journal"], float(proof["at"]) if proof else 0.0)
    memory = memory_of(declared, read)
    found = {
        HELD: _held(read["state"]),
        DOWN: _down(read),
        OUT_OF_MEMORY: _out_of_memory(_unhealed(failures, read["ollama"]["journal"]), proof is not None),
        OVER: _over(memory),
        DRIFTED: [*decision["problems"], *_with_cause(drift(declared, read, decision), read["state"])],
        BY_CLIENT: [] if decision["problems"] else readback_drift.by_clients(declared, read)[0],
        UNPROVEN: [] if proof and proof["holds"] else [_unproven(proof, failures)],
    }
    state = next((name for name in STATES if found.get(name)), WELL)
    wrong = [text for name in STATES for text in found.get(name) or [] if name != UNPROVEN or state == UNPROVEN]
    wrong = list(dict.fromkeys(wrong))  # NVML that does not answer is both a fault and in the way of an apply
    return {
        **base,
        "proof": proof,
        "failures": failures,
        "memory": memory,
        "notes": evidence.notes(read["ollama"]["journal"], asked=False),
        "loaded": readback_drift.keep_alives(read),
        "state": state,
        "wrong": wrong,
        "next": _next(
            state, lambda playbook: host_text.for_host(command(playbook), host), declared, read, memory, decision
        ),
    }


def _proof_age(read: HostFacts, decision: Decision) -> ProofAge | None:
    kept = read["state"].get("proof")
    if not kept:
        return None
    age_s = float(read["host"]["time"]) - float(kept["at"])
    return {"at": kept["at"], "age_s": age_s, "holds": decision.get("proof") is not None}


def memory_of(declared: Sized, read: HostFacts) -> list[MemoryNow]:
    """Who holds how much of each GPU that could be read, the largest first."""
    profile = declared.get("profile") or {}
    owners = memory_parts.known([read])
    gpus: list[MemoryNow] = []
    ignored = [gpu for gpu in read["nvml"].get("ignored") or [] if not gpu.get("error")]
    for gpu in [*wanted_settings.usable_gpus(read["nvml"]), *ignored]:
        holders: list[HolderNow] = [
            {
                "name": memory_parts.name_of(one, owners),
                "what": memory_parts.kind_of(one, owners),
                "pid": one["pid"],
                "kind": one["kind"],
                "used_mib": one["used_mib"],
            }
            for one in gpu["processes"]
        ]
        gpus.append(
            {
                "index": gpu["index"],
                "used_mib": gpu["used_mib"],
                "total_mib": gpu["total_mib"],
                "allowed_mib": None if gpu in ignored else profile.get("max_used_mib"),
                "ignored": gpu in ignored,
                "holders": sorted(holders, key=lambda one: -(one["used_mib"] or 0)),
                "parts": memory_parts.split(gpu["memory"], gpu["processes"], owners),
            }
        )
    return gpus


def drift(declared: Sized, read: HostFacts, decision: Decision) -> list[str]:
    """What runs instead of what the profile wants; where that is not known, the files and services that differ.

    Without what clients have asked for, which is not the host's.
    """
    if decision["problems"]:
        return []
    rows = _own_rows(declared, read)
    if rows:
        return [f"{row['name']}={row['wanted']} is wanted, but {row['source'] or row['effect']}" for row in rows]
    files = _files_that_differ(declared, decision)
    units = {"ollama": declared["ollama"]["unit"], "backend": declared["backend"].get("unit") or "the backend"}
    return [f"{path} is not as the profile wants it" for path in files] or [
        f"{units[name]} was not started with what is in its files" for name in decision["restart"]
    ]


def _own_rows(declared: Sized, read: HostFacts) -> list[Row]:
    rows = readback_drift.drift(declared, read)
    return [row for row in rows if readback_drift.drifted(row) and not readback_drift.is_clients(row)]


def _with_cause(differences: list[str], state: State) -> list[str]:
    """After a rollback a host differs from its profile because of that."""
    undone = _undone(state) if differences else None
    return [undone, *differences] if undone else differences


def _undone(state: State) -> str | None:
    """That what the last run changed was put back, when and why; None where a run has begun since."""
    last = state.get("last_restore")
    if not last or not last["changed"] or any(kept["at"] > last["at"] for kept in state["generations"]):
        return None
    what = "the last apply" if last["run_id"] else "the host"
    return f"{what} was rolled back on {utc.text(last['at'])}: {last['reason']}"


def _files_that_differ(declared: Sized, decision: Decision) -> list[str]:
    profiles_own = declared["profile_file"]["path"] if declared["profile_file"] else None  # nothing reads it
    return [file["path"] for file in decision["files"] if file["path"] != profiles_own]


def _held(state: State) -> list[str]:
    restoring, lease = state.get("restoring"), state.get("lease")
    if restoring:
        return [f"it is going back to generation {restoring['generation']} ({restoring['reason']})"]
    if lease:
        return [f"{lease['holder']}, since {lease['since']}" + ("" if lease["live"] else "; nothing is heard of it")]
    return []


def _down(read: HostFacts) -> list[str]:
    api = read["ollama"]["api"]
    silent = [f"Ollama does not answer: {api['error']}"] if api["error"] else []
    texts = [*decisions.pending_restore(read["state"]), *(lasting.ollama_down(read) or silent)]
    if read["nvml"]["status"] != "ok":
        texts.append(f"NVML: {read['nvml']['message']}")
    texts += filter(None, [read["nvml"].get("lost")])
    return texts + lasting.backend_unwell(read)


def _out_of_memory(failures: Sequence[LogLine], proven: bool) -> list[str]:
    if not failures:
        return []
    count = "1 line" if len(failures) == 1 else f"{len(failures)} lines"
    return [f"Ollama ran out of memory, or died: {count} {'since the last proof' if proven else 'in its journal'}"]


def _over(memory: Sequence[MemoryNow]) -> list[str]:
    return [
        f"GPU {gpu['index']} holds {gpu['used_mib']} of {gpu['allowed_mib']} MiB"
        for gpu in memory
        if gpu["used_mib"] is not None and gpu["allowed_mib"] is not None and gpu["used_mib"] > gpu["allowed_mib"]
    ]


def _fatal_lines(journal: Journal, since: float) -> list[LogLine]:
    return [
        {"at": failure["at"], "line": failure["line"]}
        for failure in journal["failures"]
        if failure["severity"] == "fatal" and failure["at"] > since
    ]


def _unhealed(failures: Sequence[LogLine], journal: Journal) -> list[LogLine]:
    """Failures of the server that runs, and after which nothing has worked yet: the others tell of the past."""
    since = max(journal.get("server_at") or 0.0, journal.get("worked_at") or 0.0)
    return [failure for failure in failures if failure["at"] >= since]


def _unproven(proof: ProofAge | None, failures: Sequence[LogLine]) -> str:
    if proof is None:
        return "nothing was ever proven here"
    if failures and not proof["holds"]:
        since = f"Ollama failed since ({len(failures)} times), though it works again"
        return f"the proof of {_ago(proof['age_s'])} no longer holds: {since}"
    return (
        f"the proof of {_ago(proof['age_s'])} no longer holds: it is too old, or of something else than what runs now"
    )


def _next(
    state: str,
    run: Callable[[str], str],
    declared: Sized,
    read: HostFacts,
    memory: Sequence[MemoryNow],
    decision: Decision,
) -> str:
    if state == WELL:
        return "nothing"
    unit = read["ollama"]["unit"]
    if state == DOWN and unit.get("load_state", "loaded") == "loaded":
        look = f"on the host: journalctl -u {unit.get('id', unit['name'])} -n 50"
        back = f"; or back to what ran before: {run('selo.gpu_memory.rollback')}"
        return look + (back if read["state"].get("previous") else "")
    if state == HELD or read["state"].get("restoring"):
        return "wait for that run to end; on the host: gpu-memory status"
    stranger = _stranger(memory)
    if stranger and state in (OUT_OF_MEMORY, OVER):
        return f"end {stranger['name']} (process {stranger['pid']}, {stranger['used_mib']} MiB), or move it elsewhere"
    applied = decisions.decide(declared, read, deploys=True)
    if applied["problems"]:
        return f"mend this first, since an apply refuses it: {applied['problems'][0]}"
    if applied["acts"] and state != UNPROVEN and _undone(read["state"]):
        tune = f"find what holds: {run('selo.gpu_memory.tune')}"
        if (declared.get("profile") or {}).get("name") == "conservative":
            return tune
        stay = "or, if it is to stay so, set gpu_memory_profile to what runs"
        return f"{run('selo.gpu_memory.apply_conservative')}; or {tune}; {stay}"
    rows = _own_rows(declared, read)
    proof_alone = state == UNPROVEN or any(map(readback_drift.is_of_another_release, rows))
    apply = run("selo.gpu_memory.apply")
    apply += " -e gpu_memory_verify=changed" if proof_alone and declared["verify"] == "never" else ""
    return apply if applied["acts"] else _beyond_files(state, run, declared, read) or apply


def _beyond_files(state: str, run: Callable[[str], str], declared: Sized, read: HostFacts) -> str | None:
    """What to do where files and services are as the profile wants them; None where it is to be proven alone."""
    rows = [row for row in _own_rows(declared, read) if not readback_drift.is_of_another_release(row)]
    _told, cures = readback_drift.by_clients(declared, read)
    if rows:
        causes = dict.fromkeys(row["source"] or f"{row['name']}: {row['effect']}" for row in rows)
        return f"change it where it comes from, which no apply reaches: {'; '.join(causes)}"
    if cures:
        return f"give that client {', and '.join(cures)}"
    if state in (OUT_OF_MEMORY, OVER) and declared["profile"]["name"] == "stable":
        return run("selo.gpu_memory.apply_conservative")
    if state in (OUT_OF_MEMORY, OVER):
        return "lower num_ctx or num_parallel of its profile, or serve a smaller model"
    if declared["profile"]["max_used_mib"] is None:
        return "set max_used_mib of its profile (gpu_memory_overrides.intent): without a threshold nothing is proven"
    return None


def _stranger(memory: Sequence[MemoryNow]) -> HolderNow | None:
    """Who computes besides Ollama and the backend, and without whom a GPU would stay within its threshold."""
    for gpu in (gpu for gpu in memory if not gpu["ignored"]):
        over = (gpu["used_mib"] or 0) - (gpu["allowed_mib"] or gpu["total_mib"])
        for holder in gpu["holders"]:
            is_stranger = holder["kind"] == "compute" and holder["what"] == memory_parts.OTHERS
            if is_stranger and 0 < over <= (holder["used_mib"] or 0):
                return holder
    return None


# Text -----------------------------------------------------------------------------------------------------------------


def table(statuses: Sequence[Status]) -> list[tuple[Status | None, str]]:
    """All hosts as (status, text): a line each, then a block for each that is not well, the worst last, and the count.

    One that is well has a block where there is a note on it, or on a model that it has loaded.

    Above `HOSTS_SHOWN` hosts those that are well have no line.
    """
    shown = [one for one in statuses if len(statuses) <= HOSTS_SHOWN or one["state"] != WELL]
    width = max([len(one["host"]) for one in shown] or [0])
    rows: list[tuple[Status | None, str]] = []
    if shown:
        rows.append((None, f"{'host':<{width}}  {'state':<13}  {'profile':<14}  {'proven':<12}  GPU memory now"))
    rows += [(one, _row(one, width)) for one in shown]
    told = [one for one in statuses if one["state"] != WELL or one["notes"] or one["loaded"]]
    worst_last = sorted(told, key=lambda one: -STATES.index(one["state"]))
    rows += [(one, _block(one)) for one in worst_last]
    counts = [(state, sum(one["state"] == state for one in statuses)) for state in STATES]
    total = ", ".join(f"{count} {state}" for state, count in counts if count)
    unread = sum(bool(one["notes"]) for one in statuses)
    total += f"; {LOG_UNREAD} of {unread}" if unread else ""
    return [*rows, (None, f"\n{len(statuses)} host{'s' if len(statuses) != 1 else ''}: {total}")]


def _row(one: Status, width: int) -> str:
    proof = one["proof"]
    proven = "never" if proof is None else _ago(proof["age_s"]) + ("" if proof["holds"] else " !")
    counted, ignored = ([gpu for gpu in one["memory"] if gpu["ignored"] is which] for which in (False, True))
    memory = "; ".join(
        [
            *filter(None, [", ".join(map(_used, counted))]),
            *(f"GPU {gpu['index']} (ignored) {_used(gpu)}" for gpu in ignored),
        ]
    )
    if one["state"] == UNREADABLE:
        proven = memory = "-"
    memory += f"; {LOG_UNREAD}" if one["notes"] else ""
    text = f"{one['host']:<{width}}  {one['state'].upper():<13}  {one['profile'] or '-':<14}  {proven:<12}  {memory}"
    return text.rstrip()


def _used(gpu: MemoryNow) -> str:
    return f"{gpu['used_mib']} of {gpu['allowed_mib'] or gpu['total_mib']} MiB"


def _block(one: Status) -> str:
    lines = [f"{one['host']}  {one['state'].upper()}"]
    lines += [f"  {'wrong':<8} {text}" for text in one["wrong"][:WRONG_SHOWN]]
    if len(one["wrong"]) > WRONG_SHOWN:
        lines.append(f"  {'':<8} and {len(one['wrong']) - WRONG_SHOWN} more, in status.json")
    failures = one["failures"]
    plainest = verdicts.plainest_failure(failures) if failures else None
    shown = [failure for failure in failures if failure["line"] == plainest][-1:]
    shown += [failure for failure in failures[-LINES_SHOWN:] if failure not in shown]
    for failure in sorted(shown, key=lambda failure: failure["at"])[-LINES_SHOWN:]:
        lines.append(f"  {'journal':<8} {utc.text(failure['at'])}  {failure['line'][:160]}")
    for gpu in one["memory"]:
        now = "now, ignored" if gpu["ignored"] else "now"
        lines.append(f"  {'memory':<8} GPU {gpu['index']} {now}: {memory_parts.text(gpu['total_mib'], gpu['parts'])}")
    lines += [f"  {'loaded':<8} {text}" for text in one["loaded"]]
    lines += [f"  {'note':<8} {text}" for text in one["notes"]]
    lines.append(f"  {'next':<8} {one['next']}")
    return "\n" + "\n".join(_plain(line) for line in lines)


def _plain(text: str) -> str:
    """One line that a terminal shows as it is: names of processes and lines of a journal may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"
