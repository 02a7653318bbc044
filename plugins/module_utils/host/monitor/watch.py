# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The monitor's process: it reads, has `watch_rules` draw the conclusions, writes the metrics and acts.

Three processes: this one sleeps until one of the others has something; a child that holds the GPU library reads the
GPUs every second; journalctl follows the journals. None of them is root, and nothing is started for a period.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints, log_lines
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import masking, metrics
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu import port
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.library import LIBRARY
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.gpu.sampling import next_tick
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.monitor.watch_rules import Config, Monitor
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import child_process, commands, proc_stat

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.facts import GpuProcess
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.monitor import Reading

SAMPLE_S = 1.0
RETRY_S = 60.0  # between two attempts to reach NVML
FIRST_READING_S = 20.0
LINES_AT_ONCE = 1000
LONGEST_ROW = 1 << 20
METRICS_FILE = "gpu_memory.prom"
STATE_FILE = "last-action.json"
RESTORE_REQUEST = "restore-wanted"
RESTORE_TIMER = "/etc/systemd/system/gpu-memory-restore.timer"  # there while a run holds the host
GOING_BACK = "/run/gpu-memory-going-back.json"  # there while a restore has its files back, and a service is not
FIELDS = f"--output-fields={log_lines.FIELDS},_SYSTEMD_CGROUP"
# A unit may have a journal of its own (LogNamespace=).
JOURNALCTL = ("journalctl", "--no-pager", "--quiet", "--all", "--output=json", "--namespace=*", FIELDS)
PID = re.compile(r"[0-9]{1,9}")
NOT_READ = "Ollama's log is not read: no process that runs has written a line of the server into the journal"
NOT_IN_PLACE = "this host was put back, and a service is not in place; see: gpu-memory status"
HOW_IT_STARTED = 'msg="?(server config|inference compute)'
WHAT_RUNS = "starting (llama|runner)|offloaded [0-9]+/|overflowing|buffer size|started in|loading model|load request"


def _say(text: str) -> None:
    """A line for the journal, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class _Gpu:
    """One GPU, in the child that holds the library."""

    def __init__(self, library: port.OpenLibrary, index: int) -> None:
        self._library, self._index = library, index
        self._gpu = library.gpu(str(index))
        self._pci = self._gpu.pci_bus_id
        self._read_at = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        self._peak, self._samples, self._max_gap_s = 0, 0, 0.0
        self._error: str | None = None

    def sample(self) -> None:
        try:
            memory = self._gpu.memory()
        except Exception as problem:
            self._error = str(self._library.explain(problem))
            return
        now = time.monotonic()
        self._max_gap_s = max(self._max_gap_s, now - self._read_at)
        self._read_at = now
        self._memory = memory
        self._peak = max(self._peak, memory.used)
        self._samples += 1

    def period(self) -> Reading:
        """The reading of the period that ends now."""
        reading: Reading = {
            "index": self._index, "uuid": self._gpu.uuid, "pci_bus_id": self._pci, "samples": self._samples,
            "error": self._error,
        }  # fmt: skip
        if self._samples:
            total, used, _unused, reserved = self._memory
            held: list[GpuProcess] = []
            with contextlib.suppress(Exception):  # a GPU that was lost just now says so at the next reading
                held = self._gpu.processes()
            reading["total"], reading["used"], reading["reserved"] = total, used, reserved
            reading["peak"], reading["max_gap_s"] = self._peak, self._max_gap_s
            reading["processes"] = [{"name": process["name"], "used_mib": process["used_mib"]} for process in held]
        self._begin()
        return reading


def _open_gpus(library: port.OpenLibrary) -> tuple[list[_Gpu], list[Reading]]:
    """The GPUs that can be read, and as readings those that cannot: a dead one must not hide the others."""
    gpus: list[_Gpu] = []
    dead: list[Reading] = []
    problem: port.GpuProblem | None = None
    for index in range(library.count()):
        try:
            gpus.append(_Gpu(library, index))
        except Exception as found:
            problem = problem or library.explain(found)
            error = str(library.explain(found))
            reading = {"index": index, "uuid": None, "pci_bus_id": None, "samples": 0, "error": error}
            dead.append(cast("Reading", reading))
    if problem and not gpus:
        raise problem
    return gpus, dead


def _read_gpus(
    send: child_process.Send, lifeline: int, period_s: float, bindings_path: str, source: port.GpuLibrary
) -> None:
    """The child: read every second, send once a period, the first time at once."""
    try:
        library = source.connect(bindings_path)
        try:
            gpus, dead = _open_gpus(library)
        except Exception as problem:
            raise library.explain(problem) from None
    except port.GpuProblem as problem:
        send({"problem": str(problem), "status": problem.status})
        return
    started = due = time.monotonic()
    now = started
    while True:
        for gpu in gpus:
            gpu.sample()
        if now >= due:
            send({"gpus": [*(gpu.period() for gpu in gpus), *dead]})
            due = next_tick(started, period_s, now)
        wait_s = next_tick(started, SAMPLE_S, time.monotonic()) - time.monotonic()
        if select.select([lifeline], [], [], max(0.0, wait_s))[0]:
            return
        now = time.monotonic()


class _Writer:
    """The process that wrote the server's last line, by what every line of the journal has of its writer."""

    def __init__(self, unit: str) -> None:
        self._last: tuple[int, float] | None = None
        self._whole = log_lines.WholeLines()
        self._unit, self._control_group = unit, f"/system.slice/{unit}"

    def read(self, row: bytes) -> tuple[float, str] | None:
        """A row of the journal as `log_lines.entry` has it; None for what the kernel says of another unit's group."""
        fields = log_lines.fields_of(row)
        found = log_lines.entry_of(fields) if self._whole.begins(fields) else None
        monotonic = fields.get("__MONOTONIC_TIMESTAMP", "")
        if found and log_lines.is_servers(found[1]) and PID.fullmatch(fields.get("_PID", "")) and monotonic.isdigit():
            last = int(fields["_PID"]), int(monotonic) / 1e6
            self._last = last if self._last is None or last[1] >= self._last[1] else self._last
            slices, of_unit, _below = fields.get("_SYSTEMD_CGROUP", "").partition(f"/{self._unit}")
            self._control_group = f"{slices}{of_unit}" if of_unit else self._control_group
        return found if found and log_lines.concerns(found[1], self._control_group) else None

    def runs(self) -> bool:
        return self._last is not None and proc_stat.ran_at(*self._last)


class _Journal:
    """Follows what Ollama and the kernel log from now on, and what systemd and journald say of Ollama."""

    def __init__(self, unit: str, writer: _Writer) -> None:
        of_unit = [f"_SYSTEMD_UNIT={unit}", "+", "_PID=1", f"UNIT={unit}"]
        matches = [*of_unit, "+", "_TRANSPORT=kernel", "+", *log_lines.DROPPED_ID]
        self._descriptor, theirs = os.pipe()
        now = f"--since=@{time.time():.6f}"
        self._process = commands.follow([*JOURNALCTL, "--follow", now, *matches], theirs)
        os.close(theirs)
        self._unread, self._writer = b"", writer
        self.alive = True
        self.lines: list[tuple[float, str]] = []

    def fileno(self) -> int:
        return self._descriptor

    def read(self) -> None:
        """Take what is there; call it once there is something."""
        block = os.read(self._descriptor, 65536)
        if not block:
            self.alive = False
        *rows, self._unread = (self._unread + block).split(b"\n")
        if len(self._unread) > LONGEST_ROW:
            self._unread = b""
        self.lines += filter(None, map(self._writer.read, rows))

    def take(self) -> list[tuple[float, str]]:
        taken, self.lines = self.lines, []
        return taken

    def rest(self) -> list[tuple[float, str]]:
        """What has come and was not taken."""
        while self.alive and select.select([self], [], [], 0)[0]:
            self.read()
        return self.take()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._descriptor)


def _past(unit: str, writer: _Writer) -> list[tuple[float, str]]:
    """What the journal of this boot says of the server and the model that run now."""
    lines: list[tuple[float, str]] = []
    for most, words in ((20, HOW_IT_STARTED), (400, WHAT_RUNS)):
        command = [*JOURNALCTL, "--boot", f"--lines={most}", "--grep", words, f"_SYSTEMD_UNIT={unit}"]
        # Where it searches for so many lines, journalctl gives the newest first.
        rows = reversed(commands.run(command, timeout_s=30).stdout.splitlines())
        lines += filter(None, map(writer.read, rows))
    return sorted(lines, key=lambda line: line[0])


class Service:
    """One monitor. `runtime` and `state` are directories of its own, `bindings` is where `pynvml.py` lies."""

    def __init__(
        self, config: Config, *, runtime: str, state: str | None, bindings: str, library: port.GpuLibrary = LIBRARY
    ) -> None:
        self._config, self._runtime, self._bindings, self._library = config, runtime, bindings, library
        self._state = os.path.join(state, STATE_FILE) if state else None
        self._monitor = Monitor(config, self._last_action_at())
        self._writer = _Writer(config["ollama"]["unit"])
        self._journal = _Journal(config["ollama"]["unit"], self._writer)
        self._looks_again, self._looked_at = False, time.monotonic()  # for a journal that a restarted server has begun
        self._gpus: child_process.Child | None = None
        self._problem: str | None = None
        self._said: dict[str, str] = {}

    def run(self) -> int:
        """Watch until killed. Exit status 1: NVML may not be used, and perhaps may be after a new start."""
        unit, period_s = self._config["ollama"]["unit"], float(self._config["period_s"])
        self._gpus = self._start_reading()
        self._monitor.saw_past(_past(unit, self._writer))
        tried = time.monotonic()
        wait_s = FIRST_READING_S
        while True:
            gpus = self._await_reading(wait_s)
            if self._gpus is not None and gpus is None:
                self._lose(self._library.ended(child_process.ChildTimedOut(f"no reading within {wait_s:g} s")))
            self._conclude(gpus or [])
            wait_s = period_s if self._gpus is None else 1.5 * period_s
            if self._gpus is None and time.monotonic() - tried >= RETRY_S:
                if self._problem == "no_permission":  # devices that came later are not in our sandbox
                    return 1
                tried, wait_s = time.monotonic(), FIRST_READING_S
                self._gpus = self._start_reading()
            if self._looks_again and time.monotonic() - self._looked_at >= RETRY_S:
                self._follow_anew()
                self._monitor.saw_past(_past(unit, self._writer))
                self._looks_again, self._looked_at = False, time.monotonic()
            elif not self._journal.alive:
                self._follow_anew()

    def _follow_anew(self) -> None:
        before, self._journal = self._journal, _Journal(self._config["ollama"]["unit"], self._writer)
        self._journal.lines = before.rest()
        before.close()

    def _start_reading(self) -> child_process.Child:
        arguments = float(self._config["period_s"]), self._bindings, self._library
        return child_process.Child(lambda send, lifeline: _read_gpus(send, lifeline, *arguments))

    def _await_reading(self, wait_s: float) -> list[Reading] | None:
        """The GPUs' next reading, None if none came in time; the journal is read meanwhile."""
        deadline = time.monotonic() + wait_s
        while (left_s := deadline - time.monotonic()) > 0:
            sources: list[Any] = [self._journal] if self._journal.alive else []
            sources += [self._gpus] if self._gpus else []
            ready = select.select(sources, [], [], left_s)[0]
            if self._journal in ready:
                self._journal.read()
                if len(self._journal.lines) >= LINES_AT_ONCE:
                    self._monitor.saw_lease(os.path.exists(RESTORE_TIMER))
                    self._monitor.saw_journal(self._journal.take(), self._journal.alive)
            if self._gpus and self._gpus in ready:
                reading = self._receive(self._gpus)
                if reading is not None or self._gpus is None:
                    return reading
        return None

    def _receive(self, child: child_process.Child) -> list[Reading] | None:
        """The newest reading that has come as a whole. A child that has ended is let go."""
        reading = None
        try:
            while message := child.receive(0):
                if "problem" in message:
                    self._lose(port.GpuProblem(message["status"], message["problem"]))
                    return None
                reading = message["gpus"]
        except child_process.ChildCrashed as problem:
            self._lose(self._library.ended(problem))
        return reading

    def _lose(self, problem: port.GpuProblem) -> None:
        if self._gpus is not None:
            self._gpus.close()
        self._gpus, self._problem = None, problem.status
        self._say("nvml", f"{self._library.NAME}: {problem}")

    def _conclude(self, gpus: list[Reading]) -> None:
        """The end of a period."""
        self._monitor.saw_gpus(gpus)
        self._monitor.saw_drop_in(_text_of(self._config["drop_in"]))
        lines = self._journal.take()
        self._monitor.saw_lease(os.path.exists(RESTORE_TIMER))
        self._monitor.going_back = os.path.exists(GOING_BACK)
        self._say("going back", NOT_IN_PLACE if self._monitor.going_back else "")
        self._monitor.saw_journal(lines, self._journal.alive)
        self._monitor.saw_writer(self._writer.runs())
        # journalctl does not see a namespace that began after it did.
        of_systemd = any(text.startswith(log_lines.BY_SYSTEMD) for _unused, text in lines)
        self._looks_again = (self._looks_again or of_systemd) and not self._monitor.log_read
        self._say("log", "" if self._monitor.log_read else NOT_READ)
        if self._monitor.acts(time.time()):
            self._act()
        for gpu in gpus:
            self._say_of(gpu)
        for name, drifts in self._monitor.drift().items():
            self._say(f"drift {name}", f"{name} is not in effect as it was declared" if drifts else "")
        path = os.path.join(self._runtime, METRICS_FILE)
        _write(path, metrics.render(self._monitor.samples(time.time())))
        _notify("READY=1\nWATCHDOG=1")

    def _say_of(self, gpu: Reading) -> None:
        about = f"GPU {gpu['index']}"
        self._say(f"{about} read", f"{about}: {gpu['error']}" if gpu["error"] else "")
        if gpu["samples"]:
            self._say("nvml", "")
            over = f"{port.mib_up(gpu['peak'])} of at most {self._config['max_used_mib']} MiB used"
            self._say(f"{about} used", f"{about}: {over}" if gpu["uuid"] in self._monitor.over else "")

    def _say(self, about: str, text: str) -> None:
        """Say what is new, and that it is over; the journal gets one line for a change, not one a period."""
        said = self._said.get(about, "")
        if bool(text) != bool(said):
            _say(text or f"ended: {said}")
            self._said[about] = text

    def _act(self) -> None:
        _say(f"action on a breach: {self._config['action']}")
        try:
            if self._config["action"] == "unload":
                unload_models(self._config["ollama"]["url"])
            else:
                _write(os.path.join(self._runtime, RESTORE_REQUEST), f"{time.time()}\n")
            worked = True
        except Exception as problem:
            _say(f"the action failed: {masking.without_secrets(str(problem))}")
            worked = False
        self._monitor.acted(time.time(), worked)
        if self._state:
            _write(self._state, json.dumps({"at": time.time()}))

    def _last_action_at(self) -> float | None:
        try:
            with open(self._state or "", encoding="utf-8") as file:
                return float(json.load(file)["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def unload_models(url: str) -> None:
    """Have Ollama free every model that it holds, each after its present requests; HttpError if it does not."""
    from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import http_client

    loaded = http_client.get_json(url + endpoints.LOADED, timeout=10)["models"] or []
    for model in loaded:
        http_client.post_json(url + endpoints.GENERATE, endpoints.unloading(model["name"]), timeout=30)


def _text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def _write(path: str, text: str) -> None:
    """Replace a file as a whole, so that nobody reads half of one. It need not outlive a power cut."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(f"{path}.new", 0o644)
    os.replace(f"{path}.new", path)


def _notify(text: str) -> None:
    """Tell systemd (sd_notify)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
            channel.sendto(text.encode(), address.replace("@", "\0", 1))


def main(config_file: str) -> int:
    """Run as the unit does: directories are those that systemd made, and the bindings lie beside the configuration."""
    with open(config_file, encoding="utf-8") as file:
        config = json.load(file)
    service = Service(
        config,
        runtime=os.environ["RUNTIME_DIRECTORY"],
        state=os.environ.get("STATE_DIRECTORY"),
        bindings=os.path.dirname(config_file),
    )
    return service.run()
