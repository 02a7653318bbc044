from __future__ import annotations

import itertools

import pytest
from ansible_collections.selo.gpu_memory.plugins.plugin_utils.judge import ending
from ansible_collections.selo.gpu_memory.tests.unit.builders import declared

DECLARED = declared()
OPEN, CLOSED = {"open": True, "reason": None}, {"open": False, "reason": "wave 1 closed the gate: a fail"}
PASS, FAIL, UNSURE = (
    {"verdict": "pass", "reasons": []},
    {"verdict": "fail", "reasons": ["too much"], "failed": True, "msg": "fail: - too much"},
    {"verdict": "inconclusive", "reasons": ["no evidence"], "failed": True},
)
BROKEN = {"task": "t", "message": "it broke", "lost_connection": False}
LET_GO = {"task": "Write", "message": "run 1 does not hold this host: nobody does; start a new run"}
LOST = {"task": "t", "message": "lost the connection", "lost_connection": True}
BACK = {"generation": "g1", "failed": False}
NOT_BACK = {"failed": True, "msg": "disk full", "invocation": {}}
NOT_REACHED = {"failed": True, "msg": "lost", "lost_connection": True}
RESTARTED = {"ollama": {"unit": "ollama.service", "state": "restarted"}}
STOPPED = {"backend": {"unit": "b.service", "state": "stopped"}}
NOT_BACK_TEXT = "putting the kept generation back failed as well"
THEN = "; the host puts it back by itself, see there: gpu-memory status"
LEFT_OUT = "a part of the role was left out (--step, --start-at-task); run it as a whole"
IS_BACK = "generation g1 is back and its services answer"


def conclude(gate=None, decision=None, judged=None, failure=None, restored=None, kept=False, **more):
    decision = {"problems": []} if decision is None else decision
    return ending.conclude(declared(), gate or OPEN, decision, judged, failure, restored, kept, **more)


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"gate": CLOSED}, ("untouched", ["wave 1 closed the gate: a fail"], False)),
        ({"decision": {"problems": ["a", "b"]}, "failure": BROKEN}, ("refused", ["a", "b"], False)),
        ({"judged": PASS}, ("pass", [], True)),
        ({"judged": PASS, "kept": True}, ("pass", [], True)),
        ({"judged": FAIL}, ("fail", ["too much"], False)),  # verify
        ({"judged": UNSURE}, ("inconclusive", ["no evidence"], False)),
        ({"decision": {"problems": [], "proof": {"at": 1}}}, ("pass", [], True)),
        ({}, ("inconclusive", ["not loaded, because gpu_memory_verify is changed"], True)),
        ({"failure": BROKEN}, ("fail", ["it broke"], False)),
        ({"failure": LOST}, ("untouched", ["lost the connection"], False)),
        ({"failure": LOST, "decision": {}}, ("untouched", ["lost the connection"], False)),
        ({"failure": BROKEN, "judged": FAIL}, ("fail", ["too much"], False)),
        ({"failure": BROKEN, "judged": UNSURE}, ("inconclusive", ["no evidence"], False)),
        ({"failure": BROKEN, "judged": PASS}, ("fail", ["it broke"], False)),  # proven, but not kept as proven
        ({"failure": BROKEN, "judged": {"failed": True, "msg": "a bug"}}, ("fail", ["it broke"], False)),
        ({"failure": BROKEN, "kept": True, "restored": BACK}, ("rolled_back", ["it broke", IS_BACK], False)),
        (
            {"failure": BROKEN, "judged": FAIL, "kept": True, "restored": BACK},
            ("rolled_back", ["too much", IS_BACK], False),
        ),
        (
            {"failure": BROKEN, "judged": PASS, "kept": True, "restored": BACK},
            ("rolled_back", ["it broke", IS_BACK], False),
        ),
        (
            {"failure": BROKEN, "kept": True, "restored": {**BACK, "services": RESTARTED}},
            ("rolled_back", ["it broke", IS_BACK], False),
        ),
        (
            {"failure": BROKEN, "kept": True, "restored": {**BACK, "services": RESTARTED | STOPPED}},
            ("rolled_back", ["it broke", f"{IS_BACK}, b.service is stopped, as it was found"], False),
        ),
        (
            {"failure": BROKEN, "kept": True, "restored": {**BACK, "services": STOPPED}},
            ("rolled_back", ["it broke", "generation g1 is back and b.service is stopped, as it was found"], False),
        ),
        ({"judged": PASS, "decision": {"problems": [], "acts": True}}, ("fail", [LEFT_OUT], False)),
        ({"judged": PASS, "decision": {"problems": [], "acts": True}, "kept": True}, ("pass", [], True)),
        ({"decision": {"problems": [], "load_needed": True}}, ("fail", [LEFT_OUT], False)),
        (
            {"failure": BROKEN, "kept": True, "restored": NOT_BACK},
            ("fail", ["it broke", "putting the kept generation back failed as well: disk full"], False),
        ),
        (
            {"failure": LOST, "kept": True, "restored": NOT_REACHED},
            (
                "fail",
                ["lost the connection", "the host cannot be reached and puts its kept generation back by itself"],
                False,
            ),
        ),
        (
            {"failure": LET_GO, "kept": True, "restored": NOT_REACHED},
            (
                "fail",
                [
                    LET_GO["message"],
                    "the host cannot be reached: what the run has written stays; then run rollback.yml",
                ],
                False,
            ),
        ),
        (
            {"failure": BROKEN, "kept": True},
            (
                "fail",
                ["it broke", f"{NOT_BACK_TEXT}: no restore was tried{THEN}"],
                False,
            ),
        ),
        (
            {
                "check_mode": True,
                "decision": {
                    "problems": [],
                    "acts": True,
                    "files": [{"path": "/a"}],
                    "restart": ["ollama"],
                    "load_needed": True,
                },
            },
            ("untouched", ["check mode; a run would write /a, restart ollama, load the host"], True),
        ),
        (
            {
                "check_mode": True,
                "decision": {"problems": [], "acts": False, "files": [{"path": "/a"}], "load_needed": True},
            },
            ("untouched", ["check mode; a run would load the host"], True),
        ),
        ({"check_mode": True}, ("untouched", ["check mode; a run would do nothing"], True)),
    ],
)
def test_conclude(given, wanted):
    assert conclude(**given) == wanted


def test_every_combination_has_a_verdict_and_only_good_ones_are_ok():
    combinations = itertools.product(
        [OPEN, CLOSED],
        [None, {}, {"problems": ["a"]}, {"problems": [], "proof": {"at": 1}}, {"problems": []}],
        [None, PASS, FAIL, UNSURE, {"failed": True, "msg": "a bug"}],
        [None, BROKEN, LOST],
        [None, BACK, NOT_BACK, NOT_REACHED],
        [True, False],
        [True, False],
    )
    for given in combinations:
        gate, decision, judged, failure, restored, kept, _unused = given
        verdict, reasons, ok = ending.conclude(DECLARED, *given)
        assert verdict in {"pass", "fail", "refused", "rolled_back", "inconclusive", "untouched"}, given
        assert all(isinstance(reason, str) and reason for reason in reasons), given
        assert (verdict == "pass") == (not reasons), given
        assert ok or verdict != "pass", given
        if gate is OPEN:
            assert not (ok and (failure or (decision or {}).get("problems"))), given
            assert not (ok and judged and judged.get("verdict", "pass") != "pass"), given
            assert (verdict == "rolled_back") <= (kept and restored is BACK), given


@pytest.mark.parametrize(
    ("failure", "restored", "wanted"),
    [
        (BROKEN, NOT_BACK, False),
        (LET_GO, {"failed": True, "msg": "Missing sudo password"}, False),
        (BROKEN, {"failed": True, "msg": "run 1 does not hold this host: nobody does"}, False),
        (BROKEN, {"failed": True, "msg": "the host does not let us become root: Missing sudo password"}, True),
    ],
)
def test_it_is_said_once_that_a_host_goes_back_by_itself_and_only_if_it_does(failure, restored, wanted):
    reason = conclude(failure=failure, restored=restored, kept=True)[1][-1]
    assert reason.endswith(THEN) == wanted


def test_a_host_that_put_itself_back_says_why_first():
    failure = {"task": "Judge", "message": "fail: the server lacks it"}
    reason = "nothing was heard of the apply for 30 s"
    restored = {"changed": False, "generation": "0001", "by_itself": True, "reason": reason}
    verdict, reasons, _unused = conclude(failure=failure, restored=restored, kept=True)
    assert verdict == "rolled_back"
    assert reasons[0] == f"the host put itself back during the run: {reason}"
    assert not ending.may_fall_back(verdict, {"fallback": {"profile": {}}}, restored)


@pytest.mark.parametrize(
    ("verdict", "fallback", "wanted"),
    [
        ("rolled_back", {"x": 1}, True),
        ("rolled_back", None, False),
        ("fail", {"x": 1}, False),
        ("pass", {"x": 1}, False),
    ],
)
def test_only_a_host_that_is_back_may_fall_back(verdict, fallback, wanted):
    assert ending.may_fall_back(verdict, {"fallback": fallback}, {"generation": "0001"}) is wanted


def test_both_stories_are_told():
    first = {"profile": "stable", "reasons": ["out of memory", "generation 0001 is back"]}
    verdict, reasons, ok = ending.after_falling_back(first, "conservative", "pass", [])
    assert (verdict, ok) == ("fell_back", True)
    assert reasons[:2] == ["stable: out of memory", "stable: generation 0001 is back"]
    assert "conservative is proven instead" in reasons[2] and "gpu_memory_profile" in reasons[2]
    verdict, reasons, ok = ending.after_falling_back(first, "conservative", "rolled_back", ["out of memory as well"])
    assert (verdict, ok, reasons[-1]) == ("rolled_back", False, "conservative: out of memory as well")


@pytest.mark.parametrize(
    ("verdict", "kept", "wanted"),
    [("pass", True, True), ("rolled_back", True, True), ("fail", True, False), ("fail", False, True)],
)
def test_users_come_where_the_host_is_proven_or_as_it_was(verdict, kept, wanted):
    assert ending.serves(verdict, kept) is wanted


HOOK = {"tasks": "", "commands": ["drain"]}
ACTS = {"problems": [], "acts": True}
ROLLED_BACK = {"decision": ACTS, "failure": BROKEN, "restored": BACK, "generation": "g1", "drained": True}
LEFT = {"decision": ACTS, "failure": BROKEN, "restored": NOT_BACK, "generation": "g1", "drained": True}
FIRST = {"profile": "stable", "reasons": ["out of memory"]}


def end(declaration=None, **given):
    given = {"decision": {"problems": []}, **given}
    return ending.end({**declared(), "before_restart": HOOK, **(declaration or {})}, OPEN, **given)


def test_an_attempt_ends_with_its_verdict_and_who_may_come():
    proven = {"decision": ACTS, "judged": PASS, "generation": "g1"}
    assert end(**proven) == ("pass", [], True, False, False, True)
    assert end(**proven, drained=True).drained
    assert not end(decision={**ACTS, "acts": False}, judged=PASS, drained=True, check_mode=True).drained


def test_a_generation_that_was_kept_for_a_load_alone_is_nothing_to_put_back():
    for_a_load = {**ROLLED_BACK, "decision": {"problems": [], "acts": False}, "restored": None}
    assert end(**for_a_load)[:2] == ("fail", ["it broke"])
    assert end(**ROLLED_BACK).verdict == "rolled_back"


def test_the_first_attempt_falls_back_and_the_second_tells_both_stories():
    fallback = {"fallback": {"profile": {}}}
    assert end(fallback, **ROLLED_BACK).falls_back
    assert not end(**ROLLED_BACK).falls_back
    second = end(fallback, **ROLLED_BACK, first=FIRST)
    assert not second.falls_back
    assert second.reasons[0] == "stable: out of memory" and second.reasons[-1].startswith("stable: generation g1")
    assert end(fallback, decision=ACTS, judged=PASS, generation="g1", first=FIRST)[:1] == ("fell_back",)


def test_it_is_said_where_users_are_still_kept_away():
    kept_away = "users are still kept away: gpu_memory_after_proof was not done"
    assert end(**LEFT).reasons[-1] == kept_away and not end(**LEFT).serves
    assert end({"after_proof": HOOK, "before_restart": declared()["after_proof"]}, **LEFT).reasons[-1] == kept_away
    for other in (
        end({"before_restart": declared()["before_restart"]}, **LEFT),  # nobody was asked to keep them away
        end(**{**LEFT, "drained": False}),
        end(**ROLLED_BACK),  # as it was before
        end({"fallback": {"profile": {}}}, **ROLLED_BACK),  # the second attempt comes first
    ):
        assert kept_away not in other.reasons


def test_users_who_could_not_be_let_in_again_make_a_good_end_bad():
    bad = end(decision=ACTS, judged=PASS, generation="g1", drained=True, hook_failure="undrain: rc 1")
    assert (bad.verdict, bad.ok) == ("pass", False)
    assert bad.reasons == ["undrain: rc 1", "users may still be kept away"]
