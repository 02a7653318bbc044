"""Keys of an env file go back by the lines that were written; `host.keep.test_take_back` has the cases by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ansible_collections.selo.gpu_memory.plugins.module_utils.core.text import dotenv, env_lines
from hypothesis import given
from hypothesis import strategies as st

READERS = ["python-dotenv", "bash", "systemd"]
OURS = {"K": ["40"], "NEW": ["a b"]}
BEFORE = ["A=1", "K=9", "K='9'", "K=4", "K=$(nproc)", "# K=40", "export K=9 # mine", ""]
SINCE = ['MSG="hello', 'B="3"', "it's", "# mine", "source x.env", "K2=40", "C=`date`", "", "D=1 \\", "E='", "\0", "é=1"]


def is_within(lines: Sequence[str], all_lines: Sequence[str]) -> bool:
    """Whether lines stand among others, in their order."""
    rest = iter(all_lines)
    return all(line in rest for line in lines)


@given(
    st.lists(st.sampled_from(BEFORE), max_size=4),
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(SINCE)), max_size=4),
    st.booleans(),
)
def test_no_line_of_an_owner_is_lost_and_none_of_ours_stays(
    before: list[str], since: list[tuple[int, str]], ends: bool
) -> None:
    text = "\n".join(before) + ("\n" if ends and before else "")
    written = dotenv.set_keys(text, {key: values[0] for key, values in OURS.items()}, (), READERS)
    assert not written.problems
    lines = written.text.split("\n")
    for place, line in since:
        lines.insert(min(place, len(lines)), f"{line}")
    back = env_lines.taken_back("\n".join(lines), text, OURS, READERS)
    found = back.text.split("\n")
    owners = [line for line in lines if line not in written.text.split("\n") or line in before]
    assert is_within(owners, found)
    if not back.problems:
        assert is_within(before, found)
        assert "NEW='a b'" not in found
        assert "K=40" not in found
    assert env_lines.taken_back(back.text, text, OURS, READERS).text == back.text


def test_in_a_file_that_has_become_too_large_our_own_lines_go_and_no_others() -> None:
    rest = "# noise\n" * (dotenv.MOST_BYTES // 8)
    back = env_lines.taken_back(f"K=40\n{rest}", "K=9\n", {"K": ["40"]}, READERS)
    assert (back.text, back.problems) == (f"K=9\n{rest}", [])
    theirs = f"K=41\n{rest}"
    back = env_lines.taken_back(theirs, "K=9\n", {"K": ["40"]}, READERS)
    assert (back.text, back.problems) == (theirs, [f"K: {dotenv.TOO_LARGE}"])


# Lines within values --------------------------------------------------------------------------------------------------

PRESETS = [READERS, ["python-dotenv"], ["systemd"], ["bash"], ["docker"], ["systemd", "python-dotenv"]]
SWALLOWED = 'K="8192\nAPI_KEY=x\nX="\n'


@pytest.mark.parametrize("readers", PRESETS[:4])
def test_a_value_that_holds_lines_of_others_is_refused_by_key_and_line(readers: list[str]) -> None:
    why = (
        "K: its value begins in line 2 and ends in line 4, so that the setting in line 3 would be lost with it; end the"
    )
    for edit in (
        dotenv.set_keys(f"A=1\n{SWALLOWED}", {"K": "40"}, (), readers),
        dotenv.set_keys(f"A=1\n{SWALLOWED}", {}, ["K"], readers),
        env_lines.taken_back(f"A=1\n{SWALLOWED}", "A=1\nK=9\n", {"K": ["40"]}, readers),
        env_lines.taken_back(f"A=1\n{SWALLOWED}", "A=1\n", {"K": ["40"]}, readers),
    ):
        assert edit.text == f"A=1\n{SWALLOWED}"
        assert [problem.startswith(why) for problem in edit.problems] == [True]


@pytest.mark.parametrize("readers", PRESETS)
@pytest.mark.parametrize(
    ("now", "before", "wanted"),
    {
        "a duplicate behind a backslash": ("Z=1\\\nK=40\nK=40\nB=2\n", "K=9\nB=2\n", "Z=1\\\n\nK=9\nB=2\n"),
        "a duplicate of what was added": ("A=1\nZ=1\\\nK=40\nK=40\nB=2\n", "A=1\nB=2\n", "A=1\nZ=1\\\n\nB=2\n"),
        "a setting behind a backslash and ours": ("Z=1\\\nK=40\nB=2\n", "B=2\n", "Z=1\\\n\nB=2\n"),
        "ours between two quotes left open": ('X="8\nK=40\nX="\nB=2\n', "K=9\nB=2\n", 'X="8\nK=9\nX="\nB=2\n'),
    }.values(),
)
def test_our_line_goes_back_and_every_other_stays(readers: list[str], now: str, before: str, wanted: str) -> None:
    back = env_lines.taken_back(now, before, {"K": ["40"]}, readers)
    assert (back.text, back.problems) == (wanted, [])


def test_our_line_that_cannot_go_without_another_key_is_named() -> None:
    back = env_lines.taken_back("K=40\nZ=1\n", 'K="8192\n', {"K": ["40"]}, ["systemd"])  # the quote is the owner's
    assert back.text == "K=40\nZ=1\n"
    assert [problem.partition(":")[0] for problem in back.problems] == ["K"]
