# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One story of a rollout in waves: a bad canary, then a bad host in the second wave, then all good, then nothing to do.

The tests build on each other, in this order, on the same hosts; FLEET_HOSTS says how many (16).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.faults.table import on_new_settings
from tests.integration.fleet import rollout
from tests.integration.fleet.rollout import HOSTS, Fleet

NAMES = [f"gpu{number:02d}" for number in range(1, HOSTS + 1)]
SECOND_WAVE = NAMES[1 : 1 + max(1, HOSTS // 4)]
LATER = NAMES[1 + len(SECOND_WAVE) :]
CANARY, BAD = NAMES[0], SECOND_WAVE[-1]
BREAK = on_new_settings("selo-backend", "ExecStartPre", "exit 4")
MEND = "rm -r /etc/systemd/system/selo-backend.service.d; systemctl daemon-reload; systemctl reset-failed"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    rollout.up()
    yield Fleet(tmp_path_factory.mktemp("fleet"))
    rollout.down()


@pytest.mark.short
def test_a_bad_canary_leaves_all_others_untouched(fleet: Fleet) -> None:
    fleet.host(CANARY).read(BREAK)
    before = fleet.look()
    run = fleet.run("apply-stable.yml")
    after = fleet.look()
    assert run.status != 0
    assert run.verdicts() == {CANARY: "rolled_back", **dict.fromkeys(NAMES[1:], "untouched")}
    assert after[CANARY].picture == before[CANARY].picture
    for name in NAMES[1:]:
        assert after[name] == before[name]
        assert run.records[name]["reason"] == f"wave 1 closed the gate: {CANARY} rolled_back"
    for name in NAMES:
        assert f"\n{name}  stable  " in run.output, f"the summary does not name {name}"
    fleet.host(CANARY).read(MEND)


def test_a_bad_host_of_the_second_wave_is_put_back_alone_and_stops_the_third(fleet: Fleet) -> None:
    fleet.host(BAD).read(BREAK)
    before = fleet.look()
    run = fleet.run("apply-stable.yml")
    after = fleet.look()
    assert run.status != 0
    good = [CANARY, *(name for name in SECOND_WAVE if name != BAD)]
    assert run.verdicts() == {
        **dict.fromkeys(good, "pass"),
        BAD: "rolled_back",
        **dict.fromkeys(LATER, "untouched"),
    }
    assert after[BAD].picture == before[BAD].picture
    assert all('"proof"' in after[name].proof for name in good)
    assert {name: after[name] for name in LATER} == {name: before[name] for name in LATER}
    # It was back before the others had their load test: a bad host does not wait for good ones.
    mates = [run.records[name]["load"]["started_epoch"] for name in good if name != CANARY]
    assert all(run.records[BAD]["restored"]["at"] < started for started in mates)
    fleet.host(BAD).read(MEND)


def test_running_again_goes_on_where_it_stopped(fleet: Fleet) -> None:
    before = fleet.look()
    run = fleet.run("apply-stable.yml")
    after = fleet.look()
    assert (run.status, run.verdicts()) == (0, dict.fromkeys(NAMES, "pass"))
    for name in [CANARY, *(name for name in SECOND_WAVE if name != BAD)]:
        assert after[name] == before[name], f"{name} was proven already"
        assert not run.records[name]["acted"]


def test_a_run_with_nothing_to_do_does_nothing(fleet: Fleet) -> None:
    before = fleet.look()
    run = fleet.run("apply-stable.yml")
    assert (run.status, run.verdicts()) == (0, dict.fromkeys(NAMES, "pass"))
    assert run.changed() == dict.fromkeys(NAMES, 0)
    assert fleet.look() == before


def test_a_wave_has_more_load_tests_at_once_than_there_are_forks(fleet: Fleet) -> None:
    forks = max(1, HOSTS // 5)
    variables = {"gpu_memory_batches": "100%", "gpu_memory_verify": "always", "gpu_memory_load_requests": 60}
    run = fleet.run("apply-stable.yml", f"--forks={forks}", **variables)
    assert (run.status, run.verdicts()) == (0, dict.fromkeys(NAMES, "pass"))
    loads = [record["load"] for record in run.records.values()]
    at_once = max(
        sum(each["started_epoch"] <= load["started_epoch"] < each["finished_epoch"] for each in loads) for load in loads
    )
    print(f"figure: {at_once} of {len(loads)} load tests at once with {forks} forks")
    assert at_once > forks
