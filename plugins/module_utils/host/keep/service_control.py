# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restarting Ollama and its backend in order: the backend stops, Ollama restarts and answers, the backend starts.

A service plan is `{"ollama": {unit, url, timeout_s} | None, "backend": {kind, unit, directory, command, user,
process_match, health: {url, status} | None, timeout_s}, "restart": ["ollama", "backend"], "private_files": env files
whose values no message has}`. The same code serves an apply and a restore that has no controller any more; a restore's
plan also has `found`, what `states` said before.

systemd stops or restarts other units along with these (`core.systemd.dependents`). It starts none of them again after a
stop, nor where the restart has failed: those that ran before are started here.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ansible_collections.selo.gpu_memory.plugins.module_utils.core.ollama import endpoints
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.systemd import (
    unit_states,
)
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import STOP_S, Runtime, ServiceError
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port.systemd import Host

if TYPE_CHECKING:
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.services import (
        BackendService,
        FoundService,
        Restarted,
        RestartedService,
        ServicePlan,
    )
    from ansible_collections.selo.gpu_memory.plugins.plugin_utils.contract.units import Dependent


STABLE_S = 1.0  # an answer counts once the process behind it has lived that long
POLL_S = 0.5
# What a restart has made of a service: it is ready; or it was put back as stopped, as starting, which nobody awaits, or
# as running without an answer that a healthy one gives.
RESTARTED, STOPPED, STARTING, UNHEALTHY, FAILED = "restarted", "stopped", "starting", "unhealthy", "failed"


# For AnsibleModule; documented once, in the fragment selo.gpu_memory.services.
ARGUMENTS: dict[str, Any] = {
    "ollama": {
        "type": "dict",
        "apply_defaults": True,
        "options": {**unit_runtime.ARGUMENTS, "timeout_s": {"type": "int", "default": 60}},
    },
    "backend": {
        "type": "dict",
        "apply_defaults": True,
        "options": {
            "kind": {"type": "str", "default": "none", "choices": ["none", "unit", "command"]},
            "unit": {"type": "str"},
            "directory": {"type": "path"},
            "command": {"type": "str"},
            "user": {"type": "str"},
            "process_match": {"type": "str"},
            "health": {
                "type": "dict",
                "options": {"url": {"type": "str"}, "status": {"type": "int", "default": 200}},
            },
            "timeout_s": {"type": "int", "default": 180},
        },
        "required_if": [
            ("kind", "unit", ["unit"]),
            ("kind", "command", ["directory", "command", "process_match"]),
        ],
    },
    "restart": {"type": "list", "elements": "str", "choices": ["ollama", "backend"], "default": []},
    "private_files": {"type": "list", "elements": "path", "default": []},
}


def check(plan: ServicePlan) -> None:
    """ServiceError if a plan could not be carried out for what it says itself."""
    backend = backend_of(plan)
    if backend is None or backend["kind"] != "command":
        return
    try:
        re.compile(backend["process_match"])
        words = shlex.split(backend["command"])
    except re.error as problem:
        raise ServiceError(
            f"backend.process_match = {backend['process_match']!r}: no regular expression: {problem}"
        ) from None
    except ValueError as problem:
        raise ServiceError(f"backend.command = {backend['command']!r}: {problem}") from None
    if not words:
        raise ServiceError("backend.command is empty; it must be a program with its arguments")


def backend_of(plan: ServicePlan) -> BackendService | None:
    """The plan's backend, or None where there is none."""
    backend = plan.get("backend")
    return backend if backend and backend["kind"] != "none" else None


def names(plan: ServicePlan) -> list[str]:
    """The services that a plan knows, in the order of `restart`."""
    return ["ollama"] * bool(plan.get("ollama")) + ["backend"] * bool(backend_of(plan))


def states(plan: ServicePlan, host: Host) -> dict[str, FoundService]:
    """By service of a plan: whether it runs (`active_state`), and starts at boot (`unit_file_state`).

    `dependents`: the running units that go along with it. `unhealthy`: it runs, and does not answer as it should.
    """
    services = {name: _service(plan, name, host) for name in names(plan)}
    found: dict[str, FoundService] = {}
    for name, service in services.items():
        found[name] = cast("FoundService", {**service.state(), "dependents": service.dependents()})
        if found[name]["active_state"] == "active" and not _is_healthy(plan, name, host):
            found[name]["unhealthy"] = True
    return found


def obstacles(plan: ServicePlan, host: Host, gone_is_fine: bool = False) -> list[str]:
    """Why what `plan["restart"]` names, or what goes along with it, would not start again once it is stopped.

    `gone_is_fine`: also go on where a unit that does not run is not there any more.
    """
    problems: list[str] = []
    for name in names(plan):
        if name not in plan["restart"]:
            continue
        service = _service(plan, name, host)
        if _goal(plan, name) != STOPPED:
            problems += service.start_problems()
            for one in _along(plan, name, host):
                problems += _unit(host, one["unit"]).start_problems()
        elif not gone_is_fine and service.is_gone():
            problems += [
                f"{problem}. Without it, only gpu-memory remove takes back" for problem in service.start_problems()
            ]
    return problems


def started_since(plan: ServicePlan, host: Host) -> list[str]:
    """What of `plan["restart"]` was found stopped and runs now; what cannot be told is left alone."""
    started = []
    for name in names(plan):
        with contextlib.suppress(ServiceError):
            if name in plan["restart"] and _goal(plan, name) == STOPPED and _service(plan, name, host).runs():
                started.append(name)
    return started


def out_of_place(plan: ServicePlan, host: Host, old: Mapping[str, Collection[int]]) -> list[str]:
    """What of `plan["restart"]` is not as it was found, at one look; `old`: processes that were to go, by service.

    A stop may leave some of them, which is no matter, but for those that take the new ones' connections.
    """
    out = []
    for name in [name for name in names(plan) if name in plan["restart"]]:
        try:
            service = _service(plan, name, host)
            serving = {service.pid(), *host.listening(service.processes())}
            if not serving.isdisjoint(old.get(name) or ()) or not _is_in_place(plan, name, service, host):
                out.append(name)
        except ServiceError:
            out.append(name)
    return out


def processes(plan: ServicePlan, host: Host) -> dict[str, set[int]]:
    """All processes of what `plan["restart"]` names, by service."""
    found = {}
    for name in [name for name in names(plan) if name in plan["restart"]]:
        with contextlib.suppress(ServiceError):
            service = _service(plan, name, host)
            found[name] = {service.pid(), *service.processes()} - {0}
    return found


def _is_in_place(plan: ServicePlan, name: str, service: Runtime, host: Host) -> bool:
    goal = _goal(plan, name)
    if goal in (STOPPED, STARTING):
        return service.runs() == (goal == STARTING)
    if service.moment().active_state != "active":
        return False
    if goal == UNHEALTHY:
        return True
    return _is_healthy(plan, name, host) and (name != "ollama" or service.mismatch(plan["ollama"]["url"]) is None)


def _is_healthy(plan: ServicePlan, name: str, host: Host) -> bool:
    url, status = _health(plan, name)
    return url is None or host.http_status(url)[0] == status


def _health(plan: ServicePlan, name: str) -> tuple[str | None, int]:
    """What a service is asked, and the status that it answers once it is ready; nothing where nothing is declared."""
    if name == "ollama":
        return plan["ollama"]["url"] + endpoints.VERSION, 200
    health = plan["backend"].get("health") or {}
    return health.get("url"), health.get("status") or 200


def start_s(plan: ServicePlan) -> float:
    """How long all may take to be ready once they start."""
    return sum(
        float((plan["ollama"] if name == "ollama" else plan["backend"]).get("timeout_s") or 0) for name in names(plan)
    )


def longest_s(plan: ServicePlan) -> float:
    """How long a restart of all can take by the limits of its steps: a stop, a start and a wait, each of them twice."""
    total = 0.0
    for name in names(plan):
        timeout_s = float((plan["ollama"] if name == "ollama" else plan["backend"]).get("timeout_s") or 0)
        found = (plan.get("found") or {}).get(name)
        along = (found.get("dependents") if found else None) or []
        total += 4 * STOP_S + 2 * timeout_s + len(along) * (STOP_S + timeout_s)
    return total


def _goal(plan: ServicePlan, name: str) -> str:
    """How a service that restarts is to be left: RESTARTED, or as a restore's plan says that it was found."""
    state = _found_state(plan, name)
    if unit_states.is_stopped(state):
        return STOPPED
    if state == unit_states.STARTING:
        return STARTING
    found = (plan.get("found") or {}).get(name)
    return UNHEALTHY if found and found.get("unhealthy") else RESTARTED


def _found_state(plan: ServicePlan, name: str) -> str | None:
    found = (plan.get("found") or {}).get(name)
    return found["active_state"] if found else None


def _nobody_waits() -> None:
    pass


def _nobody_else() -> None:
    pass


def restart(
    plan: ServicePlan,
    host: Host,
    *,
    insist: bool = True,
    alive: Callable[[], None] = _nobody_waits,
    only: Iterable[str] | None = None,
) -> Restarted:
    """Restart what `plan["restart"]` names, each once, and wait until it answers.

    systemd reads its units again before, once, if what it has in memory of Ollama's is not what the files say.
    `insist`: where this collection's drop-in is not in its memory even then, or another file has the last word, nothing
    is restarted. `alive` is called all the while, for whoever must know that this goes on. What the plan's `found` says
    was stopped is stopped, and what was starting is started and not waited for. Ollama is ready once it is the unit
    itself that answers. What was stopped before and does not get ready is stopped again. What systemd would not start
    again is not stopped, and named. A start that fails while the old process is still going is tried again, once.
    `only`: what of `plan["restart"]` is restarted; of the others what went along with them is brought back.

    Returns {services: {name: {unit, state, pid_before, pid_after, stopped_at, ready_at (Unix),
    active_enter_timestamp}}, downtime_s, error}; `error` is None or names each service that failed and why. A backend
    is started also after Ollama failed, so as not to leave it stopped, but then it is not waited for.
    """
    host.never_show(plan)  # while the old processes are there to be asked
    run = _Restart(plan, host, alive, plan["restart"] if only is None else only)
    began = host.monotonic()
    alive()
    not_read = run.read_again()
    if not_read and insist and "ollama" in run.goals:
        return {"services": {}, "downtime_s": 0.0, "error": "; ".join(not_read)}
    run.stop_backend()
    run.restart_ollama()
    run.start_backend()
    downtime_s = host.monotonic() - began
    run.bring_others_back()
    run.put_to_rest()
    serves = any(goal != STOPPED for goal in run.goals.values())
    return {
        "services": run.services,
        "downtime_s": round(downtime_s, 1) if serves else 0.0,
        "error": "; ".join(run.problems) or None,
    }


class _Restart:
    """A restart under way, its steps in their order: what becomes of each service, and what went wrong."""

    def __init__(self, plan: ServicePlan, host: Host, alive: Callable[[], None], only: Iterable[str]) -> None:
        self.plan, self.host, self.alive = plan, host, alive
        self.concerned = {name: _goal(plan, name) for name in names(plan) if name in plan["restart"]}
        self.goals = {name: goal for name, goal in self.concerned.items() if name in only}
        self.services: dict[str, RestartedService] = {}
        self.problems: list[str] = []
        for name in [name for name, goal in self.goals.items() if goal != STOPPED]:
            in_the_way = _service(plan, name, host).start_problems()
            if in_the_way:
                del self.goals[name], self.concerned[name]
                self.problems += [f"{problem}. It was not restarted" for problem in in_the_way]
        self.left_alone = len(self.problems)
        self.units = {name: _service(plan, name, host) for name in self.goals}
        self.along = {name: _along(plan, name, host) for name, goal in self.concerned.items() if goal != STOPPED}
        self.rested = [name for name, unit in self.units.items() if not unit.runs()]
        self.old: dict[str, list[int]] = {}  # processes from before the first stop

    @property
    def has_failed(self) -> bool:
        return len(self.problems) > self.left_alone

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        try:
            yield
        except ServiceError as problem:
            self.problems.append(str(problem))

    def read_again(self) -> list[str]:
        """Have systemd read its units again where it must; what it lacks of our drop-in even then."""
        not_read: list[str] = []
        if self.plan.get("ollama"):
            with self.collecting():
                not_read = _service(self.plan, "ollama", self.host).read_again()
        return not_read

    def stop_backend(self) -> None:
        self.old = {name: unit.processes() for name, unit in self.units.items()}
        if "backend" in self.goals:
            self.services["backend"] = _stopping(self.host, self.units["backend"])
            with self.collecting():
                self.units["backend"].stop()

    def restart_ollama(self) -> None:
        if "ollama" not in self.goals:
            return
        unit = self.units["ollama"]

        def await_ready() -> None:
            url, status = self.asked("ollama")
            mismatch = functools.partial(unit.mismatch, self.plan["ollama"]["url"]) if url else _nobody_else

            def other() -> str | None:
                return self.old_one("ollama") or mismatch()

            _await_ready(self.host, unit, url, status, self.plan["ollama"]["timeout_s"], self.alive, other)

        self.services["ollama"] = _stopping(self.host, unit)
        with self.collecting():
            if self.goals["ollama"] == STOPPED:
                unit.stop()
            elif self.goals["ollama"] == STARTING:
                unit.restart(waits=False)
                self.services["ollama"]["state"] = STARTING
            else:
                _get_up(self.host, unit, unit.restart, await_ready, self.old["ollama"], self.alive)
                self.services["ollama"].update(_ready(self.host, unit, self.goals["ollama"]))

    def asked(self, name: str) -> tuple[str | None, int]:
        """What is awaited of a service besides that it runs; nothing of one that did not answer before either."""
        url, status = _health(self.plan, name)
        return (None if self.goals[name] == UNHEALTHY else url), status

    def old_one(self, name: str) -> str | None:
        """Why an answer may be that of a process from before the restart, which the stop has left; None where it isn't.

        A stop ends one process only with `KillMode=process`, or where a shell has started the server.
        """
        pids = self.host.listening(self.host.still_running(self.old[name]))
        if not pids:
            return None
        known = " ".join(map(str, pids))
        return (
            f"process {known} is from before the restart, goes on, and takes the connections: run kill {known}, and "
            "let a stop of the unit end all of its processes (KillMode=control-group)"
        )

    def start_backend(self) -> None:
        if self.goals.get("backend", STOPPED) == STOPPED:
            return
        unit, backend = self.units["backend"], self.plan["backend"]

        def await_ready() -> None:
            other = functools.partial(self.old_one, "backend")
            _await_ready(self.host, unit, *self.asked("backend"), backend["timeout_s"], self.alive, other)

        with self.collecting():
            if self.goals["backend"] == STARTING:
                unit.start(waits=False)
                self.services["backend"]["state"] = STARTING
            elif self.has_failed:
                unit.start()
            else:
                _get_up(self.host, unit, unit.start, await_ready, self.old["backend"], self.alive)
                self.services["backend"].update(_ready(self.host, unit, self.goals["backend"]))

    def bring_others_back(self) -> None:
        """What ran before and went along with a service."""
        for name, dependents in self.along.items():
            for one in dependents:
                with self.collecting():
                    waits = self.concerned[name] in (RESTARTED, UNHEALTHY) and not self.has_failed
                    timeout_s = (self.plan["ollama"] if name == "ollama" else self.plan["backend"])["timeout_s"]
                    _bring_back(self.host, one, timeout_s if waits else None, self.alive)

    def put_to_rest(self) -> None:
        """Stop what was found stopped, and what does not come up: systemd would start that again and again."""
        for name, goal in self.goals.items():
            if goal == STOPPED:
                with self.collecting():
                    _put_to_rest(self.units[name], _found_state(self.plan, name) or "")
                    self.services[name].update({"state": STOPPED, "gone": self.units[name].is_gone()})
        for name in self.rested:
            if self.goals[name] in (RESTARTED, UNHEALTHY) and self.services[name]["state"] == FAILED:
                with self.collecting():
                    self.units[name].stop()


def _along(plan: ServicePlan, name: str, host: Host) -> list[Dependent]:
    """The units that run now, or were found running, and go along with a service; none of the plan's own."""
    found = (plan.get("found") or {}).get(name)
    before = (found.get("dependents") if found else None) or []
    own = {_service(plan, one, host).unit for one in names(plan)}
    both = {one["unit"]: one for one in [*before, *_service(plan, name, host).dependents()]}
    return [one for unit, one in both.items() if unit not in own]


def _bring_back(host: Host, dependent: Dependent, timeout_s: float | None, alive: Callable[[], None]) -> None:
    """Have a unit run again that went along with a service, and wait until it does; without a timeout do not wait."""
    unit = _unit(host, dependent["unit"])
    try:
        if not unit.runs():
            unit.start(waits=timeout_s is not None)
        if timeout_s is not None:
            _await_ready(host, unit, None, 0, timeout_s, alive)
    except ServiceError as problem:
        raise ServiceError(f"{unit.unit} ran before and has {dependent['why']}, but is not back: {problem}") from None


def _get_up(
    host: Host,
    service: Runtime,
    start: Callable[[], None],
    await_ready: Callable[[], None],
    old: list[int],
    alive: Callable[[], None],
) -> None:
    """Start a service and wait until it is ready; once more if one of its `old` processes was still going.

    The stop of an init script, or of a unit with `KillMode=process`, does not wait for the server to end.
    """
    going: list[int] = []
    try:
        try:
            start()
        finally:
            going = host.still_running(old)
        await_ready()
    except ServiceError:
        if not going:
            raise
        deadline = host.monotonic() + STOP_S
        service.stop()
        while host.still_running(going) and host.monotonic() < deadline:
            alive()
            host.sleep(POLL_S)
        start()
        await_ready()


def _put_to_rest(service: Runtime, found: str) -> None:
    """Stop a service for good, also where the start of the other one has pulled it in."""
    if service.runs():
        service.stop()
    if found == "inactive":
        service.forget_failure()  # how it has ended under our settings is not its state
    state = service.state()["active_state"]
    if not unit_states.is_stopped(state):
        raise ServiceError(f"{service.unit} was found {found} and does not stop: it is {state}")


def _service(plan: ServicePlan, name: str, host: Host) -> Runtime:
    return host.runtime(name, plan["ollama"] if name == "ollama" else plan["backend"])


def _unit(host: Host, unit: str) -> Runtime:
    """One that goes along with a service."""
    return host.runtime("backend", {"kind": "unit", "unit": unit})


def _stopping(host: Host, service: Runtime) -> RestartedService:
    return {
        "unit": service.unit,
        "state": FAILED,
        "pid_before": service.pid() or None,
        "pid_after": None,
        "stopped_at": round(host.unix_time(), 3),
        "ready_at": None,
        "active_enter_timestamp": None,
    }


def _ready(host: Host, service: Runtime, goal: str) -> RestartedService:
    return {
        "state": goal,
        "pid_after": service.pid() or None,
        "ready_at": round(host.unix_time(), 3),
        "active_enter_timestamp": service.moment().entered,
    }


def _await_ready(
    host: Host,
    service: Runtime,
    url: str | None,
    status: int,
    timeout_s: float,
    alive: Callable[[], None],
    mismatch: Callable[[], str | None] = _nobody_else,
) -> None:
    """Wait until a unit is active with the same process for `STABLE_S` and its URL, if any, answers `status`.

    `mismatch` says why it is another one that answers there.
    """
    began = host.monotonic()
    deadline = began + timeout_s
    seen: object = None
    seen_since = 0.0
    stranger: str | None = None
    while True:
        alive()
        moment = service.moment()
        state, current = moment.active_state, moment.process
        answer, cause = host.http_status(url) if url and state == "active" else (None, "")
        now = host.monotonic()
        if state != "active" or current != seen:
            seen, seen_since = current, now
        elif now - seen_since >= STABLE_S and (url is None or answer == status):
            stranger = mismatch()
            if stranger is None:
                return
        ended = state in ("failed", "inactive")  # for good: a unit that systemd tries again is `activating`
        if ended or now >= deadline:
            break
        host.sleep(POLL_S)
    if ended:
        awaited = "it started, but has ended"
    elif state != "active":
        awaited = f"it was not active within {timeout_s:g} s"
    elif url and answer != status:
        awaited = f"{url} did not answer {status} within {timeout_s:g} s ({cause})"
    elif stranger:
        awaited = f"it did not answer within {timeout_s:g} s: {stranger}"
    else:
        awaited = f"its process did not stay the same within {timeout_s:g} s"
    raise ServiceError(f"{service.unit}: {awaited}. {service.explain(began)}")
