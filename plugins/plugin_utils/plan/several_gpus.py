# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several GPUs each model gets, and what each GPU then holds. Pure.

Since 0.30 Ollama gives a model the GPU with the most free memory where it expects that to hold it, else all of them
(server/sched.go); what is free then depends on what was loaded before. So all states of the server are looked at that
any order of loads and unloads leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner

# What of a GPU a process has taken itself when it asks CUDA what is free: as measured, and the least and the most.
CONTEXTS_MIB = (planner.RUNTIME_MIB, *planner.RUNTIME_BAND_MIB)
CLOSE_MIB, CLOSE = 48, 0.02  # how far off one GPU's part may be, see docs/planner.md
MOST_STATES = 2000
TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")

# A model's plan where so much is free of each GPU, of which a process's own context takes so much before it asks.
PlanOf = Callable[[str, Sequence[float], float], planner.Plan]
State = Mapping[str, planner.Plan]  # what is loaded together, by model


class Held(NamedTuple):
    """What one GPU holds of Ollama's at most, and the least and the most that it may be, in MiB."""

    total_mib: float
    least_mib: float
    most_mib: float
    terms: dict[str, float]  # of the state that takes the most here


class Together(NamedTuple):
    """Models that take the most while they are loaded together, and each GPU, by any order of loads."""

    plans: State
    gpus: list[Held]


def together(
    models: Sequence[str], plan_of: PlanOf, free_mib: Sequence[float], most_loaded: int, ollama_version: str
) -> Together:
    """`free_mib`: of each GPU with no model on it, in CUDA's order.

    Raises planner.ScenarioInvalid where a model cannot be planned, or there are too many states.
    """
    largest: State = {}
    shown: list[State] = []
    bounds: list[list[list[float]]] = []
    numbers = range(len(free_mib))
    for context_mib in CONTEXTS_MIB:
        states = _full_states(models, plan_of, free_mib, context_mib, most_loaded, ollama_version)
        held = [[_sums(state, gpu) for gpu in numbers] for state in states]
        bounds += [[[low, high] for _total, low, high in gpus] for gpus in held]
        if not largest:
            largest = max(states, key=lambda state: sum(plan.total_mib for plan in state.values()))
            shown = [states[sums.index(max(sums))] for sums in ([gpus[gpu][0] for gpus in held] for gpu in numbers)]
    return Together(
        largest,
        [
            Held(
                sum(on(plan, number) for plan in state.values()),
                min(gpus[number][0] for gpus in bounds),
                max(gpus[number][1] for gpus in bounds),
                {term: sum(plan.gpus[number][term] for plan in state.values() if plan.gpus) for term in TERMS},
            )
            for number, state in enumerate(shown)
        ],
    )


def _full_states(
    models: Sequence[str],
    plan_of: PlanOf,
    free_mib: Sequence[float],
    context_mib: float,
    most_loaded: int,
    ollama_version: str,
) -> list[State]:
    """Every state in which no further model is let in without another's end."""
    engine = planner.Engine.of(ollama_version)
    waiting: list[State] = [{}]
    seen: dict[object, State] = {}
    full = []
    while waiting:
        state = waiting.pop()
        if _key(state) in seen:
            continue
        seen[_key(state)] = state
        if len(seen) > MOST_STATES:
            raise planner.ScenarioInvalid(f"{len(models)} models on {len(free_mib)} GPUs have too many ways to lie")
        left = [mib - sum(on(plan, gpu) for plan in state.values()) for gpu, mib in enumerate(free_mib)]
        further: list[State] = []
        for name in models if len(state) < most_loaded else ():
            if name not in state:
                plan = plan_of(name, left, context_mib)
                where = used(plan)
                room = sum(left[gpu] - context_mib for gpu in (where if len(where) == 1 else range(len(left))))
                if not state or planner.admitted(plan, room, engine):
                    further.append({**state, name: plan})
        full += [] if further else [state]
        waiting += [*further, *({name: state[name] for name in state if name != gone} for gone in state)]
    return full


def on(plan: planner.Plan, gpu: int) -> float:
    """What a model has on one of the GPUs; nothing where it is on none."""
    return plan.gpus[gpu]["total_mib"] if plan.gpus else 0.0


def used(plan: planner.Plan) -> list[int]:
    """On which of the GPUs a model is."""
    return [number for number, gpu in enumerate(plan.gpus) if gpu["total_mib"]]


def _sums(state: State, gpu: int) -> tuple[float, float, float]:
    """What a state takes on one GPU, at least and at most."""
    parts = [_banded(plan, gpu) for plan in state.values()]
    return sum(part[0] for part in parts), sum(part[1] for part in parts), sum(part[2] for part in parts)


def _banded(plan: planner.Plan, gpu: int) -> tuple[float, float, float]:
    """A model's part on one GPU with its bounds, each term's as far off as it is in the whole."""
    total = on(plan, gpu)
    if not total:
        return 0.0, 0.0, 0.0
    low, high = plan.band_mib.get("total_mib", (plan.total_mib, plan.total_mib))
    if len(used(plan)) == 1:
        return total, low, high
    terms, least, most = plan.gpus[gpu], 0.0, 0.0
    for name in TERMS:
        whole = getattr(plan, name)
        ends = plan.band_mib.get(name, (whole, whole))
        least += terms[name] * (ends[0] / whole if whole else 1)
        most += terms[name] * (ends[1] / whole if whole else 1)
    close = max(CLOSE_MIB, CLOSE * total)
    # What is beside the terms, as a projector's compute, may all be here.
    beside = high - sum(plan.band_mib.get(name, (0, getattr(plan, name)))[1] for name in TERMS)
    return total, min(least, total - close), max(most, total + close) + max(beside, 0)


def _key(state: State) -> object:
    return tuple(
        sorted((name, tuple(round(on(plan, gpu)) for gpu in range(len(plan.gpus)))) for name, plan in state.items())
    )
