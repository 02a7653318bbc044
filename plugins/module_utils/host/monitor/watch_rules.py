# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the monitor makes of its readings: breaches, drift, failures, and the metrics that say so. Pure.

A configuration is `{profile, max_used_mib or None, period_s, ollama: {unit, url}, gpus, gpus_named, drop_in,
environment, intent, action, action_interval_s}`: what was declared, as the role `monitor` passes it on. `gpus` are the
UUIDs of those that counted when that was done; `gpus_named`: whether the operator chose them.

A reading of a GPU in a period is `{index, uuid, pci_bus_id, error or None, samples}` and, where there are samples,
`{total, used, peak, reserved or None, max_gap_s, processes: [{name, used_mib}]}`; memory of the GPU in bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.selo.gpu_memory.plugins.module_utils.core import gpus as gpu_choice
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import log_lines, settings
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import unit_text
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text.metrics import Metric, Sample

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import LogFacts, LogLoad
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.monitor import NamedHolder, Reading

Config = Mapping[str, Any]

MIB = 1024 * 1024
ACTIONS = ("none", "unload", "restore")
BREACHED_PERIODS = 2  # in a row, before the action
PROCESSES_SHOWN = 10  # a GPU; the others are shown as one, so that nobody can make series without end
SEVERITIES = ("fatal", "recovered", "warning")


def _gauge(name: str, about: str) -> Metric:
    return Metric(f"gpu_memory_{name}", "gauge", about)


def _counter(name: str, about: str) -> Metric:
    return Metric(f"gpu_memory_{name}_total", "counter", about)


INFO = _gauge("monitor_info", "The profile that this host should run, and the action on a breach.")
LAST_RUN = _gauge("last_run_timestamp_seconds", "When the monitor last looked, in Unix time.")
PERIOD = _gauge("monitor_period_seconds", "How often the monitor looks.")
NVML_UP = _gauge("nvml_up", "Whether NVML answered in the last period.")
JOURNAL_UP = _gauge("journal_up", "Whether the journal was followed in the last period.")
LOG_READ = _gauge("log_read", "Whether the server that runs writes to the journal, so that what it logs is counted.")
DROPPED = _counter("journal_dropped", "Messages of Ollama that journald dropped by a rate limit.")
JUDGED = _gauge("judged", "Whether the GPU is one that Ollama uses; others are shown and judge nothing.")
THRESHOLD = _gauge("threshold_bytes", "The most that NVML may show as used on a GPU.")
TOTAL = _gauge("size_bytes", "Memory of the GPU.")
RESERVED = _gauge("reserved_bytes", "Memory of the GPU that the driver keeps for itself.")
USED = _gauge("used_bytes", "Memory of the GPU in use, without what is reserved, at the end of the period.")
PEAK = _gauge("used_peak_bytes", "Highest reading of used memory in the period.")
GAP = _gauge("sample_gap_seconds", "Longest time between two readings of the GPU in the period.")
SAMPLES = _counter("samples", "Readings of the GPU's memory.")
OVER = _gauge("over_threshold", "Whether a reading in the period was over the threshold.")
BREACHES = _counter("breaches", "How often the GPU went over the threshold.")
PROCESS = _gauge("process_used_bytes", "Memory of the GPU that processes of this name hold.")
DRIFT = _gauge("drift", "Whether a setting is in effect another one than what was declared.")
GOING_BACK = _gauge("going_back", "Whether the host was put back and a service is not in place yet.")
FAILURES = _counter("journal_failures", "Failures that the journals of Ollama and the kernel tell of.")
LAST_FAILURE = _gauge("journal_last_failure_timestamp_seconds", "When the last fatal line was logged, in Unix time.")
LOADS = _counter("model_loads", "Runners that Ollama has started.")
LAYERS = _gauge("model_layers", "Layers of the model that was loaded last.")
LAYERS_ON_GPU = _gauge("model_gpu_layers", "Layers of the model that was loaded last that are on GPUs.")
ACTIONS_TAKEN = _counter("actions", "Actions on a breach, also those that did not work.")
ACTIONS_FAILED = _counter("action_failures", "Actions on a breach that did not work.")
LAST_ACTION = _gauge("action_last_timestamp_seconds", "When the monitor last acted on a breach, in Unix time.")

METRICS = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


def _continued(before: LogLoad, more: LogLoad) -> LogLoad:
    """A load whose lines come in several periods; layers of one that is there are those of a further one."""
    if more["offloaded"] is not None and before["started"]:
        return {**more, "command": before["command"], "sent": before["sent"]}
    told = more if more["offloaded"] is not None else before
    return {
        **before,
        "offloaded": told["offloaded"],
        "offloadable": told["offloadable"],
        "overflowing": before["overflowing"] + more["overflowing"],
        "buffers_mib": {**before["buffers_mib"], **more["buffers_mib"]},
        "on_host": [*before["on_host"], *more["on_host"]],
        "started": more["started"],
    }


class Monitor:
    """All that is remembered between two periods."""

    def __init__(self, config: Config, last_action_at: float | None = None) -> None:
        self.config = config
        self.last_action_at = last_action_at
        self._gpus: list[Reading] = []
        self._nvml_up = self._journal_up = False
        self._log_read = False
        self._dropped = 0
        self._discovered: list[Mapping[str, str]] = []
        self._judged: set[str] = set()  # UUIDs
        self._environment_on_disk: Mapping[str, str] | None = None
        self._server_config: Mapping[str, str] | None = None
        self._load: LogLoad | None = None
        self._held = self._in_run = False  # by a run; and whether the lines that come are of one
        self._loaded_in_run = False
        self._samples: Counter[str] = Counter()
        self._breaches: Counter[str] = Counter()
        self.going_back = False
        self.over: set[str] = set()  # the UUIDs of the GPUs that went over the threshold in this period
        self._breached_periods = 0
        self._failures: Counter[str] = Counter()
        self._last_failure_at: float | None = None
        self._loads = 0
        self._actions = self._actions_failed = 0

    def saw_gpus(self, gpus: Sequence[Reading]) -> None:
        """The readings of a period, one for each GPU; none if NVML gave none."""
        judged = self._judge(gpus)
        self._nvml_up = bool(judged) and all(gpu["samples"] for gpu in judged)
        self._gpus = [gpu for gpu in gpus if gpu["samples"]]
        self._judged = {gpu["uuid"] for gpu in judged}
        over = {gpu["uuid"] for gpu in judged if gpu["samples"] and self._is_over(gpu["peak"])}
        self._samples.update({gpu["uuid"]: gpu["samples"] for gpu in self._gpus})
        self._breaches.update(over - self.over)
        self.over = over
        still = any(self._is_over(gpu["used"]) for gpu in judged if gpu["samples"])
        self._breached_periods = self._breached_periods + 1 if still else 0

    def _judge(self, gpus: Sequence[Reading]) -> Sequence[Reading]:
        """Those that count: what the operator named, else what the server found, else what counted at first."""
        found = [] if self.config["gpus_named"] else gpu_choice.found_by_ollama(gpus, self._discovered)
        counting = [gpu["uuid"] for gpu in found] or self.config["gpus"]
        return [gpu for gpu in gpus if gpu["uuid"] in counting] or gpus

    @property
    def log_read(self) -> bool:
        return self._log_read

    def _is_over(self, used: int) -> bool:
        threshold = self.config["max_used_mib"]
        return threshold is not None and used > threshold * MIB

    def saw_drop_in(self, text: str | None) -> None:
        """The drop-in as it is on disk; None if there is none."""
        self._environment_on_disk = unit_text.parse_environment_directives(text or "")

    def saw_lease(self, held: bool) -> None:
        """Whether a run (apply, tune) holds the host now; to be said before the lines that have come since then."""
        self._in_run = held or self._held
        self._held = held

    def saw_past(self, lines: Iterable[tuple[float, str]]) -> None:
        """Lines from before the monitor ran: they tell what runs, and their failures are not counted."""
        self._learn(log_lines.parse(lines))

    def saw_journal(self, lines: Sequence[tuple[float, str]], followed: bool) -> None:
        """The lines of a period, oldest first. A failure that a retry in a later period heals counts as fatal."""
        self._journal_up = followed
        facts = log_lines.parse(lines)
        self._learn(facts)
        self._dropped += sum(log_lines.dropped(line, self.config["ollama"]["unit"]) for _unused, line in lines)
        self._loads += sum(bool(load["command"]) for load in facts["loads"])
        for failure in facts["failures"]:
            self._failures[failure["severity"]] += 1
            if failure["severity"] == "fatal":
                self._last_failure_at = failure["at"]

    def saw_writer(self, runs: bool) -> None:
        """Whether the process that wrote the server's last line in the journal still runs.

        Without it, another one serves whose log goes elsewhere, or none: what was learned of the last one is void.
        """
        self._log_read = runs and self._journal_up
        if not runs:
            self._server_config, self._load, self._discovered = None, None, []

    def _learn(self, facts: LogFacts) -> None:
        if facts["server_config"] is not None:  # the server was started anew
            self._server_config, self._load = facts["server_config"], None
            self._discovered = []
        self._discovered += facts["discovered"]
        for load in facts["loads"]:
            self._load = load if load["command"] or self._load is None else _continued(self._load, load)
            self._loaded_in_run = self._in_run
        if self._load and facts["worked_at"]:
            self._load["started"] = True

    @property
    def _layers(self) -> tuple[int, int] | None:
        """Layers on the GPU by all that the last load told, and layers that could be there."""
        on_gpu = log_lines.layers_on_gpu(self._load) if self._load else None
        return (on_gpu, self._load["offloadable"] or 0) if self._load and on_gpu is not None else None

    def acts(self, now: float) -> bool:
        """Whether the action is due: over the threshold for two periods, not too soon, and no run holds the host."""
        if self.config["action"] == "none" or self._held or self._breached_periods < BREACHED_PERIODS:
            return False
        since = None if self.last_action_at is None else now - self.last_action_at
        # An action in the future tells of a clock that was set back.
        return since is None or since < 0 or since >= self.config["action_interval_s"]

    def acted(self, now: float, worked: bool) -> None:
        self.last_action_at = now
        self._actions += 1
        self._actions_failed += not worked

    def drift(self) -> dict[str, bool]:
        """Each setting that can be read back here, and whether what is in effect is not what was declared.

        `NAME` of the drop-in: as it is on disk, and as the server says itself when it starts. `num_ctx`, `num_parallel`
        and `gpu_layers`: what the last load was sent, which may be less, as for an embedder, but not more; and of the
        layers to be on the GPU, all must be there. Only the log tells of loads: without it these are not there.

        Nothing is judged while a run holds the host, nor afterwards what it has loaded: it tries what it likes, and has
        judged it. A margin is void, and not judged, where the last load was sent its layers.
        """
        if self._held:
            return {}
        found = {}
        sent = log_lines.runner_settings(self._load["command"], self._load["sent"]) if self._load else {}
        void = settings.MARGINS if sent.get("num_gpu") is not None else frozenset()
        for name, wanted in self.config["environment"].items():
            if name in void:
                found[name] = False
                continue
            effects = [(self._environment_on_disk or {}).get(name)]
            if self._server_config is not None and name in self._server_config:
                effects.append(self._server_config[name])
            found[name] = any(effect != wanted for effect in effects)
        intent = self.config["intent"] if self._log_read else {}
        sent = {} if self._loaded_in_run else sent
        total, parallel = sent.get("num_ctx_total"), sent.get("num_parallel")
        if "num_ctx" in intent:
            found["num_ctx"] = total is not None and total > intent["num_ctx"] * intent.get("num_parallel", 1)
        if "num_parallel" in intent:
            found["num_parallel"] = parallel is not None and parallel > intent["num_parallel"]
        if "gpu_layers" in intent:
            cap = sent.get("num_gpu")
            on_gpu, layers = (None if self._loaded_in_run else self._layers) or (0, 0)
            found["gpu_layers"] = (cap is not None and cap > intent["gpu_layers"]) or on_gpu < min(
                layers, intent["gpu_layers"]
            )
        return found

    def samples(self, now: float) -> list[Sample]:
        """All metrics as they are now."""
        config = self.config
        found = [
            Sample(INFO, 1, {"profile": config["profile"], "action": config["action"]}),
            Sample(LAST_RUN, round(now, 3)),
            Sample(PERIOD, config["period_s"]),
            Sample(NVML_UP, int(self._nvml_up)),
            Sample(JOURNAL_UP, int(self._journal_up)),
            Sample(LOG_READ, int(self._log_read)),
            Sample(DROPPED, self._dropped),
        ]
        if config["max_used_mib"] is not None:
            found.append(Sample(THRESHOLD, config["max_used_mib"] * MIB))
        for gpu in self._gpus:
            found += self._samples_of(gpu)
        found += [Sample(DRIFT, int(drifts), {"setting": name}) for name, drifts in self.drift().items()]
        found.append(Sample(GOING_BACK, int(self.going_back)))
        # A 0 that nobody counted is not shown.
        counted = {severity: self._failures[severity] for severity in SEVERITIES}
        found += [Sample(FAILURES, n, {"severity": name}) for name, n in counted.items() if n or self._log_read]
        if self._last_failure_at is not None:
            found.append(Sample(LAST_FAILURE, round(self._last_failure_at, 3)))
        if self._loads or self._log_read:
            found.append(Sample(LOADS, self._loads))
        if self._layers:
            found += [Sample(LAYERS_ON_GPU, self._layers[0]), Sample(LAYERS, self._layers[1])]
        found += [Sample(ACTIONS_TAKEN, self._actions), Sample(ACTIONS_FAILED, self._actions_failed)]
        if self.last_action_at is not None:
            found.append(Sample(LAST_ACTION, round(self.last_action_at, 3)))
        return found

    def _samples_of(self, gpu: Reading) -> list[Sample]:
        labels = {"gpu": str(gpu["index"]), "uuid": gpu["uuid"]}
        found = [
            Sample(TOTAL, gpu["total"], labels),
            Sample(USED, gpu["used"], labels),
            Sample(PEAK, gpu["peak"], labels),
            Sample(GAP, round(gpu["max_gap_s"], 3), labels),
            Sample(SAMPLES, self._samples[gpu["uuid"]], labels),
            Sample(JUDGED, int(gpu["uuid"] in self._judged), labels),
        ]
        if gpu["reserved"] is not None:
            found.append(Sample(RESERVED, gpu["reserved"], labels))
        if gpu["uuid"] in self._judged:
            found.append(Sample(BREACHES, self._breaches[gpu["uuid"]], labels))
            if self.config["max_used_mib"] is not None:
                found.append(Sample(OVER, int(gpu["uuid"] in self.over), labels))
        for name, mib in by_name(gpu["processes"]):
            found.append(Sample(PROCESS, mib * MIB, {**labels, "process": name}))
        return found


def by_name(processes: Iterable[NamedHolder]) -> list[tuple[str, int]]:
    """Memory by the name of processes, the largest first, and what is beyond `PROCESSES_SHOWN` names as `others`."""
    held: Counter[str] = Counter()
    for process in processes:
        if process["used_mib"] is not None:
            held[process["name"] or "unknown"] += process["used_mib"]
    ranked = held.most_common()
    rest = sum(mib for _unused, mib in ranked[PROCESSES_SHOWN:])
    shown = Counter(dict(ranked[:PROCESSES_SHOWN]))
    if rest:
        shown["others"] += rest
    return shown.most_common()
