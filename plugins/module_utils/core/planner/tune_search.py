# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finding the best setting whose peak under load stays below the threshold, by few load tests. Pure; MiB everywhere.

The planner proposes and the load test disposes: only what was measured wins, and a setting that would be better is
passed over only if a measurement rules it out. docs/tune.md says how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings as ollama_settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import gguf, planner, throughput

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import TunedProfile

HELD, OVER, OUT_OF_MEMORY = "held", "over", "out of memory"
TERMS = ("weights_mib", "kv_mib", "compute_mib", "op_offload_mib", "runtime_mib")
NUM_BATCH = 512
# How far what a term grows by from one setting to another may be from what the planner says, at first. Its band of the
# copies for host layers is a quarter.
TERM_ERROR = 0.25
NOISE_MIB = 16
SETTINGS = ("num_gpu", "num_ctx", "num_parallel", "num_batch", "kv_cache_type")
OBJECTIVES = ("tokens_per_s", "num_ctx", "num_parallel", "num_batch", "num_gpu")


@dataclass(frozen=True)
class Setting:
    """What a model is loaded with. `num_ctx` is a slot's."""

    num_gpu: int
    num_ctx: int = 4096
    num_parallel: int = 1
    num_batch: int = NUM_BATCH
    kv_cache_type: str = "f16"

    def __str__(self) -> str:
        return (
            f"num_gpu {self.num_gpu}, num_ctx {self.num_ctx} x {self.num_parallel}, num_batch {self.num_batch}, "
            f"{self.kv_cache_type}"
        )


@dataclass(frozen=True)
class Candidate:
    """A setting with what the planner predicts: MiB by term, and tokens/s. `score` is better if it is larger."""

    setting: Setting
    terms: tuple[float, ...]
    tokens_per_s: float
    score: tuple[float, ...]

    @property
    def total_mib(self) -> float:
        return sum(self.terms)

    def apart(self, other: Candidate) -> float:
        """How much memory lies between two settings, term by term: what grows does not make up for what shrinks."""
        return sum(abs(mine - theirs) for mine, theirs in zip(self.terms, other.terms))


@dataclass(frozen=True)
class Probe:
    """One load test. `use_mib`: the most that the model took, so the peak without others; None if it did not load."""

    setting: Setting
    outcome: str
    use_mib: int | None
    why: str = ""
    peak_mib: int | None = None
    others_mib: int | None = None
    tokens_per_s: float | None = None
    detail: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Next:
    """What to probe now, and why."""

    candidate: Candidate
    why: str
    expected_mib: int


@dataclass(frozen=True)
class Result:
    """The end. `best` is None if nothing holds; `proven`: whether no setting that might be better is left."""

    best: Candidate | None
    proven: bool
    why: str


class Invalid(ValueError):
    """What an operator asked to be searched cannot be; the text names key, value and what is allowed."""


# What may be searched ----------------------------------------------------------------------------------------------


def settings(
    base: Mapping[str, Any], over: Mapping[str, Any], at_least: Mapping[str, Any], offloadable: int
) -> list[Setting]:
    """Every setting in bounds. `base` has the values of what is not searched `over`; num_gpu is searched always.

    A cap beyond the model's layers means all of them, so that they are there once.
    """
    values: dict[str, list[Any]] = {}
    for name in SETTINGS:
        wanted = over.get(name, list(range(offloadable + 1)) if name == "num_gpu" else [base[name]])
        if name == "num_gpu":
            wanted = sorted({min(layers, offloadable) for layers in wanted})
        values[name] = [value for value in wanted if name not in at_least or value >= at_least[name]]
        if not values[name]:
            raise Invalid(f"gpu_memory_tune_at_least.{name} = {at_least[name]}: none of {wanted} is that large")
    return [Setting(*chosen) for chosen in product(*values.values())]


def bounds(over: Mapping[str, Any], at_least: Mapping[str, Any], objective: Sequence[str]) -> list[str]:
    """What is wrong with an operator's bounds and objective."""
    problems = []
    for name, wanted in over.items():
        if name not in SETTINGS:
            problems.append(f"gpu_memory_tune_over.{name} is not known; allowed: {', '.join(SETTINGS)}")
        elif not isinstance(wanted, list) or not wanted:
            problems.append(f"gpu_memory_tune_over.{name} = {wanted!r} must be a list of values")
        elif name == "kv_cache_type":
            if not set(map(str, wanted)) <= set(ollama_settings.CACHE_TYPES):
                allowed = ", ".join(ollama_settings.CACHE_TYPES)
                problems.append(f"gpu_memory_tune_over.kv_cache_type = {wanted!r}; allowed: {allowed}")
        elif not all(_whole(value, 0 if name == "num_gpu" else 1) for value in wanted):
            problems.append(f"gpu_memory_tune_over.{name} = {wanted!r} must be a list of whole numbers")
    for name, least in at_least.items():
        if name not in SETTINGS[:-1] or not _whole(least, 0):
            allowed = ", ".join(SETTINGS[:-1])
            problems.append(f"gpu_memory_tune_at_least.{name} = {least!r} must be a whole number; names: {allowed}")
    for name in objective:
        if name not in OBJECTIVES:
            problems.append(f"gpu_memory_tune_objective: {name!r} is not known; allowed: {', '.join(OBJECTIVES)}")
    return problems


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def candidates(
    model: planner.Model,
    wanted: Sequence[Setting],
    objective: Sequence[str],
    *,
    ollama_version: str,
    gpu_gb: float,
    host_gb: float,
    flash_attention: bool | None = None,
) -> list[Candidate]:
    """Each setting with its prediction, the best score first; what Ollama would refuse is left out.

    What is equal by the objective is ordered by memory: less is better.
    """
    found = []
    version = ollama_settings.parse_version(ollama_version)
    for setting in wanted:
        needs, _unheard = ollama_settings.ollama_environment({"kv_cache_type": setting.kv_cache_type}, [], version)
        flash = True if "OLLAMA_FLASH_ATTENTION" in needs else flash_attention
        scenario = planner.Scenario(**asdict(setting), flash_attention=flash)
        try:
            plan = planner.plan(model, scenario, ollama_version=ollama_version)
        except planner.ScenarioInvalid:
            continue
        read = planner.mib_read_per_token(model, scenario, ollama_version=ollama_version)
        speed = throughput.tokens_per_s(*read, gpu_gb, host_gb)
        terms = tuple(float(getattr(plan, term)) for term in TERMS)
        known = {**asdict(setting), "tokens_per_s": round(speed, 4)}
        score = (*(float(known[name]) for name in objective), -sum(terms))
        found.append(Candidate(setting, terms, speed, score))
    return sorted(found, key=lambda each: each.score, reverse=True)


# The search ---------------------------------------------------------------------------------------------------------


class _Knowledge:
    """What the probes so far say of settings that were not probed.

    Two things are trusted further than the planner: what a probe measured; and that more layers, context, slots, batch
    or bytes of cache never take less, but for the copies and the compute buffer that the planner sees shrink.
    """

    def __init__(self, among: Sequence[Candidate], probes: Sequence[Probe], card_mib: float) -> None:
        by_setting = {each.setting: each for each in among}
        known = [(by_setting[probe.setting], probe) for probe in probes if probe.setting in by_setting]
        self._measured = [(each, float(probe.use_mib)) for each, probe in known if probe.use_mib is not None]
        self._died = [each for each, probe in known if probe.outcome == OUT_OF_MEMORY]
        self._too_much = [each for each, probe in known if probe.outcome != HELD]
        self._card_mib = card_mib
        self._layer_mib = _layer_mib(among)
        self._growth, self._error = self._learn()
        # Of the whole prediction; before the first probe nothing speaks against the planner.
        self._off = max(
            (abs(used / each.total_mib - 1) for each, used in self._measured if each.total_mib), default=0.0
        )

    def _learn(self) -> tuple[float, float]:
        """How much use grows for a MiB that the planner sees it grow by, and how wrong it is about a MiB at worst."""
        pairs = [
            (a.total_mib - b.total_mib, used - other, a.apart(b))
            for index, (a, used) in enumerate(self._measured)
            for b, other in self._measured[:index]
            if a.apart(b) > 0
        ]
        growth = 1.0
        if pairs:
            planned, real, apart = max(pairs, key=lambda pair: abs(pair[0]))
            if abs(planned) > 4 * NOISE_MIB and abs(planned) > apart / 2:
                growth = min(max(real / planned, 0.5), 2.0)
        # Differences within the noise say nothing of the planner.
        wrong = [max(0.0, abs(real - growth * planned) - NOISE_MIB) / apart for planned, real, apart in pairs]
        return growth, max([TERM_ERROR, *(1.5 * each for each in wrong)])

    def expected_mib(self, candidate: Candidate) -> float:
        """The use of a setting, from the nearest measurement; without any, from the planner and what died."""
        if self._measured:
            straight = self._straight_mib(candidate) if self._error > TERM_ERROR else None
            if straight is not None:
                return straight
            nearest, used = min(self._measured, key=lambda pair: candidate.apart(pair[0]))
            return used + self._growth * (candidate.total_mib - nearest.total_mib)
        if self._died:
            # It needed more than the card has; each further death says that the planner is further off.
            least = min(self._died, key=lambda each: each.total_mib)
            known = max(self._card_mib, least.total_mib) * (1 + 0.02 * 2 ** len(self._died))
            return known + candidate.total_mib - least.total_mib
        return candidate.total_mib

    def _straight_mib(self, candidate: Candidate) -> float | None:
        """Where the planner was refuted: straight through the two nearest measurements that differ in layers alone."""
        here = candidate.setting.num_gpu
        row = [
            (each.setting.num_gpu, used)
            for each, used in self._measured
            if replace(each.setting, num_gpu=here) == candidate.setting
        ]
        if len(row) < 2:
            return None
        (first, one), (second, other) = sorted(row, key=lambda pair: abs(pair[0] - here))[:2]
        return one + (other - one) * (here - first) / (second - first)

    def rules_out(self, candidate: Candidate, limit_mib: float, but: Candidate | None) -> bool:
        """Whether a setting surely takes more than the limit. `but`: this one is not left to the planner."""
        if any(self._takes_no_less(candidate, each) for each in self._too_much):
            return True
        return candidate is not but and self._surely_more_than(candidate, limit_mib)

    def _takes_no_less(self, candidate: Candidate, than: Candidate) -> bool:
        mine, other = candidate.setting, than.setting
        pairs = [(getattr(mine, name), getattr(other, name)) for name in SETTINGS[:-1]]
        pairs.append((gguf.row_bytes(mine.kv_cache_type, 256), gguf.row_bytes(other.kv_cache_type, 256)))
        if any(more < less for more, less in pairs):
            return False
        shrinks = sum(max(0.0, theirs - own) for own, theirs in zip(candidate.terms[2:4], than.terms[2:4]))
        # A layer of half the usual size still counts.
        return shrinks <= max(NOISE_MIB, 0.5 * self._layer_mib * (mine.num_gpu - other.num_gpu))

    def _surely_more_than(self, candidate: Candidate, limit_mib: float) -> bool:
        """Whether it is over even if the planner is as wrong as it ever was, and twice as far off in all."""
        known = [*self._measured, *((each, self._card_mib) for each in self._died)]
        return any(
            used
            + self._growth * (candidate.total_mib - each.total_mib)
            - max(self._error * candidate.apart(each), 2 * self._off * abs(candidate.total_mib - each.total_mib))
            > limit_mib + NOISE_MIB
            for each, used in known
        )


def _layer_mib(among: Sequence[Candidate]) -> float:
    """The weights of a layer on average. The first on the GPU may be the output layer, and is left out."""
    by_layers = {each.setting.num_gpu: each.terms[0] for each in among if each.setting.num_gpu}
    if len(by_layers) < 2:
        return 0.0
    fewest, most = min(by_layers), max(by_layers)
    return (by_layers[most] - by_layers[fewest]) / (most - fewest)


def next_step(
    among: Sequence[Candidate], probes: Sequence[Probe], limit_mib: float, card_mib: float, max_probes: int
) -> Next | Result:
    """What to probe next, or the result. The same state gives the same answer.

    `among`: all candidates, the best first. `limit_mib`: the most that the model may use, so the threshold without
    what others hold; `card_mib`: what the card has without what others hold.
    """
    known = _Knowledge(among, probes, card_mib)
    outcomes = {probe.setting: probe.outcome for probe in probes}
    best = next((each for each in among if outcomes.get(each.setting) == HELD), None)
    better = among if best is None else among[: among.index(best)]
    above = None if best is None else _one_layer_more(among, best)
    left = [each for each in better if each.setting not in outcomes and not known.rules_out(each, limit_mib, but=above)]
    if not left:
        if best is None:
            return Result(None, True, f"no setting in bounds stays within {round(limit_mib)} MiB for the model")
        if not better:
            return Result(best, True, "it held, and no setting in bounds would be better")
        why = f"it held, and what was measured rules out the {len(better)} settings that would be better"
        return Result(best, True, why)
    if len(probes) >= max_probes:
        why = f"only {len(probes)} probes were allowed, and {len(left)} settings that might be better are not ruled out"
        return Result(best, False, why)
    likely = [each for each in left if known.expected_mib(each) <= limit_mib]
    chosen = likely[0] if likely else min(left, key=known.expected_mib)
    expected = round(known.expected_mib(chosen))
    measured = any(probe.use_mib is not None for probe in probes)
    source = "after the probes so far" if measured else "by the planner"
    figures = f"{expected} of {round(limit_mib)} MiB {source}"
    why = f"the best that should hold, with {figures}" if likely else f"it would be better, so it is tried: {figures}"
    return Next(chosen, why, expected)


def _one_layer_more(among: Sequence[Candidate], best: Candidate) -> Candidate | None:
    row = [each for each in along_num_gpu(among, best.setting) if each.setting.num_gpu > best.setting.num_gpu]
    return row[0] if row else None


def calibrated(among: Sequence[Candidate], probes: Sequence[Probe], card_mib: float) -> Callable[[Candidate], float]:
    """What the probes make of the planner's figures, for a picture."""
    return _Knowledge(among, probes, card_mib).expected_mib


# The guide's own ways -----------------------------------------------------------------------------------------------


def guide_walk(holds: Callable[[int], bool], offloadable: int) -> tuple[list[int], int | None]:
    """ "Start with 40 layers; if stable with room: increase by 5; if crashes: decrease by 5; repeat".

    Returns the numbers of layers that it would load, and where it ends: the last that held, None if none does.
    """
    layers, tried, best = 40, [], None
    while layers >= 0 and layers not in tried:
        tried.append(layers)
        if holds(min(layers, offloadable)):
            best = layers if best is None else max(best, layers)
            if layers >= offloadable:
                break
            layers += 5
        elif best is not None:
            break
        else:
            layers -= 5
    return tried, best


@dataclass(frozen=True)
class Step:
    """A step of one of the guide's ladders, in its words."""

    words: str
    setting: Setting


LADDERS = ("still_crashing", "too_slow", "profiles")
TOO_SLOW_MAX_USED_MIB = 13 * 1024  # "Monitor GPU memory - stay under 13GB"


def ladder(mode: str, profiles: Mapping[str, Intent], kv_cache_type: str) -> list[Step]:
    """The steps as the guide has them, each on top of the one before.

    `profiles`: intents by name; `kv_cache_type`: of those that name none.
    """

    def of(name: str) -> Setting:
        intent = profiles[name]
        return Setting(
            intent["gpu_layers"],
            intent["num_ctx"],
            intent["num_parallel"],
            intent.get("num_batch", NUM_BATCH),
            intent.get("kv_cache_type", kv_cache_type),
        )

    if mode == "profiles":
        return [Step(name, of(name)) for name in profiles if "gpu_layers" in profiles[name]]
    if mode == "still_crashing":
        changes: list[tuple[str, dict[str, int]]] = [
            ("Use CONSERVATIVE config", {}),
            ("Further reduce context: CHAT_NUM_CTX=1024", {"num_ctx": 1024}),
            ("Set OLLAMA_NUM_PARALLEL=1", {"num_parallel": 1}),
            ("Reduce layers: OLLAMA_GPU_LAYERS=30", {"num_gpu": 30}),
        ]
        setting = of("conservative")
    else:
        changes = [
            ("STABLE config, 40 layers", {}),
            ("Increase layers gradually: 42", {"num_gpu": 42}),
            ("Increase layers gradually: 44", {"num_gpu": 44}),
            ("If stable, increase context: 4096 to 5120", {"num_ctx": 5120}),
        ]
        setting = of("stable")
    steps = []
    for words, change in changes:
        setting = Setting(**{**asdict(setting), **change})
        steps.append(Step(words, setting))
    return steps


def climb(mode: str, steps: Sequence[Step], outcomes: Sequence[str]) -> int | None:
    """The index of the step to take next, None at the end. `outcomes`: of the steps so far, in order.

    `still_crashing` ends with the first that holds, `too_slow` with the first that does not, `profiles` never early.
    """
    done = len(outcomes)
    if done and mode == "still_crashing" and outcomes[-1] == HELD:
        return None
    if done and mode == "too_slow" and outcomes[-1] != HELD:
        return None
    return done if done < len(steps) else None


def climbed(mode: str, outcomes: Sequence[str]) -> int | None:
    """The step that a ladder ends with: the first (still_crashing) or the last (too_slow) that held."""
    held = [index for index, outcome in enumerate(outcomes) if outcome == HELD]
    if not held or mode == "profiles":
        return None
    return held[0] if mode == "still_crashing" else held[-1]


def effective(setting: Setting, offloadable: int) -> Setting:
    """What a setting really is: a cap beyond the model's layers means all of them."""
    return replace(setting, num_gpu=min(setting.num_gpu, offloadable))


def profile(setting: Setting, max_used_mib: int, model: str, base: str, deployed_cache_type: str) -> TunedProfile:
    """The profile for `gpu_memory_profiles`; what it does not say is as in `base`, or as it is deployed."""
    cache: Intent = {} if setting.kv_cache_type == deployed_cache_type else {"kv_cache_type": setting.kv_cache_type}
    return {
        "extends": base,
        "models": [model],
        "intent": {
            "num_ctx": setting.num_ctx,
            "num_parallel": setting.num_parallel,
            "num_batch": setting.num_batch,
            "gpu_layers": setting.num_gpu,
            **cache,
            "max_used_mib": max_used_mib,
        },
    }


def along_num_gpu(among: Sequence[Candidate], setting: Setting) -> list[Candidate]:
    """The candidates that differ from a setting in num_gpu alone, by num_gpu."""
    row = [each for each in among if replace(each.setting, num_gpu=setting.num_gpu) == setting]
    return sorted(row, key=lambda each: each.setting.num_gpu)
