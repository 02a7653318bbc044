# Copyright: (c) 2026, the selo.gpu_memory authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role in one's own playbook, on a host that is proven and one that is refused, as docs/own-playbook.md says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.faults import fault_lab
from tests.integration.faults.fault_lab import DROP_INS, KEPT, PICTURE, ROOT, Host

LAB = "own-playbook-test"
GOOD, BAD = "gpu01", "gpu02"
MODEL, ABSENT = "llama3.2:3b-instruct-q8_0", "absent:1b"
MODELS = f"{{{{ ['{MODEL}' if inventory_hostname == '{GOOD}' else '{ABSENT}'] }}}}"
ROLE = "selo.gpu_memory.gpu_memory"
LET_IN = {"name": "Let users in", "ansible.builtin.debug": {"msg": "users are let in on {{ inventory_hostname }}"}}
RUN_S = 400
QUESTION = re.compile(rb"TASK: (?:\S+ : )?([^\n]+?) \(N\)o/\(y\)es/\(c\)ontinue: \Z")

Task = dict[str, Any]


def role(how: str = "import_role", **keywords: Any) -> Task:
    """The role as a task, by `import_role` or `include_role`."""
    return {"name": "Bring GPU memory to its profile", f"ansible.builtin.{how}": {"name": ROLE}, **keywords}


def play(*tasks: Task, **keywords: Any) -> dict[str, Any]:
    variables = {"gpu_memory_models": MODELS, **keywords.pop("vars", {})}
    everywhere = {"hosts": f"{GOOD},{BAD}", "become": True, "gather_facts": False, "vars": variables}
    return {**everywhere, **keywords, "tasks": list(tasks)}


@dataclass(frozen=True)
class Run:
    status: int
    output: str
    records: dict[str, dict[str, Any]]

    def let_in(self, host: str) -> bool:
        return f"users are let in on {host}" in self.output

    def recap(self, host: str, counter: str) -> int:
        found = re.search(rf"^{host} +:.* {counter}=(\d+)", self.output, re.M)
        assert found, self.output
        return int(found[1])


@dataclass(frozen=True)
class Fleet:
    """Two hosts of a lab, and a directory for the records of a test."""

    hosts: dict[str, Host]
    directory: Path

    def started(self, *plays: dict[str, Any], arguments: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        playbook = self.directory / "site.yml"
        playbook.write_text(json.dumps(plays))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = json.dumps({"gpu_memory_report_dir": str(self.directory / "reports")})
        command = [program, "-i", str(self.hosts[GOOD].inventory), str(playbook), "-e", settings, *arguments]
        environment = {**os.environ, "NO_COLOR": "1", "ANSIBLE_LOCAL_TEMP": str(self.directory / "tmp")}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)

    def ended(self, run: subprocess.Popen[bytes], said: bytes) -> Run:
        output = said.decode()
        print(output)
        records = {path.stem: json.loads(path.read_text()) for path in self.directory.glob("reports/gpu*.json")}
        return Run(run.wait(), output, records)

    def run(self, *plays: dict[str, Any], arguments: tuple[str, ...] = ()) -> Run:
        """A run to its end, with nobody to answer."""
        run = self.started(*plays, arguments=arguments)
        return self.ended(run, run.communicate(timeout=RUN_S)[0])

    def stepped(self, wanted: dict[str, Any], left_out: str | None = None) -> Run:
        """A run with `--step` in which every task is done but that whose name begins with `left_out`."""
        run, said = self.started(wanted, arguments=("--step",)), b""
        deadline = threading.Timer(RUN_S, run.kill)
        deadline.start()
        assert run.stdin and run.stdout
        while chunk := os.read(run.stdout.fileno(), 65536):
            said += chunk
            asked = QUESTION.search(said)
            if asked:
                run.stdin.write(b"n\n" if left_out and asked[1].decode().startswith(left_out) else b"y\n")
                run.stdin.flush()
        deadline.cancel()
        return self.ended(run, said)

    def pictures(self) -> list[str]:
        return [host.read(PICTURE) for host in self.hosts.values()]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Host]]:
    """Both are up, and the good one is proven already: what follows is quick."""
    fault_lab.lab("up", "2", name=LAB, LAB_BACKEND="none", LAB_SPEEDUP="10")
    hosts = {name: Host(name, LAB) for name in (GOOD, BAD)}
    done = Fleet(hosts, tmp_path_factory.mktemp("first")).run(play(role(), hosts=GOOD))
    assert done.status == 0 and done.records[GOOD]["verdict"] == "pass", done.output
    yield hosts
    fault_lab.lab("down", name=LAB)


@pytest.fixture
def fleet(hosts: dict[str, Host], tmp_path: Path) -> Fleet:
    return Fleet(hosts, tmp_path)


# --- a bad host -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["import_role", "include_role"])
def test_a_bad_host_fails_and_the_good_one_goes_on(fleet: Fleet, how: str) -> None:
    done = fleet.run(play(role(how), LET_IN, gather_facts=how == "include_role"))
    assert done.status == 2
    assert done.let_in(GOOD) and not done.let_in(BAD)
    assert {name: record["verdict"] for name, record in done.records.items()} == {GOOD: "pass", BAD: "refused"}
    assert (done.recap(BAD, "failed"), done.recap(GOOD, "failed"), done.recap(GOOD, "changed")) == (1, 0, 0)
    # One task says it, with the cause and the cure.
    assert done.output.count(f"fatal: [{BAD}]") == 1 and done.recap(BAD, "rescued") == 0
    assert f"run: ollama pull {ABSENT}" in done.output.replace("\n        ", " ")


def test_gpu_memory_fail_false_leaves_the_host_in_the_play(fleet: Fleet) -> None:
    judged = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} ended {{ gpu_memory_result.verdict }}"}}
    done = fleet.run(play(role(vars={"gpu_memory_fail": False}), judged))
    assert done.status == 0
    assert f"{BAD} ended refused" in done.output and f"{GOOD} ended pass" in done.output


def test_any_errors_fatal_ends_the_run_for_all(fleet: Fleet) -> None:
    done = fleet.run(play(role(), LET_IN, any_errors_fatal=True))
    assert done.status == 2 and not done.let_in(GOOD)
    # What the role does with each host it does to its end.
    assert {name: record["verdict"] for name, record in done.records.items()} == {GOOD: "pass", BAD: "refused"}


@pytest.mark.parametrize(("percentage", "goes_on"), [(49, False), (50, True)])
def test_max_fail_percentage_of_a_batch(fleet: Fleet, percentage: int, goes_on: bool) -> None:
    done = fleet.run(play(role(), LET_IN, serial=2, max_fail_percentage=percentage))
    assert done.status == 2 and done.let_in(GOOD) == goes_on


@pytest.mark.parametrize("allowed", [0, 100])
def test_a_bad_first_batch_leaves_the_next_one_untouched(fleet: Fleet, allowed: int) -> None:
    limit = ("-e", f"gpu_memory_max_fail_percentage={allowed}")
    batches = play(role(ignore_errors=True), LET_IN, hosts=f"{BAD},{GOOD}", serial=1)
    done = fleet.run(batches, arguments=limit)
    assert done.status == 0  # ignored
    assert done.records[GOOD]["verdict"] == ("pass" if allowed else "untouched")
    assert (done.recap(BAD, "ignored"), done.recap(GOOD, "ignored")) == (1, 0 if allowed else 1)


def test_users_are_not_let_in_where_a_closed_gate_left_the_host_untouched(fleet: Fleet) -> None:
    told = {"ansible.builtin.debug": {"msg": "rescued {{ inventory_hostname }}: {{ gpu_memory_result.reason }}"}}
    block = {"name": "Try", "block": [role(), LET_IN], "rescue": [told]}
    done = fleet.run(play(block, hosts=f"{BAD},{GOOD}", serial=1))
    assert not done.let_in(BAD) and not done.let_in(GOOD)
    assert f"rescued {GOOD}: wave 1 closed the gate: {BAD} refused" in done.output


def test_rescue_around_the_role_has_the_result(fleet: Fleet) -> None:
    told = {"ansible.builtin.debug": {"msg": "rescued {{ inventory_hostname }}: {{ gpu_memory_result.reason }}"}}
    done = fleet.run(play({"name": "Try", "block": [role()], "rescue": [told]}, LET_IN))
    assert done.status == 0 and done.let_in(BAD) and done.let_in(GOOD)
    assert f"rescued {BAD}: the model {ABSENT} is not on this host" in done.output.replace("\n        ", " ")
    assert f"rescued {GOOD}" not in done.output
    assert done.records[BAD]["verdict"] == "refused"


def test_where_no_report_can_be_written_a_host_is_refused_and_stays_as_it_is(fleet: Fleet) -> None:
    (fleet.directory / "file").touch()
    elsewhere = ("-e", f"gpu_memory_report_dir={fleet.directory / 'file'}")
    before = fleet.pictures()
    done = fleet.run(play(role(), LET_IN, hosts=GOOD, vars={"gpu_memory_profile": "conservative"}), arguments=elsewhere)
    said = " ".join(done.output.split())
    assert done.status == 2 and not done.let_in(GOOD) and done.recap(GOOD, "changed") == 0
    assert f"refused: gpu_memory_report_dir: on the controller {fleet.directory}/file cannot be written" in said
    assert "set it to a directory with room" in said and f"{GOOD}.json" not in said
    assert fleet.pictures() == before


# --- strategies, tags, parts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_each_strategy_fails_the_bad_host_and_reports_once(fleet: Fleet, strategy: str) -> None:
    report = {"ansible.builtin.import_role": {"name": ROLE, "tasks_from": "report"}}
    done = fleet.run(
        play(role(vars={"gpu_memory_fail": False}), strategy=strategy), play(report, strategy=strategy, become=False)
    )
    assert done.status == 0
    assert len(re.findall(rf"^{GOOD}  stable  PASS", done.output, re.M)) == 1
    assert len(re.findall(rf"^{BAD}  stable  REFUSED", done.output, re.M)) == 1
    done = fleet.run(play(role(), LET_IN, strategy=strategy))
    assert done.status == 2 and done.let_in(GOOD) and not done.let_in(BAD)


@pytest.mark.parametrize(
    ("how", "arguments", "runs"),
    [
        ("import_role", ("--tags", "gpu_memory_apply"), False),  # there is none
        ("import_role", ("--skip-tags", "gpu_memory_apply"), True),
        ("import_role", ("--tags", "memory"), True),
        ("import_role", ("--skip-tags", "memory"), False),
        ("include_role", ("--tags", "memory"), True),
        ("include_role", ("--skip-tags", "memory"), False),
    ],
)
def test_tags_take_the_role_whole_or_not_at_all(fleet: Fleet, how: str, arguments: tuple[str, str], runs: bool) -> None:
    tagged = role(how, tags=["memory"])
    if how == "include_role":
        tagged["ansible.builtin.include_role"]["apply"] = {"tags": ["memory"]}
    done = fleet.run(play(tagged), arguments=arguments)
    assert "is undefined" not in done.output
    assert done.status == (2 if runs else 0)
    assert {name: record["verdict"] for name, record in done.records.items()} == (
        {GOOD: "pass", BAD: "refused"} if runs else {}
    )


@pytest.mark.parametrize("first", ["Read the host", "Conclude and write the record"])
def test_a_role_cannot_be_begun_in_the_middle(fleet: Fleet, first: str) -> None:
    before = fleet.pictures()
    done = fleet.run(play(role(), LET_IN), arguments=("--start-at-task", first))
    assert f'No matching task "{first}" found' in done.output and not done.let_in(GOOD)
    assert done.records == {} and fleet.pictures() == before


@pytest.mark.parametrize(
    ("how", "first"), [("import_role", "Apply the profile"), ("include_role", "Bring GPU memory to its profile")]
)
def test_a_run_can_begin_with_the_role_as_a_whole(fleet: Fleet, how: str, first: str) -> None:
    never = {"ansible.builtin.fail": {"msg": "this was to be left out"}}
    done = fleet.run(play(never, role(how), LET_IN, hosts=GOOD), arguments=("--start-at-task", first))
    assert done.status == 0 and done.let_in(GOOD) and done.records[GOOD]["verdict"] == "pass"


@pytest.mark.parametrize("left_out", ["Check what was declared", "Begin, as one that is lost"])
def test_a_role_whose_beginning_was_left_out_writes_nothing_and_says_so(fleet: Fleet, left_out: str) -> None:
    before = fleet.pictures()
    done = fleet.stepped(play(role(), LET_IN, hosts=GOOD), left_out=left_out)
    assert done.status == 2 and not done.let_in(GOOD)
    assert "begun in the middle" in done.output.replace("\n        ", " ")
    assert done.records == {} and fleet.pictures() == before


def test_without_the_kept_state_nothing_is_written(fleet: Fleet) -> None:
    before = fleet.pictures()
    wanted = play(role(), LET_IN, hosts=GOOD, vars={"gpu_memory_profile": "conservative"})
    done = fleet.stepped(wanted, left_out="Keep the present state")
    assert done.status == 2 and not done.let_in(GOOD)
    assert "a part of the role was left out" in done.output.replace("\n        ", " ")
    assert done.records[GOOD]["verdict"] == "fail" and fleet.pictures() == before


def test_step_through_the_whole_role(fleet: Fleet) -> None:
    done = fleet.stepped(play(role(), LET_IN, hosts=GOOD))
    assert done.status == 0 and done.let_in(GOOD) and done.records[GOOD]["verdict"] == "pass"


def test_step_with_nobody_to_answer_writes_nothing(fleet: Fleet) -> None:
    before = fleet.pictures()
    done = fleet.run(play(role(), LET_IN, hosts=GOOD), arguments=("--step",))
    assert not done.let_in(GOOD) and done.records == {} and fleet.pictures() == before


# --- when -------------------------------------------------------------------------------------------------------------

ONLY_GOOD, ONLY_BAD = (f"inventory_hostname == '{host}'" for host in (GOOD, BAD))
REPORT = {"ansible.builtin.import_role": {"name": ROLE, "tasks_from": "report"}}


@pytest.mark.parametrize("strategy", ["linear", "free"])
@pytest.mark.parametrize("how", ["import_role", "include_role", "roles"])
def test_a_first_host_that_when_leaves_out_is_left_alone_and_the_next_one_proven(
    fleet: Fleet, how: str, strategy: str
) -> None:
    wanted = play(hosts=f"{BAD},{GOOD}", strategy=strategy)
    if how == "roles":
        wanted |= {"roles": [{"role": ROLE, "when": ONLY_GOOD}], "post_tasks": [LET_IN]}
    else:
        wanted["tasks"] = [role(how, when=ONLY_GOOD), LET_IN]
    done = fleet.run(wanted, play(REPORT, hosts=f"{BAD},{GOOD}", become=False))
    assert done.status == 0 and done.let_in(GOOD) and done.let_in(BAD)
    assert {name: record["verdict"] for name, record in done.records.items()} == {GOOD: "pass"}


@pytest.mark.parametrize("how", ["import_role", "include_role"])
def test_a_batch_of_which_no_host_is_meant_is_no_wave(fleet: Fleet, how: str) -> None:
    done = fleet.run(play(role(how, when=ONLY_GOOD), LET_IN, hosts=f"{BAD},{GOOD}", serial=1))
    assert done.status == 0 and done.let_in(GOOD) and done.let_in(BAD)
    assert {name: (record["verdict"], record["wave"]) for name, record in done.records.items()} == {GOOD: ("pass", 1)}


@pytest.mark.parametrize("how", ["import_role", "include_role"])
def test_the_result_of_a_use_stands_where_the_next_use_is_for_another_host(fleet: Fleet, how: str) -> None:
    kept_in = {"gpu_memory_fail": False}
    uses = role(how, when=ONLY_GOOD, vars=kept_in), role(how, when=ONLY_BAD, vars=kept_in)
    judged = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} ended {{ gpu_memory_result.verdict }}"}}
    done = fleet.run(play(*uses, judged), play(REPORT, become=False))
    assert done.status == 0
    assert f"{GOOD} ended pass" in done.output and f"{BAD} ended refused" in done.output
    assert f"{GOOD}  stable  PASS" in done.output and f"{BAD}  stable  REFUSED" in done.output


def test_a_bad_wave_closes_the_gate_whatever_when_leaves_out_later(fleet: Fleet) -> None:
    """The first host's result outlives a second use that is not for it."""
    kept_in = {"gpu_memory_fail": False}
    uses = role(when=ONLY_BAD, vars=kept_in), role(when=ONLY_GOOD, vars=kept_in)
    done = fleet.run(play(*uses, hosts=f"{BAD},{GOOD}", serial=1))
    assert {name: record["verdict"] for name, record in done.records.items()} == {GOOD: "untouched", BAD: "refused"}


def test_a_host_that_is_lost_before_the_role_closes_the_gate_and_one_that_is_not_meant_does_not(fleet: Fleet) -> None:
    inventory = fleet.directory / "gone.yml"
    inventory.write_text(json.dumps({"all": {"hosts": {"gone": {"ansible_host": "127.0.0.1", "ansible_port": 1}}}}))
    ping = {"ansible.builtin.ping": {}}
    batches = play(ping, role(when=f"inventory_hostname != '{BAD}'"), hosts=f"gone,{BAD},{GOOD}", serial=2)
    done = fleet.run(batches, arguments=("-i", str(inventory)))
    assert done.records[GOOD]["reason"] == "wave 1 closed the gate: gone lost"
    assert done.status != 0 and list(done.records) == [GOOD]


@pytest.mark.parametrize("earlier_play", [False, True], ids=["in this play", "in an earlier play"])
def test_a_host_that_some_task_has_failed_before_the_role_is_of_no_wave(fleet: Fleet, earlier_play: bool) -> None:
    """The other host of its batch is the good one by another name."""
    how = ("ansible_host", "ansible_ssh_private_key_file", "ansible_ssh_common_args")
    address = {name: f"{{{{ hostvars['{GOOD}'].{name} }}}}" for name in how}
    inventory = fleet.directory / "also.yml"
    inventory.write_text(json.dumps({"all": {"hosts": {"also": address}}}))
    variables = {"gpu_memory_models": [MODEL], "gpu_memory_backend": "none"}
    refuse = {"ansible.builtin.fail": {"msg": "not today"}, "when": ONLY_BAD}
    batches = play(refuse, role(), hosts=f"{BAD},also,{GOOD}", serial=2, vars=variables)
    if earlier_play:
        batches["tasks"].remove(refuse)
    before = [play(refuse, hosts="all", become=False)] if earlier_play else []
    report = play(REPORT, hosts=f"{BAD},also,{GOOD}", become=False)
    done = fleet.run(*before, batches, report, arguments=("-i", str(inventory)))
    assert {name: (record["verdict"], record["wave"]) for name, record in done.records.items()} == {GOOD: ("pass", 2)}
    assert f"no record    {BAD}" in done.output and done.status == 2


def test_a_when_that_looks_at_the_result_works_by_include_and_is_refused_by_import(fleet: Fleet) -> None:
    first = role(vars={"gpu_memory_models": [ABSENT], "gpu_memory_fail": False})
    again = "not gpu_memory_result.ok"
    done = fleet.run(play(first, role("include_role", when=again), LET_IN, hosts=GOOD))
    assert done.status == 0 and done.let_in(GOOD) and done.records[GOOD]["verdict"] == "pass"
    done = fleet.run(play(first, role(when=again), LET_IN, hosts=GOOD))
    assert done.status == 2 and not done.let_in(GOOD)
    assert "use include_role with that `when`" in done.output.replace("\n        ", " ")


def test_a_loop_over_the_role_is_as_many_uses(fleet: Fleet) -> None:
    looped = role("include_role", loop=["conservative", "stable"], vars={"gpu_memory_profile": "{{ item }}"})
    profile = {"ansible.builtin.debug": {"msg": "decided for {{ gpu_memory_result.profile }}"}}
    done = fleet.run(play(looped, profile, hosts=GOOD), arguments=("--check",))
    assert done.status == 0 and "decided for stable" in done.output
    assert done.output.count("Decide what to do") == 2


# --- check mode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["play", "import_role", "include_role"])
def test_check_mode_of_a_play_or_a_task_says_what_would_be_done_and_does_nothing(fleet: Fleet, where: str) -> None:
    task = role("include_role" if where == "include_role" else "import_role")
    wanted = play(task, hosts=GOOD, vars={"gpu_memory_profile": "conservative"})
    said = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }}: {{ gpu_memory_result.reason }}"}}
    wanted["tasks"].append(said)
    if where == "include_role":
        task["ansible.builtin.include_role"]["apply"] = {"check_mode": True}
    else:
        (wanted if where == "play" else task)["check_mode"] = True
    before = fleet.pictures()
    done = fleet.run(wanted)
    assert done.status == 0 and f"{GOOD}: check mode; a run would write {DROP_INS}" in done.output
    assert done.records == {} and fleet.pictures() == before


@pytest.mark.parametrize("verb", ["verify", "plan", "tune", "status", "rollback", "remove"])
def test_every_entry_point_heeds_the_check_mode_of_a_play(fleet: Fleet, verb: str) -> None:
    task = {"ansible.builtin.import_role": {"name": ROLE, "tasks_from": verb}}
    before, kept = fleet.pictures(), fleet.hosts[GOOD].read(f"find {KEPT} -type f | sort")
    done = fleet.run(play(task, hosts=GOOD, check_mode=True, vars={"gpu_memory_tune_model": MODEL}))
    assert done.status == 0 and done.records == {}
    assert verb == "status" or f"{GOOD}: " not in done.output  # it does not say what is not so
    assert (fleet.pictures(), fleet.hosts[GOOD].read(f"find {KEPT} -type f | sort")) == (before, kept)


def test_check_mode_false_on_the_role_does_it_under_check(fleet: Fleet) -> None:
    wanted = play(role(check_mode=False), hosts=GOOD, vars={"gpu_memory_verify": "always"})
    done = fleet.run(wanted, arguments=("--check",))
    assert done.status == 0 and done.records[GOOD]["verdict"] == "pass"
    assert done.records[GOOD]["load"]["failed"] == 0


@pytest.mark.parametrize("verify", ["changed", "always"])
def test_check_mode_on_a_host_that_is_right_foretells_no_change(fleet: Fleet, verify: str) -> None:
    done = fleet.run(play(role(), hosts=GOOD, vars={"gpu_memory_verify": verify}), arguments=("--check",))
    assert done.status == 0 and done.recap(GOOD, "changed") == 0


# --- more than once, elsewhere, with variables ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["import_role", "include_role"])
def test_a_second_use_in_a_run_begins_anew(fleet: Fleet, how: str) -> None:
    first = {"name": "Try", "block": [role(how, vars={"gpu_memory_models": [ABSENT]})], "rescue": [LET_IN]}
    done = fleet.run(play(first, role(how), hosts=GOOD))
    assert done.status == 0 and done.let_in(GOOD)
    assert (done.records[GOOD]["verdict"], done.records[GOOD]["reason"]) == ("pass", None)
    done = fleet.run(play(role(how), first, role(how, vars={"gpu_memory_models": [ABSENT]}), hosts=GOOD))
    assert done.status == 2 and done.records[GOOD]["verdict"] == "refused"


def test_a_second_use_for_another_profile_is_proven_by_itself(fleet: Fleet) -> None:
    profile = {"ansible.builtin.debug": {"msg": "{{ gpu_memory_result.profile }} {{ gpu_memory_result.verdict }}"}}
    other = role("include_role", vars={"gpu_memory_profile": "conservative"})
    done = fleet.run(play(other, profile, role("include_role"), profile, hosts=GOOD))
    assert done.status == 0
    assert re.findall(r"msg: (\w+ pass)", done.output) == ["conservative pass", "stable pass"]


def test_delegated_to_another_host_all_of_it_is_done_there(fleet: Fleet) -> None:
    block = {"name": "Elsewhere", "delegate_to": GOOD, "become": True, "block": [role()]}
    before = fleet.pictures()[1]
    done = fleet.run(play(block, hosts=BAD, become=False, vars={"gpu_memory_models": [MODEL]}))
    assert done.status == 0 and done.records[BAD]["verdict"] == "pass"  # named by whose turn it was
    assert done.recap(BAD, "changed") == 0  # the good host is proven already
    assert fleet.pictures()[1] == before


@pytest.mark.parametrize("where", ["task", "include", "roles", "command line"])
def test_variables_reach_the_role_from_everywhere(fleet: Fleet, where: str) -> None:
    variables = {"gpu_memory_profile": "conservative"}
    task = role("include_role" if where == "include" else "import_role")
    wanted = play(task, hosts=GOOD)
    arguments: tuple[str, ...] = ("--check",)
    if where in ("task", "include"):
        task["vars"] = variables
    elif where == "roles":
        wanted = {**play(hosts=GOOD), "roles": [{"role": ROLE, **variables}]}
    else:
        arguments = (*arguments, "-e", "gpu_memory_profile=conservative")
    profile = {"ansible.builtin.debug": {"msg": "decided for {{ gpu_memory_result.profile }}"}}
    done = fleet.run({**wanted, "post_tasks": [profile]}, arguments=arguments)
    assert done.status == 0 and "decided for conservative" in done.output


def test_a_host_without_become_fails_with_the_cure(fleet: Fleet) -> None:
    done = fleet.run(play(role(), hosts=GOOD, vars={"ansible_become": False}))
    assert done.status == 2
    assert "become: true" in done.records[GOOD]["reason"]


# --- beside the role ollama -------------------------------------------------------------------------------------------


def test_neither_role_takes_the_others_drop_in_away_without_a_word(fleet: Fleet) -> None:
    host, zz = fleet.hosts[BAD], f"{DROP_INS}/zz-gpu-memory.conf"
    variables = {"OLLAMA_MODELS": "/usr/share/ollama/.ollama/models", "OLLAMA_NUM_PARALLEL": "4"}
    given = {"gpu_memory_models": [MODEL], "ollama_environment": variables}
    ollama = {"ansible.builtin.import_role": {"name": "selo.gpu_memory.ollama"}}
    assert fleet.run(play(ollama, hosts=BAD, vars=given)).status == 0
    theirs = host.read(f"cat {zz}")
    assert theirs.splitlines()[1] == "# Written by the role ollama"

    done = fleet.run(play(role(), hosts=BAD, vars=given))
    assert done.status == 2
    assert f"{zz} was written by the role ollama, and OLLAMA_MODELS in it would be lost" in done.records[BAD]["reason"]
    assert host.read(f"cat {zz}") == theirs

    # The first way out: both, side by side. The variable of the role ollama is not where the other role writes.
    beside = {**given, "ollama_drop_in": "50-ollama.conf"}
    done = fleet.run(play(ollama, role(), hosts=BAD, vars=beside))
    assert done.status == 0, done.records[BAD]["reason"]
    assert any("was written by the role ollama: an apply replaces it" in note for note in done.records[BAD]["notes"])
    assert "OLLAMA_MODELS" in host.read(f"cat {DROP_INS}/50-ollama.conf")
    assert "Written by" not in host.read(f"cat {zz}")

    # The role ollama, alone, is refused, unless it is to take over; remove then leaves what is its own.
    assert fleet.run(play(ollama, hosts=BAD, vars=given)).status == 2
    assert fleet.run(play(ollama, hosts=BAD, vars={**given, "ollama_take_over": True})).status == 0
    removed = fleet.run(
        play({"ansible.builtin.import_role": {"name": ROLE, "tasks_from": "remove"}}, hosts=BAD, vars=given)
    )
    assert removed.status == 0 and f"what somebody else has written into {zz} stays" in removed.output.replace(
        "\n        ", " "
    )
    assert host.read(f"cat {zz}") == theirs and not host.holds(f"test -e {KEPT}")
