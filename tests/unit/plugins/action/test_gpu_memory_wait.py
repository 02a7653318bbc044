"""Waiting for a load test: its files lie in a directory here, the commands are real, the clock is a fake."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.selo.gpu_memory.plugins.action import gpu_memory_wait
from ansible_collections.selo.gpu_memory.plugins.module_utils.core import waiting
from ansible_collections.selo.gpu_memory.plugins.module_utils.host.port import progress_file
from ansible_collections.selo.gpu_memory.tests.unit.plugins.action.run_action import Act

PROGRESS = {"elapsed_s": 2.0, "duration_s": 6.0, "used_mib": 9000, "max_used_mib": 12288, "requests": 1, "ok": 1}


class Host:
    """`later[seconds]`: what happens on the host once so much time has passed."""

    def __init__(self, directory: Path) -> None:
        (directory / "jobs").mkdir()
        self.progress, self.results = directory / "it's progress.json", directory / "jobs" / "job 1"
        self.results.write_text('{"started": 1, "finished": 0}')
        self.now, self.later = 100.0, dict[float, Callable[[], Any]]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.later if at <= self.now - 100]:
            self.later.pop(at)()

    def end(self, **result: Any) -> Callable[[], Any]:
        return lambda: self.results.write_text(json.dumps({"peak_used_mib": 11690, "changed": True, **result}))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host(tmp_path)
    clock = SimpleNamespace(monotonic=found.monotonic, sleep=found.sleep)
    monkeypatch.setattr(gpu_memory_wait, "time", clock)
    return found


def wait(act: Act, host: Host, wave_mates: int = 1, timeout_s: float = 120, **job: str) -> Any:
    variables = {"inventory_hostname": "gpu01", "ansible_play_batch": [f"gpu{n}" for n in range(wave_mates)]}
    files = {"progress_path": str(host.progress), "results_file": str(host.results), **job}
    return act("gpu_memory_wait", variables, timeout_s=timeout_s, wave=2, **files)


def test_the_result_of_the_load_is_the_tasks_and_nothing_is_left_behind(act: Act, host: Host) -> None:
    host.later = {6.0: host.end()}
    result = wait(act, host)
    assert (result["peak_used_mib"], result["failed"], result["breached"]) == (11690, False, False)
    assert result["changed"] is False
    assert host.now - 100 == 6
    assert not host.results.parent.exists() and not host.progress.exists()
    assert not Path(waiting.sign(str(host.progress))).exists()


def test_each_look_leaves_a_sign_for_the_load_test(act: Act, host: Host) -> None:
    signs = progress_file.Waiting(str(host.progress))
    seen = []
    host.later = {float(second): lambda: seen.append(signs.has_come()) for second in range(1, 6)} | {6.0: host.end()}
    wait(act, host)
    assert seen == [True] * 5


def test_a_breach_is_a_finding_and_no_failure_yet(act: Act, host: Host) -> None:
    host.later = {2.0: host.end(failed=True, msg="GPU 0 reached 13000 MiB")}
    result = wait(act, host)
    assert (result["failed"], result["breached"], result["msg"]) == (False, True, "GPU 0 reached 13000 MiB")


def test_memory_is_shown_while_the_load_runs(act: Act, host: Host) -> None:
    for second in range(1, 7):
        figures = {**PROGRESS, "elapsed_s": second}
        host.later[second] = lambda figures=figures: host.progress.write_text(json.dumps(figures))
    host.later[7] = host.end()
    wait(act, host)
    assert 2 <= len(act.shown) <= 4 and all("gpu01" in text for text, _unused in act.shown)


@pytest.mark.parametrize(("wave_mates", "seconds", "commands"), [(3, 0, 7), (4, 1, 6), (16, 4, 2), (1000, 15, 1)])
def test_in_a_large_wave_a_command_waits_on_the_host_for_the_end(
    act: Act, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wave_mates: int, seconds: int, commands: int
) -> None:
    """The load test ends while the host sleeps for the sixth time, or the controller does."""
    host.progress.write_text(json.dumps(PROGRESS))
    os.utime(host.progress, (1, 1))
    os.utime(host.results, (0, 0))
    slept, ended = tmp_path / "slept", tmp_path / "ended"
    slept.touch()
    ended.write_text(json.dumps({"peak_used_mib": 11690}))
    sleep = tmp_path / "sleep"
    sleep.write_text(f'#!/bin/sh\necho >> {slept}\n[ $(wc -l < {slept}) -lt 6 ] || cp {ended} "{host.results}"\n')
    sleep.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    host.later = {6.0: host.end()}
    assert wait(act, host, wave_mates)["peak_used_mib"] == 11690
    polls = act.connection.commands[:-1]
    assert all(f"-ge {seconds} " in command for command in polls)
    assert len(polls) == commands


def test_a_connection_that_is_lost_for_a_moment_is_no_failure(act: Act, host: Host) -> None:
    host.later, act.connection.lost = {25.0: host.end()}, 20
    assert wait(act, host)["failed"] is False


def test_a_connection_that_stays_lost_is_one(act: Act, host: Host) -> None:
    act.connection.lost = 1000
    result = wait(act, host)
    assert (result["failed"], result["lost_connection"]) == (True, True)
    assert result["msg"] == "lost the connection: timed out"
    assert 30 < host.now - 100 < 35


def test_a_load_test_that_has_fallen_silent_was_ended(act: Act, host: Host) -> None:
    host.progress.write_text(json.dumps(PROGRESS))
    result = wait(act, host)
    assert result == {"failed": True, "msg": "the load test has been silent for 60 s: it was ended there"}
    assert not host.progress.exists()


def test_one_that_goes_on_for_ever_is_not_waited_for(act: Act, host: Host) -> None:
    for second in range(1, 60):
        host.later[second] = lambda second=second: host.progress.write_text(json.dumps({**PROGRESS, "ok": second}))
    assert wait(act, host, timeout_s=20)["msg"] == "the load test did not end within 20 s"


def test_half_a_file_is_waited_for(act: Act, host: Host) -> None:
    host.later = {1.0: lambda: host.results.write_text('{"peak_used'), 2.0: host.end()}
    assert wait(act, host)["peak_used_mib"] == 11690


@pytest.mark.parametrize("ends", [True, False])
def test_what_a_job_that_was_killed_has_left_is_taken_away(act: Act, host: Host, tmp_path: Path, ends: bool) -> None:
    headers, job = tmp_path / "gpu-memory-load.x", tmp_path / "ansible-tmp-1"
    job.mkdir()
    (job / "AnsiballZ_gpu_memory_assert.py").write_text("")
    headers.write_text("{}")
    host.later = {2.0: host.end()} if ends else {}
    found = wait(act, host, headers_path=str(headers), tmpdir=str(job))
    assert found["failed"] is not ends
    assert (headers.exists(), job.exists()) == (ends, ends)  # one that has ended has tidied up by itself
