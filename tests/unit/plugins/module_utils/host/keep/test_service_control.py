# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Order, waiting and messages of a restart, on a fake systemd."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.keep import service_control
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama import unit_runtime
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.ollama.runtime import ServiceError
from ansible_collections.selo.gpu_memory.tests.unit.plugins.module_utils.host.fake_host import (
    HEALTH_URL,
    OLLAMA_URL,
    FakeHost,
)


def plan(*restart: str, **backend: Any) -> dict[str, Any]:
    unit = {"kind": "unit", "unit": "backend.service", "health": {"url": HEALTH_URL, "status": 200}, "timeout_s": 180}
    return {
        "ollama": {"unit": "ollama.service", "url": OLLAMA_URL, "timeout_s": 60},
        "backend": {**unit, **backend},
        "restart": list(restart),
    }


def command_plan(**backend: Any) -> dict[str, Any]:
    command = {"directory": "/srv/chat", "command": "python3 'my main.py' -v", "process_match": r"python.*main\.py"}
    return plan("backend", **{"kind": "command", "user": "chat", **command, **backend})


@pytest.mark.parametrize(
    ("wanted", "log"),
    [
        (plan("ollama", "backend"), ["stop backend.service", "restart ollama.service", "start backend.service"]),
        (plan("backend", "ollama"), ["stop backend.service", "restart ollama.service", "start backend.service"]),
        (plan("ollama"), ["restart ollama.service"]),
        (plan("backend"), ["stop backend.service", "start backend.service"]),
        (plan(), []),
        (plan("ollama", "backend", kind="none"), ["restart ollama.service"]),
        ({**plan("ollama", "backend"), "ollama": None}, ["stop backend.service", "start backend.service"]),
    ],
)
def test_order(wanted: dict[str, Any], log: list[str]) -> None:
    host = FakeHost()
    result = service_control.restart(wanted, host)
    assert host.log == log
    assert result["error"] is None
    for service in result["services"].values():
        assert service["pid_before"] in (11, 12)
        assert service["pid_after"] == host.active[service["unit"]]
        assert service["stopped_at"] < service["ready_at"]
        assert service["active_enter_timestamp"] == f"started as {service['pid_after']}"


def test_what_the_services_keep_is_asked_for_while_the_old_processes_are_there() -> None:
    class Asked(FakeHost):
        def never_show(self, services: Mapping[str, Any]) -> None:
            assert self.log == []
            super().never_show(services)

    host, wanted = Asked(), {**plan("ollama", "backend"), "private_files": ["/srv/chat/.env"]}
    service_control.restart(wanted, host)
    assert host.never_shown == [wanted]


def test_units_are_read_again_only_if_one_has_changed() -> None:
    host = FakeHost()
    host.needs_reload = {"ollama.service"}
    service_control.restart(plan("ollama"), host)
    assert host.log == ["daemon-reload", "restart ollama.service"]


def test_nothing_is_restarted_where_systemd_does_not_take_the_drop_in() -> None:
    host = FakeHost()
    host.never_reads = {"ollama.service": ("OLLAMA_NUM_PARALLEL", "2")}
    result = service_control.restart(plan("ollama", "backend"), host)
    assert host.log == ["daemon-reload"] and result["services"] == {}
    assert "systemd has OLLAMA_NUM_PARALLEL of ollama.service otherwise in memory" in result["error"]
    # What goes back has to run, whatever stands beside it.
    host.log.clear()
    assert service_control.restart(plan("ollama"), host, insist=False)["error"] is None
    assert host.log == ["daemon-reload", "restart ollama.service"]


def test_downtime_is_from_the_first_stop_to_the_last_answer() -> None:
    host = FakeHost()
    result = service_control.restart(plan("ollama", "backend"), host)
    services = result["services"]
    longest = services["backend"]["ready_at"] - services["backend"]["stopped_at"]
    assert result["downtime_s"] == pytest.approx(longest, abs=0.1)
    assert result["downtime_s"] >= 2 * service_control.STABLE_S


def test_ollama_that_ends_is_explained_by_its_errors_and_the_backend_is_not_left_stopped() -> None:
    host = FakeHost()
    host.broken = {"ollama.service"}
    host.lines = [
        'msg="server config" env="map[HTTPS_PROXY:http://u:secret@proxy error]"',
        "Listening on 127.0.0.1:11434",
        "Error: could not create directory",
    ]
    result = service_control.restart(plan("ollama", "backend"), host)
    assert "ollama.service" in result["error"]
    assert "failed" in result["error"] and "exit-code" in result["error"] and "exit status 7" in result["error"]
    assert "could not create directory" in result["error"]
    assert "Listening" not in result["error"] and "secret" not in result["error"]
    assert host.log[-1] == "start backend.service"
    assert result["services"]["ollama"]["pid_after"] is None


def test_the_exit_status_of_the_main_process_is_not_told_where_another_one_failed() -> None:
    class FailsBefore(FakeHost):
        def show(self, unit: str) -> dict[str, str]:
            return {**super().show(unit), "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "0"}

    host = FailsBefore()
    control = "ollama.service: Control process exited, code=exited, status=3/NOTIMPLEMENTED"
    host.lines = [control]
    told = unit_runtime.why_silent(host, "ollama.service")
    assert "exit status" not in told and told.endswith(f"its journal: {control}")


@pytest.mark.parametrize(
    ("started", "since"),
    [
        ("1000000000", 1000.0),  # an hour ago
        ("4540000000", 4000.0),  # a minute ago: what was said before may be why
        ("0", 4000.0),
        ("", 4000.0),
    ],
)
def test_why_a_unit_is_silent_is_read_since_its_last_start(started: str, since: float) -> None:
    class Silent(FakeHost):
        def show(self, unit: str) -> dict[str, str]:
            return {**super().show(unit), "InactiveExitTimestampMonotonic": started}

        def journal(self, unit: str, since: float) -> list[str]:
            asked.append(since)
            return ["Error: mkdir /data: permission denied"]

    asked: list[float] = []
    host = Silent()
    host.now = 4600.0
    assert "permission denied" in unit_runtime.why_silent(host, "ollama.service")
    assert asked == [since]


def test_ollama_that_never_answers_is_given_its_time_and_no_more() -> None:
    host = FakeHost()
    host.answers[f"{OLLAMA_URL}/api/version"] = None
    result = service_control.restart(plan("ollama"), host)
    assert f"{OLLAMA_URL}/api/version did not answer 200 within 60 s" in result["error"]
    assert "connection refused" in result["error"]
    assert 60 <= host.now - 1000 < 62


def test_an_answer_of_another_server_does_not_make_a_unit_ready() -> None:
    host = FakeHost()
    host.strangers = {OLLAMA_URL: "it is not ollama.service that answers, but the unit other.service"}
    result = service_control.restart(plan("ollama"), host)
    assert "it did not answer within 60 s: it is not ollama.service" in result["error"]
    assert (result["services"]["ollama"]["state"], result["services"]["ollama"]["ready_at"]) == ("failed", None)
    assert "ollama.service" in host.active  # it ran before


def test_what_was_stopped_and_does_not_get_ready_is_stopped_again() -> None:
    host = FakeHost()
    del host.active["ollama.service"]
    host.strangers = {OLLAMA_URL: "another one answers"}
    assert "another one answers" in service_control.restart(plan("ollama"), host)["error"]
    assert host.log == ["restart ollama.service", "stop ollama.service"]


def test_ollama_that_keeps_restarting_is_not_ready() -> None:
    class Restarting(FakeHost):
        def show(self, unit: str) -> dict[str, str]:
            self.active[unit] = int(self.now * 10)  # another process at each look
            return super().show(unit)

    result = service_control.restart(plan("ollama"), Restarting())
    assert "did not stay the same within 60 s" in result["error"]


def test_unhealthy_backend_is_explained_without_its_journal() -> None:
    host = FakeHost()
    host.answers[HEALTH_URL] = 503
    host.lines = ["error: password=hunter2"]
    result = service_control.restart(plan("backend"), host)
    assert f"{HEALTH_URL} did not answer 200 within 180 s (answered 503)" in result["error"]
    assert "journalctl -u backend.service" in result["error"]
    assert "hunter2" not in result["error"]


def test_a_backend_without_health_is_ready_when_it_runs() -> None:
    assert service_control.restart(plan("backend", health=None), FakeHost())["error"] is None


def test_a_command_is_found_stopped_and_started_as_a_transient_unit() -> None:
    host = FakeHost()
    host.pids = {50: "python3 main.py", 51: "python3 other.py"}
    result = service_control.restart(command_plan(), host)
    assert result["error"] is None
    assert host.log == [
        "signal 15 to 50",
        "run gpu-memory-backend.service as chat in /srv/chat: ['python3', 'my main.py', '-v']",
    ]
    assert result["services"]["backend"]["pid_before"] == 50
    assert result["services"]["backend"]["pid_after"] == host.active["gpu-memory-backend.service"]


def test_a_command_that_we_have_started_is_stopped_through_systemd() -> None:
    host = FakeHost()
    host.active["gpu-memory-backend.service"] = 60
    assert service_control.restart(command_plan(), host)["error"] is None
    assert host.log[0] == "stop gpu-memory-backend.service"


def test_a_command_that_ignores_sigterm_is_killed() -> None:
    host = FakeHost()
    host.pids = {50: "python3 main.py"}
    host.ignores_sigterm = True
    assert service_control.restart(command_plan(), host)["error"] is None
    assert host.log[:2] == ["signal 15 to 50", "signal 9 to 50"]
    assert host.now - 1000 >= unit_runtime.TERMINATE_S


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ({"process_match": "python("}, "backend.process_match = 'python('"),
        ({"command": "python 'main.py"}, "backend.command"),
        ({"command": " "}, "backend.command is empty"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(backend: dict[str, Any], says: str) -> None:
    with pytest.raises(ServiceError) as refused:
        service_control.check(command_plan(**backend))
    assert says in str(refused.value)


def test_whoever_waits_is_told_before_anything_stops_and_while_services_start() -> None:
    host = FakeHost()
    told: list[int] = []
    service_control.restart(plan("ollama", "backend"), host, alive=lambda: told.append(len(host.log)))
    assert told[0] == 0 and len(told) > 5


def test_a_run_that_does_not_hold_the_host_any_more_stops_nothing() -> None:
    host = FakeHost()

    def gone() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        service_control.restart(plan("ollama", "backend"), host, alive=gone)
    assert host.log == []


def test_a_backend_that_does_not_stop_is_told() -> None:
    host = FakeHost()
    host.refuses = {"stop backend.service": "backend.service did not stop within 100 s"}
    result = service_control.restart(plan("backend"), host)
    assert "backend.service did not stop within 100 s" in result["error"]


def test_a_unit_that_systemd_will_not_start_is_told_with_its_state() -> None:
    host = FakeHost()
    host.refuses = {"restart ollama.service": "Failed to restart ollama.service: Unit is masked."}
    error = service_control.restart(plan("ollama"), host)["error"]
    assert error.startswith("Failed to restart ollama.service: Unit is masked.. ollama.service is ")


def test_a_command_whose_processes_cannot_be_told_is_not_stopped_blindly() -> None:
    host = FakeHost()

    def denied(match: str, directory: str) -> list[int]:
        raise PermissionError(13, "Permission denied", "/srv/chat")

    host.find_processes = denied  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="cannot be told: /srv/chat: Permission denied"):
        service_control.restart(command_plan(), host)


def test_a_command_that_not_even_sigkill_ends_is_named() -> None:
    host = FakeHost()
    host.pids = {501: "python3 my main.py -v"}
    host.signal = lambda pid, number: host.log.append(f"signal {int(number)} to {pid}")  # type: ignore[method-assign]
    error = service_control.restart(command_plan(), host)["error"]
    assert error.startswith("the backend's process 501 does not end, not even by SIGKILL")
    assert [line for line in host.log if line.startswith("signal")] == ["signal 15 to 501", "signal 9 to 501"]


def test_a_command_runs_as_whom_its_directory_belongs_to(tmp_path: Path) -> None:
    host = FakeHost()
    os.chown(tmp_path, os.geteuid(), -1)
    service_control.restart(command_plan(user=None, directory=str(tmp_path)), host)
    owner = pwd.getpwuid(os.geteuid()).pw_name
    assert any(line.startswith(f"run {unit_runtime.TRANSIENT_UNIT} as {owner} in {tmp_path}: ") for line in host.log)
    assert unit_runtime._owner(str(tmp_path)) == owner


def test_a_directory_of_nobody_known_gives_its_number_and_a_missing_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert unit_runtime._owner(str(tmp_path)) == str(tmp_path.stat().st_uid)
    result = service_control.restart(command_plan(user=None, directory=str(tmp_path / "gone")), FakeHost())
    assert f"the backend's directory {tmp_path}/gone: No such file or directory" in result["error"]


def test_a_command_that_does_not_start_is_told_without_its_arguments() -> None:
    host = FakeHost()
    host.start_transient = lambda *_unused: "no such program"  # type: ignore[method-assign]
    error = service_control.restart(command_plan(command="/srv/run --password=hunter2"), host)["error"]
    assert error == "the backend's command /srv/run did not start in /srv/chat: no such program"


def found(**states: str) -> dict[str, Any]:
    facts = {"unit_file_state": "enabled", "dependents": []}
    return {name: {"active_state": state, **facts} for name, state in states.items()}


@pytest.mark.parametrize(
    ("states", "log", "ends"),
    [
        (
            {"ollama": "active", "backend": "active"},
            ["stop backend.service", "restart ollama.service", "start backend.service"],
            ("restarted", "restarted"),
        ),
        (
            {"ollama": "active", "backend": "inactive"},
            ["stop backend.service", "restart ollama.service"],
            ("restarted", "stopped"),
        ),
        (
            {"ollama": "failed", "backend": "inactive"},
            ["stop backend.service", "stop ollama.service"],
            ("stopped",) * 2,
        ),
        (
            {"ollama": "inactive", "backend": "active"},
            ["stop backend.service", "stop ollama.service", "start backend.service"],
            ("stopped", "restarted"),
        ),
        (
            {"ollama": "activating", "backend": "activating"},
            ["stop backend.service", "restart --no-block ollama.service", "start --no-block backend.service"],
            ("starting",) * 2,
        ),
        (
            {"ollama": "reloading"},  # and a backend of a plan that was kept by a release that did not ask
            ["stop backend.service", "restart ollama.service", "start backend.service"],
            ("restarted", "restarted"),
        ),
    ],
)
def test_each_service_is_left_as_it_was_found(states: dict[str, str], log: list[str], ends: tuple[str, str]) -> None:
    host = FakeHost()
    result = service_control.restart({**plan("ollama", "backend"), "found": found(**states)}, host)
    assert result["error"] is None
    assert host.log == log
    assert tuple(result["services"][name]["state"] for name in ("ollama", "backend")) == ends
    assert (result["downtime_s"] > 0) == ("restarted" in ends)


def test_what_was_starting_is_not_waited_for() -> None:
    host = FakeHost()
    host.broken = {"ollama.service", "backend.service"}
    states = found(ollama="activating", backend="activating")
    assert service_control.restart({**plan("ollama", "backend"), "found": states}, host)["error"] is None
    assert host.now == 1000


def test_an_old_process_that_serves_is_not_in_place_whichever_is_the_main_one() -> None:
    host = FakeHost()
    host.left = {"backend.service": [7]}
    back = plan("ollama", "backend")
    main = host.active["backend.service"]
    assert service_control.processes(back, host) == {"ollama": {host.active["ollama.service"]}, "backend": {main, 7}}
    assert service_control.out_of_place(back, host, {"backend": [7]}) == []  # a helper that outlives it
    host.listens = True
    assert service_control.out_of_place(back, host, {"backend": [7]}) == ["backend"]
    assert service_control.out_of_place(back, host, {"backend": [8]}) == []  # has ended
    assert service_control.out_of_place(back, host, {"backend": [main]}) == ["backend"]


def test_what_ran_unhealthy_is_in_place_once_it_runs() -> None:
    host = FakeHost()
    assert "unhealthy" not in service_control.states(plan("backend"), host)["backend"]
    host.answers[HEALTH_URL] = 503
    states = service_control.states(plan("backend"), host)
    assert states["backend"]["unhealthy"] is True and "unhealthy" not in states["ollama"]
    back = {**plan("ollama", "backend"), "found": states}
    result = service_control.restart(back, host)
    assert result["error"] is None and result["services"]["backend"]["state"] == "unhealthy"
    assert service_control.out_of_place(back, host, {}) == []
    host.broken = {"backend.service"}
    assert "backend.service" in (service_control.restart(back, host)["error"] or "")
    assert service_control.out_of_place(back, host, {}) == ["backend"]


def test_a_unit_that_systemd_starts_again_and_again_is_put_back_as_stopped() -> None:
    host = FakeHost()
    del host.active["ollama.service"]
    host.states = {"ollama.service": "activating"}  # auto-restart: no process, and no end
    stopped = {**plan("ollama"), "found": found(ollama="inactive")}
    assert service_control.started_since(stopped, host) == ["ollama"]
    assert service_control.restart(stopped, host)["error"] is None
    assert host.show("ollama.service")["ActiveState"] == "inactive"


@pytest.mark.parametrize("state", ["inactive", "failed"])
def test_a_unit_that_fails_when_it_is_stopped_is_failed_only_if_it_was(state: str) -> None:
    class FailsOnStop(FakeHost):
        def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
            problem = super().systemctl(*arguments, timeout_s=timeout_s)
            if arguments[0] == "stop":
                self.states[arguments[-1]] = "failed"
            return problem

    host = FailsOnStop()
    assert service_control.restart({**plan("ollama"), "found": found(ollama=state)}, host)["error"] is None
    assert host.show("ollama.service")["ActiveState"] == state


@pytest.mark.parametrize(
    ("starts", "pulls_in", "stopped"),
    [("ollama", "backend", "backend"), ("backend", "ollama", "ollama")],
)
def test_a_stopped_unit_stays_so_if_the_other_one_pulls_it_in(starts: str, pulls_in: str, stopped: str) -> None:
    host = FakeHost()
    host.pulls_in = {f"{starts}.service": f"{pulls_in}.service"}
    states = found(**{starts: "active", stopped: "inactive"})
    assert service_control.restart({**plan("ollama", "backend"), "found": states}, host)["error"] is None
    assert sorted(host.active) == [f"{starts}.service"]


def test_a_stopped_unit_that_does_not_stop_is_told() -> None:
    host = FakeHost()
    host.systemctl = lambda *_unused, **_options: ""  # type: ignore[method-assign]
    result = service_control.restart({**plan("backend"), "found": found(backend="failed")}, host)
    assert result["error"] == "backend.service was found failed and does not stop: it is active"
    assert result["services"]["backend"]["state"] == "failed"


def test_a_command_that_did_not_run_is_ended_whoever_started_it() -> None:
    host = FakeHost()
    assert service_control.states(command_plan(), host)["backend"]["active_state"] == "inactive"
    host.pids = {50: "python3 main.py"}
    stopped = {**command_plan(), "found": found(backend="inactive")}
    assert service_control.started_since(stopped, host) == ["backend"]
    assert service_control.restart(stopped, host)["error"] is None
    assert host.pids == {} and host.log == ["signal 15 to 50"]
    assert service_control.started_since(stopped, host) == []


def test_the_states_are_those_of_every_service_that_there_is() -> None:
    host = FakeHost()
    host.states = {"backend.service": "failed"}
    del host.active["backend.service"]
    both = found(ollama="active", backend="failed")
    assert service_control.states(plan("ollama"), host) == both
    assert service_control.states(plan("ollama", kind="none"), host) == {"ollama": both["ollama"]}


def test_only_what_restarts_counts_as_started_since() -> None:
    stopped = found(ollama="inactive", backend="inactive")
    assert service_control.started_since({**plan("ollama"), "found": stopped}, FakeHost()) == ["ollama"]
    assert service_control.started_since(plan("ollama"), FakeHost()) == []


SITE = {"unit": "site.service", "why": "PartOf=ollama.service"}


def with_site(of: str = "ollama.service") -> FakeHost:
    """A host with a unit that goes along with another one, and runs."""
    host = FakeHost()
    host.along = {of: ["site.service"]}
    host.active["site.service"] = 13
    return host


def test_what_went_along_with_a_stopped_backend_is_started_again() -> None:
    host = with_site("backend.service")
    assert service_control.states(plan(), host)["backend"]["dependents"] == [{**SITE, "why": "PartOf=backend.service"}]
    result = service_control.restart(plan("backend"), host)
    assert result["error"] is None
    assert host.log == ["stop backend.service", "start backend.service", "start site.service"]


def test_what_systemd_restarts_itself_is_only_awaited_and_no_downtime() -> None:
    host = with_site()
    result = service_control.restart(plan("ollama"), host)
    assert (result["error"], host.log) == (None, ["restart ollama.service"])
    assert host.active["site.service"] != 13
    assert result["downtime_s"] == service_control.restart(plan("ollama"), FakeHost())["downtime_s"]


def test_what_a_failed_restart_took_along_is_back_with_what_is_restored() -> None:
    host = with_site()
    before = service_control.states(plan("ollama"), host)
    host.broken = {"ollama.service"}
    assert "site" not in service_control.restart(plan("ollama"), host)["error"]
    host.active.pop("site.service", None)  # as systemd leaves one with Requires= and After=
    host.broken = set()
    host.log.clear()
    assert service_control.restart({**plan("ollama"), "found": before}, host)["error"] is None
    assert host.log == ["restart ollama.service", "start site.service"]


def test_what_does_not_come_back_is_told_with_what_takes_it_along() -> None:
    host = with_site()
    host.broken = {"site.service"}
    error = service_control.restart(plan("ollama"), host)["error"]
    assert error.startswith("site.service ran before and has PartOf=ollama.service, but is not back: site.service: ")
    assert error.endswith("journalctl -u site.service -n 50")


def test_what_goes_along_with_a_unit_that_is_to_rest_is_not_started() -> None:
    host = with_site()
    stopped = {**plan("ollama"), "found": found(ollama="inactive")}
    assert service_control.restart(stopped, host)["error"] is None
    assert "site.service" not in host.active


def test_a_backend_that_goes_along_with_ollama_is_no_other_unit() -> None:
    host = FakeHost()
    host.along = {"ollama.service": ["backend.service"]}
    assert service_control.restart(plan("ollama", "backend"), host)["error"] is None
    assert host.log == ["stop backend.service", "restart ollama.service", "start backend.service"]


NOT_STARTED: dict[str, tuple[dict[str, Any], str]] = {
    "masked": ({"load_state": "masked"}, "systemctl unmask ollama.service"),
    "gone": ({"load_state": "not-found"}, "the unit ollama.service is not-found on this host"),
    "a file": (
        {"missing": {"EnvironmentFile": ["/etc/default/ollama"]}},
        "EnvironmentFile=/etc/default/ollama, which is not there",
    ),
    "a directory": ({"missing": {"WorkingDirectory": ["/srv"]}}, "WorkingDirectory=/srv, which is not there"),
    "transient": ({"transient": True}, "ollama.service is a transient unit"),
}


@pytest.mark.parametrize(("lacks", "says"), NOT_STARTED.values(), ids=NOT_STARTED)
def test_what_would_not_start_again_is_not_stopped_and_the_other_one_restarts(lacks: dict[str, Any], says: str) -> None:
    host = FakeHost()
    host.lacks["ollama.service"] = lacks
    result = service_control.restart(plan("ollama", "backend"), host)
    assert host.active["ollama.service"] == 11 and says in result["error"]
    assert host.log == ["stop backend.service", "start backend.service"]
    assert {name: service["state"] for name, service in result["services"].items()} == {"backend": "restarted"}


def test_a_backend_that_would_not_start_again_is_not_stopped() -> None:
    host = FakeHost()
    host.load_states["backend.service"] = "masked"
    error = service_control.restart(plan("ollama", "backend"), host)["error"]
    assert host.active["backend.service"] == 12 and host.log == ["restart ollama.service"]
    assert "systemctl unmask backend.service. It was not restarted" in error
    host.no_directories = {"/srv/chat"}
    host.pids = {50: "python3 main.py"}
    assert "/srv/chat is missing" in service_control.restart(command_plan(), host)["error"] and 50 in host.pids


@pytest.mark.parametrize("state", ["not-found", "masked"])
def test_a_unit_that_is_gone_or_masked_counts_as_stopped_if_it_does_not_run(state: str) -> None:
    host = FakeHost()
    host.load_states["ollama.service"] = state
    del host.active["ollama.service"]
    result = service_control.restart({**plan("ollama", "backend"), "found": found(ollama="inactive")}, host)
    assert result["error"] is None
    assert {name: one["state"] for name, one in result["services"].items()} == {
        "ollama": "stopped",
        "backend": "restarted",
    }


@pytest.mark.parametrize("unit", ["ollama.service", "backend.service"])
def test_a_start_that_fails_while_the_old_process_is_going_is_tried_again_once_it_has_ended(unit: str) -> None:
    host = FakeHost()
    host.lingers = {unit: 7}
    result = service_control.restart(plan("ollama", "backend"), host)
    assert result["error"] is None and unit in host.active
    assert host.log[-2 if unit == "backend.service" else -3 :][0] == f"stop {unit}"


@pytest.mark.parametrize("unit", ["ollama.service", "backend.service"])
def test_an_answer_counts_once_the_old_process_that_listens_has_ended(unit: str) -> None:
    host = FakeHost()
    host.lingers, host.listens = {unit: 30}, True
    result = service_control.restart(plan("ollama", "backend"), host)
    assert result["error"] is None
    assert result["downtime_s"] >= 30


@pytest.mark.parametrize(("unit", "pid"), [("ollama.service", 11), ("backend.service", 12)])
def test_an_old_process_that_goes_on_for_good_is_told_by_its_pid_with_the_cure(unit: str, pid: int) -> None:
    host = FakeHost()
    host.lingers, host.listens = {unit: 1e6}, True
    error = service_control.restart(plan("ollama", "backend"), host)["error"]
    assert f"{unit}: it did not answer" in error and f"run kill {pid}" in error and "KillMode=control-group" in error
    assert unit in host.active


def test_an_old_process_that_takes_no_connections_is_no_matter() -> None:
    host = FakeHost()
    host.lingers, host.listens = {"backend.service": 1e6}, True
    host.listening = lambda pids: []  # type: ignore[method-assign]
    assert service_control.restart(plan("backend"), host)["error"] is None


def test_a_start_that_fails_by_itself_is_tried_once() -> None:
    host = FakeHost()
    host.broken = {"ollama.service"}
    service_control.restart(plan("ollama"), host)
    assert host.log == ["restart ollama.service"]


class Interrupted(FakeHost):
    """A host whose systemctl says of `at`, the first time, that it failed; `acts`: whether systemd goes on.

    `settles_s`: how long the unit has a job after that; half of that time systemd does not answer.
    """

    def __init__(self, at: str, acts: bool, *, settles_s: float = 5) -> None:
        super().__init__()
        self.at, self.acts, self.settles_s = at, acts, settles_s
        self.until = 0.0

    def systemctl(self, *arguments: str, timeout_s: float = 30) -> str:
        if " ".join(arguments) != self.at or self.until:
            return super().systemctl(*arguments, timeout_s=timeout_s)
        self.until = self.now + self.settles_s
        if self.acts:
            super().systemctl(*arguments, timeout_s=timeout_s)
        else:
            self.log.append(" ".join(arguments))
        return f"systemctl {arguments[0]}: Failed to wait for response: Connection reset by peer"

    def show(self, unit: str) -> dict[str, str]:
        if self.until <= self.now or unit != self.at.split()[-1]:
            return super().show(unit)
        facts = {**super().show(unit), "Job": "7"}
        return {} if self.now < self.until - self.settles_s / 2 else facts


@pytest.mark.parametrize("at", ["stop backend.service", "restart ollama.service", "start backend.service"])
@pytest.mark.parametrize("acts", [True, False])
def test_a_lost_connection_to_systemd_says_nothing_of_a_unit(at: str, acts: bool) -> None:
    host = Interrupted(at, acts)
    result = service_control.restart(plan("ollama", "backend"), host)
    assert result["error"] is None
    assert host.log.count(at) == (1 if acts else 2)  # nothing restarts twice
    assert host.invocations == {"ollama.service": 1, "backend.service": 1}


def test_a_job_that_does_not_end_by_the_deadline_is_told() -> None:
    host = Interrupted("restart ollama.service", True, settles_s=1000)
    error = service_control.restart(plan("ollama"), host)["error"]
    assert "Connection reset by peer" in error and host.log == ["restart ollama.service"]
    assert host.now < 1000 + unit_runtime.STOP_S + 10


def test_units_are_read_again_though_the_connection_to_systemd_was_lost() -> None:
    host = Interrupted("daemon-reload", False)
    host.needs_reload = {"ollama.service"}
    assert service_control.restart(plan("ollama"), host)["error"] is None
    assert host.log == ["daemon-reload", "daemon-reload", "restart ollama.service"]


def test_what_ends_the_jobs_of_a_unit_is_named_with_its_cure() -> None:
    class Host(FakeHost):
        def show(self, unit: str) -> dict[str, str]:
            return {**super().show(unit), "JobTimeoutUSec": "1s", "JobRunningTimeoutUSec": "infinity"}

    host = Host()
    host.refuses = {"restart ollama.service": "Job for ollama.service timed out"}
    error = service_control.restart(plan("ollama"), host)["error"]
    assert "timed out; it has JobTimeoutSec=1s, which ends a start or stop" in error and "give it more" in error
