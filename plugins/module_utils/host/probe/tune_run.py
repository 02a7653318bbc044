# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probes of a tuning run on its host: load a setting through Ollama's API, load-test it, measure, unload.

What was loaded before is loaded again at the end, whatever happens. `tune_search` decides what is probed.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import (
    endpoints,
    keep_alive,
    log_lines,
    model_name,
    model_use,
    prompt_texts,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import settings as ollama_settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.planner import planner, throughput, tune_search
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.facts import secrets
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import sampling
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import shown
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import Runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.clock import SystemClock
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import LinuxHost
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.probe import load_test, second_server

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.declared import Intent
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import Journal, LogLoad
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.load import Figures, SampledGpu
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.tune import (
        CurvePoint,
        GuideWalk,
        TunedGpu,
    )

OUT_OF_MEMORY = re.compile(
    r"out of memory|out-of-memory|cudaMalloc|failed to allocate|unable to allocate|allocation failed|not enough memory"
    r"|insufficient memory|memory layout cannot be allocated|failed to commit memory|resource limitations",
    re.IGNORECASE,
)
UNLOAD_S = 60
SETTLE_S = 0.5
REPLY_TOKENS = 64
BESIDE_PROMPT = "a few words to read " * 20


class CannotTune(Exception):
    """The run cannot go on; the text names the cause and the cure."""


@dataclass(frozen=True)
class Wanted:
    """What to tune. `base`: what the profile says of num_ctx, num_parallel, num_batch and kv_cache_type; `profiles`:
    intents by name; `beside`: models that stay loaded meanwhile.
    """

    unit: str
    url: str
    model: str
    mode: str
    max_used_mib: int
    base: Mapping[str, Any]
    over: Mapping[str, Any]
    at_least: Mapping[str, Any]
    objective: Sequence[str]
    profiles: Mapping[str, Intent]
    max_probes: int
    load_timeout: float
    gpu_gb_per_s: float
    host_gb_per_s: float
    bindings_path: str | None = None
    beside: Sequence[str] = ()


class Outcome(NamedTuple):
    """What a run has found: the best setting if any holds, whether it is proven to be that, and why."""

    best: tune_search.Setting | None
    proven: bool
    why: str


@dataclass(frozen=True)
class Server:
    """An Ollama, and what its environment fixes for every load."""

    url: str
    unit: str
    num_parallel: int
    kv_cache_type: str

    def serves(self, setting: tune_search.Setting) -> bool:
        return (self.num_parallel, self.kv_cache_type) == (setting.num_parallel, setting.kv_cache_type)


Progress = Callable[[Mapping[str, object]], None]
Mask = Callable[[str], str]


class Tuning:
    """One run. `mask`: what may be shown of a server's error; `progress` gets the figures of the moment."""

    def __init__(self, wanted: Wanted, gpu: TunedGpu, mask: Mask, progress: Progress) -> None:
        self.wanted, self.gpu, self._mask, self._progress = wanted, gpu, mask, progress
        self.deployed, environment, most_loaded = _deployed(wanted)
        self._errors = JudgedErrors(mask)
        self.version = _ask(wanted.url + endpoints.VERSION)["version"]
        show = _show(wanted)
        try:
            self.model = planner.Model.from_show(show)
        except planner.ModelUnreadable as problem:
            raise CannotTune(f"{wanted.model} cannot be planned, so that nothing can be proposed: {problem}") from None
        if self.model.embedder:
            raise CannotTune(f"{wanted.model} makes vectors and writes nothing; name a model that chats")
        flash = environment.get("OLLAMA_FLASH_ATTENTION")
        self._flash = planner.Scenario.from_dict({"flash_attention": flash}).flash_attention
        self._blob = model_use.blob_in(show)
        self._seed = prompt_texts.drawn_seed()
        loaded = {str(each["model"]): each for each in loaded_models(wanted)} if wanted.beside else {}
        self._beside: list[dict[str, Any]] = [
            loaded.get(model_name.listed(name, loaded) or "", {"model": name}) for name in wanted.beside
        ]
        together = 1 + len(self._beside)
        if self._beside and 0 < most_loaded < together:
            raise CannotTune(
                f"{together} models are to be loaded together, and OLLAMA_MAX_LOADED_MODELS is {most_loaded}; apply a "
                f"profile with max_loaded_models {together}, or name fewer in gpu_memory_tune_beside"
            )
        self.probes: list[tune_search.Probe] = []
        self.candidates: list[tune_search.Candidate] = []
        self._others_mib = 0

    # What is decided

    @property
    def limit_mib(self) -> int:
        return self.wanted.max_used_mib - self._others_mib

    @property
    def card_mib(self) -> int:
        return int(self.gpu["total_mib"]) - int(self.gpu.get("reserved_mib") or 0) - self._others_mib

    def plan(self) -> None:
        """Predict every setting in bounds (of a ladder: of its first step's), the best first."""
        wanted = self.wanted
        base = {"num_batch": tune_search.NUM_BATCH, "kv_cache_type": self.deployed.kv_cache_type, **wanted.base}
        over, at_least = wanted.over, wanted.at_least
        if wanted.mode != "search":
            over = at_least = {}
        named, known = throughput.gpu_gb_per_s(self.gpu.get("name"))
        self.candidates = tune_search.candidates(
            self.model,
            tune_search.settings(base, over, at_least, self.model.offloadable),
            wanted.objective,
            ollama_version=self.version,
            gpu_gb=wanted.gpu_gb_per_s or named,
            host_gb=wanted.host_gb_per_s or throughput.HOST_GB_PER_S,
            flash_attention=self._flash,
        )
        if not self.candidates:
            raise CannotTune("Ollama would refuse every setting in bounds; see gpu_memory_tune_over")

    def search(self) -> Outcome:
        """Probe until `tune_search.next_step` has a result."""
        while True:
            step = tune_search.next_step(
                self.candidates, self.probes, self.limit_mib, self.card_mib, self.wanted.max_probes
            )
            if isinstance(step, tune_search.Result):
                best = step.best.setting if step.best else None
                return Outcome(best, step.proven, step.why)
            self.probe(step.candidate.setting, step.why)

    def climb(self) -> Outcome:
        """One of the guide's ladders. A step that changes nothing for this model is not loaded again."""
        mode = self.wanted.mode
        steps = tune_search.ladder(mode, self.wanted.profiles, self.deployed.kv_cache_type)
        context = min(step.setting.num_ctx for step in steps) if mode == "profiles" else None
        taken: list[tune_search.Probe] = []
        while (index := tune_search.climb(mode, steps, [probe.outcome for probe in taken])) is not None:
            setting = tune_search.effective(steps[index].setting, self.model.offloadable)
            same = next((probe for probe in taken if probe.setting == setting), None)
            if same:
                layers = f"this model has {self.model.offloadable} layers"
                taken.append(
                    replace(same, why=f"{steps[index].words}: changes nothing here ({layers}), so not loaded again")
                )
                self.probes.append(taken[-1])
            else:
                taken.append(self.probe(setting, steps[index].words, context))
        end = tune_search.climbed(mode, [probe.outcome for probe in taken])
        best = None if end is None else taken[end].setting
        return Outcome(best, best is not None, _ladder_ends(mode, end, steps))

    # What is measured

    def probe(self, setting: tune_search.Setting, why: str, context_tokens: int | None = None) -> tune_search.Probe:
        """Load, test, unload. `context_tokens`: as long as the prompts are, by default as the setting's context."""
        with self._server_for(setting) as server:
            try:
                probe = self._probe(server, setting, why, context_tokens)
            except _Disturbed:
                try:
                    probe = self._probe(server, setting, why, context_tokens)
                except _Disturbed as problem:
                    raise CannotTune(f"{problem}; stop what uses this Ollama, or tune at a quiet hour") from None
        self.probes.append(probe)
        return probe

    @contextlib.contextmanager
    def _server_for(self, setting: tune_search.Setting) -> Iterator[Server]:
        if self.deployed.serves(setting):
            yield self.deployed
            return
        unload_all(self.deployed.url)
        intent: Intent = {"num_parallel": setting.num_parallel}
        if setting.kv_cache_type != self.deployed.kv_cache_type:
            intent["kv_cache_type"] = setting.kv_cache_type
        changes, unheard = ollama_settings.ollama_environment(intent, [], ollama_settings.parse_version(self.version))
        if unheard:
            raise CannotTune(f"Ollama {self.version} has no setting for {', '.join(unheard)} of {setting}")
        lives_s = int(4 * self.wanted.load_timeout) + 300
        try:
            together = {"OLLAMA_MAX_LOADED_MODELS": str(1 + len(self._beside))}
            with second_server.running(self.deployed.unit, {**changes, **together}, lives_s) as url:
                yield Server(url, second_server.UNIT, setting.num_parallel, setting.kv_cache_type)
        except second_server.CannotStart as problem:
            raise CannotTune(
                f"{setting} needs a second Ollama server, since num_parallel and the type of the cache belong to the "
                f"server's environment: {problem}; search without them"
            ) from None

    def _probe(
        self, server: Server, setting: tune_search.Setting, why: str, context_tokens: int | None
    ) -> tune_search.Probe:
        unload_all(server.url)
        self.load_beside(server.url)
        self._errors = JudgedErrors(self._mask)
        clock = SystemClock().wall()
        started = clock.at(time.monotonic())
        further = self.gpu.get("further", [])
        sampler = sampling.Sampler((str(self.gpu["uuid"]), *further), bindings_path=self.wanted.bindings_path)
        error, load = None, None
        with contextlib.closing(sampler):
            sampler.start()
            error = self._load_model(server, setting, sampler)
            if error is None:
                load = self._run(self._chats(server, setting, context_tokens), setting, sampler)
                time.sleep(SETTLE_S)
            gpus = sampler.stop()
        loaded = _ask(server.url + endpoints.LOADED).get("models") or []
        unload_all(server.url)
        journal = _runtime(server.unit, judges=True).log(started, clock)
        if problem := elsewhere([gpu for gpu in gpus if gpu["uuid"] in further], self.wanted.max_used_mib):
            raise CannotTune(f"{setting}: {problem}")
        gpus = [gpu for gpu in gpus if gpu["uuid"] not in further]
        measured = sampling.summary(gpus, self.wanted.max_used_mib)
        if measured["evidence"] == "none":
            raise CannotTune("NVML gave no evidence: " + "; ".join(sampling.breaches(gpus, None)))
        error = error or (load["errors"][0] if load and load["failed"] else None)
        if error is not None and not self._errors.tell_of_no_memory and not _tells_of_no_memory(journal):
            raise CannotTune(f"{setting}: {error}; Ollama's own journal says more")
        names = [str(model["name"]) for model in loaded]
        lost = [name for name in self.wanted.beside if not model_name.listed(name, names)]
        if lost and error is None:
            error = f"Ollama unloaded {', '.join(lost)} to make room"
        peak, others = measured["peak_used_mib"] or 0, gpus[0]["baseline_mib"] or 0
        self._others_mib = max(self._others_mib, others)
        detail = {
            "evidence": measured["evidence"],
            "max_gap_ms": measured["max_gap_ms"],
            "second_server": server is not self.deployed,
            "error": error,
            "load": load,
            "truncated": journal["truncated"],
        }
        if error is not None:
            return tune_search.Probe(setting, tune_search.OUT_OF_MEMORY, None, why, peak, others, None, detail)
        self._check(setting, journal, len(loaded))
        outcome = tune_search.HELD if peak <= self.wanted.max_used_mib else tune_search.OVER
        speed = load["tokens_per_s"] if load else None
        return tune_search.Probe(setting, outcome, peak - others, why, peak, others, speed, detail)

    def load_beside(self, url: str) -> None:
        """Load the models that stay loaded beside, each with one answer: a server takes more memory for its first."""
        for model in self._beside:
            kept = {**model, "keep_alive": round(4 * self.wanted.load_timeout), "stream": False}
            chat = {**kept, "prompt": BESIDE_PROMPT, "options": {**model.get("options", {}), "num_predict": 1}}
            vector = {**kept, "input": BESIDE_PROMPT}
            try:
                _answer(url, chat, vector, self.wanted.load_timeout)
            except http_client.HttpError as problem:
                raise CannotTune(f"{model['model']} cannot be loaded beside {self.wanted.model}: {problem}") from None

    def _body(self, setting: tune_search.Setting) -> dict[str, object]:
        return {"model": self.wanted.model, "options": _options(setting), "keep_alive": "10m"}

    def _load_model(self, server: Server, setting: tune_search.Setting, sampler: sampling.Sampler) -> str | None:
        """Load the model alone; what went wrong if anything did."""
        body = {**self._body(setting), "stream": False}
        timeout = self.wanted.load_timeout
        load = load_test.Load(
            server.url + endpoints.GENERATE,
            bodies=[body],
            requests=1,
            concurrency=1,
            timeout=timeout,
            mask=self._errors,
        )
        errors = self._run(load, setting, sampler)["errors"]
        return errors[0] if errors else None

    def _chats(self, server: Server, setting: tune_search.Setting, context_tokens: int | None) -> load_test.Load:
        """One chat more than run at once, with prompts that fill the context, the same in all probes of a run."""
        body = self._body(setting)
        body["options"] = {**_options(setting), "num_predict": REPLY_TOKENS, "temperature": 0, "seed": 1}
        body["messages"] = [{"role": "user", "content": ""}]
        many = setting.num_parallel + 1
        return load_test.Load(
            server.url + endpoints.CHAT,
            bodies=[body],
            concurrency=many,
            requests=many,
            timeout=self.wanted.load_timeout,
            prompts=prompt_texts.FILL,
            prompt_at="messages.0.content",
            context_tokens=context_tokens or setting.num_ctx,
            seed=self._seed,
            mask=self._errors,
        )

    def _run(self, load: load_test.Load, setting: tune_search.Setting, sampler: sampling.Sampler) -> Figures:
        """The figures of a load, after telling those of the moment."""
        run = load_test.LoadRun(load)
        while run.running:
            figures = sampler.progress(timeout_s=0.1)
            if figures:
                what = f"probe {len(self.probes) + 1} ({setting})"
                counts = {"requests_done": run.done, "requests": run.requests, "max_used_mib": self.wanted.max_used_mib}
                self._progress({"what": what, **counts, **figures})
        return run.result()

    def _check(self, setting: tune_search.Setting, journal: Journal, loaded: int) -> None:
        """Whether the server did what was asked, and for nobody else; what it does not say is not held against it."""
        # journald may be late, so that what was loaded beside just before is among these.
        files = [model_use.blob_of(load["command"]) for load in journal["loads"] if load["started"]]
        together = 1 + len(self._beside)
        if len(set(files)) < len(files) or len(files) > together or loaded > together:
            raise _Disturbed("another model, or this one with other options, was loaded during a probe")
        load = _last_load_of(self._blob, journal["loads"])
        if load is None:
            return
        kept_off = log_lines.kept_off(load) if setting.num_gpu else None
        if kept_off:
            raise CannotTune(f"{kept_off} is on the CPU by its buffers; see what llama-server is told (LLAMA_ARG_*)")
        settings = log_lines.runner_settings(load["command"], load["sent"])
        context = log_lines.context_per_slot(settings)
        for name, asked, found in (
            ("num_gpu", min(setting.num_gpu, self.model.offloadable), load["offloaded"]),
            ("num_ctx", setting.num_ctx, context),
            ("num_parallel", setting.num_parallel, settings["num_parallel"]),
        ):
            if found is not None and found != asked:
                raise CannotTune(f"{name} {asked} was asked for, and Ollama did {found}; leave it out of the search")

    # What comes out

    def curve(self, setting: tune_search.Setting) -> list[CurvePoint]:
        """Peak (with the others) and speed over num_gpu beside a setting, from the planner and all measurements."""
        expected = tune_search.calibrated(self.candidates, self.probes, self.card_mib)
        return [
            {
                "num_gpu": each.setting.num_gpu,
                "peak_mib": round(expected(each)) + self._others_mib,
                "tokens_per_s": round(each.tokens_per_s, 1),
            }
            for each in tune_search.along_num_gpu(self.candidates, setting)
        ]

    def guide_walk(self, curve: Sequence[CurvePoint]) -> GuideWalk | None:
        """How the guide's walk by 5 layers would go on this curve; not loaded."""
        peaks = {row["num_gpu"]: row["peak_mib"] for row in curve}
        if set(peaks) != set(range(self.model.offloadable + 1)):
            return None
        tried, end = tune_search.guide_walk(
            lambda layers: peaks[layers] <= self.wanted.max_used_mib, self.model.offloadable
        )
        return {"layers": tried, "load_tests": len(tried), "ends_at": end}


def _options(setting: tune_search.Setting) -> dict[str, int]:
    return {"num_gpu": setting.num_gpu, "num_ctx": setting.num_ctx, "num_batch": setting.num_batch}


def elsewhere(further: Sequence[SampledGpu], max_used_mib: int) -> str | None:
    """What is wrong with the GPUs that are not tuned for: the model is there, too, or the threshold is exceeded."""
    for gpu in further:
        before, peak = gpu["baseline_mib"] or 0, gpu["peak_used_mib"] or 0
        if peak - before >= planner.RUNTIME_BAND_MIB[0]:
            return (
                f"GPU {gpu['index']} came to hold {peak - before} MiB more, so that the model, or a part of it, is not "
                "on the GPU that is tuned for; search over less, or set CUDA_VISIBLE_DEVICES in Ollama's unit to the "
                "UUID of the one to tune for"
            )
        if peak > max_used_mib:
            return (
                f"GPU {gpu['index']} holds {peak} MiB without the model, and max_used_mib is {max_used_mib}; free it, "
                "or hide it from Ollama by CUDA_VISIBLE_DEVICES"
            )
    return None


class _Disturbed(Exception):
    """Somebody else used the server during a probe."""


def tune(wanted: Wanted, gpu: TunedGpu, mask: Mask, progress: Progress) -> dict[str, object]:
    """The whole run; CannotTune, GpuProblem. The host's models are in the end as they were.

    `gpu`: uuid, name, total_mib and reserved_mib. Returns mode, model, max_used_mib, ollama, gpu, offloadable_layers,
    others_mib, probes, best, proven, why, curve, guide_walk, and `loaded_again`.
    """
    tuning = Tuning(wanted, gpu, mask, progress)
    tuning.plan()
    before = loaded_models(wanted)
    again: list[str] = []
    try:
        unload_all(wanted.url)
        tuning.load_beside(wanted.url)
        tuning._others_mib = _used_alone(tuning)
        result = tuning.search() if wanted.mode == "search" else tuning.climb()
    finally:
        with contextlib.suppress(CannotTune):
            unload_all(wanted.url)
        again = load_again(wanted, before)
    best = result.best
    shown = best or (tuning.probes[0].setting if tuning.probes else tuning.candidates[0].setting)
    curve = tuning.curve(shown)
    return {
        "mode": wanted.mode,
        "model": wanted.model,
        "max_used_mib": wanted.max_used_mib,
        "ollama": tuning.version,
        "gpu": dict(gpu),
        "deployed_cache_type": tuning.deployed.kv_cache_type,
        "offloadable_layers": tuning.model.offloadable,
        "others_mib": tuning._others_mib,
        "beside": list(wanted.beside),
        "candidates": len(tuning.candidates),
        "objective": list(wanted.objective),
        "probes": [{**asdict(probe), "setting": asdict(probe.setting)} for probe in tuning.probes],
        "best": best and asdict(best),
        "proven": result.proven,
        "why": result.why,
        "curve": curve,
        "guide_walk": tuning.guide_walk(curve) if wanted.mode == "search" else None,
        "loaded_before": [model["model"] for model in before],
        "loaded_again": again,
    }


def propose(wanted: Wanted, gpu: TunedGpu, mask: Mask) -> dict[str, object]:
    """What would be probed first, without loading or unloading anything.

    What is on the GPU now counts for others, but for models that a run would unload.
    """
    tuning = Tuning(wanted, gpu, mask, lambda _unused: None)
    tuning.plan()
    if wanted.mode != "search":
        steps = tune_search.ladder(wanted.mode, wanted.profiles, tuning.deployed.kv_cache_type)
        return {"first": asdict(steps[0].setting), "why": steps[0].words, "candidates": len(steps)}
    models = _ask(wanted.url + endpoints.LOADED).get("models") or []
    # Of several GPUs it is not told how much of a model is on which.
    if gpu.get("further"):
        models = []
    ending = [model for model in models if not model_name.listed(str(model["name"]), wanted.beside)]
    loaded = sum(int(model.get("size_vram") or 0) for model in ending)
    tuning._others_mib = max(0, _used_alone(tuning) - loaded // (1024 * 1024))
    step = tune_search.next_step(tuning.candidates, [], tuning.limit_mib, tuning.card_mib, wanted.max_probes)
    first = asdict(step.candidate.setting) if isinstance(step, tune_search.Next) else None
    return {"first": first, "why": step.why, "candidates": len(tuning.candidates)}


def _used_alone(tuning: Tuning) -> int:
    """What the GPU holds with nothing of Ollama's on it but what stays loaded beside. GpuProblem."""
    sampler = sampling.Sampler((str(tuning.gpu["uuid"]),), bindings_path=tuning.wanted.bindings_path)
    with contextlib.closing(sampler):
        sampler.start()
        return sampler.stop()[0]["baseline_mib"] or 0


def _ladder_ends(mode: str, end: int | None, steps: Sequence[tune_search.Step]) -> str:
    if mode == "profiles":
        return "each profile straight with Ollama, with the same prompts; a backend's own memory is not in it"
    if end is None:
        return "no step of the ladder stays within the threshold"
    return f"step {end + 1} of {len(steps)}: {steps[end].words}"


class JudgedErrors:
    """What may be shown of a server's errors, which are judged as they were said."""

    def __init__(self, mask: Mask) -> None:
        self._mask, self.tell_of_no_memory = mask, False

    def __call__(self, error: str) -> str:
        self.tell_of_no_memory = self.tell_of_no_memory or bool(OUT_OF_MEMORY.search(error))
        return self._mask(error)


def _tells_of_no_memory(journal: Journal) -> bool:
    fatal = [failure["line"] for failure in journal["failures"] if failure["severity"] == "fatal"]
    return any(map(OUT_OF_MEMORY.search, fatal))


def _runtime(unit: str, judges: bool = False) -> Runtime:
    """`judges`: with the lines as they are, of which none is shown; a secret may be a word of the cause."""
    return LinuxHost(secrets.Masking(shows_secrets=judges)).runtime("ollama", {"unit": unit})


def _deployed(wanted: Wanted) -> tuple[Server, Mapping[str, str], int]:
    """The deployed server as it says it was started, else as its environment has it; its environment; and how many
    models it keeps loaded, 0 for as many as it likes.
    """
    runtime = _runtime(wanted.unit)
    unit = runtime.read()
    process = runtime.environment(unit)
    environment = (process or unit).get("environment") or {}
    config = runtime.log(None)["server_config"] or {}
    parallel = str(config.get("OLLAMA_NUM_PARALLEL") or environment.get("OLLAMA_NUM_PARALLEL") or "1")
    kind = str(environment.get("OLLAMA_KV_CACHE_TYPE") or "f16").lower()
    number = int(parallel) if parallel.isdigit() and int(parallel) else 1
    most = str(config.get("OLLAMA_MAX_LOADED_MODELS") or environment.get("OLLAMA_MAX_LOADED_MODELS") or 0)
    return Server(wanted.url, wanted.unit, number, kind), environment, int(most) if most.isdigit() else 0


# What is loaded ---------------------------------------------------------------------------------------------------


def unload_all(url: str) -> None:
    """Unload whatever a server has loaded, and wait until it is gone."""
    deadline = time.monotonic() + UNLOAD_S
    while True:
        loaded = [str(model["name"]) for model in _ask(url + endpoints.LOADED).get("models") or []]
        if not loaded:
            return
        if time.monotonic() > deadline:
            raise CannotTune(f"{', '.join(loaded)} did not unload within {UNLOAD_S} s; is somebody using it?")
        for name in loaded:
            with contextlib.suppress(http_client.HttpError):  # an embedder has no such route
                http_client.post_json(url + endpoints.GENERATE, endpoints.unloading(name), timeout=30)
                continue
            with contextlib.suppress(http_client.HttpError):
                http_client.post_json(url + endpoints.EMBED, {**endpoints.unloading(name), "input": ""}, timeout=30)
        time.sleep(0.2)


def loaded_models(wanted: Wanted) -> list[dict[str, object]]:
    """What is loaded now, as the requests that load it again as it is: model, options, and any keep_alive."""
    runtime = _runtime(wanted.unit)
    loads, unit, found = runtime.log(None)["loads"], runtime.read(), []
    environment = (runtime.environment(unit) or unit).get("environment") or {}
    version = ollama_settings.parse_version(_ask(wanted.url + endpoints.VERSION).get("version"))
    for model in _ask(wanted.url + endpoints.LOADED).get("models") or []:
        name = str(model["name"])
        show = _ask(wanted.url + endpoints.SHOW, endpoints.named(name))
        load = _last_load_of(model_use.blob_in(show), loads)
        known = log_lines.runner_settings(load["command"], load["sent"]) if load else {}
        options = {key: known[key] for key in ("num_gpu", "num_batch") if known.get(key) is not None}
        if options.get("num_batch") == _chosen_batch(known.get("num_ctx_total"), version):
            del options["num_batch"]  # as a number it would have the next request without one load the model anew
        context = model.get("context_length") or log_lines.context_per_slot({"num_ctx_total": None, **known})
        options.update({"num_ctx": context} if context else {})
        found.append({"model": name, "options": options, **_kept(model.get("expires_at"), environment)})
    return found


def _chosen_batch(total_ctx: int | None, version: ollama_settings.Version | None) -> int | None:
    """The batch that Ollama takes where no request has one; None where it has chosen none by itself."""
    if version is not None and version < ollama_settings.ENGINE:
        return None
    return planner.auto_num_batch(total_ctx or 0)


def load_again(wanted: Wanted, before: Sequence[Mapping[str, object]]) -> list[str]:
    """Load what was loaded; the names that are."""
    done = []
    for model in before:
        with contextlib.suppress(http_client.HttpError):
            _answer(wanted.url, {**model, "stream": False}, {**model, "input": ""}, wanted.load_timeout)
            done.append(str(model["model"]))
    return done


def _answer(url: str, chat: Mapping[str, object], vector: Mapping[str, object], timeout: float) -> None:
    """Have a model answer, whether it writes or makes vectors; HttpError if it does neither."""
    try:
        http_client.post_json(url + endpoints.GENERATE, chat, timeout=timeout)
    except http_client.HttpError:  # an embedder has no such route
        http_client.post_json(url + endpoints.EMBED, vector, timeout=timeout)


def _last_load_of(blob: str | None, loads: Sequence[LogLoad]) -> LogLoad | None:
    return next((load for load in reversed(loads) if blob and model_use.blob_of(load["command"]) == blob), None)


def _kept(expires_at: object, environment: Mapping[str, str]) -> dict[str, int]:
    """The keep_alive of a request that has given a model longer than the server does; below 0 is for ever.

    It is sticky: what is left of the server's own time, sent as a keep_alive, would be that of all later requests.
    """
    left = keep_alive.left_s(expires_at, time.time())
    if left is None or left <= keep_alive.of_server(environment) + keep_alive.SLACK_S:
        return {}
    return {"keep_alive": -1 if left == math.inf else round(left)}


def _show(wanted: Wanted) -> dict[str, object]:
    try:
        return shown.with_arrays(wanted.url, wanted.model)
    except http_client.HttpError as problem:
        raise CannotTune(f"{problem}; start Ollama, or correct gpu_memory_ollama.url") from None


def _ask(url: str, body: Mapping[str, object] | None = None) -> Any:
    try:
        return http_client.get_json(url, timeout=20) if body is None else http_client.post_json(url, body, timeout=20)
    except http_client.HttpError as problem:
        raise CannotTune(f"{problem}; start Ollama, or correct gpu_memory_ollama.url") from None
