# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a host's run ends: its verdict with the reasons, and who may come to the host now. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.decision import (
    Decision,
    FailedTask,
    Gate,
    Judged,
)
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Declared, Sized
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.record import Record
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import RestartedService, Restored

AS_FOUND = ("stopped", "starting", "unhealthy")


class Ending(NamedTuple):
    """`ok`: for the exit status and the gate; `drained`: whether users are kept away; `serves`: whether they may come.

    With `falls_back` it is the end of a first attempt, and the fallback profile is tried.
    """

    verdict: str
    reasons: list[str]
    ok: bool
    falls_back: bool
    drained: bool
    serves: bool


def end(
    declared: Sized,
    gate: Gate,
    *,
    decision: Decision | None = None,
    judged: Judged | None = None,
    failure: FailedTask | None = None,
    restored: Restored | None = None,
    generation: str | None = None,
    first: Record | None = None,
    drained: bool = False,
    hook_failure: str | None = None,
    check_mode: bool = False,
) -> Ending:
    """The end of an attempt; `first`: the record of the one before, with the wanted profile.

    `generation`: what was kept; `drained`: whether users were sent away; `hook_failure`: why they are not back.
    """
    # A generation is kept also for a load alone; only with something to write is there something to put back.
    kept = bool(generation and decision and decision.get("acts"))
    verdict, reasons, ok = conclude(declared, gate, decision, judged, failure, restored, kept, check_mode)
    falls_back = not first and may_fall_back(verdict, declared, restored)
    if first:
        verdict, reasons, ok = after_falling_back(first, declared["profile"]["label"], verdict, reasons)
    drained, free = drained and not check_mode, serves(verdict, kept)
    if drained and not (free or falls_back) and _has_hook(declared):
        reasons = [*reasons, "users are still kept away: gpu_memory_after_proof was not done"]
    if hook_failure:
        reasons, ok = [*reasons, hook_failure, "users may still be kept away"], False
    return Ending(verdict, reasons, ok, falls_back, drained, free)


def _has_hook(declared: Declared) -> bool:
    """Whether the operator has said how users are kept away, or let in again."""
    hooks = (declared["before_restart"], declared["after_proof"])
    return any(hook["commands"] or hook["tasks"] for hook in hooks)


def conclude(
    declared: Declared,
    gate: Gate,
    decision: Decision | None,
    judged: Judged | None,
    failure: FailedTask | None,
    restored: Restored | None,
    kept: bool,
    check_mode: bool = False,
) -> tuple[str, list[str], bool]:
    """The verdict at the end of a host's run, its reasons, and whether it is `ok` for the exit status and the gate.

    `failure`: the task that failed and its message; `restored`: the result of putting the kept generation back;
    `kept`: whether a generation was kept, that is whether writing may have begun.
    """
    if not gate["open"]:
        return "untouched", [str(gate["reason"])], False
    if decision and decision.get("problems"):
        return "refused", list(decision["problems"]), False
    if judged and "verdict" not in judged:  # the judging itself failed
        judged = None
    if not failure and not check_mode and decision and _was_left_out(decision, judged, kept):
        failure = {"message": "a part of the role was left out (--step, --start-at-task); run it as a whole"}
    if failure:
        return _conclude_failure(judged, failure, restored, kept)
    if judged:
        return judged["verdict"], list(judged["reasons"]), judged["verdict"] == "pass"
    if decision and decision.get("proof"):
        return "pass", [], True
    if check_mode:
        return "untouched", [_intended(decision or {})], True
    return "inconclusive", ["not loaded, because gpu_memory_verify is " + str(declared.get("verify"))], True


def _was_left_out(decision: Decision, judged: Judged | None, kept: bool) -> bool:
    """Whether what was decided was not done, though nothing has failed."""
    return bool(decision.get("acts") and not kept or decision.get("load_needed") and not judged)


def may_fall_back(verdict: str, declared: Declared, restored: Restored | None) -> bool:
    """Whether to try the fallback profile: the wanted one did not hold, and the host is back because of that."""
    return verdict == "rolled_back" and bool(declared.get("fallback")) and not (restored or {}).get("by_itself")


def after_falling_back(
    first: Record, profile: str, verdict: str, reasons: Sequence[str]
) -> tuple[str, list[str], bool]:
    """The verdict of a second attempt, with the story of the first: that of the wanted profile, which did not hold."""
    story = [f"{first['profile']}: {reason}" for reason in first["reasons"]]
    if verdict == "pass":
        advice = (
            f"{profile} is proven instead; until this host's gpu_memory_profile says so, each apply tries both again"
        )
        return "fell_back", [*story, advice], True
    return verdict, [*story, *(f"{profile}: {reason}" for reason in reasons)], False


def serves(verdict: str, kept: bool) -> bool:
    """Whether users may come to the host: it is proven, or as it was before."""
    return verdict in ("pass", "fell_back", "rolled_back", "inconclusive") or not kept


def _intended(decision: Decision) -> str:
    """What a run without check mode would do."""
    acts = decision.get("acts")
    would = [f"write {file['path']}" for file in (decision.get("files") or []) if acts]
    would += [f"restart {service}" for service in (decision.get("restart") or []) if acts]
    would += ["load the host"] if decision.get("load_needed") else []
    return "check mode; a run would " + (", ".join(would) or "do nothing")


def _services_back(services: Mapping[str, RestartedService]) -> str:
    """How a restore has left the services: those that did not serve before are as they were found."""
    known = [service for service in services.values() if service.get("state") in AS_FOUND]
    answers = [] if known and len(known) == len(services) else ["its services answer"]
    return ", ".join(answers + [f"{service['unit']} is {service['state']}, as it was found" for service in known])


def _conclude_failure(
    judged: Judged | None,
    failure: FailedTask,
    restored: Restored | None,
    kept: bool,
) -> tuple[str, list[str], bool]:
    what = list(judged["reasons"]) if judged and judged["verdict"] != "pass" else [failure["message"]]
    if not kept:
        if judged and judged["verdict"] != "pass":
            return judged["verdict"], what, False
        return ("untouched" if failure.get("lost_connection") else "fail"), what, False
    if restored and not restored.get("failed"):
        if restored.get("by_itself"):
            what.insert(0, f"the host put itself back during the run: {restored['reason']}")
        back = f"generation {restored.get('generation')} is back"
        return "rolled_back", [*what, f"{back} and {_services_back(restored.get('services') or {})}"], False
    why = str((restored or {}).get("msg") or "no restore was tried")
    holds = waiting.NOT_HELD not in failure["message"] and waiting.NOT_HELD not in why
    if restored and restored.get("lost_connection"):
        then = " and puts its kept generation back by itself" if holds else ""
        then = then or ": what the run has written stays; then run rollback.yml"
        return "fail", [*what, f"the host cannot be reached{then}"], False
    has_run = "invocation" in (restored or {})  # a restore that has run says itself how it goes on
    then = "; the host puts it back by itself, see there: gpu-memory status" if holds and not has_run else ""
    return "fail", [*what, f"putting the kept generation back failed as well: {why}{then}"], False
